//! The rules that capture a pod's traffic, as data.
//!
//! ```text
//! Options ─► Ruleset ─┬─► replace() ─► JSON for `nft -j -f -`, one transaction
//!                     └─► Display   ─► the same in nft's own words, for people
//!
//! `nft -j list table inet sluice` ─► Listing ─┐
//!      the same from a scratch namespace ─────┴─► compare() ─► Vec<Drift>
//! ```
//!
//! The host has a table of its own, and a far simpler one: [`HostRules`] gives the probes of
//! the node a source by which the pods' rules know them.
//!
//! A rule is a value with its reason (`rules.rs` holds the whole table); renderers only
//! print. Nothing here does IO, reads a clock or knows a pod: ports and marks arrive as
//! plain numbers in [`Options`].
//!
//! All rules live in one `inet` table and are the same for IPv4 and IPv6, so that a pod
//! whose second address family is switched on later is captured from its first packet.

mod compare;
mod drift;
mod host;
mod json;
mod listing;
mod model;
mod options;
mod rules;
mod sets;
mod text;

pub use compare::compare;
pub use drift::{Deviation, Drift, Place};
pub use host::{Exemption, HOST_TABLE, HostDrift, HostListing, HostRules};
pub use json::{removal, replace};
pub use listing::{Listing, ListingError};
pub use model::{Action, AddrType, Chain, ChainName, Element, Match, Rule, Ruleset, Set, SetName};
pub use options::{Dns, Inbound, Mark, Options, PortRange, Ports, Probes, Uncaptured};

/// Name of our table in the pod's `inet` family. Nothing outside it is ours.
pub const TABLE: &str = "sluice";
