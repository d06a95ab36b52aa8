//! What a scenario is, and what can come of it.

use std::fmt::Display;
use std::pin::Pin;
use std::time::Duration;

use tokio::time::Instant;

use crate::world::World;

/// Between two looks at what may need a moment: a cluster's API does not notice.
const PAUSE: Duration = Duration::from_millis(300);

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
pub(crate) fn expect<O: Display>(
    expected: &str,
    observed: O,
    holds: impl FnOnce(&O) -> bool,
) -> anyhow::Result<()> {
    if holds(&observed) {
        return Ok(());
    }
    Err(Differs { expected: expected.to_owned(), observed: observed.to_string() }.into())
}

/// Fails a scenario unless what is looked at again and again becomes what was expected, and
/// gives what was seen then. A look that fails is followed by another one while there is time;
/// one that says that the scenario cannot run here ends it.
pub(crate) async fn expect_within<O: Display>(
    expected: &str,
    patience: Duration,
    mut look: impl AsyncFnMut() -> anyhow::Result<O>,
    holds: impl Fn(&O) -> bool,
) -> anyhow::Result<O> {
    let deadline = Instant::now() + patience;
    loop {
        let looked = look().await;
        let over = Instant::now() >= deadline;
        match looked {
            Ok(seen) if holds(&seen) => return Ok(seen),
            Ok(seen) if over => {
                let expected = format!("{expected} within {patience:?}");
                return Err(Differs { expected, observed: seen.to_string() }.into());
            }
            Err(error) if error.is::<Skip>() => return Err(error),
            Err(error) if over => {
                return Err(error.context(format!("{expected} within {patience:?}")));
            }
            Ok(_) | Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_last_look_is_told() {
        let mut looks = 0;
        let look = async || {
            looks += 1;
            if looks == 1 { anyhow::bail!("not yet") } else { Ok(looks) }
        };
        let seen = expect_within("three", Duration::from_secs(9), look, |seen| *seen == 3).await;
        assert_eq!(seen.unwrap(), 3);

        let never = expect_within("six", Duration::from_secs(1), async || Ok(5), |seen| *seen == 6);
        let error = never.await.unwrap_err();
        assert_eq!(error.to_string(), "expected six within 1s\nobserved 5");
        let failing = async || -> anyhow::Result<u8> { anyhow::bail!("refused") };
        let error = expect_within("an answer", Duration::from_secs(1), failing, |_| true).await;
        assert_eq!(format!("{:#}", error.unwrap_err()), "an answer within 1s: refused");
    }

    #[tokio::test(start_paused = true)]
    async fn a_skip_is_not_looked_at_twice() {
        let mut looks = 0;
        let skipped = async || -> anyhow::Result<u8> {
            looks += 1;
            Err(Skip("no rights".to_owned()).into())
        };
        let error = expect_within("anything", Duration::from_secs(9), skipped, |_| true).await;
        assert!(error.unwrap_err().is::<Skip>());
        assert_eq!(looks, 1);
    }
}
