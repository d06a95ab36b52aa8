//! Finding out that a peer is gone.

use h2::{Ping, PingPong};
use tokio::time::{sleep, timeout};

use super::Settings;

/// Asks the peer again and again whether it is there; `after_each` runs after every
/// answer. Returns when the peer stayed silent, and never otherwise.
pub(super) async fn keep_alive(
    mut pings: PingPong,
    settings: &Settings,
    mut after_each: impl FnMut(),
) {
    loop {
        sleep(settings.ping_interval).await;
        match timeout(settings.ping_deadline, pings.ping(Ping::opaque())).await {
            Ok(Ok(_pong)) => after_each(),
            Ok(Err(_)) | Err(_) => return,
        }
    }
}
