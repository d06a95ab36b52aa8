//! From Kubernetes' objects to the mesh's resources. Pure: facts in, messages out.

mod denial;
mod endpoint;
mod peer;
mod policy;
mod rule;
mod service;
mod spec;
mod workload;

pub(crate) use denial::deny_in_place_of;
pub(crate) use endpoint::{endpoint, endpoint_uid};
pub(crate) use peer::{
    Demand, Peer, PeerProblem, STATIC_STRICT, Widths, demand, peer, static_strict,
    strict_in_place_of,
};
pub(crate) use policy::{NotSent, PolicyProblem, Selector, Translated, policy};
pub(crate) use service::{pod_ports, service, service_name, slice_ports};
pub(crate) use workload::{Around, locality, uid, workload};

/// What the cluster is called; the same for all resources.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    pub(crate) cluster_id: String,
    pub(crate) trust_domain: String,
    /// Last part of services' hostnames.
    pub(crate) cluster_domain: String,
    /// Policies here without a selector are those of the whole mesh.
    pub(crate) root_namespace: String,
}
