//! Anything that has a network namespace of its own: the hub, a node, a pod.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use netns::{Dial, Fence, FenceError, Listen, PodNetns};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::oneshot;

use crate::app::{self, Answer, AppError, Conversation, Echo, Server};
use crate::health::{self, Probe};
use crate::http_client::{self as http, HttpError};
use crate::process::{self, Job, ProcessError, Ran};

/// How long a probe may take.
const PROBE_DEADLINE: Duration = Duration::from_secs(5);

/// Accept queue of the lab's servers.
const BACKLOG: i32 = 1024;

/// A named network namespace, and the ways to act inside it.
#[derive(Clone, Debug)]
pub struct Place {
    name: String,
    path: PathBuf,
    netns: PodNetns,
    fence: Fence,
    patience: Duration,
}

impl Place {
    pub(crate) fn new(
        name: impl Into<String>,
        named: &netns::NamedNetns,
        fence: &Fence,
        patience: Duration,
    ) -> Self {
        Self {
            name: name.into(),
            path: named.path().to_owned(),
            netns: named.netns().clone(),
            fence: fence.clone(),
            patience,
        }
    }

    /// A namespace that somebody else made and that has a path.
    pub(crate) fn of(
        name: impl Into<String>,
        path: &Path,
        netns: PodNetns,
        fence: &Fence,
        patience: Duration,
    ) -> Self {
        Self { name: name.into(), path: path.to_owned(), netns, fence: fence.clone(), patience }
    }

    /// What it is called, for example `hub`, `node1` or `pod default/client`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The namespace's file, for `nsenter --net=`.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The namespace itself.
    #[must_use]
    pub fn netns(&self) -> &PodNetns {
        &self.netns
    }

    /// Runs a command inside, to its end: `nft list ruleset`, `ip rule`, `ss -tln`.
    ///
    /// # Errors
    /// [`ProcessError`] when it cannot be run or takes longer than 30 s. A command that
    /// ran and failed is an outcome, in [`Ran::code`].
    pub async fn run(&self, argv: &[&str]) -> Result<Ran, ProcessError> {
        process::run(Some(self), Job::of(argv)).await
    }

    /// Opens a connection from inside, to an app that [`Place::serve`] made or to
    /// anything that speaks its lines.
    ///
    /// # Errors
    /// [`AppError`], whose kind tells refused from reset from silent.
    pub async fn connect(&self, to: SocketAddr) -> Result<Conversation, AppError> {
        Conversation::open(self, to, self.patience).await
    }

    /// Sends one datagram from inside and waits for one answer, for the lab's patience.
    /// Nothing is sent again.
    ///
    /// # Errors
    /// [`AppError`], whose kind tells refused from silent.
    pub async fn ask(&self, to: SocketAddr, question: &[u8]) -> Result<Vec<u8>, AppError> {
        app::ask(self, to, question).await
    }

    /// Has it answer every datagram that comes to this address.
    ///
    /// # Errors
    /// [`AppError`] when the port is taken, or the address is not one of the namespace.
    pub async fn answer_datagrams(&self, at: SocketAddr, answer: Answer) -> Result<Echo, AppError> {
        Echo::answering(self, at, answer).await
    }

    /// Starts the lab's app on `port`, for all of the namespace's addresses.
    ///
    /// # Errors
    /// [`AppError`] when the port is taken.
    pub async fn serve(&self, port: u16) -> Result<Server, AppError> {
        Server::start(self, port).await
    }

    /// Asks an HTTP server from inside; the deadline is the lab's patience.
    ///
    /// # Errors
    /// [`HttpError`]; a status that is no success is an answer, not an error.
    pub async fn http_get(&self, to: SocketAddr, path: &str) -> Result<(u16, String), HttpError> {
        let ask = async {
            let stream = self.dial(to).await.map_err(|source| HttpError::Connect { to, source })?;
            http::send(stream, to, http::get(path)).await
        };
        let late = |_| HttpError::Deadline { to, deadline: self.patience };
        let (status, body) = tokio::time::timeout(self.patience, ask).await.map_err(late)??;
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }

    /// Probes `to` as a kubelet does, from inside, for at most the time that a kubelet
    /// would be told to wait on a slow machine. Of `probe` only the kind counts.
    ///
    /// # Errors
    /// [`AppError`], whose kind tells refused from silent.
    pub async fn probe(&self, to: SocketAddr, probe: &Probe) -> Result<(), AppError> {
        health::probe(self, to, probe, PROBE_DEADLINE).await
    }

    /// Runs `job` on a fence worker inside the namespace, without blocking the runtime.
    pub(crate) async fn inside<T, F>(&self, job: F) -> Result<T, FenceError>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        self.fence.submit(&self.netns, job, move |result| {
            // The caller may have been cancelled; then nobody wants the result.
            let _ = sender.send(result);
        })?;
        receiver.await.map_err(|_| FenceError::Closed)?
    }

    /// A connected stream whose socket was born inside. Without a deadline of its own.
    pub(crate) async fn dial(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let dial = Dial { to, mark: None, from: None };
        let socket =
            self.inside(move || netns::dial_socket(&dial)).await.map_err(io::Error::other)??;
        TcpSocket::from_std_stream(socket.into()).connect(to).await
    }

    /// A listening socket that was born inside.
    pub(crate) async fn listen(&self, addr: SocketAddr) -> io::Result<StdListener> {
        let listen = Listen { addr, backlog: BACKLOG, mark: None };
        self.inside(move || netns::listen_tcp(&listen)).await.map_err(io::Error::other)?
    }

    pub(crate) fn patience(&self) -> Duration {
        self.patience
    }
}
