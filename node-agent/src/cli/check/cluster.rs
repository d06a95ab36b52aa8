//! PURE. Versions, nodes, other meshes, control planes.

use super::calico::numbers;
use super::facts::{ClusterFacts, Facts, Known, MeshPod, NodeInfo};
use super::finding::Finding;
use super::policy::{Direction, Policy, cutting};
use zds::port::INBOUND_HBONE;

/// The oldest Kubernetes for the chart, see `docs/kubernetes.md`.
const KUBERNETES: (u32, u32) = (1, 30);
/// The oldest kernel: namespaces have cookies since.
const LINUX: (u32, u32) = (5, 14);
/// Ports that ztunnel has in each captured pod.
const TAKEN: [u16; 4] = zds::PROXY_PORTS;
/// Plugins of other meshes, by what their pods say and what their plugin is called.
const OTHER_MESHES: [(&str, &str, &str); 3] = [
    ("Istio", "istio-cni-node", "istio-cni"),
    ("Linkerd", "linkerd-cni", "linkerd-cni"),
    ("Kuma", "kuma-cni-node", "kuma-cni"),
];

/// Everything that is about no single engine.
pub(super) fn detect(facts: &Facts) -> Vec<Finding> {
    let mut findings = other_meshes(facts);
    let cluster = match &facts.cluster {
        Ok(cluster) => cluster,
        Err(why) => {
            let change = "KUBECONFIG, or the service account of the pod that runs this";
            findings.push(Finding::problem("api", format!("no API server: {why}"), change));
            return findings;
        }
    };
    findings.push(version(&cluster.version));
    findings.extend(nodes(&cluster.nodes));
    findings.extend(pod_security(facts, cluster));
    findings.extend(control_plane(facts));
    findings.extend(proxy_mode(facts, cluster));
    findings.extend(mesh(facts, cluster));
    findings
}

fn version(version: &Known<String>) -> Finding {
    const ID: &str = "kubernetes-version";
    match version {
        Err(why) => Finding::unknown(ID, why),
        Ok(version) if numbers(version).is_some_and(|it| it < KUBERNETES) => Finding::warning(
            ID,
            format!("Kubernetes {version} is older than any that the chart was made for"),
            "Kubernetes 1.30 or later",
        ),
        Ok(version) => Finding::fine(ID, format!("Kubernetes {version}")),
    }
}

fn nodes(nodes: &Known<Vec<NodeInfo>>) -> Vec<Finding> {
    let one = |node: &NodeInfo| {
        let NodeInfo { name, kernel, runtime, kubelet } = node;
        let text = format!("{name}: Linux {kernel}, {runtime}, kubelet {kubelet}");
        if numbers(kernel).is_some_and(|it| it < LINUX) {
            let change = "Linux 5.14 or later on this node";
            return Finding::problem(
                "node-kernel",
                format!("{text}: the kernel is too old"),
                change,
            );
        }
        Finding::fine("node-kernel", text)
    };
    match nodes {
        Ok(nodes) => nodes.iter().map(one).collect(),
        Err(why) => vec![Finding::unknown("node-kernel", why)],
    }
}

/// Our agent works on nodes, which only the level `privileged` lets it.
fn pod_security(facts: &Facts, cluster: &ClusterFacts) -> Option<Finding> {
    const ID: &str = "pod-security";
    const LEVEL: &str = "pod-security.kubernetes.io/enforce";
    let ours = facts.labelled("app.kubernetes.io/name", "sluice-node-agent");
    let (ours, _) = ours.first()?.split_once('/')?;
    let namespaces = match &cluster.namespaces {
        Ok(namespaces) => namespaces,
        Err(why) => return Some(Finding::unknown(ID, why)),
    };
    let namespace = namespaces.iter().find(|it| it.name == ours)?;
    Some(match namespace.labels.get(LEVEL).map(String::as_str) {
        Some(level @ ("baseline" | "restricted")) => Finding::problem(
            ID,
            format!("namespace {ours} enforces Pod Security level {level}, which refuses agents"),
            format!("kubectl label --overwrite namespace {ours} {LEVEL}=privileged"),
        ),
        Some(_) => Finding::fine(ID, format!("namespace {ours} lets agents work on nodes")),
        None => Finding::fine(
            ID,
            format!("namespace {ours} has no Pod Security level, and agents run there"),
        ),
    })
}

fn control_plane(facts: &Facts) -> Option<Finding> {
    let istiod = facts.labelled("app", "istiod");
    let ours = facts.labelled("app.kubernetes.io/name", "sluice-control");
    let pod = istiod.first()?;
    Some(if ours.is_empty() {
        Finding::fine("istiod", format!("istiod is there ({pod}): control.mode=istiod fits"))
    } else {
        Finding::warning(
            "istiod",
            format!(
                "istiod ({pod}) and Sluice's own control are both there: pods of the one \
                     mesh do not trust those of the other"
            ),
            "Helm value control.mode=istiod of Sluice, or no istiod",
        )
    })
}

