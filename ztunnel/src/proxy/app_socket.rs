//! A socket that an application holds the other end of.

use std::io;
use std::ops::Deref;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Idle time before a probe, time between probes, and how many may stay unanswered.
const KEEPALIVE: (Duration, Duration, u32) =
    (Duration::from_secs(180), Duration::from_secs(180), 9);

/// Dropped before [`AppSocket::finished`], the connection is reset, so that the
/// application does not take a torn or refused connection for one that ended well.
#[derive(Debug)]
pub(super) struct AppSocket {
    tcp: TcpStream,
    finished: bool,
}

impl AppSocket {
    pub(super) fn new(tcp: TcpStream) -> Self {
        Self {
            tcp,
            finished: false,
        }
    }

    /// Waits for the other end to reset the connection. Who moves bytes may be waiting
    /// for somebody else and would not notice.
    pub(super) async fn broken(&self) -> io::Error {
        match self.tcp.ready(Interest::ERROR).await {
            Ok(_) => match self.tcp.take_error() {
                Ok(Some(error)) | Err(error) => error,
                // Somebody has reported it already, or will.
                Ok(None) => std::future::pending().await,
            },
            Err(error) => error,
        }
    }

    /// Both directions have ended well.
    pub(super) fn finished(mut self) {
        // Fails only for a connection that is gone already.
        self.finished = SockRef::from(&self.tcp).set_linger(None).is_ok();
    }
}

impl Deref for AppSocket {
    type Target = TcpStream;

    fn deref(&self) -> &TcpStream {
        &self.tcp
    }
}

impl Drop for AppSocket {
    fn drop(&mut self) {
        if !self.finished {
            // Fails only for a connection that is gone already.
            let _ = self.tcp.set_zero_linger();
        }
    }
}

/// What all our TCP connections have in common.
pub(super) fn tune(tcp: &TcpStream) -> io::Result<()> {
    let (time, interval, retries) = KEEPALIVE;
    let keepalive = TcpKeepalive::new()
        .with_time(time)
        .with_interval(interval)
        .with_retries(retries);
    tcp.set_nodelay(true)?;
    SockRef::from(tcp).set_tcp_keepalive(&keepalive)
}
