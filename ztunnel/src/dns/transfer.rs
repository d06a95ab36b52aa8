//! Zone transfers (RFC 5936): one question on a connection, and any number of messages as
//! its answer. The connection is passed on as a whole.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::time::timeout;

use super::frame::write_frame;
use super::wire::Message;

/// Types of questions that ask for a zone: what changed in it, or all of it.
const IXFR: u16 = 251;
const AXFR: u16 = 252;

/// How long the server may be silent within a transfer.
const SILENCE: Duration = Duration::from_secs(30);

/// Moved at once.
const CHUNK: usize = 16 * 1024;

/// Is it the beginning of a zone transfer?
pub(super) fn is_transfer(query: &[u8]) -> bool {
    let question = Message::read(query).filter(|it| !it.is_response()).and_then(Message::question);
    question.is_some_and(|question| matches!(question.kind, IXFR | AXFR))
}

/// Asks `server`, and gives the client all that it says until either of them ends it.
///
/// # Errors
/// As reading and writing; [`io::ErrorKind::TimedOut`] when the server is silent for too
/// long, or one of them does not take what is written.
pub(super) async fn relay(
    query: &[u8],
    server: impl AsyncRead + AsyncWrite + Unpin,
    read: &mut (impl AsyncRead + Unpin),
    write: &mut (impl AsyncWrite + Unpin),
) -> io::Result<()> {
    relay_with(SILENCE, query, server, read, write).await
}

async fn relay_with(
    patience: Duration,
    query: &[u8],
    mut server: impl AsyncRead + AsyncWrite + Unpin,
    read: &mut (impl AsyncRead + Unpin),
    write: &mut (impl AsyncWrite + Unpin),
) -> io::Result<()> {
    timeout(patience, write_frame(&mut server, query)).await??;
    let (mut from_server, mut to_server) = split(server);
    let down = copy(&mut from_server, write, patience);
    let up = async {
        // Whoever asks for more on the same connection may; a client that has said all
        // waits for the rest, and is silent for as long as that takes.
        copy(read, &mut to_server, Duration::MAX).await?;
        std::future::pending().await
    };
    tokio::select! {
        result = down => result,
        result = up => result,
    }
}

async fn copy(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    silence: Duration,
) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let length = timeout(silence, from.read(&mut chunk)).await??;
        if length == 0 {
            return Ok(());
        }
        timeout(SILENCE, to.write_all(&chunk[..length])).await??;
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;
    use tokio::time::sleep;

    use super::*;

    #[tokio::test]
    async fn a_client_may_be_silent_while_a_large_zone_comes() {
        let patience = Duration::from_secs(3);
        let (near, far) = duplex(CHUNK);
        let (mut application, client) = duplex(CHUNK);
        let relaying = tokio::spawn(async move {
            let (mut read, mut write) = split(client);
            relay_with(patience, b"query", near, &mut read, &mut write).await
        });
        let (mut query, mut server) = ([0; 7], far);
        server.read_exact(&mut query).await.unwrap();
        for part in 0..5 {
            // The transfer takes its time, and that is what is tested.
            sleep(patience / 3).await;
            server.write_u8(part).await.unwrap();
            assert_eq!(application.read_u8().await.unwrap(), part);
        }
        drop(server);
        assert!(relaying.await.unwrap().is_ok());
    }

    #[tokio::test]
    async fn a_server_that_is_silent_is_given_up() {
        let (near, _server) = duplex(CHUNK);
        let (_application, client) = duplex(CHUNK);
        let (mut read, mut write) = split(client);
        let patience = Duration::from_millis(50);
        let ended = relay_with(patience, b"query", near, &mut read, &mut write).await;
        let error = ended.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
