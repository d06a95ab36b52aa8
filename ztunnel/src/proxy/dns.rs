//! The pod's name server (port 15053): its sockets and its tasks.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::future::join_all;
use netns::original_dst;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;

use super::ProxyError;
use super::accept::{Arrival, accept_loop};
use super::context::ProxyContext;
use super::pod::{Life, Pod, PodShared};
use super::report::canonical;
use crate::dns::{Forwarder, ListenError, Listeners, Mode, Resolver, Server, Sockets};
use crate::telemetry::Direction;
use crate::worker::Worker;

/// Connections for lookups that one pod may have open.
const CONNECTIONS: usize = 64;

/// A pod's lookups: those that its applications make, and those that we make for it.
#[derive(Debug)]
pub(super) struct Dns {
    server: Arc<Server>,
    resolver: Resolver,
    udp: Vec<UdpSocket>,
    tcp: Vec<TcpListener>,
}

impl Dns {
    /// Binds the pod's sockets for lookups, or takes those that were `given`. Where the
    /// name server is off there are none, and given ones are closed.
    pub(super) async fn bind(
        context: &ProxyContext,
        pod: &Pod,
        home: &Worker,
        given: Option<Listeners>,
    ) -> Result<Self, ProxyError> {
        let settings = &context.settings;
        let name = || format!("{}/{}", pod.info.namespace, pod.info.name);
        let failed = |source| ProxyError::Dns { pod: name(), source };
        let sockets = Sockets::new(context.fence.clone(), pod.netns.clone(), settings.packet_mark);
        let listeners = match (settings.dns.mode, given) {
            (Mode::Off, _) => Listeners::default(),
            (Mode::Serve, Some(given)) => given,
            (Mode::Serve, None) => {
                sockets.listen(settings.dns.port, settings.ipv6).await.map_err(failed)?
            }
        };
        let (udp, tcp) =
            register(listeners, home).map_err(ListenError::Register).map_err(failed)?;
        let forwarder = Arc::new(Forwarder::new(sockets, settings.dns.upstreams.clone()));
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
        Ok(Self { server: Arc::new(server), resolver, udp, tcp })
    }

    /// Begins to answer.
    pub(super) fn serve(self, pod: &Arc<PodShared>, life: &Life, home: &Worker) {
        let (server, udp, closing) = (Arc::clone(&self.server), self.udp, life.closing.clone());
        if !udp.is_empty() {
            life.spawn(home, async move {
                join_all(udp.iter().map(|socket| server.serve_udp(socket, &closing))).await;
            });
        }
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        for listener in self.tcp {
            let (server, closing) = (Arc::clone(&self.server), life.closing.clone());
            let places = Arc::clone(&places);
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
            let (listener, pod) = (Arc::new(listener), Arc::clone(pod));
            let life = (life.clone(), Direction::Outbound);
            life.0.spawn(home, accept_loop(listener, pod, life.clone(), home.clone(), serve));
        }
    }

    /// For names that the proxy has to look up itself.
    pub(super) fn resolver(&self) -> Resolver {
        self.resolver.clone()
    }
}

/// Has `home` watch the sockets.
fn register(listeners: Listeners, home: &Worker) -> io::Result<(Vec<UdpSocket>, Vec<TcpListener>)> {
    let _entered = home.handle().enter();
    let udp = listeners.udp.into_iter().map(UdpSocket::from_std).collect::<Result<_, _>>()?;
    let tcp = listeners.tcp.into_iter().map(TcpListener::from_std).collect::<Result<_, _>>()?;
    Ok((udp, tcp))
}

/// Whom the client meant. Without a redirection the kernel names our own listener, or
/// nothing.
fn asked(tcp: &TcpStream) -> Option<SocketAddr> {
    let asked = original_dst(tcp).ok()?.0;
    (asked != canonical(tcp.local_addr().ok()?)).then_some(asked)
}
