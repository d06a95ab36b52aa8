//! Sockets and deadlines of the ZDS sessions.

use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use netns::PodNetns;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use zds::Returned;
use zds::link::{Link, Listener, Packet};

use super::ZtunnelLink;
use super::roster::{ConnectionId, Line, Order};
use super::session::{Action, Command, EndReason, Event, Session, Subject, Takes, Ticket};

/// How long ztunnel may take to read or write one packet, as in the reference agent.
const PACKET_DEADLINE: Duration = Duration::from_secs(5);
/// At most five ztunnels a second: one that fails in a loop must not eat the node.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// Orders that may wait for one connection.
const ORDER_QUEUE: usize = 512;

/// Why the socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// A file system step failed.
    #[error("{step} {}: {source}", .path.display())]
    Io {
        /// What was attempted.
        step: &'static str,
        /// Where.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Something else lives at the path.
    #[error("{} exists and is no socket: INPOD_UDS names a wrong place", .0.display())]
    NotASocket(PathBuf),
    /// The socket.
    #[error("listen for ztunnel at {}: {source}", .path.display())]
    Listen {
        /// Where.
        path: PathBuf,
        /// The system's answer.
        source: zds::link::LinkError,
    },
}

/// Listens for ztunnel. Connections wait in the kernel until [`Server::run`].
#[derive(Debug)]
pub struct Server {
    listener: Listener,
}

impl Server {
    /// Opens the socket. To be called by the holder of the run directory's lock only: a
    /// socket that is there already is then nobody's.
    ///
    /// # Errors
    /// Any [`ServerError`].
    pub fn bind(path: &Path) -> Result<Self, ServerError> {
        let io = |step| move |source| ServerError::Io { step, path: path.to_owned(), source };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(io("create the folder of"))?;
        }
        match std::fs::symlink_metadata(path) {
            Ok(found) if found.file_type().is_socket() => {
                std::fs::remove_file(path).map_err(io("remove the stale socket"))?;
            }
            Ok(_) => return Err(ServerError::NotASocket(path.to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io("look at")(error)),
        }
        let listener = Listener::bind(path)
            .map_err(|source| ServerError::Listen { path: path.to_owned(), source })?;
        // Between the two calls others may connect, but the peer's user is asked for too.
        let owner_only = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(path, owner_only).map_err(io("restrict"))?;
        Ok(Self { listener })
    }

