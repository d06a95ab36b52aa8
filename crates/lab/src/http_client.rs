//! One HTTP request over one connection: all that the lab's clients need.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// The largest answer that is read: lists of all objects of a lab stay far below.
const MAX_BODY: usize = 32 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Nobody accepts connections there.
    #[error("connect to {to}: {source}")]
    Connect {
        /// The server.
        to: SocketAddr,
        /// The system's answer.
        source: io::Error,
    },
    /// The exchange broke off.
    #[error("http exchange with {to}: {source}")]
    Exchange {
        /// The server.
        to: SocketAddr,
        /// What broke.
        source: hyper::Error,
    },
    /// The body broke off or is larger than this client reads.
    #[error("http answer of {to}: {reason}")]
    Body {
        /// The server.
        to: SocketAddr,
        /// What is wrong with it.
        reason: String,
    },
    /// The server did not answer in time.
    #[error("no http answer from {to} within {deadline:?}")]
    Deadline {
        /// The server.
        to: SocketAddr,
        /// How long it had.
        deadline: Duration,
    },
}

/// A request without a body. A path that is no path is asked for as it is and refused
/// by the server.
pub(crate) fn get(path: &str) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::default());
    *request.uri_mut() = path.parse().unwrap_or_default();
    request
}

/// Sends `request` and reads the whole answer. The caller sets the deadline.
pub(crate) async fn send(
    stream: TcpStream,
    to: SocketAddr,
    mut request: Request<Full<Bytes>>,
) -> Result<(u16, Bytes), HttpError> {
    if let Ok(host) = to.to_string().parse() {
        request.headers_mut().insert(http::header::HOST, host);
    }
    let broken = |source| HttpError::Exchange { to, source };
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(broken)?;
        let status = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), MAX_BODY).collect().await;
        let body = body.map_err(|error| HttpError::Body { to, reason: error.to_string() })?;
        Ok((status, body.to_bytes()))
    };
    // The connection must be driven while the answer comes, and may end before it is
    // taken off the channel; it is dropped, and with it closed, when the answer is there.
    let driven = async {
        let _ = connection.await;
        std::future::pending().await
    };
    tokio::select! {
        answer = exchange => answer,
        never = driven => never,
    }
}
