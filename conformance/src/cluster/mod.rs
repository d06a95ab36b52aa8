//! The suite on a real cluster, by kubeconfig: whatever is installed there is judged.
//!
//! ```text
//! kubeconfig ─► Ground: nodes, parts of the mesh, what the caller may do
//!   scenario: namespace of its own ─► pods ─► exec `conformance app ask` in a pod
//!             observers in the nodes' network ─► marker seen? only the tunnel's port?
//!             ─► captured, direct or blocked
//!   on failure: pods, events, logs and packets are kept; always: namespaces removed
//! ```
//!
//! Everything goes through the API server. What needs more than a namespace is skipped by
//! name where the caller has no right to it; then the wire is watched from inside of the pods.

mod evidence;
mod exchange;
mod ground;
mod hands;
mod kinds;
mod observers;
mod parts;
mod patience;
mod pods;
mod room;
mod run;
mod scenario;
mod scenarios;
mod versions;

pub(crate) use room::Room;
pub(crate) use run::{ClusterRun, Restarts, run_on_cluster};
pub(crate) use scenarios::all as scenarios;
