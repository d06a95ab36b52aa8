//! PURE. What of Cilium's settings does not go with capture inside pods.

use super::facts::{CiliumSettings, Facts, Known, NodeFacts};
use super::finding::Finding;
use super::policy::Direction;
use crate::rules::ProbeSource;

const KINDS: [&str; 2] = ["CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy"];

/// Everything about Cilium; empty where there is none.
pub(super) fn detect(facts: &Facts) -> Vec<Finding> {
    if !is_there(facts) {
        return Vec::new();
    }
    let settings = facts.cilium_settings();
    if settings.is_empty() {
        let why = unseen(facts);
        return vec![Finding::unknown("cilium-settings", why)];
    }
    let mut findings = Vec::new();
    for settings in settings {
        findings.extend([exclusive(settings), socket_balancing(settings)]);
        findings.extend([chaining(settings), payload(settings, facts)]);
    }
    findings.extend(probes_admitted(facts));
    findings
}

fn is_there(facts: &Facts) -> bool {
    let kinds = facts
        .cluster
        .as_ref()
        .is_ok_and(|cluster| KINDS.iter().any(|kind| cluster.policies.contains_key(kind)));
    kinds
        || !facts.cilium_settings().is_empty()
        || !facts.labelled("k8s-app", "cilium").is_empty()
        || facts.plugins().iter().any(|plugin| plugin == "cilium-cni")
}

/// Where its settings were looked for, in vain.
fn unseen(facts: &Facts) -> String {
    let api = match &facts.cluster {
        Ok(cluster) => match &cluster.cilium {
            Ok(_) => "there is no ConfigMap cilium-config".to_owned(),
            Err(why) => why.clone(),
        },
        Err(why) => why.clone(),
    };
    let node = match &facts.node {
        Ok(NodeFacts { cilium: Ok(_), .. }) => "no cilium-agent is seen on this node".to_owned(),
        Ok(NodeFacts { cilium: Err(why), .. }) | Err(why) => why.clone(),
    };
    format!("Cilium is here, but its settings are not seen: {api}, and {node}")
}

fn exclusive(settings: &CiliumSettings) -> Finding {
    const ID: &str = "cilium-cni-exclusive";
    let from = &settings.from;
    if settings.is_on("cni-exclusive") {
        return Finding::problem(
            ID,
            format!(
                "Cilium moves every other network configuration away, Sluice's with it: new pods \
                 start outside the mesh (cni-exclusive=true in {from})"
            ),
            "Helm value cni.exclusive=false of Cilium (cni-exclusive: \"false\")",
        );
    }
    Finding::fine(ID, format!("Cilium leaves other network configurations alone ({from})"))
}

fn socket_balancing(settings: &CiliumSettings) -> Finding {
    const ID: &str = "cilium-socket-lb";
    let from = &settings.from;
    // Before 1.18 the first one also had words: strict, partial, probe, disabled.
    let replaces = settings.values.get("kube-proxy-replacement");
    let replaces = replaces.is_some_and(|it| !matches!(it.as_str(), "false" | "disabled" | ""));
    let on = ["bpf-lb-sock", "enable-host-reachable-services"].map(|name| settings.is_on(name));
    if !replaces && !on.contains(&true) {
        return Finding::fine(
            ID,
            format!("Cilium does not translate Services in sockets ({from})"),
        );
    }
    if settings.is_on("bpf-lb-sock-hostns-only") {
        let text = format!("Cilium translates Services in the node's sockets only ({from})");
        return Finding::fine(ID, text);
    }
    Finding::problem(
        ID,
        format!(
            "Cilium translates Services when a pod's socket connects, before Sluice sees the \
             address: policies and routes of Services are lost (bpf-lb-sock-hostns-only is not \
             true in {from})"
        ),
        "Helm value socketLB.hostNamespaceOnly=true of Cilium (bpf-lb-sock-hostns-only: \"true\")",
    )
}

