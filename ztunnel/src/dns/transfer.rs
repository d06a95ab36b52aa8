//! Zone transfers (RFC 5936): one question on a connection, and any number of messages as
//! its answer. The connection is passed on as a whole.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
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
/// As reading and writing; [`io::ErrorKind::TimedOut`] when one of them is silent for too
/// long, or does not take what is written.
pub(super) async fn relay(
    query: &[u8],
    mut server: TcpStream,
    read: &mut (impl AsyncRead + Unpin),
    write: &mut (impl AsyncWrite + Unpin),
) -> io::Result<()> {
    timeout(SILENCE, write_frame(&mut server, query)).await??;
    let (mut from_server, mut to_server) = server.split();
    let down = copy(&mut from_server, write);
    let up = async {
        // Whoever asks for more on the same connection may; a client that has said all
        // waits for the rest.
        copy(read, &mut to_server).await?;
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
) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let length = timeout(SILENCE, from.read(&mut chunk)).await??;
        if length == 0 {
            return Ok(());
        }
        timeout(SILENCE, to.write_all(&chunk[..length])).await??;
    }
}
