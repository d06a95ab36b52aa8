//! Settings from YAML: Istio's `ProxyConfig`, of the whole mesh in a file and of this
//! proxy in the environment. They stand behind the environment's own settings.

use std::collections::BTreeMap;

use serde::Deserialize;

/// Where Istio's charts mount the configuration of the mesh.
pub(super) const MESH_FILE: &str = "./etc/istio/config/mesh";

/// The setting that holds a `ProxyConfig`.
pub(super) const SETTING: &str = "PROXY_CONFIG";

/// Metadata is named as in the environment, with this in front.
const METADATA: &str = "ISTIO_META_";

/// A setting that is not in the environment, and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Behind {
    pub(super) value: String,
    pub(super) origin: &'static str,
}

/// The part of Istio's `ProxyConfig` that a ztunnel knows; the rest is for other proxies.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ProxyConfig {
    discovery_address: Option<String>,
    proxy_admin_port: Option<u16>,
    stats_port: Option<u16>,
    concurrency: Option<u16>,
    proxy_metadata: BTreeMap<String, Scalar>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct MeshConfig {
    default_config: Option<ProxyConfig>,
}

/// YAML makes something else of what people mean as text.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Scalar {
    Text(String),
    Flag(bool),
    Number(i64),
}

/// Reads both texts; the second, of this proxy, wins. What cannot be read is a mistake.
pub(super) fn settings(
    mesh: Option<&str>,
    own: Option<&str>,
) -> (BTreeMap<String, Behind>, Vec<String>) {
    let (mut all, mut mistakes) = (BTreeMap::new(), Vec::new());
    let given = |text: &&str| !text.trim().is_empty();
    if let Some(text) = mesh.filter(given) {
        match serde_yaml_ng::from_str::<MeshConfig>(text) {
            Ok(mesh) => {
                all.extend(mesh.default_config.into_iter().flat_map(|c| c.named(MESH_FILE)));
            }
            Err(error) => mistakes.push(format!("{MESH_FILE}: {error}")),
        }
    }
    if let Some(text) = own.filter(given) {
        match serde_yaml_ng::from_str::<ProxyConfig>(text) {
            Ok(config) => all.extend(config.named(SETTING)),
            Err(error) => mistakes.push(format!("{SETTING}: {error}")),
        }
    }
    (all, mistakes)
}

impl ProxyConfig {
    /// By the names that the environment has for them, or else by their own.
    fn named(self, origin: &'static str) -> impl Iterator<Item = (String, Behind)> {
        let number = |number: u16| number.to_string();
        let fields = [
            ("XDS_ADDRESS", self.discovery_address),
            ("ZTUNNEL_WORKER_THREADS", self.concurrency.map(number)),
            ("proxyAdminPort", self.proxy_admin_port.map(number)),
            ("statsPort", self.stats_port.map(number)),
        ];
        let fields = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        let metadata = self.proxy_metadata.into_iter().map(|(name, value)| {
            let name = if name.starts_with(METADATA) { name } else { format!("{METADATA}{name}") };
            (name, value.text())
        });
        let all = fields.chain(metadata);
        all.map(move |(name, value)| (name, Behind { value, origin }))
    }
}

impl Scalar {
    fn text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Flag(flag) => flag.to_string(),
            Self::Number(number) => number.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proxy_stands_before_the_mesh() {
        let mesh = "
            trustDomain: ignored.here
            defaultConfig:
              discoveryAddress: istiod.mesh:15012
              statsPort: 15888
              tracing: { sampling: 1 }
              proxyMetadata:
                ISTIO_META_DNS_CAPTURE: false
                FOO: mesh
                BAR: 7";
        let own = r#"{"proxyAdminPort": 15999, "concurrency": 3,
                      "proxyMetadata": {"ISTIO_META_FOO": "own"}}"#;
        let (all, mistakes) = settings(Some(mesh), Some(own));
        assert!(mistakes.is_empty(), "{mistakes:?}");
        let found: Vec<_> = all.iter().map(|(name, b)| format!("{name}={}", b.value)).collect();
        assert_eq!(
            found,
            [
                "ISTIO_META_BAR=7",
                "ISTIO_META_DNS_CAPTURE=false",
                "ISTIO_META_FOO=own",
                "XDS_ADDRESS=istiod.mesh:15012",
                "ZTUNNEL_WORKER_THREADS=3",
                "proxyAdminPort=15999",
                "statsPort=15888",
            ]
        );
        assert_eq!(all["ISTIO_META_FOO"].origin, SETTING);
        assert_eq!(all["statsPort"].origin, MESH_FILE);
    }

    #[test]
    fn what_cannot_be_read_is_told_with_its_origin() {
        let (all, mistakes) = settings(Some("defaultConfig: 5"), Some("proxyAdminPort: 99999"));
        assert!(all.is_empty());
        let [mesh, own] = &mistakes[..] else { panic!("{mistakes:?}") };
        assert!(mesh.starts_with("./etc/istio/config/mesh: "), "{mesh}");
        assert!(own.starts_with("PROXY_CONFIG: "), "{own}");
        assert_eq!(settings(Some(" \n"), Some("")).1, Vec::<String>::new());
    }
}
