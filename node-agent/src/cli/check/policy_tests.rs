use serde_json::{Value, json};

use super::super::parse::{calico_policy, cilium_policy, network_policy};
use super::*;
use crate::facts::PodName;

fn pod(app: &str) -> MeshPod {
    MeshPod {
        name: PodName { namespace: "shop".into(), name: app.into() },
        labels: [("app".to_owned(), app.to_owned())].into(),
        ports: vec![(Some("http".into()), 8080), (Some("hbone".into()), 15008)],
    }
}

/// Whether pod `shop/web` is cut off, toward it and away from it.
fn cut(policies: &[Policy]) -> [bool; 2] {
    let policies: Vec<&Policy> = policies.iter().collect();
    [Direction::Ingress, Direction::Egress]
        .map(|it| !cutting(&policies, &pod("web"), it, 15008).is_empty())
}

fn kube(spec: &Value) -> Vec<Policy> {
    network_policy(&json!({"metadata": {"namespace": "shop", "name": "p"}, "spec": spec}))
}

#[test]
fn kubernetes_policies_that_forget_the_tunnel_are_found() {
    let web = json!({"matchLabels": {"app": "web"}});
    let from = json!([{"podSelector": {"matchLabels": {"app": "front"}}}]);
    let ingress =
        |ports: Value| json!({"podSelector": web, "ingress": [{"from": from, "ports": ports}]});
    let cases = [
        ("port 8080 alone", ingress(json!([{"port": 8080}])), [true, false]),
        ("by name", ingress(json!([{"port": "http"}])), [true, false]),
        ("named 15008", ingress(json!([{"port": "hbone"}])), [false, false]),
        ("both", ingress(json!([{"port": 8080}, {"port": 15008}])), [false, false]),
        ("a range", ingress(json!([{"port": 8000, "endPort": 16000}])), [false, false]),
        (
            "UDP 15008",
            ingress(json!([{"port": 8080}, {"port": 15008, "protocol": "UDP"}])),
            [true, false],
        ),
        ("UDP only", ingress(json!([{"port": 53, "protocol": "UDP"}])), [false, false]),
        ("all ports", json!({"podSelector": web, "ingress": [{"from": from}]}), [false, false]),
    ];
    for (name, spec, expected) in cases {
        assert_eq!(cut(&kube(&spec)), expected, "{name}");
    }
}

#[test]
fn policies_that_do_not_forget_it_are_left_alone() {
    let web = json!({"matchLabels": {"app": "web"}});
    let cases = [
        ("nothing at all", json!({"podSelector": web, "policyTypes": ["Ingress"]}), [false, false]),
        (
            "another pod",
            json!({"podSelector": {"matchLabels": {"app": "db"}},
            "ingress": [{"ports": [{"port": 1}]}]}),
            [false, false],
        ),
        (
            "every pod",
            json!({"podSelector": {}, "ingress": [{"ports": [{"port": 1}]}]}),
            [true, false],
        ),
        (
            "egress",
            json!({"podSelector": {}, "policyTypes": ["Egress"],
            "egress": [{"ports": [{"port": 8080}]}]}),
            [false, true],
        ),
        (
            "lookups",
            json!({"podSelector": {}, "policyTypes": ["Egress"],
            "egress": [{"ports": [{"port": 53}, {"port": 53, "protocol": "UDP"}]}]}),
            [false, false],
        ),
        (
            "outside",
            json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [
            {"to": [{"ipBlock": {"cidr": "1.1.1.1/32"}}], "ports": [{"port": 443}]}]}),
            [false, false],
        ),
        (
            "expression",
            json!({"podSelector": {"matchExpressions": [
            {"key": "app", "operator": "In", "values": ["web"]}]},
            "ingress": [{"ports": [{"port": 1}]}]}),
            [true, false],
        ),
        (
            "not there",
            json!({"podSelector": {"matchExpressions": [
            {"key": "app", "operator": "DoesNotExist"}]},
            "ingress": [{"ports": [{"port": 1}]}]}),
            [false, false],
        ),
    ];
    for (name, spec, expected) in cases {
        assert_eq!(cut(&kube(&spec)), expected, "{name}");
    }
}

