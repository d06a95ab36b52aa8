//! What a scenario of a cluster is.

use std::pin::Pin;

use super::ground::Ground;

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
    /// Acts and observes; an error is a failure, unless it is a [`crate::scenario::Skip`] or
    /// a [`crate::scenario::NotImplemented`].
    pub run: for<'a> fn(&'a Ground) -> Running<'a>,
}

/// Makes a row of a scenario table from an `async fn(&Ground) -> anyhow::Result<()>`.
macro_rules! scenario {
    ($id:literal, $behaviours:expr, $meaning:literal, $run:path) => {
        $crate::cluster::scenario::Scenario {
            id: $id,
            meaning: $meaning,
            behaviours: $behaviours,
            run: |ground| Box::pin($run(ground)),
        }
    };
}
pub(crate) use scenario;
