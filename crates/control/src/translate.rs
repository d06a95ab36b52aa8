//! From Kubernetes' objects to the mesh's resources. Pure: facts in, messages out.

mod policy;
mod rule;
mod spec;
mod workload;

pub(crate) use policy::{NotSent, PolicyProblem, Selector, Translated, policy};
pub(crate) use workload::{uid, workload};

/// What the cluster is called; the same for all resources.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    pub(crate) cluster_id: String,
    pub(crate) trust_domain: String,
    /// Policies here without a selector are those of the whole mesh.
    pub(crate) root_namespace: String,
}