#[test]
fn another_rule_helps_only_who_it_admits() {
    let spec = |rules: Value| json!({"podSelector": {}, "ingress": rules});
    let front = json!([{"podSelector": {"matchLabels": {"app": "front"}}}]);
    let metrics = json!([{"podSelector": {"matchLabels": {"app": "metrics"}}}]);
    let web = json!({"from": front, "ports": [{"port": 8080}]});
    let same = kube(&spec(json!([web, {"from": front, "ports": [{"port": 15008}]}])));
    assert_eq!(cut(&same), [false, false]);
    let everybody = kube(&spec(json!([web, {"ports": [{"port": 15008}]}])));
    assert_eq!(cut(&everybody), [false, false]);
    let others = kube(&spec(json!([web, {"from": metrics}])));
    assert_eq!(cut(&others), [true, false], "who is admitted at all ports is somebody else");
    let separate = [kube(&spec(json!([web]))), kube(&spec(json!([{"ports": [{"port": 15008}]}])))];
    assert_eq!(cut(&separate.concat()), [false, false], "policies add up");
}

#[test]
fn a_policy_counts_in_its_namespace() {
    let elsewhere = json!({"metadata": {"namespace": "other", "name": "p"},
        "spec": {"podSelector": {}, "ingress": [{"ports": [{"port": 1}]}]}});
    assert_eq!(cut(&network_policy(&elsewhere)), [false, false]);
}

#[test]
fn ciliums_policies_are_read() {
    let cnp = |spec: Value| {
        cilium_policy(&json!({"kind": "CiliumNetworkPolicy",
            "metadata": {"namespace": "shop", "name": "p"}, "spec": spec}))
    };
    let ports = |port: &str| json!([{"ports": [{"port": port, "protocol": "TCP"}]}]);
    let web = json!({"matchLabels": {"k8s:app": "web"}});
    let one = cnp(json!({"endpointSelector": web, "ingress": [{"toPorts": ports("8080")}]}));
    assert_eq!(cut(&one), [true, false]);
    let open = cnp(json!({"endpointSelector": web, "ingress": [{"toPorts": ports("15008")}]}));
    assert_eq!(cut(&open), [false, false]);
    let names = cnp(json!({"endpointSelector": {}, "egress": [
        {"toFQDNs": [{"matchName": "example.com"}], "toPorts": ports("443")}]}));
    assert_eq!(cut(&names), [false, false], "what is outside is not the mesh's");
    let added = cnp(json!({"endpointSelector": {}, "enableDefaultDeny": {"ingress": false},
        "ingress": [{"toPorts": ports("8080")}]}));
    assert_eq!(cut(&added), [false, false], "it denies nothing");
    let http = json!([{"ports": [{"port": "80"}], "rules": {"http": [{}]}}]);
    let inside = cnp(json!({"endpointSelector": {}, "ingress": [{"toPorts": http}]}));
    assert!(inside[0].ingress.as_ref().unwrap()[0].looks_inside);
    let wide = cilium_policy(&json!({"kind": "CiliumClusterwideNetworkPolicy",
        "metadata": {"name": "p"}, "spec": {
            "endpointSelector": {"matchLabels": {"k8s:io.kubernetes.pod.namespace": "shop"}},
            "ingress": [{"toPorts": ports("8080")}]}}));
    assert_eq!(cut(&wide), [true, false]);
}

#[test]
fn calicos_policies_are_read() {
    let policy = |spec: Value| {
        calico_policy(&json!({"metadata": {"name": "p", "namespace": "shop"}, "spec": spec}))
    };
    let allow = |ports: Value| json!([{"action": "Allow", "protocol": "TCP", "destination": {"ports": ports}}]);
    let select = |selector: &str, ports: Value| {
        policy(json!({"selector": selector, "types": ["Ingress"], "ingress": allow(ports)}))
    };
    assert_eq!(cut(&select("app == 'web'", json!([8080]))), [true, false]);
    assert_eq!(cut(&select("all()", json!(["8000:9000"]))), [true, false]);
    assert_eq!(cut(&select("has(app) && app != \"db\"", json!([80, 15008]))), [false, false]);
    assert_eq!(cut(&select("app == 'db'", json!([80]))), [false, false]);
    let unclear = select("app == 'a' || app == 'web'", json!([80]));
    assert_eq!(unclear[0].selects(&pod("web")), None);
    let only_denied = policy(json!({"selector": "all()", "types": ["Ingress"],
        "ingress": [{"action": "Deny", "protocol": "TCP", "destination": {"ports": [22]}}]}));
    assert_eq!(cut(&only_denied), [false, false]);
}
