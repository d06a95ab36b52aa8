//! Flannel: its daemon makes the VXLAN and says in `/run/flannel/subnet.env` which addresses
//! are the node's; its plugin hands them to `bridge`.

use serde_json::{Map, Value, json};

use crate::cluster::harness::control_plane::{FurnishError, node_name};
use crate::cluster::harness::machine::{Machine, Service};
use crate::cluster::harness::plan::Plan;
use crate::cluster::harness::tools::Tools;
use crate::cluster::harness::worker::FOLDER;

const NETWORK: &str = "/etc/kube-flannel/net-conf.json";

pub(super) fn furnish(
    machine: &mut Machine,
    number: u8,
    plan: Plan,
    tools: &Tools,
) -> Result<(), FurnishError> {
    tools.system("iptables", "iptables")?;
    let daemon = tools.built("flannel", "flannel")?;
    machine.install(&tools.built("flannel-plugin", "flannel")?, "/opt/cni/bin/flannel")?;
    machine.write(NETWORK, network(plan).to_string().as_bytes())?;
    // The list that Flannel's own manifest brings.
    let list = json!({
        "name": "cbr0",
        "cniVersion": "0.3.1",
        "plugins": [
            {"type": "flannel", "delegate": {"hairpinMode": true, "isDefaultGateway": true}},
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    });
    machine.write("/etc/cni/net.d/10-flannel.conflist", format!("{list:#}\n").as_bytes())?;
    let daemon = Service::daemon("flanneld", &daemon).env("NODE_NAME", node_name(number)).args([
        "--kube-subnet-mgr".to_owned(),
        format!("--kubeconfig-file={FOLDER}/primary.kubeconfig"),
        format!("--net-config-path={NETWORK}"),
        "--iface=eth0".to_owned(),
        "--ip-masq".to_owned(),
    ]);
    machine.services.push(daemon);
    Ok(())
}

fn network(plan: Plan) -> Value {
    let mut network = Map::new();
    network.insert("Backend".to_owned(), json!({"Type": "vxlan"}));
    network.insert("EnableIPv4".to_owned(), json!(false));
    for pods in plan.pods() {
        if pods.contains(':') {
            network.insert("EnableIPv6".to_owned(), json!(true));
            network.insert("IPv6Network".to_owned(), json!(pods));
        } else {
            network.insert("EnableIPv4".to_owned(), json!(true));
            network.insert("Network".to_owned(), json!(pods));
        }
    }
    Value::Object(network)
}
