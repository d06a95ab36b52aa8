//! The calling side.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use lab::{AppError, AppErrorKind, End};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// A load that nobody ends ends by itself.
const LONGEST: Duration = Duration::from_secs(180);
/// Pause between two lines of a kept connection.
const BETWEEN: Duration = Duration::from_millis(50);
/// Connections that a load opens at most.
const MOST: u32 = 50_000;

/// What to ask, how often, and how long to wait.
#[derive(Debug, Args)]
pub(crate) struct Ask {
    /// Whom.
    #[arg(long)]
    to: SocketAddr,
    /// What to say.
    #[arg(long, default_value = "hello")]
    line: String,
    /// Make the line this long.
    #[arg(long, default_value_t = 0)]
    bytes: usize,
    /// How many connections, one after the other.
    #[arg(long, default_value_t = 1)]
    times: u32,
    /// How to talk.
    #[arg(long, value_enum, default_value_t = Way::Lines)]
    way: Way,
    /// Go on until the input is closed instead, four at a time.
    #[arg(long)]
    until_closed: bool,
    /// Milliseconds between two connections of each of these.
    #[arg(long, default_value_t = 0, requires = "until_closed")]
    pause: u64,
    /// How long each step may take, in seconds.
    #[arg(long, default_value_t = 10)]
    deadline: u64,
    /// Fail when any connection failed.
    #[arg(long)]
    strict: bool,
}

/// How a connection goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Way {
    /// A line and its answer.
    Lines,
    /// As `lines`, then a half-close, and the end must come in order.
    HalfClose,
    /// With `--until-closed`, line after line in one connection.
    Kept,
    /// The server speaks first.
    Greeted,
    /// One datagram.
    Datagram,
    /// An HTTP request.
    Http,
}

/// What came of all connections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answers {
    /// Connections that were answered as they must.
    pub answered: u32,
    /// Addresses that the server saw, of the answered.
    pub peers: Vec<IpAddr>,
    /// Connections that were not, by how: `refused`, `reset`, `closed`, `timeout`,
    /// `unreachable`, `other`.
    pub failures: BTreeMap<String, u32>,
    /// The first failure in words.
    pub first_failure: Option<String>,
}

impl Answers {
    /// How many were not answered.
    pub(crate) fn failed(&self) -> u32 {
        self.failures.values().sum()
    }

    fn count(&mut self, outcome: Result<Option<IpAddr>, AppError>) {
        match outcome {
            Ok(peer) => {
                self.answered += 1;
                self.peers.extend(peer.filter(|peer| !self.peers.contains(peer)));
            }
            Err(error) => {
                *self.failures.entry(kind(error.kind).to_owned()).or_default() += 1;
                self.first_failure.get_or_insert_with(|| error.to_string());
            }
        }
    }

    fn add(&mut self, other: Self) {
        self.answered += other.answered;
        for peer in other.peers {
            if !self.peers.contains(&peer) {
                self.peers.push(peer);
            }
        }
        for (kind, count) in other.failures {
            *self.failures.entry(kind).or_default() += count;
        }
        self.first_failure = self.first_failure.take().or(other.first_failure);
    }
}

impl std::fmt::Display for Answers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} answered", self.answered)?;
        if !self.peers.is_empty() {
            let peers: Vec<_> = self.peers.iter().map(IpAddr::to_string).collect();
            write!(f, ", the server saw {}", peers.join(" and "))?;
        }
        for (kind, count) in &self.failures {
            write!(f, ", {count} {kind}")?;
        }
        self.first_failure.as_ref().map_or(Ok(()), |first| write!(f, " ({first})"))
    }
}