fn chaining(settings: &CiliumSettings) -> Finding {
    const ID: &str = "cilium-chaining";
    let from = &settings.from;
    match settings.values.get("cni-chaining-mode").map(String::as_str) {
        None | Some("" | "none") => {
            Finding::fine(ID, format!("Cilium is the primary plugin ({from})"))
        }
        Some(mode) => Finding::warning(
            ID,
            format!(
                "Cilium is chained to another plugin (cni-chaining-mode={mode} in {from}), with \
                     which Sluice was not tried"
            ),
            "Helm value cni.chainingMode=none of Cilium, or try it on a node of its own",
        ),
    }
}

fn payload(settings: &CiliumSettings, facts: &Facts) -> Finding {
    const ID: &str = "cilium-l7";
    let from = &settings.from;
    let cluster = facts.cluster.as_ref().ok();
    let known = cluster.into_iter().flat_map(|it| it.policies.values()).flatten().flatten();
    let looking: Vec<&str> = known
        .filter(|policy| {
            let directions = [Direction::Ingress, Direction::Egress];
            let mut rules = directions.iter().filter_map(|it| policy.rules(*it)).flatten();
            rules.any(|rule| rule.looks_inside)
        })
        .map(|policy| policy.name.as_str())
        .collect();
    if !looking.is_empty() {
        let names = looking.join(", ");
        return Finding::warning(
            ID,
            format!("{names}: has rules for payload, which is encrypted between pods of the mesh"),
            "in namespaces of the mesh, port rules with TCP 15008 instead of rules for HTTP",
        );
    }
    // Absent means on.
    if settings.values.get("enable-l7-proxy").is_some_and(|value| value == "false") {
        return Finding::fine(ID, format!("Cilium's proxy for payload is off ({from})"));
    }
    Finding::fine(ID, "no policy of Cilium looks into payload, which would be encrypted")
}

/// Probes of captured pods come from an address that is not the node's for Cilium.
fn probes_admitted(facts: &Facts) -> Option<Finding> {
    const ID: &str = "cilium-probe-policy";
    const CHANGE: &str = "Helm value cilium.probePolicy=true of Sluice";
    if facts.probe_source != ProbeSource::Marker {
        return None;
    }
    let cluster = facts.cluster.as_ref().ok()?;
    match &cluster.probe_policy {
        Err(why) => return Some(Finding::unknown(ID, why)),
        Ok(Some(name)) => {
            return Some(Finding::fine(ID, format!("{name} admits the kubelet's probes")));
        }
        Ok(None) => {}
    }
    let selecting = match selecting(facts) {
        Ok(selecting) => selecting,
        Err(why) => return Some(Finding::unknown(ID, why.clone())),
    };
    Some(match selecting {
        Some((policy, pod)) => Finding::problem(
            ID,
            format!(
                "{policy} selects pod {pod}, and no CiliumClusterwideNetworkPolicy admits the \
                     kubelet's probes from 169.254.7.127/32: they are dropped"
            ),
            CHANGE,
        ),
        None => Finding::warning(
            ID,
            "no CiliumClusterwideNetworkPolicy admits the kubelet's probes from 169.254.7.127/32: \
             the first policy that selects a captured pod would drop them",
            CHANGE,
        ),
    })
}

/// A policy with rules for what comes in, and a pod of the mesh that it selects.
fn selecting(facts: &Facts) -> Known<Option<(String, String)>> {
    let mesh = facts.mesh.as_ref().map_err(Clone::clone)?;
    let cluster = facts.cluster.as_ref().map_err(Clone::clone)?;
    let policies = cluster.policies.values().flatten().flatten();
    let mut policies = policies.filter(|policy| policy.ingress.is_some());
    Ok(policies.find_map(|policy| {
        let pod = mesh.iter().find(|pod| policy.selects(pod) == Some(true))?;
        Some((policy.name.clone(), pod.name.to_string()))
    }))
}
