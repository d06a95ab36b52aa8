//! Settings: text in [`Raw`], types in [`Config`]. The only room that reads the environment.

mod check;
mod install;
mod pods;
mod uninstall;

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;

use crate::reconcile::OnEscaped;
use crate::rules::ProbeSource;
use crate::run_dir::RunDir;

pub use check::RawCheck;
pub use install::{Install, RawInstall};
pub use pods::RawPods;
pub use uninstall::{Plugin, RawUninstall};

/// The settings as they were given.
#[derive(Clone, Debug, Parser)]
#[command(name = "node-agent", version, about = "Captures the pods of one node for Sluice")]
pub struct Raw {
    /// Name of this node in the API.
    #[arg(long, env = "NODE_NAME", default_value = "")]
    pub node_name: String,
    /// Kubeconfig file; without it, the pod's own service account.
    #[arg(long, env = "KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,
    /// Where the plugin's socket, the known namespaces and the lock live.
    #[arg(long, env = "RUN_DIR", default_value = "/var/run/sluice/agent")]
    pub run_dir: PathBuf,
    /// Where ztunnel connects.
    #[arg(long, env = "INPOD_UDS", default_value = zds::DEFAULT_SOCKET)]
    pub inpod_uds: PathBuf,
    /// Sockets of the container runtime, separated by commas: the first one that knows a
    /// pod tells where its namespace is. By default the usual places of containerd and CRI-O.
    #[arg(long, env = "CRI_SOCKET", default_value = "")]
    pub cri_socket: String,
    /// The node's `/proc`, where the runtime's process numbers mean something.
    #[arg(long, env = "HOST_PROC", default_value = "/proc")]
    pub host_proc: PathBuf,
    /// Key of a taint that our node may have when it joins, as `sluice.dev/agent-not-ready`:
    /// removed once agent and ztunnel serve, never put back. Empty: taints are left alone.
    #[arg(long, env = "STARTUP_TAINT", default_value = "")]
    pub startup_taint: String,
    /// Readiness, metrics and state.
    #[arg(long, env = "ADMIN_ADDR", default_value = "[::]:8000")]
    pub admin_addr: String,
    /// How a pod tells the kubelet's probes: `marker` (an address that the host puts on
    /// them), `node-addresses` (any address of the node: clients that a NodePort leads
    /// there under such an address pass for probes), or `off` (not at all).
    #[arg(long, env = "PROBE_SOURCE", default_value = "marker")]
    pub probe_source: String,
    /// Who belongs to the mesh, and how.
    #[command(flatten)]
    pub pods: RawPods,
    /// How the runtime comes to call our plugin.
    #[command(flatten)]
    pub install: RawInstall,
    /// How long peers are given to learn that a pod leaves the mesh.
    #[arg(long, env = "WITHDRAW_WAIT", default_value = "5s")]
    pub withdraw_wait: String,
    /// How long the connections of a leaving pod may take to end.
    #[arg(long, env = "DRAIN_DEADLINE", default_value = "10s")]
    pub drain_deadline: String,
    /// How often every captured pod is looked at, though the kernel told nothing of it. A look
    /// costs some ten system calls.
    #[arg(long, env = "VERIFY_INTERVAL", default_value = "3s")]
    pub verify_interval: String,
    /// How often every captured pod is compared fully with what it should be, though a look
    /// showed nothing. A comparison starts `nft`.
    #[arg(long, env = "COMPARE_INTERVAL", default_value = "5m")]
    pub compare_interval: String,
    /// What becomes of a pod of the mesh that started without the plugin's knowledge:
    /// `capture` (in place) or `evict` (in place, and evicted as its disruption budget allows).
    #[arg(long, env = "ON_ESCAPED", default_value = "capture")]
    pub on_escaped: String,
    /// How long connections wait for a ztunnel to come before they are reset.
    #[arg(long, env = "LISTENER_HOLD", default_value = "10s")]
    pub listener_hold: String,
    /// The `nft` program; found in PATH unless given.
    #[arg(long, env = "NFT")]
    pub nft: Option<PathBuf>,
    /// The `conntrack` program.
    #[arg(long, env = "CONNTRACK")]
    pub conntrack: Option<PathBuf>,
    /// The `ss` program.
    #[arg(long, env = "SS")]
    pub ss: Option<PathBuf>,
    /// Where programs are looked for.
    #[arg(long, env = "PATH", default_value = "/usr/sbin:/usr/bin:/sbin:/bin", hide = true)]
    pub path: String,
    /// What is logged, as in `info,node_agent=debug`. By default without the API client's
    /// own lines, which say again what our watch says.
    #[arg(long, env = "RUST_LOG", default_value = "info,kube_client::client::builder=off")]
    pub rust_log: String,
    /// `plain` or `json`.
    #[arg(long, env = "LOG_FORMAT", default_value = "plain")]
    pub log_format: String,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Plain,
    /// For machines.
    Json,
}