impl Ask {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let answers = if self.until_closed && self.way == Way::Kept {
            self.keep().await
        } else if self.until_closed {
            self.load().await?
        } else {
            let mut answers = Answers::default();
            for _ in 0..self.times {
                answers.count(self.once().await);
            }
            answers
        };
        super::tell(&answers)?;
        if self.strict && answers.failed() > 0 {
            anyhow::bail!("{answers}");
        }
        Ok(())
    }

    /// Four callers that open one connection after the other. The first line says that a
    /// connection was made, so that who reads it knows that the load goes on.
    async fn load(&self) -> anyhow::Result<Answers> {
        let mut all = Answers::default();
        all.count(self.once().await);
        super::tell(&all)?;
        let (over, _) = tokio::sync::watch::channel(false);
        let callers = futures_util::future::join_all((0..4).map(|_| {
            let over = over.subscribe();
            async move {
                let (mut answers, end) = (Answers::default(), Instant::now() + LONGEST);
                let more = |answers: &Answers| answers.answered + answers.failed() < MOST / 4;
                while !*over.borrow() && Instant::now() < end && more(&answers) {
                    answers.count(self.once().await);
                    tokio::time::sleep(Duration::from_millis(self.pause)).await;
                }
                answers
            }
        }));
        let end = async {
            super::input_closed().await;
            let _ = over.send(true);
        };
        let (answers, ()) = tokio::join!(callers, end);
        answers.into_iter().for_each(|answers| all.add(answers));
        Ok(all)
    }

    /// One connection that is used all the time; with its end all is over.
    async fn keep(&self) -> Answers {
        let mut all = Answers::default();
        let closed = super::input_closed();
        tokio::pin!(closed);
        let broken = tokio::select! {
            () = &mut closed => None,
            error = self.line_after_line(&mut all) => Some(error),
        };
        if let Some(error) = broken {
            all.count(Err(error));
            if all.answered == 0 {
                let _ = super::tell(&all);
            }
            // The last line is what came of it all, and comes when that is asked for.
            closed.await;
        }
        all
    }

    async fn line_after_line(&self, all: &mut Answers) -> AppError {
        let deadline = Duration::from_secs(self.deadline);
        let mut talk = match lab::here::connect(self.to, deadline).await {
            Ok(talk) => talk,
            Err(error) => return error,
        };
        loop {
            match talk.send_line(&self.line).await {
                Ok(reply) => all.count(Ok(Some(reply.peer.ip().to_canonical()))),
                Err(error) => return error,
            }
            if all.answered == 1 {
                // Whoever does not read it does not wait for it either.
                let _ = super::tell(all);
            }
            tokio::time::sleep(BETWEEN).await;
        }
    }

    async fn once(&self) -> Result<Option<IpAddr>, AppError> {
        let deadline = Duration::from_secs(self.deadline);
        match self.way {
            Way::Lines | Way::Kept | Way::HalfClose => self.lines(deadline).await.map(Some),
            Way::Greeted => within(deadline, self.to, greeted(self.to, &self.said())).await,
            Way::Http => within(deadline, self.to, http(self.to)).await,
            Way::Datagram => {
                let said = self.said();
                let answer = lab::here::ask(self.to, said.as_bytes(), deadline).await?;
                let same = answer == said.as_bytes();
                if same { Ok(None) } else { Err(other(self.to, "another answer than was sent")) }
            }
        }
    }

    async fn lines(&self, deadline: Duration) -> Result<IpAddr, AppError> {
        let mut talk = lab::here::connect(self.to, deadline).await?;
        let said = self.said();
        let reply = talk.send_line(&said).await?;
        if reply.line != said {
            return Err(other(self.to, "the answer is not what was said"));
        }
        if self.way == Way::HalfClose {
            talk.half_close().await?;
            match talk.end().await? {
                End::Closed => {}
                End::Reset => return Err(other(self.to, "a reset after the half-close")),
            }
        }
        Ok(reply.peer.ip().to_canonical())
    }

    fn said(&self) -> String {
        let missing = self.bytes.saturating_sub(self.line.len());
        format!("{}{}", self.line, "x".repeat(missing))
    }
}

/// Reads the greeting, says a line and reads it again.
async fn greeted(to: SocketAddr, said: &str) -> std::io::Result<Option<IpAddr>> {
    let mut stream = BufReader::new(TcpStream::connect(to).await?);
    let mut greeting = String::new();
    stream.read_line(&mut greeting).await?;
    let peer: SocketAddr = greeting
        .trim_end()
        .parse()
        .map_err(|_| std::io::Error::other(format!("the greeting is {greeting:?}")))?;
    stream.write_all(said.as_bytes()).await?;
    let mut back = vec![0; said.len()];
    stream.read_exact(&mut back).await?;
    Ok(Some(peer.ip()))
}

async fn http(to: SocketAddr) -> std::io::Result<Option<IpAddr>> {
    let mut stream = TcpStream::connect(to).await?;
    let request = format!("GET / HTTP/1.1\r\nhost: {to}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(1 << 16).read_to_end(&mut answer).await?;
    let first = String::from_utf8_lossy(&answer);
    match first.split_whitespace().nth(1) {
        Some("200") => Ok(None),
        Some(status) => Err(std::io::Error::other(format!("status {status}"))),
        None => Err(std::io::ErrorKind::UnexpectedEof.into()),
    }
}

async fn within<T>(
    deadline: Duration,
    to: SocketAddr,
    work: impl Future<Output = std::io::Result<T>>,
) -> Result<T, AppError> {
    let step = format!("talk to {to}");
    match tokio::time::timeout(deadline, work).await {
        Ok(done) => done.map_err(|error| AppError::new(step, &error)),
        Err(_) => Err(AppError::timeout(step, deadline)),
    }
}

fn other(to: SocketAddr, detail: &str) -> AppError {
    let (step, detail) = (format!("talk to {to}"), detail.to_owned());
    AppError { kind: AppErrorKind::Other, step, detail }
}

fn kind(kind: AppErrorKind) -> &'static str {
    match kind {
        AppErrorKind::Refused => "refused",
        AppErrorKind::Reset => "reset",
        AppErrorKind::Closed => "closed",
        AppErrorKind::Timeout => "timeout",
        AppErrorKind::Unreachable => "unreachable",
        AppErrorKind::Other => "other",
    }
}

#[cfg(test)]
mod tests;
