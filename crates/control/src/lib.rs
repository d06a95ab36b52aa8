//! The embedded control plane, for clusters without istiod: it watches Kubernetes, tells
//! node proxies what the mesh is made of, and signs their certificates.
//!
//! ```text
//! Kubernetes ──kube──► facts ──► table ──translate──► world ──► xds ──┐
//!     ▲                                                 │             ├── tls ──► ztunnel
//!     └─────────TokenReview──── callers ◄───────────────┴───► ca ─────┘
//! ```
//!
//! Only `kube` knows the Kubernetes client. `facts`, `translate`, `table`, `world` and the
//! state machines of `xds` are pure. Nothing is served before the first complete list of
//! every kind; when the API is lost, the last state is served on.
//!
//! What becomes of what:
//!
//! | Kubernetes | mesh |
//! |---|---|
//! | Pod with an address | workload, with the services that select it and its node's locality |
//! | Service, but no alias (`ExternalName`) | service; without an address when headless |
//! | EndpointSlice | endpoint of its service: the pod that it names or whose address it has, if the service has no selector; else a workload of its own, in clear text |
//! | Node | locality of what runs on it |
//! | AuthorizationPolicy | authorization; one that cannot be read and never could denies all that it is about |
//! | PeerAuthentication | denial of callers without identity, which workloads list; one that cannot be read and never could counts as STRICT |
//!
//! What its service account must be allowed, all in the whole cluster: `list` and `watch`
//! of `pods`, `nodes`, `services`, of `endpointslices.discovery.k8s.io` and of
//! `authorizationpolicies.security.istio.io` and `peerauthentications.security.istio.io`;
//! `create` of
//! `tokenreviews.authentication.k8s.io`. It writes nothing and reads no secret, but where the
//! root is to be kept in a Secret ([`CaStore::Secret`]: `get` and `create`) or its certificate
//! in a ConfigMap (`get`, `create`, `patch`), which are objects of its own namespace.
//!
//! Waypoints (`istio.io/use-waypoint`), `WorkloadEntry` and `ServiceEntry` are not read.

mod app;
mod ca;
mod callers;
mod facts;
mod kube;
mod services;
mod settings;
mod shards;
mod sparse;
mod table;
#[cfg(test)]
mod testing;
mod tls;
mod translate;
mod world;
mod xds;

pub use crate::kube::{
    KubeError, LeaveError, OwnError, ready_everywhere as await_daemon_set,
    remove as remove_daemon_set,
};
pub use app::{Control, ControlError};
pub use ca::{RootError, StoreError};
pub use settings::{CaStore, KubeApi, ObjectName, Settings};
