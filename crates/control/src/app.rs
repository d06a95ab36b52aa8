//! Wiring: what depends on what, and the order of the end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mesh::{Identity, IdentityError};
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tonic::transport::Server;

use crate::ca::{Authority, Root, RootError, ServerName, StoreError};
use crate::callers::{Gate, IssueRules};
use crate::facts::Account;
use crate::kube::{KubeError, Own, Reviewer};
use crate::services::certificates::istio_certificate_service_server::IstioCertificateServiceServer;
use crate::services::discovery::aggregated_discovery_service_server::AggregatedDiscoveryServiceServer;
use crate::settings::Settings;
use crate::table::Table;
use crate::tls::{self, ServerCertificate};
use crate::translate::Names;
use crate::world::World;
use crate::xds::Discovery;

/// A client that does not answer a ping within the second of these is gone.
const PING: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));
/// Calls at once on one connection: a node proxy needs a stream and a few certificates.
const CALLS_PER_CONNECTION: u32 = 64;
/// The largest request: a reconnecting client names everything that it has.
const DISCOVERY_REQUEST: usize = 64 << 20;
/// A certificate request is about a kilobyte.
const CERTIFICATE_REQUEST: usize = 64 << 10;
/// What has not ended by then after being told to is ended.
const SHUTDOWN: Duration = Duration::from_secs(5);

/// A running control plane; it stops when it is dropped.
#[derive(Debug)]
pub struct Control {
    root: Arc<Root>,
    address: SocketAddr,
    worlds: watch::Receiver<Option<Arc<World>>>,
    tasks: JoinSet<&'static str>,
    sessions: TaskTracker,
    stop: DropGuard,
}

