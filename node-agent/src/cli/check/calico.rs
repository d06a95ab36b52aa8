//! PURE. What of Calico's settings does not go with capture inside pods.

use serde_json::Value;

use super::facts::Facts;
use super::finding::Finding;
use crate::rules::ProbeSource;

/// Since this version its eBPF data plane lets answers to probes' source through.
const ANSWERS_SINCE: (u32, u32) = (3, 29);

/// Everything about Calico; empty where there is none.
pub(super) fn detect(facts: &Facts) -> Vec<Finding> {
    let Ok(cluster) = &facts.cluster else { return Vec::new() };
    let felix = match &cluster.felix {
        Ok(Some(felix)) => felix,
        Ok(None) if facts.plugins().iter().any(|plugin| plugin == "calico") => {
            let why = "Calico is this node's plugin, but its settings are not in the API";
            return vec![Finding::unknown("calico-settings", why)];
        }
        Ok(None) => return Vec::new(),
        Err(why) => return vec![Finding::unknown("calico-settings", why)],
    };
    let operated = matches!(&cluster.calico_data_plane, Ok(Some(plane)) if plane == "BPF");
    let by_felix: Vec<_> =
        felix.iter().filter(|it| it["spec"]["bpfEnabled"] == true).map(named).collect();
    if !operated && by_felix.is_empty() {
        let version = match &cluster.calico_version {
            Ok(Some(version)) => format!(" {version}"),
            _ => String::new(),
        };
        let text = format!("Calico{version} uses netfilter, as far as its settings in the API say");
        return vec![Finding::fine("calico-data-plane", text)];
    }
    let said = if by_felix.is_empty() {
        "the operator's Installation".into()
    } else {
        by_felix.join(", ")
    };
    let mut findings = vec![connect_time(felix, &said)];
    if facts.probe_source == ProbeSource::Marker {
        findings.push(answers(&cluster.calico_version));
    }
    findings
}

/// By default the data plane translates Services at `connect()`, for TCP.
fn connect_time(felix: &[Value], said: &str) -> Finding {
    const ID: &str = "calico-connect-time-lb";
    let off = |it: &&Value| {
        let spec = &it["spec"];
        spec["bpfConnectTimeLoadBalancing"] == "Disabled"
            || spec["bpfConnectTimeLoadBalancing"].is_null()
                && spec["bpfConnectTimeLoadBalancingEnabled"] == false
    };
    let on: Vec<_> = felix.iter().filter(|it| !off(it) && is_general(it)).map(named).collect();
    if on.is_empty() && felix.iter().any(|it| is_general(&it)) {
        let text =
            format!("Calico's eBPF data plane ({said}) does not translate Services in sockets");
        return Finding::fine(ID, text);
    }
    Finding::problem(
        ID,
        format!(
            "Calico's eBPF data plane ({said}) translates Services when a pod's socket connects, \
             before Sluice sees the address: policies and routes of Services are lost"
        ),
        "spec.bpfConnectTimeLoadBalancing: Disabled (and bpfHostNetworkedNATWithoutCTLB: Enabled) \
         in FelixConfiguration default",
    )
}

fn answers(version: &Result<Option<String>, String>) -> Finding {
    const ID: &str = "calico-ebpf-probes";
    let version = match version {
        Ok(Some(version)) => version,
        Ok(None) => {
            return Finding::unknown(ID, "ClusterInformation does not say Calico's version");
        }
        Err(why) => return Finding::unknown(ID, why),
    };
    match numbers(version) {
        None => Finding::unknown(ID, format!("Calico's version {version} is not understood")),
        Some(found) if found < ANSWERS_SINCE => Finding::problem(
            ID,
            format!(
                "Calico {version} with its eBPF data plane drops answers to the kubelet's \
                     probes of captured pods"
            ),
            "Calico 3.29 or later, or Sluice's nodeAgent.probeSource=node-addresses",
        ),
        Some(_) => Finding::fine(ID, format!("Calico {version} lets answers to probes through")),
    }
}

/// It counts for all nodes.
fn is_general(felix: &&Value) -> bool {
    felix["metadata"]["name"] == "default"
}

fn named(felix: &Value) -> String {
    format!("FelixConfiguration {}", super::parse::name(felix))
}

/// Major and minor of `v3.28.5`.
pub(super) fn numbers(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.trim_start_matches('v').split(['.', '-', '+']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}
