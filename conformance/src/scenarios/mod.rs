//! The scenarios, grouped by the lab they need.

mod api_away;
mod bad_input;
mod capture;
mod cni;
mod control_plane;
mod covers;
mod drain;
mod entered;
mod faults;
mod forged_mark;
mod fresh_node;
mod handover;
mod hanging;
mod hundreds;
mod installation;
mod kill_points;
mod kubectl;
mod leaving;
mod lookups;
mod name_servers;
mod no_tunnel;
mod node_condition;
mod odd_pods;
mod other_networks;
mod passing_through;
mod pod_options;
mod policy;
mod posed;
mod probes;
mod repairs;
mod restarts;
mod services;
mod under_load;
mod uninstall;

pub(crate) use covers::covers;
use lab::Family;

use crate::scenario::{Scenario, scenario};

/// Scenarios that share one lab.
pub(crate) struct Stage {
    /// First part of every scenario's name.
    pub name: &'static str,
    /// What is special about the lab.
    pub meaning: &'static str,
    /// The pods' addresses.
    pub family: Family,
    /// In this order.
    pub scenarios: Vec<Scenario>,
}

/// All stages, in the order of running.
pub(crate) fn stages() -> Vec<Stage> {
    let mut v4 = basic();
    v4.extend(cni::scenarios());
    v4.extend(installation::scenarios());
    v4.extend(hanging::scenarios());
    v4.extend(entered::scenarios());
    v4.extend(forged_mark::scenarios());
    v4.extend(fresh_node::scenarios());
    v4.extend(hundreds::scenarios());
    v4.extend(name_servers::scenarios());
    v4.extend(other_networks::scenarios());
    v4.extend(posed::scenarios());
    v4.extend(passing_through::scenarios());
    v4.extend(faults::scenarios());
    v4.extend(repairs::scenarios());
    v4.extend(restarts::scenarios());
    v4.extend(uninstall::scenarios());
    v4.extend(kill_points::scenarios());
    v4.extend(under_load::scenarios());
    v4.extend(handover::scenarios());
    v4.extend(drain::scenarios());
    v4.extend(control_plane::scenarios());
    v4.extend(api_away::scenarios());
    v4.extend(node_condition::scenarios());
    v4.extend(lookups::scenarios());
    v4.extend(leaving::scenarios());
    v4.extend(no_tunnel::scenarios());
    v4.extend(odd_pods::scenarios());
    v4.extend(bad_input::scenarios());
    v4.extend(probes::rules::scenarios());
    v4.extend(kubectl::scenarios());
    let mut v6 = basic();
    v6.extend(lookups::scenarios());
    vec![
        Stage { name: "v4", meaning: "IPv4 pods", family: Family::V4, scenarios: v4 },
        Stage { name: "v6", meaning: "IPv6 pods", family: Family::V6, scenarios: v6 },
        Stage { name: "dual", meaning: "dual-stack pods", family: Family::Dual, scenarios: dual() },
    ]
}

/// What must hold in every address family.
fn basic() -> Vec<Scenario> {
    let mut all = capture::scenarios();
    all.extend(policy::scenarios());
    all.extend(probes::scenarios());
    all.extend(services::scenarios());
    all.extend(pod_options::scenarios());
    all
}

fn dual() -> Vec<Scenario> {
    let mut all = vec![
        scenario!(
            "both-families-are-captured",
            "a dual-stack pod's connections go through the tunnel in both families",
            capture::both_families
        ),
        scenario!(
            "both-addresses-of-a-service",
            "a dual-stack service's addresses both lead through the tunnel to its endpoint",
            services::both_addresses
        ),
        scenario!(
            "label-captures-a-running-pod",
            "a label moves a running pod's traffic into mutual TLS",
            capture::label_captures
        ),
        scenario!(
            "release-leaves-nothing",
            "without the label traffic is plain again and the pod is as before",
            capture::release
        ),
    ];
    all.extend(probes::scenarios());
    all.extend(pod_options::scenarios());
    all
}
