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
//! pods and policies; when the API is lost, the last state is served on.

mod app;
mod ca;
mod callers;
mod facts;
mod kube;
mod services;
mod settings;
mod shards;
mod table;
#[cfg(test)]
mod testing;
mod tls;
mod translate;
mod world;
mod xds;

pub use crate::kube::KubeError;
pub use app::{Control, ControlError};
pub use ca::{RootError, StoreError};
pub use settings::{CaStore, KubeApi, Settings};
