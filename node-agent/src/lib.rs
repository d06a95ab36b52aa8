//! The node agent: decides which pods of its node belong to the mesh, writes their rules,
//! hands them to ztunnel, and looks at all of it again and again.
//!
//! ```text
//! Kubernetes API ── kube ── Fact ──┐
//!                                  ▼
//! plugin ── plugin_server ──► reconcile: table ─► plan ─► effects ──► rules, in the pod
//!                                  ▲     (enrollment decides)   ├───► ztunnel_link
//! RUN_DIR/pods.json ── pod_netns ──┘                            └───► annotations, Events
//! ```
//!
//! Decisions ([`enrollment`], [`reconcile::plan`], the session of [`ztunnel_link`]) are
//! functions over facts; everything else carries them out.

pub mod admin;
pub mod app;
pub mod cli;
pub mod config;
pub mod enrollment;
pub mod facts;
mod inside;
pub mod install;
pub mod known_outside;
pub mod kube;
pub mod listeners;
pub mod observe;
pub mod plugin_server;
pub mod pod_netns;
pub mod reconcile;
mod replace_file;
pub mod rules;
pub mod run_dir;
pub mod ztunnel_link;

#[cfg(test)]
mod testing;
