//! Tables over facts: each detector, by what it names.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::facts::{CiliumSettings, ClusterFacts, NodeFacts, NodeInfo, Pod};
use super::*;

fn cluster() -> ClusterFacts {
    ClusterFacts {
        version: Ok("v1.36.3".into()),
        nodes: Ok(Vec::new()),
        pods: Ok(Vec::new()),
        namespaces: Ok(Vec::new()),
        cilium: Ok(Vec::new()),
        proxy_mode: Ok(Some("nftables".into())),
        felix: Ok(None),
        calico_version: Ok(None),
        calico_data_plane: Ok(None),
        probe_policy: Ok(None),
        policies: BTreeMap::new(),
    }
}

fn node() -> NodeFacts {
    NodeFacts {
        name: "n1".into(),
        rules: Ok(Ok(())),
        conf_dir: "/etc/cni/net.d".into(),
        conf_writable: Ok(()),
        conf: Ok(Some(("00-sluice.conflist".into(), vec!["bridge".into(), "sluice-cni".into()]))),
        program: Ok("/opt/cni/bin/sluice-cni".into()),
        agent: Ok((200, "ok\n".into())),
        proxy_mode: Err("nobody listens".into()),
        cilium: Ok(None),
    }
}

fn facts(cluster: ClusterFacts, node: NodeFacts) -> Facts {
    let mesh = Ok(Vec::new());
    Facts { cluster: Ok(cluster), node: Ok(node), probe_source: ProbeSource::Marker, mesh }
}

/// The one finding of this name.
#[track_caller]
fn check(facts: &Facts, id: &str, severity: Severity, parts: &[&str]) {
    let findings = judge(facts);
    let found: Vec<_> = findings.iter().filter(|finding| finding.id == id).collect();
    let [found] = found.as_slice() else { panic!("{id}: {found:?} of {findings:#?}") };
    assert_eq!(found.severity, severity, "{found:?}");
    let line = render(&[(*found).clone()], Output::Text);
    for part in parts {
        assert!(line.contains(part), "{part} in {line}");
    }
}

fn with_cilium(values: &[(&str, &str)]) -> Facts {
    let values = values.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    let settings = CiliumSettings { from: "ConfigMap kube-system/cilium-config".into(), values };
    facts(ClusterFacts { cilium: Ok(vec![settings]), ..cluster() }, node())
}

fn pod(json: &Value) -> Pod {
    parse::pod(json).unwrap()
}

#[test]
fn nothing_is_wrong_where_nothing_is_wrong() {
    let findings = judge(&facts(cluster(), node()));
    assert!(findings.iter().all(|it| it.severity == Severity::Fine), "{findings:#?}");
    assert!(!has_problems(&findings));
}

#[test]
fn ciliums_settings_are_named() {
    use Severity::{Fine, Problem, Warning};
    let kpr = ("kube-proxy-replacement", "true");
    type Case<'a> = (&'a [(&'a str, &'a str)], &'a str, Severity, &'a str);
    let cases: [Case<'_>; 10] = [
        (&[("cni-exclusive", "true")], "cilium-cni-exclusive", Problem, "cni.exclusive=false"),
        (&[("cni-exclusive", "false")], "cilium-cni-exclusive", Fine, ""),
        (&[kpr], "cilium-socket-lb", Problem, "socketLB.hostNamespaceOnly=true"),
        (&[("bpf-lb-sock", "true")], "cilium-socket-lb", Problem, "bpf-lb-sock-hostns-only"),
        (&[kpr, ("bpf-lb-sock-hostns-only", "true")], "cilium-socket-lb", Fine, ""),
        (&[("kube-proxy-replacement", "strict")], "cilium-socket-lb", Problem, ""),
        (&[("kube-proxy-replacement", "false")], "cilium-socket-lb", Fine, ""),
        (&[("cni-chaining-mode", "generic-veth")], "cilium-chaining", Warning, "generic-veth"),
        (&[("cni-chaining-mode", "none")], "cilium-chaining", Fine, ""),
        (&[kpr], "cilium-probe-policy", Warning, "cilium.probePolicy=true"),
    ];
    for (values, id, severity, part) in cases {
        check(&with_cilium(values), id, severity, &[part]);
    }
}

