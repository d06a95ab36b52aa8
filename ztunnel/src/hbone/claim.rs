//! A place on a connection, and the stream that is asked for there.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use h2::Reason;
use http::{HeaderMap, Method, Request, StatusCode, Uri, Version};
use tokio::time::timeout;

use super::line::Silent;
use super::stream::TunnelStream;
use super::tunnel::Tunnel;
use super::{Connect, OpenError};

/// One place among the streams of a connection.
#[derive(Debug)]
pub(super) struct Claim {
    tunnel: Arc<Tunnel>,
}

impl Claim {
    pub(super) fn new(tunnel: &Arc<Tunnel>) -> Self {
        Self { tunnel: Arc::clone(tunnel) }
    }

    /// Asks for a stream, and waits for the answer until the deadline.
    pub(super) async fn open<E>(
        self,
        connect: &Connect,
        deadline: Duration,
        patience: Patience,
    ) -> Result<(TunnelStream, HeaderMap), (OpenError<E>, Retry)> {
        let request = build(connect).map_err(|e| (OpenError::Malformed(Arc::new(e)), Retry::No))?;
        timeout(deadline, self.exchange(request, patience))
            .await
            .unwrap_or(Err((OpenError::Deadline, Retry::No)))
    }

    async fn exchange<E>(
        self,
        request: Request<()>,
        patience: Patience,
    ) -> Result<(TunnelStream, HeaderMap), (OpenError<E>, Retry)> {
        let failed = |retry| move |error| (OpenError::Request(Arc::new(error)), retry);
        let ready = self.tunnel.send.clone().ready().await;
        let mut send = ready.inspect_err(|_| self.tunnel.retire()).map_err(failed(Retry::Yes))?;
        let (answer, stream) = send.send_request(request, false).map_err(failed(Retry::Yes))?;
        let Ok(answer) = self.answered(answer, patience).await else {
            self.tunnel.retire();
            return Err((OpenError::Deadline, Retry::Yes));
        };
        let answer = answer.map_err(|error| {
            let lost = error.is_io() || error.is_go_away();
            let retry = lost || error.reason() == Some(Reason::REFUSED_STREAM) && error.is_remote();
            if retry {
                self.tunnel.retire();
            }
            failed(if retry { Retry::Yes } else { Retry::No })(error)
        })?;
        let (head, body) = answer.into_parts();
        if head.status != StatusCode::OK {
            return Err((OpenError::Refused(head.status), Retry::No));
        }
        Ok((TunnelStream::new(stream, body, Some(self)), head.headers))
    }

    async fn answered<T>(
        &self,
        answer: impl Future<Output = T>,
        patience: Patience,
    ) -> Result<T, Silent> {
        match patience {
            Patience::Long => Ok(answer.await),
            Patience::Short => {
                self.tunnel.line.unless_silent(self.tunnel.doubt_after, answer).await
            }
        }
    }
}

/// How a peer's silence is taken while its answer is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// It may have vanished. A mistake costs another connection, no more: open streams stay
    /// where they are, and whether they are lost is for the keep-alive to find out.
    Short,
    /// It is believed to be there until the deadline.
    Long,
}

/// May the same request be sent again, over another connection?
///
/// Where the peer did not look at it, of course. But also where nothing is known of its
/// fate, because the connection broke or fell silent: before the answer not a byte of the
/// application's is sent, so if the first request did reach the server, all it sees is a
/// connection on which nothing comes, as from a client that went away; any client of TCP
/// that tries again does the same. Not after an answer, nor when a peer that is alive does
/// not answer in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retry {
    Yes,
    No,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.tunnel.give_back();
    }
}

fn build(connect: &Connect) -> Result<Request<()>, http::Error> {
    let uri = Uri::builder().authority(connect.authority.as_str()).build()?;
    let mut request =
        Request::builder().method(Method::CONNECT).version(Version::HTTP_2).uri(uri).body(())?;
    *request.headers_mut() = connect.headers.clone();
    Ok(request)
}
