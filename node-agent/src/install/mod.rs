//! Puts our plugin into the container runtime's network configuration and keeps it there, and
//! its program beside it; takes both away again when somebody asks for it.
//!
//! ```text
//! inotify, every 2 s ─► folder: read ─► plan (PURE) ─► folder: write beside, fsync, rename
//!                                         │
//!                                         └► reports: log, Event on the node, /readyz
//! ```
//!
//! By default in a list of our own that sorts first: whoever writes the other files, at any
//! moment the file that a runtime takes has our plugin in it. It stays when the agent ends:
//! pods that start then wait, they do not escape.
//!
//! `binary` puts the plugin's program in place, before anything names it; `undo` and `cached`
//! are for the end of it all.

pub mod binary;
pub mod cached;
mod entry;
mod fights;
mod folder;
mod installer;
mod keeper;
mod list;
mod metrics;
mod places;
mod plan;
mod record;
mod report;
mod resolve;
mod standing;
mod telling;
mod toml;
mod undo;
mod watch;

pub use entry::{Entry, PLUGIN, WhenAgentAbsent};
pub use folder::{Applied, Folder, FolderError};
pub use installer::{Installer, News};
pub use list::{List, Shape};
pub use metrics::Metrics;
pub use places::{Found as FoundPlaces, Wishes as PlaceWishes, find, leads_to};
pub use plan::{Change, Found, Mode, Past, Plan, Settings, View, plan};
pub use record::Record;
pub use report::Report;
pub use standing::{Standing, Stands};
pub use undo::{Undo, undo};

#[cfg(test)]
mod tests;