/// Settings of the log.
#[derive(Clone, Debug)]
pub struct Log {
    /// How lines look.
    pub format: LogFormat,
    /// What is logged.
    pub filter: String,
}

/// The settings, understood.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of this node in the API.
    pub node: String,
    /// Kubeconfig file; `None` is the pod's own service account.
    pub kubeconfig: Option<PathBuf>,
    /// The agent's own directory.
    pub run_dir: RunDir,
    /// Where ztunnel connects.
    pub zds_socket: PathBuf,
    /// Key of the taint to remove from our node.
    pub startup_taint: Option<String>,
    /// Where pods are looked for.
    pub places: crate::pod_netns::Places,
    /// Readiness, metrics and state.
    pub admin: SocketAddr,
    /// Who is in the mesh.
    pub enrollment: crate::enrollment::Settings,
    /// How the runtime comes to call our plugin, if that is our business.
    pub install: Option<Install>,
    /// How pods tell the kubelet's probes.
    pub probe_source: ProbeSource,
    /// How pods are brought in and out.
    pub pace: crate::reconcile::Pace,
    /// How long connections wait for a ztunnel to come.
    pub listener_hold: Duration,
    /// Programs that work on rules.
    pub programs: crate::rules::Programs,
    /// What is logged, and how.
    pub log: Log,
}

/// Every mistake in the settings.
#[derive(Debug, PartialEq, Eq)]
pub struct Mistakes(pub Vec<String>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "settings: {}", self.0.join("; "))
    }
}

impl std::error::Error for Mistakes {}

impl Raw {
    /// Understands the settings.
    ///
    /// # Errors
    /// All mistakes at once.
    pub fn understand(self) -> Result<Config, Mistakes> {
        let mut reader = Reader::default();
        let programs = self.programs(&mut reader);
        let run_dir = RunDir(reader.absolute("RUN_DIR", &self.run_dir));
        let excluded = &self.pods.exclude_namespaces;
        let config = Config {
            install: self.install.understand(&run_dir, excluded, &mut reader),
            node: reader.node(&self.node_name),
            kubeconfig: self.kubeconfig.filter(|path| !path.as_os_str().is_empty()),
            run_dir,
            zds_socket: reader.absolute("INPOD_UDS", &self.inpod_uds),
            startup_taint: reader.taint(&self.startup_taint),
            places: crate::pod_netns::Places {
                runtime_sockets: reader.sockets("CRI_SOCKET", &self.cri_socket),
                processes: reader.absolute("HOST_PROC", &self.host_proc),
            },
            admin: reader.address("ADMIN_ADDR", &self.admin_addr),
            enrollment: self.pods.understand(&crate::rules::contract_options(), &mut reader),
            probe_source: reader.probe_source(&self.probe_source),
            pace: crate::reconcile::Pace {
                withdraw_wait: reader.duration("WITHDRAW_WAIT", &self.withdraw_wait),
                drain_deadline: reader.duration("DRAIN_DEADLINE", &self.drain_deadline),
                verify_interval: reader.interval("VERIFY_INTERVAL", &self.verify_interval),
                compare_interval: reader.interval("COMPARE_INTERVAL", &self.compare_interval),
                on_escaped: reader.on_escaped(&self.on_escaped),
            },
            listener_hold: reader.duration("LISTENER_HOLD", &self.listener_hold),
            programs,
            log: Log { format: reader.format(&self.log_format), filter: self.rust_log },
        };
        if reader.mistakes.is_empty() { Ok(config) } else { Err(Mistakes(reader.mistakes)) }
    }

    fn programs(&self, reader: &mut Reader) -> crate::rules::Programs {
        let mut find = |name, program, given: &Option<PathBuf>| {
            reader.program(name, program, given.as_deref(), &self.path)
        };
        crate::rules::Programs {
            nft: find("NFT", "nft", &self.nft),
            conntrack: find("CONNTRACK", "conntrack", &self.conntrack),
            ss: find("SS", "ss", &self.ss),
        }
    }
}

