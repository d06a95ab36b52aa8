//! The ports at which the kubelet dials a pod: probes, and hooks of a container's life.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::{Deserialize, Serialize};

/// What a container says about probes and hooks, and the names of its ports.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct SlimContainer {
    ports: Option<Vec<SlimPort>>,
    liveness_probe: Option<SlimHandler>,
    readiness_probe: Option<SlimHandler>,
    startup_probe: Option<SlimHandler>,
    lifecycle: Option<SlimLifecycle>,
    restart_policy: Option<String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct SlimPort {
    name: Option<String>,
    container_port: i32,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct SlimLifecycle {
    post_start: Option<SlimHandler>,
    pre_stop: Option<SlimHandler>,
}

/// One of them is set; commands and pauses open no connection.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct SlimHandler {
    http_get: Option<SlimTarget>,
    tcp_socket: Option<SlimTarget>,
    grpc: Option<SlimTarget>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct SlimTarget {
    port: IntOrString,
    host: Option<String>,
}

/// All ports of a pod that the kubelet dials. Of the init containers only those count that
/// stay: the API takes neither probes nor hooks of others.
pub(super) fn ports(
    containers: &[SlimContainer],
    init_containers: &[SlimContainer],
    ips: &[IpAddr],
) -> BTreeSet<u16> {
    let stays = |init: &&SlimContainer| init.restart_policy.as_deref() == Some("Always");
    let all = containers.iter().chain(init_containers.iter().filter(stays));
    all.flat_map(|container| container.dialled(ips)).collect()
}

impl SlimContainer {
    fn dialled(&self, ips: &[IpAddr]) -> impl Iterator<Item = u16> {
        let hooks = self.lifecycle.iter().flat_map(|life| [&life.post_start, &life.pre_stop]);
        let probes = [&self.liveness_probe, &self.readiness_probe, &self.startup_probe];
        let handlers = probes.into_iter().chain(hooks).flatten();
        let targets = handlers.flat_map(|h| [&h.http_get, &h.tcp_socket, &h.grpc]).flatten();
        targets.filter(|target| target.is_at(ips)).filter_map(|target| self.number(&target.port))
    }

    /// As the kubelet reads it: a name is one of this container's ports, or a number after
    /// all. Port 0 is none.
    fn number(&self, port: &IntOrString) -> Option<u16> {
        let number = match port {
            IntOrString::Int(number) => *number,
            IntOrString::String(name) => {
                let mut ports = self.ports.iter().flatten();
                let named = ports.find(|port| port.name.as_ref() == Some(name));
                named.map_or_else(|| name.parse().ok(), |port| Some(port.container_port))?
            }
        };
        u16::try_from(number).ok().filter(|&number| number != 0)
    }
}

impl SlimTarget {
    /// Whether the pod itself is dialled. Another host may be named, even the node's
    /// loopback: that is no business of this pod's rules.
    fn is_at(&self, ips: &[IpAddr]) -> bool {
        match self.host.as_deref() {
            None | Some("") => true,
            Some(host) => host.parse().is_ok_and(|host| ips.contains(&host)),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(containers: Value, init_containers: Value, expected: &[u16]) {
        let parse = |json: Value| serde_json::from_value::<Vec<SlimContainer>>(json).unwrap();
        let (containers, init) = (parse(containers), parse(init_containers));
        let found = ports(&containers, &init, &["10.0.0.1".parse().unwrap()]);
        assert_eq!(found, expected.iter().copied().collect(), "{containers:?} {init:?}");
    }

    #[test]
    fn each_kind_of_probe_and_hook_counts() {
        let container = json!({
            "name": "app", "image": "x",
            "livenessProbe": {"httpGet": {"path": "/", "port": 8080, "scheme": "HTTP"}},
            "readinessProbe": {"tcpSocket": {"port": 8081}, "periodSeconds": 1},
            "startupProbe": {"grpc": {"port": 8082, "service": "s"}},
            "lifecycle": {
                "postStart": {"httpGet": {"port": "8083"}},
                "preStop": {"tcpSocket": {"port": 8084}},
            },
        });
        check(json!([container]), json!([]), &[8080, 8081, 8082, 8083, 8084]);
    }

    #[test]
    fn commands_and_pauses_open_no_connection() {
        let command = json!({
            "livenessProbe": {"exec": {"command": ["true"]}},
            "lifecycle": {"preStop": {"sleep": {"seconds": 3}}, "postStart": null},
            "ports": null,
        });
        check(json!([command, {}]), json!([]), &[]);
    }

    #[test]
    fn a_name_is_that_of_the_containers_own_port() {
        let probe = json!({"httpGet": {"port": "health"}});
        let ports = json!([{"name": "health", "containerPort": 9000}]);
        check(json!([{"livenessProbe": probe, "ports": ports}]), json!([]), &[9000]);
        check(json!([{"livenessProbe": probe}, {"ports": ports}]), json!([]), &[]);
    }

    #[test]
    fn only_init_containers_that_stay_are_probed() {
        let probe = json!({"tcpSocket": {"port": 7000}});
        let stays = json!({"restartPolicy": "Always", "startupProbe": probe});
        check(json!([]), json!([stays]), &[7000]);
        check(json!([]), json!([{"startupProbe": probe}]), &[]);
    }

    #[test]
    fn another_host_is_not_the_pod() {
        let at = |host| json!([{"livenessProbe": {"httpGet": {"port": 80, "host": host}}}]);
        check(at("10.0.0.1"), json!([]), &[80]);
        check(at(""), json!([]), &[80]);
        for host in ["127.0.0.1", "10.0.0.2", "web.example"] {
            check(at(host), json!([]), &[]);
        }
    }

    #[test]
    fn what_is_no_port_is_left_out() {
        let probe = |port: Value| json!({"livenessProbe": {"tcpSocket": {"port": port}}});
        let bad = [json!(0), json!(-1), json!(65_536), json!("nobody"), json!("0")];
        check(bad.into_iter().map(probe).collect(), json!([]), &[]);
    }
}
