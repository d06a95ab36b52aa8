//! One pod's name server.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use mesh::{Home, LocalWorkload, Network, View};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::Settings;
use super::answer::{Facts, Outcome, Transport, answer};
use super::forward::{ForwardError, Forwarder, Origin};
use super::frame::{FrameReader, write_frame};
use super::metrics::{Labels, Metrics};
use super::transfer::{is_transfer, relay};
use super::wire::{Message, code, failure};
use crate::proxy::Ipv6;
use crate::source::ViewHandle;

/// Lookups over UDP that one pod may have unanswered. One more is told to try again.
const UNANSWERED: usize = 2048;

/// Bytes of lookups that one pod may have unanswered: an application that sends the longest
/// messages there are, to a resolver that is silent, must not fill our memory.
const UNANSWERED_BYTES: usize = 4 << 20;

/// Lookups on one connection that may be unanswered; the next is not read before.
const PIPELINE: usize = 32;

/// How long a connection may be idle, and how long an answer may take to be written.
const IDLE: Duration = Duration::from_secs(10);

/// How long a lookup waits for the first complete view. As a resolver's answer, it must be
/// over before clients ask again.
const VIEW_WAIT: Duration = Duration::from_millis(4_500);

/// Rest after an error of the socket itself.
const PAUSE: Duration = Duration::from_millis(10);

/// Longest datagram.
const MOST: usize = 65_535;

/// Answers one pod's lookups.
#[derive(Debug)]
pub struct Server {
    pod: zds::WorkloadInfo,
    settings: Settings,
    network: Network,
    home: Home,
    ipv6: Ipv6,
    view: ViewHandle,
    forwarder: Arc<Forwarder>,
    metrics: Metrics,
    /// Of [`UNANSWERED_BYTES`].
    room: Semaphore,
}

impl Server {
    /// For `pod` at `home`, whose addresses are in `network`; what is not about the mesh goes to
    /// `forwarder`.
    #[must_use]
    pub fn new(
        pod: zds::WorkloadInfo,
        settings: Settings,
        (network, home, ipv6): (Network, Home, Ipv6),
        view: ViewHandle,
        forwarder: Arc<Forwarder>,
        metrics: Metrics,
    ) -> Self {
        let room = Semaphore::new(UNANSWERED_BYTES);
        Self { pod, settings, network, home, ipv6, view, forwarder, metrics, room }
    }

    /// Serves datagrams until `closing`, and then what is unanswered to its end.
    pub async fn serve_udp(&self, socket: &UdpSocket, closing: &CancellationToken) {
        let Ok(listener) = socket.local_addr() else { return };
        let mut unanswered = FuturesUnordered::new();
        let mut open = true;
        while open || !unanswered.is_empty() {
            tokio::select! {
                () = closing.cancelled(), if open => open = false,
                Some(()) = unanswered.next() => {}
                received = receive(socket), if open => match received {
                    Ok((query, client)) => match self.room(&query) {
                        Some(room) if unanswered.len() < UNANSWERED => {
                            let lookup = self.on_datagram(socket, query, client, listener);
                            unanswered.push(within(room, lookup));
                        }
                        _ => {
                            let reply = failure(&query, code::SERVER_FAILURE);
                            Box::pin(self.send(socket, reply, client)).await;
                        }
                    },
                    Err(error) => {
                        // Not of this datagram alone, or it would not be told here.
                        tracing::warn!(pod = %self.name(), %error, "cannot read name lookups");
                        // Boxed: an idle name server keeps no room for it.
                        Box::pin(sleep(PAUSE)).await;
                    }
                }
            }
        }
    }

