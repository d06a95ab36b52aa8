//! How polite ends of HTTP/2 connections are told from others.

use std::error::Error;

/// Is one of the causes of `error` that the other end closes the connection in good
/// order? For those who talk HTTP/2 through a library and may not look into it.
pub(crate) fn graceful_goaway(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            return error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR);
        }
        next = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use h2::Reason;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("wrapped")]
    struct Wrapped(#[source] h2::Error);

    /// How a request ends that a server did not look at before it went away.
    async fn end(reason: Reason) -> Wrapped {
        let (client, server) = tokio::io::duplex(64 * 1024);
        let (requests, connection) = h2::client::handshake(client).await.unwrap();
        tokio::spawn(connection);
        let mut requests = requests.ready().await.unwrap();
        let request = http::Request::get("http://x/").body(()).unwrap();
        let (response, _body) = requests.send_request(request, false).unwrap();
        tokio::spawn(async move {
            let mut connection = h2::server::handshake(server).await.unwrap();
            connection.abrupt_shutdown(reason);
            while connection.accept().await.is_some() {}
        });
        Wrapped(response.await.unwrap_err())
    }

    #[tokio::test]
    async fn a_goaway_without_an_error_is_polite() {
        let polite = end(Reason::NO_ERROR).await;
        assert!(graceful_goaway(&polite), "{:?}", polite.0);
        let rude = end(Reason::INTERNAL_ERROR).await;
        assert!(!graceful_goaway(&rude), "{:?}", rude.0);
        assert!(!graceful_goaway(&std::io::Error::other("x")));
    }
}
