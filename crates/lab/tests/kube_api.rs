//! The embedded Kubernetes API, asked by plain HTTP as kube-rs does it, and by the real
//! `kubectl` where there is one.

#![expect(clippy::unwrap_used, reason = "what is not there fails the test")]
#![expect(clippy::needless_pass_by_value, reason = "cases are written as values")]

#[path = "kube_api/client.rs"]
mod client;
#[path = "kube_api/deletes.rs"]
mod deletes;
#[path = "kube_api/kubectl.rs"]
mod kubectl;
#[path = "kube_api/objects.rs"]
mod objects;
#[path = "kube_api/patches.rs"]
mod patches;
#[path = "kube_api/refusals.rs"]
mod refusals;
#[path = "kube_api/services.rs"]
mod services;
#[path = "kube_api/tokens.rs"]
mod tokens;
#[path = "kube_api/watches.rs"]
mod watches;
