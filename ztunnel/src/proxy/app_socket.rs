//! A socket that an application holds the other end of.

use std::io;
use std::mem::MaybeUninit;
use std::ops::Deref;

use socket2::SockRef;
use tokio::net::TcpStream;

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

    /// Has the other end gone for sure? A FIN does not say so, not even where nothing was
    /// sent before it: it comes from one that has closed as from one that only listens.
    pub(super) fn abandoned(&self) -> bool {
        match SockRef::from(&self.0).peek(&mut [MaybeUninit::uninit()]) {
            // After a FIN, a reset is found there only.
            Ok(0) => !matches!(self.0.take_error(), Ok(None)),
            Ok(_) => false,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
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
    #[tokio::test]
    async fn only_a_reset_says_that_nobody_listens() {
        let (mut near, far) = pair().await;
        assert!(!far.abandoned());
        near.write_all(b"?").await.unwrap();
        near.shutdown().await.unwrap();
        far.readable().await.unwrap();
        assert!(!far.abandoned(), "the question is still there");
        let (near, far) = pair().await;
        near.set_zero_linger().unwrap();
        drop(near);
        far.readable().await.unwrap();
        assert!(far.abandoned());
        let (mut near, far) = pair().await;
        near.shutdown().await.unwrap();
        far.readable().await.unwrap();
        assert!(!far.abandoned(), "it may want to hear");
        near.set_zero_linger().unwrap();
        drop(near);
        far.ready(Interest::ERROR).await.unwrap();
        assert!(far.abandoned());
    }
}
