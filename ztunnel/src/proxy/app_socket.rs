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

/// Closed before [`AppSocket::finished`], also because ztunnel was killed, the connection
/// is reset, so that the application does not take a torn or refused connection for one
/// that ended well.
#[derive(Debug)]
pub(super) struct AppSocket(TcpStream);

impl AppSocket {
    pub(super) fn new(tcp: TcpStream) -> Self {
        // Fails only for a connection that is gone already.
        let _ = tcp.set_zero_linger();
        Self(tcp)
    }

    /// Waits for the other end to reset the connection. Who moves bytes may be waiting
    /// for somebody else and would not notice.
    pub(super) async fn broken(&self) -> io::Error {
        match self.0.ready(Interest::ERROR).await {
            Ok(_) => match self.0.take_error() {
                Ok(Some(error)) | Err(error) => error,
                // Somebody has reported it already, or will.
                Ok(None) => std::future::pending().await,
            },
            Err(error) => error,
        }
    }

    /// Both directions have ended well.
    pub(super) fn finished(self) {
        // Fails only for a connection that is gone already.
        let _ = SockRef::from(&self.0).set_linger(None);
    }
}

impl Deref for AppSocket {
    type Target = TcpStream;

    fn deref(&self) -> &TcpStream {
        &self.0
    }
}

/// What all our TCP connections have in common.
pub(super) fn tune(tcp: &TcpStream) -> io::Result<()> {
    let (time, interval, retries) = KEEPALIVE;
    let keepalive =
        TcpKeepalive::new().with_time(time).with_interval(interval).with_retries(retries);
    tcp.set_nodelay(true)?;
    SockRef::from(tcp).set_tcp_keepalive(&keepalive)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (TcpStream, AppSocket) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await;
        let far = listener.accept().await.unwrap().0;
        (near.unwrap(), AppSocket::new(far))
    }

    #[tokio::test]
    async fn what_the_kernel_closes_for_a_killed_process_is_reset() {
        let (_near, far) = pair().await;
        let linger = SockRef::from(&*far).linger().unwrap();
        assert_eq!(linger, Some(Duration::ZERO), "no destructor runs then");
    }

    #[tokio::test]
    async fn only_a_finished_connection_ends_well() {
        let (mut near, far) = pair().await;
        drop(far);
        let error = near.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        let (mut near, far) = pair().await;
        far.finished();
        assert_eq!(near.read(&mut [0]).await.unwrap(), 0);
    }
}
