//! Settings of the room that puts our plugin into the runtime's configuration.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use clap::Args;

use super::{Reader, names};
use crate::install::{Entry, Mode, PlaceWishes, Settings, WhenAgentAbsent};
use crate::run_dir::RunDir;

/// The settings as they were given. Paths are those that the container runtime sees.
#[derive(Clone, Debug, Args)]
pub struct RawInstall {
    /// Whether our plugin is put into the runtime's network configuration and kept there:
    /// `own` (in a list of our own that sorts first), `append` (at the end of the primary
    /// plugin's list), or `off`.
    #[arg(long, env = "INSTALL_CNI", default_value = "off")]
    pub install_cni: String,
    /// Where the node's root directory is seen, for an agent in a container.
    #[arg(long, env = "HOST_ROOT", default_value = "/")]
    pub host_root: PathBuf,
    /// The runtime's folder of network configurations; found unless given.
    #[arg(long, env = "CNI_CONF_DIR", default_value = "")]
    pub cni_conf_dir: String,
    /// The runtime's folder of plugins; found unless given.
    #[arg(long, env = "CNI_BIN_DIR", default_value = "")]
    pub cni_bin_dir: String,
    /// The plugin's program, to be put into that folder and kept there; nothing is put there
    /// unless given. This path is the agent's.
    #[arg(long, env = "CNI_PLUGIN", default_value = "")]
    pub cni_plugin: String,
    /// Name of our own list.
    #[arg(long, env = "CNI_CONF_NAME", default_value = "00-sluice.conflist")]
    pub cni_conf_name: String,
    /// Where the plugin finds us; in RUN_DIR unless given.
    #[arg(long, env = "CNI_AGENT_SOCKET", default_value = "")]
    pub cni_agent_socket: String,
    /// Namespaces whose pods start without the agent being asked, besides those of
    /// EXCLUDE_NAMESPACES and of the primary plugin.
    #[arg(long, env = "CNI_EXCLUDE_NAMESPACES", default_value = "")]
    pub cni_exclude_namespaces: String,
    /// Within which time the plugin answers the runtime, whatever the agent does, 1s to 1m.
    #[arg(long, env = "CNI_TIMEOUT", default_value = "5s")]
    pub cni_timeout: String,
    /// Which pods start while the agent is away: `closed` (none) or `allow-known` (those that
    /// it has written down as being outside the mesh).
    #[arg(long, env = "WHEN_AGENT_ABSENT", default_value = "closed")]
    pub when_agent_absent: String,
    /// File of the plugin's own log; none unless given.
    #[arg(long, env = "CNI_LOG_FILE", default_value = "")]
    pub cni_log_file: String,
    /// How many bytes that file may have before it is given another name (`.1`) and begun anew;
    /// the plugin's own measure unless given.
    #[arg(long, env = "CNI_LOG_MAX_BYTES", default_value = "")]
    pub cni_log_max_bytes: String,
}

/// The settings, understood.
#[derive(Clone, Debug)]
pub struct Install {
    /// Where things are looked for.
    pub places: PlaceWishes,
    /// The program to put there.
    pub program: Option<PathBuf>,
    /// What is written there.
    pub settings: Settings,
}

impl RawInstall {
    /// `None`: nothing is to be installed.
    pub(super) fn understand(
        self,
        run_dir: &RunDir,
        excluded: &str,
        reader: &mut Reader,
    ) -> Option<Install> {
        let mode = match self.install_cni.as_str() {
            "off" => None,
            "own" => Some(Mode::Own),
            "append" => Some(Mode::Append),
            other => reader.wrong("INSTALL_CNI", other, "own, append or off is expected", None),
        };
        let when_agent_absent = match self.when_agent_absent.as_str() {
            "closed" => WhenAgentAbsent::Closed,
            "allow-known" => WhenAgentAbsent::AllowKnown,
            other => {
                let expected = "closed or allow-known is expected";
                reader.wrong("WHEN_AGENT_ABSENT", other, expected, WhenAgentAbsent::Closed)
            }
        };
        let socket = path(reader, "CNI_AGENT_SOCKET", &self.cni_agent_socket);
        let socket = socket.unwrap_or_else(|| run_dir.plugin_socket());
        let entry = Entry {
            agent_socket: text(reader, "CNI_AGENT_SOCKET", socket),
            exclude_namespaces: &names(excluded) | &names(&self.cni_exclude_namespaces),
            timeout_seconds: seconds(reader, &self.cni_timeout),
            when_agent_absent,
            log_file: path(reader, "CNI_LOG_FILE", &self.cni_log_file)
                .map(|path| text(reader, "CNI_LOG_FILE", path)),
            log_max_bytes: max_bytes(reader, &self.cni_log_max_bytes),
        };
        let places = self.places(&self.cni_conf_dir, &self.cni_bin_dir, reader);
        let program = path(reader, "CNI_PLUGIN", &self.cni_plugin);
        let own = file_name(reader, self.cni_conf_name);
        Some(Install { places, program, settings: Settings { mode: mode?, own, entry } })
    }

    /// Name of our own list.
    pub(super) fn own_list(&self, reader: &mut Reader) -> String {
        file_name(reader, self.cni_conf_name.clone())
    }

    /// The plugin's log, as the runtime sees it.
    pub(super) fn log_file(&self, reader: &mut Reader) -> Option<PathBuf> {
        path(reader, "CNI_LOG_FILE", &self.cni_log_file)
    }

