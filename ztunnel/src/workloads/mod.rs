//! The pods of this node: a session with the node agent says which, one proxy each
//! serves them.
//!
//! ```text
//! node agent ──packets──► link ──event──► session (pure) ──actions──► manager ──► PodProxy
//!      ▲                                      ▲                          │
//!      └───────────────── ack ────────────────┼──────────────────────────┤
//!                                             └── started, or why not ◄──┘
//! ```

mod agent;
mod answer;
mod event;
mod handle;
mod manager;
mod metrics;
mod progress;
mod session;

pub use event::PodState;
pub use handle::{Handle, Handover, Pods, Settings};
pub use manager::Manager;
pub use metrics::Metrics;
