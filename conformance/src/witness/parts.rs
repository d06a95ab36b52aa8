//! What is witnessed, part by part, and by which scenarios. PURE.

use super::Witness;

/// One thing that two sides must understand alike.
pub(super) struct Part {
    /// Whose part of ours speaks with whose part of Istio's.
    pub between: &'static str,
    /// About what, in which protocol.
    pub about: &'static str,
    /// Ids of the scenarios that show it.
    pub scenarios: &'static [&'static str],
}

const WORKLOADS: Part = Part {
    between: "ztunnel, istiod",
    about: "discovery of workloads (delta xDS, `Address`)",
    scenarios: &[
        "label-captures-cross-node",
        "label-captures-same-node",
        "source-address-cross-node",
        "namespace-label-and-opt-out",
        "twenty-at-once",
    ],
};
const SERVICES: Part = Part {
    between: "ztunnel, istiod",
    about: "discovery of services (delta xDS, `Address`)",
    scenarios: &["cluster-ip", "headless-service", "own-service", "node-port"],
};
const POLICIES: Part = Part {
    between: "ztunnel, istiod",
    about: "policies (delta xDS, `Authorization`)",
    scenarios: &["deny-by-identity", "allow-by-identity", "strict-refuses-clear-text"],
};
const CERTIFICATES: Part = Part {
    between: "ztunnel, istiod",
    about: "certificates (CSR with a pod's token, trust domain, root)",
    scenarios: &["identity-of-the-client", "deny-by-identity", "ztunnel-restarts"],
};
const NAMES: Part = Part {
    between: "ztunnel, istiod",
    about: "names of services for lookups that ztunnel answers",
    scenarios: &["dns-over-udp", "dns-over-tcp"],
};
const OUR_AGENT: Part = Part {
    between: "node agent, istiod",
    about: "label, annotation and advertisement of running pods, in both directions under load",
    scenarios: &["label-under-load", "un-label-under-load", "label-flips"],
};
const RUNNING_PODS: Part = Part {
    between: "ztunnel, istio-cni's agent",
    about: "running pods (ZDS version 1: add and remove a workload, with its namespace)",
    scenarios: &[
        "label-captures-cross-node",
        "label-captures-same-node",
        "namespace-label-and-opt-out",
        "label-under-load",
        "un-label-under-load",
        "label-flips",
    ],
};
const STARTING_PODS: Part = Part {
    between: "ztunnel, istio-cni's agent and plugin",
    about: "starting pods (plugin, agent, ZDS, and only then the application)",
    scenarios: &[
        "first-connection-of-an-init-container",
        "twenty-at-once",
        "job-completes",
        "stateful-set-again",
    ],
};
const RULES: Part = Part {
    between: "ztunnel, istio-cni's rules",
    about: "redirection (iptables, ports 15001, 15006 and 15008, mark 1337, clients' addresses)",
    scenarios: &[
        "source-address-cross-node",
        "source-address-same-node",
        "clear-text-from-outside",
        "strict-refuses-clear-text",
        "cluster-ip",
        "own-address",
        "own-service",
        "large-both-ways-cross-node",
        "datagrams-pass",
    ],
};
const PROBES: Part = Part {
    between: "ztunnel, istio-cni's rules",
    about: "the kubelet's probes (Istio's marker address)",
    scenarios: &["probes-under-strict"],
};
const LOOKUPS: Part = Part {
    between: "ztunnel, istio-cni's rules",
    about: "lookups (redirected to port 15053, on by default there)",
    scenarios: &["dns-over-udp", "dns-over-tcp"],
};
const AGENTS_RESTART: Part = Part {
    between: "ztunnel, istio-cni's agent",
    about: "the agent's restart (a new ZDS session, its snapshot)",
    scenarios: &["agent-restarts", "kept-connection-and-the-agent"],
};
const PROXYS_RESTART: Part = Part {
    between: "ztunnel, istio-cni's agent",
    about: "ztunnel's restart (all workloads again)",
    scenarios: &["ztunnel-restarts", "ztunnel-rolls-under-load"],
};

/// What a witness is asked about.
pub(super) fn parts(witness: Witness) -> Vec<Part> {
    let mut parts = Vec::new();
    if witness.is_control_plane() {
        parts.extend([WORKLOADS, SERVICES, POLICIES, CERTIFICATES]);
        parts.push(if witness.is_agent() { NAMES } else { OUR_AGENT });
    }
    if witness.is_agent() {
        parts.extend([RUNNING_PODS, STARTING_PODS, RULES, PROBES, LOOKUPS]);
        parts.extend([AGENTS_RESTART, PROXYS_RESTART]);
    }
    parts
}

/// The scenarios that a witness is asked by.
pub(crate) fn scenarios(witness: Witness) -> Vec<String> {
    let parts = parts(witness);
    let ids = parts.iter().flat_map(|part| part.scenarios);
    let all: std::collections::BTreeSet<_> = ids.map(|id| full_id(id)).collect();
    all.into_iter().collect()
}

/// As reports call it.
pub(super) fn full_id(id: &str) -> String {
    format!("cluster/{id}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_names_scenarios_that_there_are() {
        let known: Vec<_> =
            crate::cluster::scenarios().iter().map(|scenario| full_id(scenario.id)).collect();
        for witness in [Witness::Istiod, Witness::IstioCni, Witness::Istio] {
            let asked = scenarios(witness);
            assert!(asked.len() > 10, "{witness:?}");
            for id in asked {
                assert!(known.contains(&id), "{witness:?}: {id}");
            }
        }
    }
}
