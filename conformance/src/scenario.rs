//! What a scenario is, and what can come of it.

use std::pin::Pin;

use crate::world::World;

/// The future of a running scenario.
pub(crate) type Running<'a> = Pin<Box<dyn Future<Output = anyhow::Result<()>> + 'a>>;

/// One behaviour, told as a story.
#[derive(Clone, Copy)]
pub(crate) struct Scenario {
    /// Stable name for reports and `--only`.
    pub id: &'static str,
    /// The behaviour in one line.
    pub meaning: &'static str,
    /// Numbers of the behaviours that it covers.
    pub behaviours: &'static [u8],
    /// Acts and observes; an error is a failure, unless it is a [`Skip`].
    pub run: for<'a> fn(&'a World) -> Running<'a>,
}

/// Makes a row of a scenario table from an `async fn(&World) -> anyhow::Result<()>`. Which
/// behaviours it covers stands in [`crate::scenarios::covers`].
macro_rules! scenario {
    ($id:literal, $meaning:literal, $run:path) => {
        $crate::scenario::Scenario {
            id: $id,
            meaning: $meaning,
            behaviours: $crate::scenarios::covers($id),
            run: |world| Box::pin($run(world)),
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
