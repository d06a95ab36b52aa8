//! What a scenario is, and what can come of it.

use std::pin::Pin;

use crate::world::World;

/// The future of a running scenario.
pub(crate) type Running<'a> = Pin<Box<dyn Future<Output = anyhow::Result<()>> + 'a>>;

/// One behaviour, told as a story that is played on a stage `S`: a lab, or a cluster.
#[derive(Clone, Copy)]
pub(crate) struct Scenario<S = World> {
    /// Stable name for reports and `--only`.
    pub id: &'static str,
    /// The behaviour in one line.
    pub meaning: &'static str,
    /// Numbers of the behaviours that it covers.
    pub behaviours: &'static [u8],
    /// Acts and observes; an error is a failure, unless it is a [`Skip`] or a
    /// [`NotImplemented`].
    pub run: for<'a> fn(&'a S) -> Running<'a>,
}

/// Makes a row of a scenario table from an `async fn(&S) -> anyhow::Result<()>`. Without the
/// numbers of behaviours, [`crate::scenarios::covers`] says which they are.
macro_rules! scenario {
    ($id:literal, $meaning:literal, $run:path) => {
        $crate::scenario::scenario!($id, $crate::scenarios::covers($id), $meaning, $run)
    };
    ($id:literal, $behaviours:expr, $meaning:literal, $run:path) => {
        $crate::scenario::Scenario {
            id: $id,
            meaning: $meaning,
            behaviours: $behaviours,
            run: |stage| Box::pin($run(stage)),
        }
    };
}
pub(crate) use scenario;

/// The error of a scenario that cannot run here; counted, and never a pass.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Skip(pub String);

/// The error of a scenario whose feature is not claimed yet; counted for itself, neither a
/// pass nor a skip.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NotImplemented(pub String);

/// What an oracle found different from what it must be.
#[derive(Debug, thiserror::Error)]
#[error("expected {expected}\nobserved {observed}")]
pub(crate) struct Differs {
    /// What must be seen.
    pub expected: String,
    /// What was seen.
    pub observed: String,
}

/// Fails a scenario unless what was observed is what was expected.
pub(crate) fn expect<O: std::fmt::Display>(
    expected: &str,
    observed: O,
    holds: impl FnOnce(&O) -> bool,
) -> anyhow::Result<()> {
    if holds(&observed) {
        return Ok(());
    }
    Err(Differs { expected: expected.to_owned(), observed: observed.to_string() }.into())
}
