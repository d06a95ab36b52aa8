//! ztunnel: one L4 proxy for all captured pods of a node.
//!
//! ```text
//!   node agent ──ZDS: netns──► workloads ──one per pod──► proxy ──► route ──► hbone ──► peer
//!   control plane ──WDS──────► source ──view──────────────┘  │         │
//!   control plane ──CA───────► identity ──certificates──► tls ─────────┘
//!                              telemetry ◄── every connection ┘
//!                              admin: readiness, metrics, state
//! ```
//!
//! `config` is the only reader of the environment, `app` the only place where the rooms
//! are put together and taken down again.

pub mod admin;
pub mod app;
pub mod backoff;
mod broken;
mod buffers;
pub mod config;
pub mod dns;
pub mod hbone;
pub mod identity;
mod per_address;
pub mod proxy;
pub mod route;
pub mod source;
pub mod telemetry;
pub mod tls;
pub mod worker;
pub mod workloads;
