//! Waiting for what can be observed, instead of sleeping and hoping.

use std::future::Future;
use std::time::{Duration, Instant};

/// Pause between two looks: short beside anything a person or a test notices.
const PAUSE: Duration = Duration::from_millis(20);

/// What was waited for did not show up in time.
#[derive(Debug, thiserror::Error)]
#[error("{what} was not observed within {patience:?}")]
pub struct TimedOut {
    /// What was waited for.
    pub what: String,
    /// How long.
    pub patience: Duration,
}

/// Looks again and again until `probe` returns something.
///
/// # Errors
/// [`TimedOut`] naming `what`.
pub async fn eventually<T, F, Fut>(what: &str, patience: Duration, probe: F) -> Result<T, TimedOut>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    eventually_every(PAUSE, what, patience, probe).await
}

/// The same with other pauses, for what must not be asked so often.
///
/// # Errors
/// [`TimedOut`] naming `what`.
pub async fn eventually_every<T, F, Fut>(
    pause: Duration,
    what: &str,
    patience: Duration,
    mut probe: F,
) -> Result<T, TimedOut>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let until = Instant::now() + patience;
    let timed_out = || TimedOut { what: what.to_owned(), patience };
    loop {
        let left = until.saturating_duration_since(Instant::now());
        match tokio::time::timeout(left, probe()).await {
            Ok(Some(found)) => return Ok(found),
            Ok(None) if left > pause => tokio::time::sleep(pause).await,
            Ok(None) | Err(_) => return Err(timed_out()),
        }
    }
}