    /// To be held until the message is answered.
    fn room(&self, query: &[u8]) -> Option<SemaphorePermit<'_>> {
        self.room.try_acquire_many(u32::try_from(query.len()).ok()?).ok()
    }

    async fn on_datagram(
        &self,
        socket: &UdpSocket,
        query: Vec<u8>,
        client: SocketAddr,
        listener: SocketAddr,
    ) {
        let origin = Origin::Datagram { client, listener };
        self.send(socket, self.respond(&query, origin, Transport::Udp).await, client).await;
    }

    async fn send(&self, socket: &UdpSocket, reply: Option<Vec<u8>>, client: SocketAddr) {
        let Some(reply) = reply else { return };
        // A client that has closed its socket is none: whatever is told here, the pod's rules
        // or its addresses have taken the answer away.
        if let Err(error) = socket.send_to(&reply, client).await {
            self.metrics.unsent();
            tracing::debug!(pod = %self.name(), %client, %error, "answer to a name lookup is lost");
        }
    }

    /// Serves one connection, on which `asked` had been dialled, until `closing` or until
    /// it is idle.
    pub async fn serve_tcp(
        &self,
        mut connection: TcpStream,
        asked: Option<SocketAddr>,
        closing: &CancellationToken,
    ) {
        let (mut read, mut write) = connection.split();
        let mut frames = FrameReader::default();
        let mut unanswered = FuturesUnordered::new();
        let mut open = true;
        while open || !unanswered.is_empty() {
            let room = open && unanswered.len() < PIPELINE;
            tokio::select! {
                () = closing.cancelled(), if open => open = false,
                Some(reply) = unanswered.next() => {
                    if !write_reply(&mut write, reply).await {
                        return;
                    }
                }
                next = frames.next(&mut read), if room => match next {
                    // Nobody mixes it with other questions.
                    Ok(Some(query)) if is_transfer(&query) && unanswered.is_empty() => {
                        return self.transfer(&query, asked, &mut read, &mut write).await;
                    }
                    Ok(Some(query)) => unanswered.push(self.on_frame(query, asked)),
                    Ok(None) => open = false,
                    Err(_) => return,
                },
                () = sleep(IDLE), if unanswered.is_empty() => return,
            }
        }
    }

    async fn transfer(
        &self,
        query: &[u8],
        asked: Option<SocketAddr>,
        read: &mut (impl AsyncRead + Unpin),
        write: &mut (impl AsyncWrite + Unpin),
    ) {
        let labels = self.labels(query, Transport::Tcp, self.view.current().as_deref());
        self.metrics.requested(&labels);
        self.metrics.forwarded(&labels);
        match self.forwarder.connect(Origin::Connection(asked)).await {
            // A torn connection is how a client learns that it has not got all.
            Ok(server) => drop(relay(query, server, read, write).await),
            Err(error) => {
                let reply = self.failed(query, &error, &labels);
                write_reply(write, reply).await;
            }
        }
    }

    async fn on_frame(&self, query: Vec<u8>, asked: Option<SocketAddr>) -> Option<Vec<u8>> {
        let Some(_room) = self.room(&query) else { return failure(&query, code::SERVER_FAILURE) };
        self.respond(&query, Origin::Connection(asked), Transport::Tcp).await
    }

    /// The reply to one message; `None` when it is no question.
    async fn respond(&self, query: &[u8], origin: Origin, transport: Transport) -> Option<Vec<u8>> {
        let mut view = self.view.current();
        let mut outcome = self.decide(query, view.as_deref(), transport);
        if outcome == Outcome::AwaitView {
            view = self.view.complete(VIEW_WAIT).await;
            outcome = self.decide(query, view.as_deref(), transport);
        }
        if outcome == Outcome::Ignore {
            return None;
        }
        let labels = self.labels(query, transport, view.as_deref());
        drop(view);
        self.metrics.requested(&labels);
        match outcome {
            Outcome::Answer(reply) => Some(reply),
            Outcome::Forward => self.forward(query, origin, transport, &labels).await,
            // A wrong "no such host" would be remembered, a failure is asked again.
            Outcome::AwaitView | Outcome::Ignore => failure(query, code::SERVER_FAILURE),
        }
    }

    fn decide(&self, query: &[u8], view: Option<&View>, transport: Transport) -> Outcome {
        let facts = Facts {
            view,
            namespace: &self.pod.namespace,
            network: &self.network,
            domain: &self.settings.domain,
            preferred_namespace: self.settings.preferred_namespace.as_deref(),
            ipv6: self.ipv6,
            transport,
            random: fastrand::u64(..),
        };
        answer(query, &facts)
    }

    fn labels(&self, query: &[u8], transport: Transport, view: Option<&View>) -> Labels {
        let pod = LocalWorkload {
            name: &self.pod.name,
            namespace: &self.pod.namespace,
            service_account: &self.pod.service_account,
        };
        let source = view.and_then(|view| view.local(pod, &self.home));
        let kind = Message::read(query).and_then(Message::question).map(|it| it.kind);
        self.metrics.labels(kind, transport, source.map(|it| &**it))
    }

    async fn forward(
        &self,
        query: &[u8],
        origin: Origin,
        transport: Transport,
        labels: &Labels,
    ) -> Option<Vec<u8>> {
        self.metrics.forwarded(labels);
        let start = Instant::now();
        let result = self.forwarder.forward(query, origin, transport).await;
        self.metrics.returned(labels, start.elapsed());
        match result {
            Ok(reply) => Some(reply),
            Err(error) => self.failed(query, &error, labels),
        }
    }

    fn failed(&self, query: &[u8], error: &ForwardError, labels: &Labels) -> Option<Vec<u8>> {
        self.metrics.failed(labels);
        tracing::debug!(pod = %self.name(), %error, "name lookup failed");
        failure(query, code::SERVER_FAILURE)
    }

    fn name(&self) -> impl std::fmt::Display {
        format!("{}/{}", self.pod.namespace, self.pod.name)
    }
}

async fn within(_room: SemaphorePermit<'_>, lookup: impl Future<Output = ()>) {
    lookup.await;
}

/// Memory is taken when there is something to read.
async fn receive(socket: &UdpSocket) -> io::Result<(Vec<u8>, SocketAddr)> {
    loop {
        socket.readable().await?;
        let mut query = Vec::with_capacity(MOST);
        match socket.try_recv_buf_from(&mut query) {
            Ok((_, client)) => {
                query.shrink_to_fit();
                return Ok((query, client));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// Whether the connection is still good.
async fn write_reply(write: &mut (impl AsyncWrite + Unpin), reply: Option<Vec<u8>>) -> bool {
    match reply {
        Some(reply) => matches!(timeout(IDLE, write_frame(write, &reply)).await, Ok(Ok(()))),
        None => true,
    }
}