#[test]
fn a_running_cilium_counts_more_than_what_is_written_and_none_seen_is_said() {
    let mut facts = with_cilium(&[("kube-proxy-replacement", "false")]);
    let flags = look::flags(&["cilium-agent", "--kube-proxy-replacement", "--x", "y"]);
    assert_eq!(flags["x"], "y");
    let running = CiliumSettings { from: "the command line of cilium-agent".into(), values: flags };
    facts.node = Ok(NodeFacts { cilium: Ok(Some(running)), ..node() });
    check(&facts, "cilium-socket-lb", Severity::Problem, &["command line"]);

    let plugins = vec!["cilium-cni".to_owned(), "sluice-cni".to_owned()];
    let conf = Ok(Some(("05-cilium.conflist".to_owned(), plugins)));
    let unseen = super::tests::facts(cluster(), NodeFacts { conf, ..node() });
    check(&unseen, "cilium-settings", Severity::Unknown, &["no ConfigMap", "no cilium-agent"]);
    assert!(look::is_cilium_agent(&["/x/daemon", "--bpf-lb-sock-hostns-only=false"]));
    assert!(!look::is_cilium_agent(&["grep", "cilium-agent"]));
}

#[test]
fn probes_need_a_policy_where_policies_select_pods_of_the_mesh() {
    let policy = parse::network_policy(&json!({
        "metadata": {"namespace": "shop", "name": "deny"}, "spec": {"podSelector": {}},
    }));
    let mut facts = with_cilium(&[]);
    let web = pod(&json!({"metadata": {"name": "web", "namespace": "shop", "uid": "u"}}));
    let web = facts::MeshPod {
        name: web.facts.name,
        labels: BTreeMap::new(),
        ports: vec![(None, 15001)],
    };
    facts.mesh = Ok(vec![web]);
    if let Ok(cluster) = &mut facts.cluster {
        cluster.policies.insert("NetworkPolicy", Ok(policy));
    }
    check(&facts, "cilium-probe-policy", Severity::Problem, &["deny", "shop/web", "probePolicy"]);
    check(&facts, "pod-port", Severity::Problem, &["15001"]);
    let ours = parse::admits_probes(&json!({"metadata": {"name": "sluice-allow-probes"}, "spec": {
        "endpointSelector": {}, "ingress": [{"fromCIDR": ["169.254.7.127/32"]}]}}));
    if let Ok(cluster) = &mut facts.cluster {
        cluster.probe_policy = Ok(ours);
    }
    check(&facts, "cilium-probe-policy", Severity::Fine, &["sluice-allow-probes"]);
}

#[test]
fn calicos_settings_are_named() {
    use Severity::{Fine, Problem, Unknown};
    let with = |spec: Value, version: Option<&str>| {
        let felix = json!({"metadata": {"name": "default"}, "spec": spec});
        let calico_version = Ok(version.map(str::to_owned));
        facts(ClusterFacts { felix: Ok(Some(vec![felix])), calico_version, ..cluster() }, node())
    };
    check(&with(json!({}), Some("v3.28.5")), "calico-data-plane", Fine, &["v3.28.5"]);
    let on = json!({"bpfEnabled": true});
    let change = "spec.bpfConnectTimeLoadBalancing: Disabled";
    check(&with(on.clone(), None), "calico-connect-time-lb", Problem, &[change]);
    check(&with(on, None), "calico-ebpf-probes", Unknown, &["because"]);
    let off = json!({"bpfEnabled": true, "bpfConnectTimeLoadBalancing": "Disabled"});
    check(&with(off.clone(), None), "calico-connect-time-lb", Fine, &[]);
    check(&with(off.clone(), Some("v3.28.5")), "calico-ebpf-probes", Problem, &["3.29"]);
    check(&with(off, Some("v3.30.1")), "calico-ebpf-probes", Fine, &[]);
    let mut operated = with(json!({}), Some("v3.30.1"));
    if let Ok(cluster) = &mut operated.cluster {
        cluster.calico_data_plane = Ok(Some("BPF".into()));
    }
    check(&operated, "calico-connect-time-lb", Problem, &["Installation", change]);
}