fn proxy_mode(facts: &Facts, cluster: &ClusterFacts) -> Option<Finding> {
    const ID: &str = "kube-proxy-mode";
    let running = facts.node.as_ref().ok().and_then(|node| node.proxy_mode.as_ref().ok());
    let told = cluster.proxy_mode.as_ref().ok().and_then(Option::as_ref);
    let Some(mode) = running.or(told) else {
        let why = cluster.proxy_mode.as_ref().err();
        return why.map(|why| Finding::unknown(ID, why));
    };
    Some(match mode.as_str() {
        "ipvs" => Finding::warning(
            ID,
            "kube-proxy is in mode ipvs: connections of the node's own processes to a Service \
             may pass for probes of a pod on the same node",
            "mode: nftables or iptables in kube-proxy's configuration",
        ),
        mode => Finding::fine(ID, format!("kube-proxy is in mode {mode}")),
    })
}

fn other_meshes(facts: &Facts) -> Vec<Finding> {
    let found = OTHER_MESHES.iter().filter_map(|(mesh, app, plugin)| {
        let listed = facts.plugins().iter().any(|it| it == plugin);
        let pods = facts.labelled("k8s-app", app);
        let seen = match (listed, pods.first()) {
            (true, _) => format!("{plugin} stands in this node's network configuration"),
            (false, Some(pod)) => format!("its node agent runs ({pod})"),
            (false, None) => return None,
        };
        Some(Finding::problem(
            "other-mesh",
            format!("{mesh}'s plugin is there as well: {seen}; two meshes redirect the same pods"),
            format!(
                "remove {mesh}'s CNI DaemonSet and its entry {plugin}, or do not install Sluice"
            ),
        ))
    });
    let mut found: Vec<_> = found.collect();
    if found.is_empty() && (facts.node.is_ok() || facts.cluster.is_ok()) {
        found.push(Finding::fine("other-mesh", "no plugin of another mesh is seen"));
    }
    found
}

/// Pods of the mesh, and what policies do to them.
fn mesh(facts: &Facts, cluster: &ClusterFacts) -> Vec<Finding> {
    let pods = match &facts.mesh {
        Ok(pods) => pods,
        Err(why) => return vec![Finding::unknown("mesh-pods", why)],
    };
    let mut findings: Vec<_> = pods.iter().filter_map(taken).collect();
    let mut known: Vec<&Policy> = Vec::new();
    for (kind, policies) in &cluster.policies {
        match policies {
            Ok(policies) => known.extend(policies),
            Err(why) => findings.push(Finding::unknown("policy-15008", format!("{kind}: {why}"))),
        }
    }
    let count = pods.len();
    findings.push(Finding::fine("mesh-pods", format!("{count} pods belong to the mesh")));
    let cut = [Direction::Ingress, Direction::Egress].map(|it| policies(&known, pods, it)).concat();
    let unclear = known.iter().filter(|it| pods.iter().any(|pod| it.selects(pod).is_none()));
    for policy in unclear {
        let why = format!(
            "the selector of {} is not understood here: see that it admits TCP {INBOUND_HBONE} \
                           where it selects pods of the mesh",
            policy.name
        );
        findings.push(Finding::unknown("policy-15008", why));
    }
    let all_read = cluster.policies.values().all(Result::is_ok);
    if cut.is_empty() && all_read {
        let text =
            format!("of {} network policies read, none cuts a pod off from the mesh", known.len());
        findings.push(Finding::fine("policy-15008", text));
    }
    findings.extend(cut);
    findings
}

fn policies(policies: &[&Policy], pods: &[MeshPod], direction: Direction) -> Vec<Finding> {
    let mut cut: Vec<(&str, &MeshPod, usize)> = Vec::new();
    for pod in pods {
        for policy in cutting(policies, pod, direction, INBOUND_HBONE) {
            match cut.iter_mut().find(|(name, ..)| *name == policy.name) {
                Some((_, _, count)) => *count += 1,
                None => cut.push((&policy.name, pod, 1)),
            }
        }
    }
    let (way, rules) = match direction {
        Direction::Ingress => ("to", "ingress"),
        Direction::Egress => ("from", "egress"),
    };
    cut.into_iter()
        .map(|(name, pod, count)| {
            let others = if count > 1 { format!(" and {} more", count - 1) } else { String::new() };
            Finding::warning(
                "policy-15008",
                format!(
                    "{name} admits ports {way} pod {}{others}, but not TCP {INBOUND_HBONE}, which \
                         carries the mesh's traffic",
                    pod.name
                ),
                format!("a port {INBOUND_HBONE}, protocol TCP, in the {rules} rules of {name}"),
            )
        })
        .collect()
}

fn taken(pod: &MeshPod) -> Option<Finding> {
    let (_, port) = pod.ports.iter().find(|(_, port)| TAKEN.contains(port))?;
    Some(Finding::problem(
        "pod-port",
        format!("pod {} declares port {port}, which ztunnel takes in captured pods", pod.name),
        "another port of the application, or label istio.io/dataplane-mode=none on the pod",
    ))
}
