//! A container runtime's side of CNI: executes a conflist as the specification says.
//!
//! ```text
//! ADD    plugin 1 ─result─► plugin 2 ─result─► … ─result─► cached
//!           └──── a failure: DEL of all, last first ◄──┘
//! DEL    … plugin 2, plugin 1, each with the cached result as prevResult; cache removed
//! CHECK  plugin 1, plugin 2, … with the cached result as prevResult
//! STATUS plugin 1, plugin 2, …; the first failure is the answer
//! GC     DEL for what is cached and not valid; then plugin 1, plugin 2, … with all that is valid
//! ```
//!
//! `conflist` and `request` are pure: what a file means, and what a plugin is told.
//! `exec` runs one plugin, `cache` keeps results, `runtime` is the order of it all.

mod cache;
mod conflist;
mod exec;
mod request;
mod runtime;

pub use cache::CacheError;
pub use conflist::{Conflist, ConflistError, Plugin};
pub use exec::PluginError;
pub use request::{Attachment, Verb};
pub use runtime::{CniError, Runtime, Undone};

/// What a plugin means by code 11: nothing is wrong with the request, ask again later.
pub const CODE_TRY_AGAIN: u32 = 11;
