//! Waiting for what the API server tells: with pauses that it does not notice.

use std::time::Duration;

use lab::eventually_every;

const PAUSE: Duration = Duration::from_millis(300);

/// Looks again and again until `probe` returns something.
///
/// # Errors
/// That `what` was not observed.
pub(super) async fn eventually<T, Fut: Future<Output = Option<T>>>(
    what: &str,
    patience: Duration,
    probe: impl FnMut() -> Fut,
) -> anyhow::Result<T> {
    Ok(eventually_every(PAUSE, what, patience, probe).await?)
}
