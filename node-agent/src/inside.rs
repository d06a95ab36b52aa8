//! Brings results of fence jobs into the runtime.

use netns::{Fence, FenceError, PodNetns};
use tokio::sync::oneshot;

/// Runs `job` in `netns` and waits without blocking a runtime thread. The job must be
/// short: fence workers are few.
///
/// # Errors
/// Any [`FenceError`].
pub async fn inside<T, F>(fence: &Fence, netns: &PodNetns, job: F) -> Result<T, FenceError>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    let (sender, receiver) = oneshot::channel();
    fence.submit(netns, job, move |result| {
        // Whoever asked may have given up; then nobody needs the result.
        let _ = sender.send(result);
    })?;
    receiver.await.map_err(|_| FenceError::Closed)?
}
