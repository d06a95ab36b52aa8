//! The workload model: what the mesh is made of, who may speak to whom, and the messages
//! that carry it. Pure: no clock, socket, or environment.
//!
//! ```text
//! discovery messages ──try_from──► Workload, Policy ──► View ──► lookup by address, uid
//!                                                        └─────► authorize(connection)
//! ```

mod claims;
mod identity;
mod policy;
pub mod proto;
mod view;
mod workload;

pub use identity::{Identity, IdentityError};
pub use policy::{
    Action, Connection, Decision, Denial, Enforcement, FieldListing, MatchListing, Policy,
    PolicyError, PolicyKey, Scope, TextListing,
};
pub use view::{LocalWorkload, View};
pub use workload::{Network, Protocol, Uid, Workload, WorkloadError};