    /// Where the runtime's folders are looked for; empty texts are not given.
    pub(super) fn places(&self, conf: &str, bin: &str, reader: &mut Reader) -> PlaceWishes {
        PlaceWishes {
            root: reader.absolute("HOST_ROOT", &self.host_root),
            conf_dir: path(reader, "CNI_CONF_DIR", conf),
            bin_dir: path(reader, "CNI_BIN_DIR", bin),
        }
    }
}

fn path(reader: &mut Reader, name: &str, given: &str) -> Option<PathBuf> {
    (!given.is_empty()).then(|| reader.absolute(name, Path::new(given)))
}

/// The plugin refuses longer ones: the kernel has no room for them.
fn text(reader: &mut Reader, name: &str, path: PathBuf) -> String {
    const LONGEST: usize = 107;
    let shown = path.display().to_string();
    match path.into_os_string().into_string() {
        Ok(text) if text.len() <= LONGEST => text,
        _ => reader.wrong(name, &shown, "a path of at most 107 bytes is expected", String::new()),
    }
}

/// Within the plugin's bounds: it refuses others.
fn max_bytes(reader: &mut Reader, given: &str) -> Option<u64> {
    const BOUNDS: RangeInclusive<u64> = 64 << 10..=1 << 30;
    if given.is_empty() {
        return None;
    }
    let bytes = given.parse().ok().filter(|bytes| BOUNDS.contains(bytes));
    let expected = "a number of bytes from 65536 to 1073741824 is expected";
    bytes.or_else(|| reader.wrong("CNI_LOG_MAX_BYTES", given, expected, None))
}

fn seconds(reader: &mut Reader, given: &str) -> u64 {
    let given_time = reader.duration("CNI_TIMEOUT", given);
    match given_time.as_secs() {
        seconds @ 1..=60 if given_time.subsec_nanos() == 0 => seconds,
        // Told by the reader already.
        _ if super::duration(given).is_none() => 0,
        _ => reader.wrong("CNI_TIMEOUT", given, "whole seconds from 1s to 1m are expected", 0),
    }
}

fn file_name(reader: &mut Reader, name: String) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.starts_with('.') || !name.ends_with(".conflist") || !name.chars().all(plain) {
        let expected = "the name of a file that ends with .conflist is expected";
        return reader.wrong("CNI_CONF_NAME", &name, expected, String::new());
    }
    name
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::config::{Mistakes, Raw};

    fn understand(arguments: &[&str]) -> Result<Option<Install>, Mistakes> {
        let always = ["node-agent", "--node-name=n1", "--nft=/n", "--conntrack=/c", "--ss=/s"];
        let raw = Raw::try_parse_from(always.iter().chain(arguments)).unwrap();
        raw.understand().map(|config| config.install)
    }

    #[test]
    fn nothing_is_installed_unless_asked_for() {
        assert!(understand(&[]).unwrap().is_none());
    }

    #[test]
    fn the_entry_tells_what_the_agent_was_told() {
        let Install { places, program, settings } = understand(&[
            "--install-cni=own",
            "--run-dir=/x",
            "--exclude-namespaces=kube-system",
            "--cni-exclude-namespaces=istio-system,kube-system",
            "--cni-timeout=1m",
            "--when-agent-absent=allow-known",
            "--host-root=/host",
            "--cni-bin-dir=/home/kubernetes/bin",
            "--cni-log-file=/var/log/sluice.log",
            "--cni-log-max-bytes=65536",
        ])
        .unwrap()
        .unwrap();
        assert_eq!((settings.mode, settings.own.as_str()), (Mode::Own, "00-sluice.conflist"));
        assert_eq!(
            settings.entry.text(std::iter::empty(), None),
            r#"{"type":"sluice-cni","agentSocket":"/x/plugin.sock","excludeNamespaces":["istio-system","kube-system"],"timeoutSeconds":60,"whenAgentAbsent":"allow-known","logFile":"/var/log/sluice.log","logMaxBytes":65536}"#
        );
        assert_eq!(places.root, PathBuf::from("/host"));
        assert_eq!((places.conf_dir, program), (None, None));
        assert_eq!(places.bin_dir, Some("/home/kubernetes/bin".into()));
    }

    #[test]
    fn mistakes_are_told_also_while_it_is_off() {
        let Mistakes(mistakes) = understand(&[
            "--cni-conf-dir=net.d",
            "--cni-conf-name=a/b.conflist",
            "--cni-timeout=90s",
            "--when-agent-absent=open",
            "--cni-log-file=log",
            "--cni-log-max-bytes=1M",
        ])
        .unwrap_err();
        let named = ["CNI_CONF_DIR", "CNI_CONF_NAME", "CNI_TIMEOUT", "WHEN_AGENT_ABSENT"];
        for name in named.iter().chain(&["CNI_LOG_FILE", "CNI_LOG_MAX_BYTES"]) {
            assert!(mistakes.iter().any(|mistake| mistake.starts_with(name)), "{mistakes:?}");
        }
        assert_eq!(mistakes.len(), 6, "{mistakes:?}");
        let Mistakes(mistakes) = understand(&["--install-cni=yes", "--cni-timeout=x"]).unwrap_err();
        assert_eq!(mistakes.len(), 2, "{mistakes:?}");
    }
}
