//! The pod's name server (port 15053): its sockets and its tasks.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use netns::{LoopbackSockets, original_dst};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use zds::ListenAt;

use super::ProxyError;
use super::accept::{Arrival, accept_loop};
use super::context::ProxyContext;
use super::listen::{NameServer, OpenListener, Socket, open_given, register};
use super::pod::{Life, Pod, PodShared};
use super::report::canonical;
use crate::dns::{Forwarder, ListenError, Mode, Resolver, Server, Sockets};
use crate::telemetry::Direction;
use crate::worker::Worker;

/// Connections for lookups that one pod may have open.
const CONNECTIONS: usize = 64;

/// A pod's lookups: those that its applications make, and those that we make for it.
#[derive(Debug)]
pub(super) struct Dns {
    server: Arc<Server>,
    resolver: Resolver,
    sockets: Sockets,
    places: Arc<Semaphore>,
    /// Ends the name server while the pod is served on.
    closing: CancellationToken,
}

impl Dns {
    /// Nothing is answered yet.
    pub(super) fn new(context: &ProxyContext, pod: &Pod) -> Self {
        let settings = &context.settings;
        let sockets = Sockets::new(context.fence.clone(), pod.netns.clone(), settings.packet_mark);
        let forwarder = Arc::new(Forwarder::new(sockets.clone(), settings.dns.upstreams.clone()));
        let metrics = context.telemetry.dns();
        let server = Server::new(
            pod.info.clone(),
            settings.dns.clone(),
            (settings.network.clone(), settings.home.clone(), settings.ipv6),
            context.view.clone(),
            Arc::clone(&forwarder),
            metrics.clone(),
        );
        let resolver = Resolver::new(forwarder, metrics.clone());
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        // Open from the first socket on, as a part of the pod's life.
        let closing = CancellationToken::new();
        closing.cancel();
        Self { server: Arc::new(server), resolver, sockets, places, closing }
    }

    /// Binds the pod's sockets for lookups, or takes those that were given. Where this
    /// ztunnel has no name servers there are none, and given ones are closed.
    pub(super) async fn open(
        &self,
        context: &ProxyContext,
        (pod, home): (&str, &Worker),
        name_server: &NameServer,
    ) -> Result<Vec<OpenListener>, ProxyError> {
        match (context.settings.dns.mode, name_server) {
            (Mode::Off, _) | (_, NameServer::None) => Ok(Vec::new()),
            (Mode::Serve, NameServer::On(given)) if !given.is_empty() => {
                open_given(given, home).map_err(|error| error.of(pod))
            }
            (Mode::Serve, NameServer::On(_) | NameServer::AsConfigured) => {
                let failed = |source| ProxyError::Dns { pod: pod.to_owned(), source };
                let settings = &context.settings;
                let claim = (name_server.claim(), settings.port_use);
                let bound = self.sockets.listen(settings.dns.port, settings.ipv6, claim).await;
                let opened = register_all(bound.map_err(failed)?, home);
                opened.map_err(ListenError::Register).map_err(failed)
            }
        }
    }

    /// Begins to answer what comes to `listener`.
    pub(super) fn serve(
        &mut self,
        listener: OpenListener,
        pod: &Arc<PodShared>,
        life: &Life,
        home: &Worker,
    ) {
        if self.is_closed() {
            self.closing = life.closing.child_token();
        }
        let (server, life) = (Arc::clone(&self.server), life.closed_by(self.closing.clone()));
        let closing = life.closing.clone();
        match listener.socket {
            Socket::Datagrams(socket) => {
                life.spawn(home, async move { server.serve_udp(&socket, &closing).await });
            }
            Socket::Connections(listener) => {
                let places = Arc::clone(&self.places);
                let serve = move |Arrival { tcp, .. }| {
                    let (server, closing) = (Arc::clone(&server), closing.clone());
                    let place = Arc::clone(&places).try_acquire_owned();
                    async move {
                        // One too many is closed: its client tries again, or another resolver.
                        let Ok(_place) = place else { return };
                        let asked = asked(&tcp);
                        server.serve_tcp(tcp, asked, &closing).await;
                    }
                };
                let on = (life.clone(), Direction::Outbound);
                let accepting = accept_loop(listener, Arc::clone(pod), on, home.clone(), serve);
                life.spawn(home, accepting);
            }
        }
    }

    /// Answers what has been asked, and takes nothing new.
    pub(super) fn close(&self) {
        self.closing.cancel();
    }

    /// Whether nothing new is answered.
    pub(super) fn is_closed(&self) -> bool {
        self.closing.is_cancelled()
    }

    /// For names that the proxy has to look up itself.
    pub(super) fn resolver(&self) -> Resolver {
        self.resolver.clone()
    }
}

fn register_all(bound: Vec<LoopbackSockets>, home: &Worker) -> io::Result<Vec<OpenListener>> {
    // In the order of the places.
    let sockets = bound.into_iter().flat_map(|it| [it.udp.into(), it.tcp.into()]);
    ListenAt::LOOKUPS.into_iter().zip(sockets).map(|(at, fd)| register(fd, at, home)).collect()
}

/// Whom the client meant. Without a redirection the kernel names our own listener, or
/// nothing.
fn asked(tcp: &TcpStream) -> Option<SocketAddr> {
    let asked = original_dst(tcp).ok()?.0;
    (asked != canonical(tcp.local_addr().ok()?)).then_some(asked)
}
