//! Facts → table → plan → actions. Nothing is decided from an event itself: an event only
//! changes the table, and the plan is made from the table.
//!
//! ```text
//! watch ── Fact ──► table ──► plan (pure) ──► effects ──► table
//! plugin ─ attach ──┘            ▲               │
//!                                └── one task per pod, in its own time ──┘
//! ```

mod act;
mod aging;
mod attach;
mod check;
mod collect;
mod effects;
mod escaped;
mod evictions;
mod flaps;
mod inspect;
mod leave;
mod memory;
mod metrics;
mod older;
mod plan;
mod pod;
mod repair;
mod report;
mod run;
mod slot;
mod table;
mod tend;

pub use aging::{Aging, Opened, PutOff};
pub use attach::{Attach, AttachError, Attached};
pub use check::{CheckError, Checked};
pub use collect::{CollectError, Ready};
pub use effects::{EffectError, Effects};
pub use escaped::OnEscaped;
pub use memory::{Memory, Remembered};
pub use metrics::Metrics;
pub use plan::{Action, plan};
pub use pod::{Attachment, Outcome, Pod, State, captured_annotations};
pub use run::{Pace, Reconciler};
pub use table::{Fact, Table};

#[cfg(test)]
mod model;
#[cfg(test)]
mod options_tests;
#[cfg(test)]
mod probes_tests;
#[cfg(test)]
mod random_tests;
#[cfg(test)]
mod tests;
