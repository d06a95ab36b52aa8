//! Whom we serve. The pods of this node: a session with the node agent says which, one proxy each
//! serves them.
//!
//! ```text
//! node agent ──packets──► link ──event──► session (pure) ──actions──► manager ──► PodProxy
//!      ▲                                      ▲                          │
//!      └───────────────── ack ────────────────┼──────────────────────────┤
//!                                             └── started, or why not ◄──┘
//! ```
//!
//! Or, without any agent, the one machine that we run on.

mod agent;
mod answer;
mod event;
mod handle;
mod machine;
mod manager;
mod metrics;
mod progress;
mod served;
mod session;

pub use event::PodState;
pub use handle::{Handle, Handover, Pods, Settings};
pub use machine::Machine;
pub use manager::Manager;
pub use metrics::Metrics;
pub use served::Served;