/// Collects mistakes; what could not be read gets a value that is never used.
#[derive(Default)]
struct Reader {
    mistakes: Vec<String>,
}

impl Reader {
    fn wrong<T>(&mut self, name: &str, value: &str, expected: &str, unused: T) -> T {
        self.mistakes.push(format!("{name}={value:?}: {expected}"));
        unused
    }

    fn node(&mut self, value: &str) -> String {
        if value.is_empty() {
            self.mistakes.push("NODE_NAME is missing: the node's name in the API".into());
        }
        value.to_owned()
    }

    fn absolute(&mut self, name: &str, path: &Path) -> PathBuf {
        if !path.is_absolute() {
            let shown = path.display().to_string();
            return self.wrong(name, &shown, "an absolute path is expected", PathBuf::new());
        }
        path.to_owned()
    }

    /// A key alone: values and effects do not matter to whoever removes it.
    fn taint(&mut self, key: &str) -> Option<String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
        if !key.chars().all(plain) {
            let expected = "the key of a taint is expected, without value and effect";
            return self.wrong("STARTUP_TAINT", key, expected, None);
        }
        (!key.is_empty()).then(|| key.to_owned())
    }

    /// As the kubelet writes them, `unix:///run/x.sock`, or paths.
    fn sockets(&mut self, name: &str, value: &str) -> Vec<PathBuf> {
        let given: Vec<&str> = value.split(',').map(str::trim).filter(|v| !v.is_empty()).collect();
        if given.is_empty() {
            return crate::pod_netns::USUAL_SOCKETS.map(PathBuf::from).into();
        }
        let path = |text: &&str| PathBuf::from(text.strip_prefix("unix://").unwrap_or(text));
        given.iter().map(path).map(|path| self.absolute(name, &path)).collect()
    }

    fn address(&mut self, name: &str, value: &str) -> SocketAddr {
        let unused = SocketAddr::from(([0, 0, 0, 0], 0));
        value.parse().unwrap_or_else(|_| {
            self.wrong(name, value, "an address with port, as [::]:8000, is expected", unused)
        })
    }

    fn duration(&mut self, name: &str, value: &str) -> Duration {
        duration(value).unwrap_or_else(|| {
            self.wrong(name, value, "a duration as 500ms, 5s or 1m is expected", Duration::ZERO)
        })
    }

    fn interval(&mut self, name: &str, value: &str) -> Duration {
        let interval = self.duration(name, value);
        if duration(value).is_some_and(|given| given < Duration::from_millis(100)) {
            return self.wrong(
                name,
                value,
                "at least 100ms, or the node does nothing else",
                interval,
            );
        }
        interval
    }

    fn format(&mut self, value: &str) -> LogFormat {
        match value {
            "plain" => LogFormat::Plain,
            "json" => LogFormat::Json,
            _ => self.wrong("LOG_FORMAT", value, "plain or json is expected", LogFormat::Plain),
        }
    }

    fn probe_source(&mut self, value: &str) -> ProbeSource {
        ProbeSource::parse(value).unwrap_or_else(|| {
            let expected = "marker, node-addresses or off is expected";
            self.wrong("PROBE_SOURCE", value, expected, ProbeSource::Off)
        })
    }

    fn on_escaped(&mut self, value: &str) -> OnEscaped {
        match value {
            "capture" => OnEscaped::Capture,
            "evict" => OnEscaped::Evict,
            _ => {
                let expected = "capture or evict is expected";
                self.wrong("ON_ESCAPED", value, expected, OnEscaped::Capture)
            }
        }
    }

    /// The given path, or the first program of that name in the search path.
    fn program(&mut self, name: &str, program: &str, given: Option<&Path>, path: &str) -> PathBuf {
        if let Some(given) = given.filter(|given| !given.as_os_str().is_empty()) {
            return self.absolute(name, given);
        }
        let found = path.split(':').map(|folder| Path::new(folder).join(program));
        let found = found.into_iter().find(|file| file.is_absolute() && file.is_file());
        found.unwrap_or_else(|| {
            self.mistakes.push(format!("{program} is not in PATH: install it or set {name}"));
            PathBuf::new()
        })
    }
}

fn names(list: &str) -> BTreeSet<String> {
    list.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    match unit {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
