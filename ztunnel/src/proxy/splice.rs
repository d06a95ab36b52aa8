//! Bytes between two sockets, in clear.
//!
//! Written as polls: what a connection keeps while it is idle is what stands in
//! [`Splice`].

use std::io;
use std::net::Shutdown;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::net::TcpStream;

use crate::broken::Broken;
use crate::buffers::{Buffer, Size};

/// Moves bytes both ways until both ends have finished, each direction on its own.
/// `toward` hears of bytes from `from` to `to`, `back` of the others. On an error, also
/// that one end was reset, and when it is dropped, the caller resets both.
pub(super) fn splice<'a, Toward: Fn(u64) + Unpin, Back: Fn(u64) + Unpin>(
    from: &'a TcpStream,
    to: &'a TcpStream,
    toward: Toward,
    back: Back,
) -> Splice<'a, Toward, Back> {
    Splice { from: End::new(from), to: End::new(to), toward, back }
}

/// See [`splice()`].
#[must_use = "nothing is moved unless it is polled"]
pub(super) struct Splice<'a, Toward, Back> {
    from: End<'a>,
    to: End<'a>,
    toward: Toward,
    back: Back,
}

/// One socket, and what was read from it.
struct End<'a> {
    tcp: &'a TcpStream,
    broken: Broken<'a>,
    read: Read,
}

#[derive(Default)]
enum Read {
    /// Nothing is held while there is nothing to read.
    #[default]
    Nothing,
    /// These bytes wait for the other socket.
    Waiting { buffer: Buffer, start: usize, end: usize },
    /// All, and the other end knows.
    Everything,
}

impl<Toward: Fn(u64) + Unpin, Back: Fn(u64) + Unpin> Future for Splice<'_, Toward, Back> {
    type Output = io::Result<()>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { from, to, toward, back } = self.get_mut();
        let toward = from.poll_into(to.tcp, toward, cx)?;
        let back = to.poll_into(from.tcp, back, cx)?;
        if toward.is_ready() && back.is_ready() {
            return Poll::Ready(Ok(()));
        }
        for end in [from, to] {
            if let Poll::Ready(error) = end.poll_broken(cx) {
                return Poll::Ready(Err(error));
            }
        }
        Poll::Pending
    }
}

impl<'a> End<'a> {
    fn new(tcp: &'a TcpStream) -> Self {
        Self { tcp, broken: Broken::default(), read: Read::Nothing }
    }

    /// Moves what there is; ready when there was everything.
    fn poll_into(
        &mut self,
        to: &TcpStream,
        moved: &impl Fn(u64),
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            match &mut self.read {
                Read::Everything => return Poll::Ready(Ok(())),
                Read::Nothing => ready!(self.poll_read(to, cx))?,
                Read::Waiting { buffer, start, end } => {
                    ready!(poll_write(to, &buffer[..*end], start, cx))?;
                    moved(*end as u64);
                    self.read = Read::Nothing;
                }
            }
        }
    }

    fn poll_read(&mut self, to: &TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.tcp.poll_read_ready(cx))?;
            let mut buffer = Buffer::new(Size::Medium);
            self.read = match self.tcp.try_read(&mut buffer) {
                Ok(0) => {
                    shutdown(to)?;
                    Read::Everything
                }
                Ok(end) => Read::Waiting { buffer, start: 0, end },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Poll::Ready(Err(error)),
            };
            return Poll::Ready(Ok(()));
        }
    }

    /// Who waits for bytes hears of a reset by itself.
    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        match self.read {
            Read::Nothing => {
                self.broken.rest();
                Poll::Pending
            }
            Read::Waiting { .. } | Read::Everything => self.broken.poll(self.tcp, cx),
        }
    }
}

fn poll_write(
    to: &TcpStream,
    bytes: &[u8],
    start: &mut usize,
    cx: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    while *start < bytes.len() {
        ready!(to.poll_write_ready(cx))?;
        match to.try_write(&bytes[*start..]) {
            Ok(written) => *start += written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Poll::Ready(Err(error)),
        }
    }
    Poll::Ready(Ok(()))
}

/// Writes all of it.
pub(super) async fn write_all(to: &TcpStream, bytes: &[u8]) -> io::Result<()> {
    let mut start = 0;
    std::future::poll_fn(|cx| poll_write(to, bytes, &mut start, cx)).await
}

fn shutdown(to: &TcpStream) -> io::Result<()> {
    match SockRef::from(to).shutdown(Shutdown::Write) {
        Err(error) if error.kind() != io::ErrorKind::NotConnected => Err(error),
        _ => Ok(()),
    }
}