#[test]
fn versions_meshes_and_namespaces_are_judged() {
    use Severity::{Problem, Unknown, Warning};
    let labelled = |name: &str, key: &str, value: &str| {
        pod(&json!({"metadata": {"name": name, "namespace": "sys", "uid": name,
            "labels": {key: value}}}))
    };
    let old = NodeInfo {
        name: "n1".into(),
        kernel: "4.18.0-553".into(),
        runtime: "containerd://1.6.20".into(),
        kubelet: "v1.29.1".into(),
    };
    let namespace = json!({"metadata": {"name": "sys",
        "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
    let cluster = ClusterFacts {
        version: Ok("v1.29.1".into()),
        nodes: Ok(vec![old]),
        pods: Ok(vec![
            labelled("a", "app.kubernetes.io/name", "sluice-node-agent"),
            labelled("b", "app.kubernetes.io/name", "sluice-control"),
            labelled("c", "app", "istiod"),
            labelled("d", "k8s-app", "istio-cni-node"),
        ]),
        namespaces: Ok(vec![crate::kube::namespace_facts(&namespace).unwrap()]),
        proxy_mode: Ok(Some("ipvs".into())),
        policies: [("NetworkPolicy", Err("the account may not list them".into()))].into(),
        ..cluster()
    };
    let facts = facts(cluster, node());
    check(&facts, "kubernetes-version", Warning, &["v1.29.1", "1.30"]);
    check(&facts, "node-kernel", Problem, &["4.18.0", "containerd://1.6.20", "5.14"]);
    check(&facts, "pod-security", Problem, &["restricted", "enforce=privileged"]);
    check(&facts, "istiod", Warning, &["control.mode=istiod"]);
    check(&facts, "other-mesh", Problem, &["Istio", "sys/d"]);
    check(&facts, "kube-proxy-mode", Warning, &["ipvs"]);
    let unknown = judge(&facts).into_iter().filter(|it| it.severity == Unknown);
    assert!(unknown.into_iter().any(|it| it.text.contains("may not list them")));
}

#[test]
fn the_node_is_judged() {
    use Severity::{Problem, Unknown, Warning};
    let bare = NodeFacts {
        rules: Ok(Err("nft is not in PATH".into())),
        conf_writable: Err("Read-only file system".into()),
        conf: Ok(Some(("10-x.conflist".into(), vec!["linkerd-cni".into()]))),
        program: Err("plugin sluice-cni is not in /opt/cni/bin".into()),
        agent: Err("nobody listens".into()),
        ..node()
    };
    let before = facts(cluster(), bare.clone());
    check(&before, "node-rules", Problem, &["nft"]);
    check(&before, "node-conf-dir", Problem, &["Read-only"]);
    check(&before, "node-conflist", Warning, &["10-x.conflist", "INSTALL_CNI=own"]);
    check(&before, "node-plugin", Warning, &["CNI_BIN_DIR"]);
    check(&before, "node-agent", Unknown, &["nobody listens"]);
    check(&before, "other-mesh", Problem, &["Linkerd"]);
    let waits = Ok((503, "waits for a ztunnel to connect\n".to_owned()));
    let after = facts(cluster(), NodeFacts { agent: waits, ..bare });
    check(&after, "node-agent", Problem, &["ztunnel"]);
    check(&after, "node-conflist", Problem, &["without sluice-cni"]);
}

#[test]
fn without_an_api_that_is_the_problem() {
    let mut facts = facts(cluster(), node());
    facts.cluster = Err("connection refused".into());
    facts.mesh = Err("connection refused".into());
    check(&facts, "api", Severity::Problem, &["connection refused"]);
    facts.node = Err("NODE_NAME is not set".into());
    check(&facts, "node", Severity::Unknown, &["because NODE_NAME"]);
}
