//! The network configuration that the lab gives a node. PURE.

use std::path::Path;

use serde_json::{Value, json};

use crate::net::plan;
use crate::options::Family;

/// Name of the file; it sorts where a primary plugin's usually does.
pub(crate) const FILE: &str = "10-lab.conflist";

/// Where Debian's containernetworking-plugins puts its binaries.
pub(crate) const PRIMARY_PLUGINS: &str = "/usr/lib/cni";

/// Namespaces whose pods start also without an agent.
pub(crate) const EXCLUDED: [&str; 2] = ["kube-system", "sluice-system"];

/// A bridge with addresses of the node's ranges, then portmap as most clusters have it,
/// then the plugin of the agent that listens on `agent_socket`.
pub(crate) fn conflist(
    node: u8,
    family: Family,
    ipam_folder: &Path,
    agent_socket: Option<&Path>,
) -> Value {
    let pods = plan::pods(node, family);
    let ranges: Vec<_> = pods.iter().map(|range| json!([{"subnet": range.to_string()}])).collect();
    let all = |v4: bool| if v4 { "0.0.0.0/0" } else { "::/0" };
    let routes: Vec<_> = pods.iter().map(|range| json!({"dst": all(range.is_ipv4())})).collect();
    let mut plugins = vec![
        json!({
            "type": "bridge",
            "bridge": "cni0",
            "isGateway": true,
            "ipMasq": false,
            "ipam": {
                "type": "host-local",
                "dataDir": ipam_folder,
                "ranges": ranges,
                "routes": routes,
            },
        }),
        json!({"type": "portmap", "capabilities": {"portMappings": true}}),
    ];
    if let Some(socket) = agent_socket {
        plugins.push(json!({
            "type": "sluice-cni",
            "agentSocket": socket,
            "excludeNamespaces": EXCLUDED,
        }));
    }
    json!({"cniVersion": "1.0.0", "name": "lab", "plugins": plugins})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cni_runtime::Conflist;

    #[test]
    fn our_plugin_comes_last_and_ranges_follow_the_family() {
        let socket = Path::new("/x/plugin.sock");
        let value = conflist(2, Family::Dual, Path::new("/x/ipam"), Some(socket));
        let list = Conflist::parse(&value.to_string()).unwrap();
        let kinds: Vec<_> = list.plugins.iter().map(|plugin| plugin.kind.as_str()).collect();
        assert_eq!(kinds, ["bridge", "portmap", "sluice-cni"]);
        let ipam = &value["plugins"][0]["ipam"];
        assert_eq!(
            ipam["ranges"],
            json!([[{"subnet": "10.20.2.0/24"}], [{"subnet": "fd00:20:2::/64"}]])
        );
        assert_eq!(ipam["routes"], json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]));
        let plain = conflist(1, Family::V6, Path::new("/x/ipam"), None);
        assert_eq!(plain["plugins"].as_array().unwrap().len(), 2);
        assert_eq!(plain["plugins"][0]["ipam"]["routes"], json!([{"dst": "::/0"}]));
    }
}
