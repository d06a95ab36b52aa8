//! The calling side.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::{AppError, AppErrorKind, MAX_LINE};
use crate::place::Place;

/// An open connection to a server. Dropping closes it.
#[derive(Debug)]
pub struct Conversation {
    stream: BufReader<TcpStream>,
    who: String,
    local: SocketAddr,
    deadline: Duration,
}

/// What a server answered to one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Whom the server believes to talk to.
    pub peer: SocketAddr,
    /// The line's number in this connection, counted by the server from 1.
    pub number: u64,
    /// The line, echoed.
    pub line: String,
}

/// How the other side ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// In order, with a FIN.
    Closed,
    /// With a reset.
    Reset,
}

impl Conversation {
    pub(crate) async fn open(
        place: &Place,
        to: SocketAddr,
        deadline: Duration,
    ) -> Result<Self, AppError> {
        Self::over(place.name(), place.dial(to), to, deadline).await
    }

    /// Talks over the connection that `dial` brings.
    pub(crate) async fn over(
        name: &str,
        dial: impl Future<Output = io::Result<TcpStream>>,
        to: SocketAddr,
        deadline: Duration,
    ) -> Result<Self, AppError> {
        let step = || format!("{name}: connect to {to}");
        let stream = within(deadline, step, dial).await?;
        let local = stream.local_addr().map_err(|error| AppError::new(step(), &error))?;
        let who = format!("{name}: talk to {to}");
        Ok(Self { stream: BufReader::new(stream), who, local, deadline })
    }

    /// The calling side's own address.
    #[must_use]
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// The same conversation with another deadline for each of its steps.
    #[must_use]
    pub fn within(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Sends one line and waits for its answer.
    ///
    /// # Errors
    /// [`AppErrorKind::Closed`] or [`AppErrorKind::Reset`] when the other side ended the
    /// connection instead, [`AppErrorKind::Timeout`], and [`AppErrorKind::Other`] for an
    /// answer that is not the app's.
    pub async fn send_line(&mut self, line: &str) -> Result<Reply, AppError> {
        let mut answer = Vec::new();
        let stream = &mut self.stream;
        let exchange = async {
            stream.write_all(format!("{line}\n").as_bytes()).await?;
            (&mut *stream).take(MAX_LINE).read_until(b'\n', &mut answer).await
        };
        let length = within(self.deadline, || self.who.clone(), exchange).await?;
        if length == 0 {
            let detail = "the connection was closed instead of an answer".to_owned();
            return Err(AppError { kind: AppErrorKind::Closed, step: self.who.clone(), detail });
        }
        let answer = String::from_utf8_lossy(&answer);
        Reply::parse(&answer).ok_or_else(|| AppError {
            kind: AppErrorKind::Other,
            step: self.who.clone(),
            detail: format!("the answer is not the app's: {answer:?}"),
        })
    }

    /// Says that no more lines will come; answers can still be read.
    ///
    /// # Errors
    /// [`AppError`] when the connection is already broken.
    pub async fn half_close(&mut self) -> Result<(), AppError> {
        within(self.deadline, || self.who.clone(), self.stream.shutdown()).await
    }

    /// Gives up at once: the other side sees a reset.
    ///
    /// # Errors
    /// [`AppError`] when the connection is already broken.
    pub fn tear(self) -> Result<(), AppError> {
        let torn = self.stream.get_ref().set_zero_linger();
        torn.map_err(|error| AppError::new(self.who.clone(), &error))
    }

    /// Waits until the other side ends the connection; what it still sends is discarded.
    ///
    /// # Errors
    /// [`AppErrorKind::Timeout`] when it does not.
    pub async fn end(&mut self) -> Result<End, AppError> {
        let stream = &mut self.stream;
        let drained = async {
            let mut rest = [0; 4096];
            loop {
                match stream.read(&mut rest).await {
                    Ok(0) => return Ok(End::Closed),
                    Ok(_) => {}
                    Err(error) if AppErrorKind::of(&error) == AppErrorKind::Reset => {
                        return Ok(End::Reset);
                    }
                    Err(error) => return Err(error),
                }
            }
        };
        within(self.deadline, || self.who.clone(), drained).await
    }
}

impl Reply {
    fn parse(answer: &str) -> Option<Self> {
        let mut fields = answer.strip_suffix('\n')?.splitn(3, '|');
        let peer = fields.next()?.parse().ok()?;
        let number = fields.next()?.parse().ok()?;
        Some(Self { peer, number, line: fields.next()?.to_owned() })
    }
}

pub(super) async fn within<T>(
    deadline: Duration,
    step: impl Fn() -> String,
    work: impl Future<Output = io::Result<T>>,
) -> Result<T, AppError> {
    match tokio::time::timeout(deadline, work).await {
        Ok(done) => done.map_err(|error| AppError::new(step(), &error)),
        Err(_) => Err(AppError::timeout(step(), deadline)),
    }
}

#[cfg(test)]
mod tests {
    use super::Reply;

    #[test]
    fn only_the_apps_own_answers_are_replies() {
        let reply = Reply::parse("[fd00:20:1::2]:7|3|a|b\n").unwrap();
        assert_eq!((reply.peer.port(), reply.number, reply.line.as_str()), (7, 3, "a|b"));
        for broken in ["", "\n", "10.0.0.1:7|3|cut", "10.0.0.1|3|a\n", "10.0.0.1:7|x|a\n", "a\n"] {
            assert_eq!(Reply::parse(broken), None, "{broken:?}");
        }
    }
}
