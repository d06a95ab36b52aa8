//! The reference plugin `bridge` with `host-local`: the least that can be a pod network. Its
//! ranges are fixed per node, and the wire between the nodes routes them.

use serde_json::{Value, json};

use crate::cluster::harness::control_plane::FurnishError;
use crate::cluster::harness::machine::Machine;
use crate::cluster::harness::plan::Plan;

pub(super) fn furnish(machine: &mut Machine, number: u8, plan: Plan) -> Result<(), FurnishError> {
    let ranges: Vec<Value> =
        plan.pods_of(number).iter().map(|pods| json!([{"subnet": pods.to_string()}])).collect();
    let routes: Vec<Value> = plan
        .pods_of(number)
        .iter()
        .map(|pods| json!({"dst": if pods.is_ipv4() { "0.0.0.0/0" } else { "::/0" }}))
        .collect();
    let list = json!({
        "name": "pods",
        "cniVersion": "1.0.0",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": true,
                "hairpinMode": true,
                "ipMasq": false,
                "ipam": {"type": "host-local", "ranges": ranges, "routes": routes},
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    });
    machine.write("/etc/cni/net.d/10-bridge.conflist", format!("{list:#}\n").as_bytes())?;
    Ok(())
}