    /// Serves ztunnels until `stop`. To be called once the roster is complete: what is
    /// not in a snapshot is dropped by ztunnel.
    pub async fn run(mut self, link: ZtunnelLink, stop: CancellationToken) {
        let sessions = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok(socket) => {
                    let (link, stop) = (link.clone(), stop.clone());
                    sessions.spawn(async move { converse(socket, link, stop).await });
                }
                Err(error) => tracing::error!(%error, "cannot accept a ztunnel"),
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(ACCEPT_PAUSE) => {}
            }
        }
        sessions.close();
        sessions.wait().await;
    }
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum Ending {
    #[error("ztunnel closed the connection")]
    Closed,
    #[error("the node agent stops")]
    Stopping,
    #[error("ztunnel runs as user {0}, only root is served")]
    Stranger(u32),
    #[error("ztunnel did not {0} within {PACKET_DEADLINE:?}")]
    TooSlow(&'static str),
    #[error(transparent)]
    Link(#[from] zds::link::LinkError),
    #[error(transparent)]
    Protocol(#[from] EndReason),
}

/// One connection from hello to end.
pub(crate) async fn converse(socket: Link, link: ZtunnelLink, stop: CancellationToken) {
    let (sender, orders) = mpsc::channel(ORDER_QUEUE);
    let line = Line { orders: sender, behind: Arc::new(Notify::new()) };
    let mut connection = Connection {
        socket,
        link,
        line,
        admitted: None,
        tickets: HashMap::new(),
        next_ticket: 0,
        deadline: Instant::now() + PACKET_DEADLINE,
    };
    let ending = connection.run(orders, &stop).await;
    drop(connection);
    match ending {
        Ending::Stopping => {}
        Ending::Closed => tracing::info!("ztunnel disconnected"),
        fault => tracing::warn!(reason = %fault, "connection of ztunnel ended"),
    }
}

/// A place among the connected ztunnels. Given up however the connection ends, a panic
/// included: a dead one that counts as the newest would get every new pod.
struct Admission {
    link: ZtunnelLink,
    id: ConnectionId,
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.link.lock().dismiss(self.id);
    }
}

struct Connection {
    socket: Link,
    link: ZtunnelLink,
    line: Line,
    admitted: Option<Admission>,
    tickets: HashMap<Ticket, oneshot::Sender<Result<(), String>>>,
    next_ticket: u64,
    deadline: Instant,
}

impl Connection {
    async fn run(&mut self, mut orders: mpsc::Receiver<Order>, stop: &CancellationToken) -> Ending {
        match self.socket.peer_uid() {
            Ok(0) => {}
            Ok(uid) => return Ending::Stranger(uid),
            Err(error) => return error.into(),
        }
        let mut session = Session::default();
        loop {
            let event = tokio::select! {
                () = stop.cancelled() => return Ending::Stopping,
                packet = self.socket.recv() => match packet {
                    Ok(Some(Packet { bytes, fds })) => Event::Packet(bytes, fds),
                    Ok(None) => return Ending::Closed,
                    Err(error) => return error.into(),
                },
                () = self.line.behind.notified(), if !session.awaits() => self.missed(),
                Some(order) = orders.recv(), if !session.awaits() => self.take(order),
                () = sleep_until(self.deadline), if session.awaits() => {
                    return Ending::TooSlow("answer");
                }
            };
            match self.step(session, event).await {
                Ok(next) => session = next,
                Err(ending) => return ending,
            }
        }
    }

    fn take(&mut self, order: Order) -> Event {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.tickets.insert(ticket, order.reply);
        Event::Order(ticket, order.command)
    }

    fn missed(&mut self) -> Event {
        let id = self.admitted.as_ref().map(|admitted| admitted.id);
        let missed = id.map(|id| self.link.lock().missed(id)).unwrap_or_default();
        tracing::info!(pods = missed.len(), "a newer ztunnel has gone: telling the one before it");
        Event::Missed(missed)
    }

    /// Feeds the session, and what follows from that, until nothing follows.
    async fn step(&mut self, session: Session, event: Event) -> Result<Session, Ending> {
        let (mut session, mut actions) = session.on(event);
        while !actions.is_empty() {
            let mut follow_up = None;
            for action in std::mem::take(&mut actions) {
                match action {
                    Action::TakeSnapshot(takes) => follow_up = Some(self.admit(takes)),
                    Action::Send(command) => self.send(command).await?,
                    Action::Answered(ticket, subject, result) => {
                        let result = result.map(|returned| self.regain(&subject, returned));
                        self.answered(ticket, &subject, result);
                    }
                    Action::End(reason) => return Err(reason.into()),
                }
            }
            if let Some(event) = follow_up {
                (session, actions) = session.on(event);
            }
        }
        Ok(session)
    }

    fn admit(&mut self, takes: Takes) -> Event {
        let (id, snapshot) = self.link.lock().admit(self.line.clone(), takes);
        self.admitted = Some(Admission { link: self.link.clone(), id });
        tracing::info!(pods = snapshot.len(), ?takes, "ztunnel connected, sending the snapshot");
        Event::Snapshot(snapshot)
    }

    async fn send(&mut self, command: Command) -> Result<(), Ending> {
        let listeners = command.listeners.iter().map(AsFd::as_fd);
        let fds: Vec<_> = command.netns.iter().map(AsFd::as_fd).chain(listeners).collect();
        let sent = timeout(PACKET_DEADLINE, self.socket.send(&command.bytes, &fds));
        sent.await.map_err(|_| Ending::TooSlow("read a message"))??;
        self.deadline = Instant::now() + PACKET_DEADLINE;
        Ok(())
    }

    /// Listeners come back before anybody hears that the pod is served.
    fn regain(&mut self, subject: &Subject, returned: Returned) {
        let Subject::Serve(uid) = subject else { return };
        if returned.is_empty() {
            return;
        }
        let netns = returned.netns.map(PodNetns::from_fd).transpose().unwrap_or_else(|error| {
            tracing::warn!(%uid, %error, "namespace of a pod is not taken back");
            None
        });
        self.link.lock().regain(uid, netns, returned.listeners);
    }

    fn answered(&mut self, ticket: Option<Ticket>, subject: &Subject, result: Result<(), String>) {
        match (subject, &result) {
            (Subject::Snapshot, Ok(())) => tracing::info!("ztunnel has the snapshot"),
            (Subject::Serve(uid), Err(error)) => {
                tracing::warn!(%uid, %error, "ztunnel cannot serve a pod");
            }
            _ => {}
        }
        if let Some(admitted) = &self.admitted {
            self.link.lock().answered(admitted.id, subject, &result);
        }
        match (ticket.and_then(|ticket| self.tickets.remove(&ticket)), subject) {
            // Whoever asked may have given up meanwhile.
            (Some(reply), _) => drop(reply.send(result)),
            (None, Subject::Serve(uid)) if result.is_err() => {
                self.link.lock().refused_unasked(uid);
            }
            (None, _) => {}
        }
    }
}
