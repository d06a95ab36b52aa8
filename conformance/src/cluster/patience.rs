//! Waiting for what the API server tells: with pauses that it does not notice.

use std::time::Duration;

use tokio::time::Instant;

const PAUSE: Duration = Duration::from_millis(300);

/// Looks again and again until `probe` returns something.
///
/// # Errors
/// That `what` was not observed.
pub(super) async fn eventually<T, Fut: Future<Output = Option<T>>>(
    what: &str,
    patience: Duration,
    mut probe: impl FnMut() -> Fut,
) -> anyhow::Result<T> {
    let until = Instant::now() + patience;
    loop {
        if let Some(found) = probe().await {
            return Ok(found);
        }
        if Instant::now() >= until {
            anyhow::bail!("{what} was not observed within {patience:?}");
        }
        tokio::time::sleep(PAUSE).await;
    }
}
