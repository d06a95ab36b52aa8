//! Settings about pods: who belongs to the mesh, and what counts for pods that say nothing
//! themselves.

use std::collections::BTreeMap;

use capture::Options;
use clap::Args;

use super::{Reader, names};
use crate::enrollment::{Key, Older, Selectors, Settings, Wishes};

/// The settings as they were given. Those that have an option of pods beside them take what
/// its annotation takes.
#[derive(Clone, Debug, Args)]
pub struct RawPods {
    /// Namespaces whose pods are never captured, separated by commas.
    #[arg(long, env = "EXCLUDE_NAMESPACES", default_value = "kube-system,sluice-system")]
    pub exclude_namespaces: String,
    /// Which pods belong to the mesh, as in Istio: a YAML list of `podSelector` and
    /// `namespaceSelector`. By default pods and namespaces labelled
    /// `istio.io/dataplane-mode=ambient`. A pod labelled `none` never does.
    #[arg(long, env = "AMBIENT_ENABLEMENT_SELECTOR", default_value = "")]
    pub enablement_selector: String,
    /// Whether the lookups of captured pods go to ztunnel, `true` or `false`. A pod's
    /// annotation `ambient.istio.io/dns-capture` overrules it.
    #[arg(long, env = "AMBIENT_DNS_CAPTURE", default_value = "false")]
    pub dns_capture: String,
    /// Ports of pods that stay direct. Overruled by `sluice.dev/exclude-inbound-ports`.
    #[arg(long, env = "EXCLUDE_INBOUND_PORTS", default_value = "")]
    pub exclude_inbound_ports: String,
    /// Ports that pods dial directly. Overruled by `sluice.dev/exclude-outbound-ports`.
    #[arg(long, env = "EXCLUDE_OUTBOUND_PORTS", default_value = "")]
    pub exclude_outbound_ports: String,
    /// Networks that pods dial directly. Overruled by `sluice.dev/exclude-outbound-cidrs`.
    #[arg(long, env = "EXCLUDE_OUTBOUND_CIDRS", default_value = "")]
    pub exclude_outbound_cidrs: String,
    /// What happens to all but TCP, ICMP and captured lookups, `pass` or `block`. Overruled
    /// by `sluice.dev/uncaptured-protocols`.
    #[arg(long, env = "UNCAPTURED_PROTOCOLS", default_value = "pass")]
    pub uncaptured_protocols: String,
    /// What happens to connections older than their pod's capture, `keep`, `reset` or
    /// `keep-for=<time>`. Overruled by `sluice.dev/older-connections`.
    #[arg(long, env = "OLDER_CONNECTIONS", default_value = "keep")]
    pub older_connections: String,
}

impl RawPods {
    pub(super) fn understand(self, contract: &Options, reader: &mut Reader) -> Settings {
        let selectors = self.enablement_selector.trim();
        let selectors = (!selectors.is_empty()).then(|| Selectors::parse(selectors));
        let selectors = selectors.and_then(|parsed| match parsed {
            Ok(selectors) => Some(selectors),
            Err(error) => {
                reader.mistakes.push(format!("AMBIENT_ENABLEMENT_SELECTOR: {error}"));
                None
            }
        });
        let excluded_namespaces = names(&self.exclude_namespaces);
        let given = [
            (Key::DnsCapture, "AMBIENT_DNS_CAPTURE", self.dns_capture),
            (Key::ExcludeInboundPorts, "EXCLUDE_INBOUND_PORTS", self.exclude_inbound_ports),
            (Key::ExcludeOutboundPorts, "EXCLUDE_OUTBOUND_PORTS", self.exclude_outbound_ports),
            (Key::ExcludeOutboundCidrs, "EXCLUDE_OUTBOUND_CIDRS", self.exclude_outbound_cidrs),
            (Key::UncapturedProtocols, "UNCAPTURED_PROTOCOLS", self.uncaptured_protocols),
            (Key::OlderConnections, "OLDER_CONNECTIONS", self.older_connections),
        ];
        let names: BTreeMap<_, _> = given.iter().map(|(key, name, _)| (*key, *name)).collect();
        let texts = given.into_iter().map(|(key, _, text)| (key, text)).collect();
        let (wishes, mistakes) = Wishes::default().hear(&texts);
        reader.mistakes.extend(mistakes.into_iter().map(|mistake| {
            let (name, allowed) = (names[&mistake.key], mistake.key.allowed());
            format!("{name}={:?}: {}; allowed: {allowed}", mistake.value, mistake.wrong)
        }));
        Settings {
            excluded_namespaces,
            selectors,
            options: wishes.options(contract),
            older: wishes.older(Older::Keep),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use capture::{Dns, Uncaptured};
    use clap::Parser;

    use super::*;
    use crate::config::{Mistakes, Raw};

    fn understand(arguments: &[&str]) -> Result<Settings, Mistakes> {
        let always = ["node-agent", "--node-name=n1", "--nft=/n", "--conntrack=/c", "--ss=/s"];
        let raw = Raw::try_parse_from(always.iter().chain(arguments)).unwrap();
        raw.understand().map(|config| config.enrollment)
    }

    #[test]
    fn nothing_is_excluded_and_all_is_kept_by_default() {
        let settings = understand(&[]).unwrap();
        assert_eq!(settings.options, crate::rules::contract_options());
        assert_eq!((settings.older, settings.selectors), (Older::Keep, None));
    }

    #[test]
    fn settings_are_written_as_annotations_are() {
        let settings = understand(&[
            "--exclude-outbound-ports=25,8000-8010",
            "--exclude-outbound-cidrs=169.254.169.254",
            "--exclude-inbound-ports=9100",
            "--uncaptured-protocols=block",
            "--older-connections=keep-for=5m",
            "--dns-capture=true",
            "--enablement-selector=[{podSelector: {matchLabels: {mesh: a}}}]",
        ]);
        let Settings { options, older, selectors, .. } = settings.unwrap();
        assert_eq!((options.out_skip.len(), options.in_skip.len()), (2, 1));
        assert_eq!(options.out_skip_cidrs, ["169.254.169.254/32".parse().unwrap()].into());
        assert_eq!((options.dns, options.uncaptured), (Dns::On, Uncaptured::Block));
        assert_eq!(older, Older::KeepFor(Duration::from_secs(300)));
        assert_eq!(selectors.unwrap().keys(), ["mesh".to_owned()].into());
    }

    #[test]
    fn mistakes_name_the_setting_and_what_is_allowed() {
        let Mistakes(mistakes) = understand(&[
            "--exclude-inbound-ports=15008",
            "--uncaptured-protocols=drop",
            "--enablement-selector=[]",
        ])
        .unwrap_err();
        assert_eq!(mistakes.len(), 3, "{mistakes:?}");
        let named = |text: &str| mistakes.iter().any(|mistake| mistake.starts_with(text));
        assert!(named(
            "EXCLUDE_INBOUND_PORTS=\"15008\": 15008 is a port of the mesh itself; allowed"
        ));
        assert!(named("UNCAPTURED_PROTOCOLS=\"drop\": it is neither pass nor block"));
        assert!(named("AMBIENT_ENABLEMENT_SELECTOR: the list is empty"), "{mistakes:?}");
    }
}