/// Why it does not start.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Not a trust domain.
    #[error("TRUST_DOMAIN: {0}")]
    TrustDomain(#[source] IdentityError),
    /// Neither a DNS name nor an IP address.
    #[error("SERVER_NAMES: {0:?} is neither a DNS name nor an IP address")]
    ServerName(String),
    /// Not a service account.
    #[error("TRUSTED_NODE_ACCOUNTS: {0:?} is not of the form namespace/name")]
    Account(String),
    /// No Kubernetes client.
    #[error(transparent)]
    Kube(#[from] KubeError),
    /// No root.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No server certificate.
    #[error("the server's own certificate: {0}")]
    ServerCertificate(#[source] RootError),
    /// TLS refused its settings.
    #[error("TLS: {0}")]
    Tls(#[source] rustls::Error),
    /// The listener cannot be used.
    #[error("the listening socket: {0}")]
    Listener(#[source] std::io::Error),
}

/// Settings that have been understood.
struct Plan {
    names: Names,
    server_names: Vec<ServerName>,
    rules: IssueRules,
}

impl Control {
    /// Starts watching and listening. Clients may connect at once; they are answered as
    /// soon as the cluster's objects are listed, see [`Control::synced`].
    ///
    /// # Errors
    /// [`ControlError`]; an API that cannot be reached is none, it is waited for.
    pub async fn start(
        settings: Settings,
        listener: std::net::TcpListener,
    ) -> Result<Self, ControlError> {
        let plan = plan(&settings)?;
        let client = crate::kube::client(&settings.kube_api).await?;
        let now = OffsetDateTime::now_utc();
        let own = Own::new(client.clone());
        let root = crate::ca::open(&settings.ca, &own, &plan.names.trust_domain, now).await?;
        let root = Arc::new(root);
        let certificate = ServerCertificate::new(Arc::clone(&root), plan.server_names)
            .map_err(ControlError::ServerCertificate)?;
        let certificate = Arc::new(certificate);
        let tls = tls::config(Arc::clone(&certificate)).map_err(ControlError::Tls)?;
        let listener = into_tokio(listener).map_err(ControlError::Listener)?;
        let address = listener.local_addr().map_err(ControlError::Listener)?;

        let stop = CancellationToken::new();
        let (seen, worlds) = watch::channel(None);
        let sessions = TaskTracker::new();
        let gate = Arc::new(Gate::new(Reviewer::new(client.clone()), worlds.clone()));
        let authority = Authority::new(Arc::clone(&gate), Arc::clone(&root), plan.rules);
        let discovery = Discovery::new(gate, worlds.clone(), sessions.clone(), stop.clone());
        let (ready, connections) = tls::queue();

        let mut tasks = JoinSet::new();
        let connections = ReceiverStream::new(connections);
        let watching = crate::kube::watch(client, Table::new(plan.names), seen, stop.clone());
        tasks.spawn(named("the watch of the Kubernetes API", watching));
        tasks.spawn(named("the renewal of the certificate", certificate.keep_fresh(stop.clone())));
        tasks.spawn(named("the listener", tls::accept(listener, tls, ready, stop.clone())));
        if let Some(name) = settings.root_config_map {
            let publishing = own.publish(name, root.certificate().to_owned(), stop.clone());
            tasks.spawn(named("the publication of the root", publishing));
        }
        let serving = serve(authority, discovery, connections, stop.clone());
        tasks.spawn(named("the server", serving));
        tracing::info!(%address, "control plane listening");
        Ok(Self { root, address, worlds, tasks, sessions, stop: stop.drop_guard() })
    }

    /// The certificate that clients must trust, in PEM.
    #[must_use]
    pub fn root_pem(&self) -> &str {
        self.root.certificate()
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Waits until the cluster's objects are listed and clients are answered. For ever, if
    /// the Kubernetes API does not answer: the caller sets the deadline.
    pub async fn synced(&self) {
        let mut worlds = self.worlds.clone();
        // An error means that the watch has ended; then there is nothing to wait for.
        let _ = worlds.wait_for(Option::is_some).await;
    }

    /// Returns when a part has ended though nobody told it to, with what to say of it. Then
    /// the process must end and be started again: without the watch, clients would be
    /// served a cluster of the past for ever, and without its policies.
    pub async fn broken(&mut self) -> String {
        first_end(&mut self.tasks).await
    }

    /// Stops: clients are told, then everything is waited for, for 5 s.
    pub async fn shutdown(self) {
        let Self { mut tasks, sessions, stop, .. } = self;
        drop(stop);
        sessions.close();
        let ended = async {
            sessions.wait().await;
            while tasks.join_next().await.is_some() {}
        };
        if timeout(SHUTDOWN, ended).await.is_err() {
            tracing::warn!("some connections did not end in time, they are cut");
            tasks.shutdown().await;
        }
    }
}

async fn named(name: &'static str, task: impl Future<Output = ()>) -> &'static str {
    task.await;
    name
}

async fn first_end(tasks: &mut JoinSet<&'static str>) -> String {
    match tasks.join_next().await {
        Some(Ok(name)) => format!("{name} has ended"),
        Some(Err(error)) => format!("a part has ended early: {error}"),
        None => std::future::pending().await,
    }
}

fn plan(settings: &Settings) -> Result<Plan, ControlError> {
    // Any namespace will do: it is the trust domain that is looked at.
    let identity = Identity::new(&settings.trust_domain, "default", "default");
    let trust_domain = identity.map_err(ControlError::TrustDomain)?.trust_domain().to_owned();
    let trusted_node_accounts = settings
        .trusted_node_accounts
        .iter()
        .map(|text| Account::parse(text).ok_or_else(|| ControlError::Account(text.clone())))
        .collect::<Result<_, _>>()?;
    let server_names = settings
        .server_names
        .iter()
        .map(|text| server_name(text).ok_or_else(|| ControlError::ServerName(text.clone())))
        .collect::<Result<_, _>>()?;
    let names = Names {
        cluster_id: settings.cluster_id.clone(),
        trust_domain: trust_domain.clone(),
        cluster_domain: settings.cluster_domain.clone(),
        root_namespace: settings.root_namespace.clone(),
    };
    Ok(Plan { names, server_names, rules: IssueRules { trust_domain, trusted_node_accounts } })
}

fn server_name(text: &str) -> Option<ServerName> {
    use rustls::pki_types::ServerName as Name;
    match Name::try_from(text).ok()? {
        Name::DnsName(name) => Some(ServerName::Dns(name.as_ref().to_owned())),
        Name::IpAddress(ip) => Some(ServerName::Ip(ip.into())),
        _ => None,
    }
}

fn into_tokio(listener: std::net::TcpListener) -> std::io::Result<tokio::net::TcpListener> {
    listener.set_nonblocking(true)?;
    tokio::net::TcpListener::from_std(listener)
}

async fn serve(
    authority: Authority,
    discovery: Discovery,
    connections: ReceiverStream<std::io::Result<tls::Connection>>,
    stop: CancellationToken,
) {
    let discovery = AggregatedDiscoveryServiceServer::new(discovery)
        .max_decoding_message_size(DISCOVERY_REQUEST);
    let authority = IstioCertificateServiceServer::new(authority)
        .max_decoding_message_size(CERTIFICATE_REQUEST);
    let served = Server::builder()
        .http2_keepalive_interval(Some(PING.0))
        .http2_keepalive_timeout(Some(PING.1))
        .max_concurrent_streams(CALLS_PER_CONNECTION)
        .add_service(discovery)
        .add_service(authority)
        .serve_with_incoming_shutdown(connections, stop.cancelled_owned())
        .await;
    if let Err(error) = served {
        tracing::error!(%error, "the server has ended");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_end_of_a_part_is_noticed_also_by_a_panic() {
        let mut tasks = JoinSet::new();
        tasks.spawn(named("the server", std::future::pending()));
        tasks.spawn(named("the watch", async { panic!("an object that nobody thought of") }));
        let text = timeout(Duration::from_secs(20), first_end(&mut tasks)).await.unwrap();
        assert!(text.contains("an object that nobody thought of"), "{text}");
        tasks.spawn(named("the listener", std::future::ready(())));
        let text = timeout(Duration::from_secs(20), first_end(&mut tasks)).await.unwrap();
        assert_eq!(text, "the listener has ended");
    }
}
