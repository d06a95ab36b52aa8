//! The handshake over rustls' unbuffered interface.

use std::io;

use rustls::Error;
use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::stream::Stream;
use super::stream_buffers::{Clear, Incoming, Outgoing};
use super::stream_end::{PeerClosed, invalid};
use super::stream_session::{Session, Step, Want};

/// The first read; a strangers' connection does not hold more before it has sent more.
const FIRST: usize = 4 << 10;

/// All that one flight of a peer may be.
const MOST: usize = 128 << 10;

/// As the client.
pub(super) async fn connect<Io: AsyncRead + AsyncWrite + Unpin>(
    io: Io,
    session: Box<UnbufferedClientConnection>,
) -> io::Result<Stream<Io>> {
    Handshake::new(io, Session::Client(session)).perform().await
}

/// As the server.
pub(super) async fn accept<Io: AsyncRead + AsyncWrite + Unpin>(
    io: Io,
    session: Box<UnbufferedServerConnection>,
) -> io::Result<Stream<Io>> {
    Handshake::new(io, Session::Server(session)).perform().await
}

/// Cancelled, it takes the connection with it: there is no way to resume.
struct Handshake<Io> {
    io: Io,
    session: Session,
    incoming: Vec<u8>,
    outgoing: Outgoing,
    /// Data that came right behind the peer's last message.
    opened: Clear,
    peer_closed: Option<PeerClosed>,
}

impl<Io: AsyncRead + AsyncWrite + Unpin> Handshake<Io> {
    fn new(io: Io, session: Session) -> Self {
        let (incoming, outgoing, opened) = (Vec::new(), Outgoing::default(), Clear::default());
        Self { io, session, incoming, outgoing, opened, peer_closed: None }
    }

    async fn perform(mut self) -> io::Result<Stream<Io>> {
        loop {
            match self.advance() {
                Ok(Advance::Finished) => break,
                Ok(Advance::Blocked) => {
                    self.send().await?;
                    self.receive().await?;
                }
                Err(error) => {
                    self.tell_why().await;
                    return Err(invalid(error));
                }
            }
        }
        self.send().await?;
        let seen = self.incoming.len();
        let incoming = Incoming::new(self.incoming, seen);
        Ok(Stream::new(self.io, self.session, incoming, self.opened, self.peer_closed))
    }

    /// Works until something is needed from the peer, or nothing.
    fn advance(&mut self) -> Result<Advance, Error> {
        loop {
            match self.step()? {
                Step::Again | Step::Plaintext => {}
                Step::PeerClosed => self.peer_closed = Some(PeerClosed),
                Step::Blocked => return Ok(Advance::Blocked),
                Step::Done => return Ok(Advance::Finished),
            }
        }
    }

    fn step(&mut self) -> Result<Step, Error> {
        let opened = &mut self.opened;
        let mut plain = |bytes: &[u8]| opened.push(bytes);
        let (discard, step) =
            self.session.step(&mut self.incoming, Want::Nothing, &mut plain, &mut self.outgoing);
        self.incoming.drain(..discard);
        step
    }

    async fn send(&mut self) -> io::Result<()> {
        let outgoing = std::mem::take(&mut self.outgoing);
        self.io.write_all(outgoing.bytes()).await?;
        self.io.flush().await
    }

    async fn receive(&mut self) -> io::Result<()> {
        if self.incoming.len() >= MOST {
            let error = "the TLS peer's messages are too long";
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
        if self.incoming.len() == self.incoming.capacity() {
            self.incoming.reserve(self.incoming.len().max(FIRST));
        }
        match self.io.read_buf(&mut self.incoming).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// The alert, as far as the peer still listens.
    async fn tell_why(&mut self) {
        self.session.encode_alert(&mut self.incoming, &mut self.outgoing);
        let _ = self.send().await;
    }
}

enum Advance {
    Blocked,
    Finished,
}
