//! Noticing that the other end of a socket has reset the connection while nobody reads
//! from it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::Interest;
use tokio::net::TcpStream;

/// Who waits for bytes of a socket hears of a reset by itself. This is for one that waits
/// for something else, which few do at a time: until then it holds nothing.
#[derive(Default)]
pub(crate) struct Broken<'a>(Option<Pin<Box<dyn Future<Output = io::Error> + Send + 'a>>>);

impl<'a> Broken<'a> {
    /// Ready when `tcp` was reset, once.
    pub(crate) fn poll(&mut self, tcp: &'a TcpStream, cx: &mut Context<'_>) -> Poll<io::Error> {
        self.0.get_or_insert_with(|| Box::pin(broken(tcp))).as_mut().poll(cx)
    }

    /// Somebody waits for bytes again.
    pub(crate) fn rest(&mut self) {
        self.0 = None;
    }
}

async fn broken(tcp: &TcpStream) -> io::Error {
    match tcp.ready(Interest::ERROR).await {
        Ok(_) => match tcp.take_error() {
            Ok(Some(error)) | Err(error) => error,
            // Somebody has reported it already, or will.
            Ok(None) => std::future::pending().await,
        },
        Err(error) => error,
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_reset_is_noticed_after_the_last_byte_was_read() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let near = tokio::net::TcpSocket::new_v4().unwrap().connect(addr).await.unwrap();
        let mut far = listener.accept().await.unwrap().0;
        near.set_zero_linger().unwrap();
        let near = near.into_std().unwrap();
        near.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(far.read(&mut [0]).await.unwrap(), 0);
        let mut broken = Broken::default();
        let early = poll_fn(|cx| Poll::Ready(broken.poll(&far, cx).is_ready())).await;
        assert!(!early, "a FIN is no reset");
        drop(near);
        let noticed = timeout(Duration::from_secs(20), poll_fn(|cx| broken.poll(&far, cx))).await;
        // As Linux says of a connection whose other end had finished.
        assert_eq!(noticed.unwrap().kind(), io::ErrorKind::BrokenPipe);
    }
}
