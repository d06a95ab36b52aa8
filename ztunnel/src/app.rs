//! Puts the rooms together and takes them down again.
//!
//! The order of the end is the order of dependence: pods first, because their open
//! connections still need the view and certificates; then the control plane; the
//! administration servers last, so that the end can be watched.

mod fence;
mod own;
mod signals;
mod trust;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use netns::{Fence, FenceError, NetnsError};
use prometheus_client::registry::Registry;
use tokio::runtime;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::admin::{self, Admin, Dump, Part, Readiness, Servers};
use crate::config::{Config, Mode};
use crate::dns::Upstreams;
use crate::identity::{CaClient, CaSettings, Certificates, ChannelError, ControlChannel, Token};
use crate::proxy::{Drain, ProxyContext, ProxyError};
use crate::source::local::LocalError;
use crate::source::{self, Audience, Caller, Scope, ViewHandle, ViewWriter, XdsClient};
use crate::telemetry::log::Log;
use crate::telemetry::{Telemetry, register_process};
use crate::tls::{Terms, TlsError};
use crate::worker::Workers;
use crate::workloads::{self, Handle, Machine, Manager, Served};
use own::Own;
use signals::Signals;
use trust::{Trust, hide_memory};

/// What the end may take beyond the termination deadline.
const END_SLACK: Duration = Duration::from_secs(2);

/// Why ztunnel did not start, or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// A privilege is missing.
    #[error("{step}: {source} ({capability} missing?)")]
    Capability {
        /// What was tried.
        step: &'static str,
        /// What allows it.
        capability: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The fence could not be built.
    #[error(transparent)]
    Fence(#[from] FenceError),
    /// ztunnel's own namespace could not be looked at.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// The machine cannot be served.
    #[error("serve this machine: {0}")]
    Machine(#[from] ProxyError),
    /// A port could not be had.
    #[error(transparent)]
    Bind(#[from] admin::BindError),
    /// The settings of a control plane channel are unusable.
    #[error("{name}: {source}")]
    Channel {
        /// The setting that names it.
        name: &'static str,
        /// What is wrong.
        source: ChannelError,
    },
    /// The local mesh view cannot be used.
    #[error(transparent)]
    Local(#[from] LocalError),
    /// A thread could not be started.
    #[error("start the thread {name}: {source}")]
    Thread {
        /// Which one.
        name: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The settings of TLS are unusable.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Other processes could read our keys.
    #[error("keep memory private (PR_SET_DUMPABLE): {0}")]
    Memory(#[source] io::Error),
    /// Signals cannot be watched.
    #[error("watch signals: {0}")]
    Signals(#[source] io::Error),
    /// A part ended though nobody told it to.
    #[error("{0} ended unexpectedly")]
    Task(String),
    /// A second signal came while connections were still finishing.
    #[error("told to stop twice: open connections were cut")]
    Impatient,
}

/// Runs until SIGTERM, SIGINT or `/quitquitquit`.
///
/// # Errors
/// Any [`AppError`].
pub async fn run(config: Config, log: &Log, workers: &Workers) -> Result<(), AppError> {
    let mut signals = Signals::new()?;
    let quit = CancellationToken::new();
    let app = App::build(&config, log, workers, quit.clone())?;
    let running = app.run(quit.clone());
    tokio::pin!(running);
    tokio::select! {
        result = &mut running => return result,
        name = signals.next() => info!(signal = name, "told to stop"),
    }
    quit.cancel();
    tokio::select! {
        result = running => result,
        _ = signals.next() => Err(AppError::Impatient),
    }
}

/// All rooms, ready to run.
struct App {
    servers: Servers,
    admin: Arc<Admin>,
    /// None: the view is the local one.
    xds: Option<XdsClient>,
    trust: Trust,
    served: Served,
    readiness: Readiness,
    termination_deadline: Duration,
    context: Arc<ProxyContext>,
    own: Option<Own>,
}

impl App {
    fn build(
        config: &Config,
        log: &Log,
        workers: &Workers,
        quit: CancellationToken,
    ) -> Result<Self, AppError> {
        hide_memory()?;
        let fence = fence::build_fence(config)?;
        let servers = admin::bind(&config.admin)?;
        let mut registry = Registry::default();
        log.register(&mut registry);
        let readiness = Readiness::default();
        let summary = config.summary();
        let token = Token::from_setting(config.token.as_deref());
        let (writer, view) = match config.source.rules.scope {
            Scope::Everything => source::channel(),
            Scope::OnDemand => source::channel_on_demand(&config.node.cluster),
        };

        let terms = Terms::new(&config.tls, &mut registry)?;
        let certificates = build_certificates(config, &token, &terms)?;
        certificates.register(&mut registry);
        let trust = Trust::new(config, &certificates, &terms);
        let xds = build_source(config, token, writer, &terms, &mut registry, &readiness)?;
        register_process(&mut registry, runtimes(workers));
        let telemetry = Telemetry::with_settings(&mut registry, config.telemetry);
        let context =
            build_proxy(config, &view, &certificates, (fence, workers), telemetry.clone());
        let own = Own::of(config);
        let (served, handle) =
            build_workloads(config, Arc::clone(&context), view.clone(), &mut registry, &readiness)?;
        let dump = Dump { view, certificates, workloads: handle, telemetry, config: summary };
        let levels = log.levels();
        let admin = Admin { readiness: readiness.clone(), registry, dump, levels, quit };
        Ok(Self {
            servers,
            admin: Arc::new(admin),
            xds,
            trust,
            served,
            readiness,
            termination_deadline: config.termination_deadline,
            context,
            own,
        })
    }

    /// The order of beginning and end, written once.
    async fn run(self, quit: CancellationToken) -> Result<(), AppError> {
        let (xds_stop, admin_stop) = (CancellationToken::new(), CancellationToken::new());
        let mut parts = JoinSet::new();
        let (servers, xds, trust) = (self.servers, self.xds, self.trust);
        parts.spawn({
            let (admin, stop) = (Arc::clone(&self.admin), admin_stop.clone());
            async move {
                servers.run(admin, stop).await;
                "administration"
            }
        });
        if let Some(xds) = xds {
            let stop = xds_stop.clone();
            parts.spawn(async move {
                xds.run(stop).await;
                "the control plane client"
            });
        }
        parts.spawn({
            let stop = xds_stop.clone();
            async move {
                trust.run(stop).await;
                "the watch over roots and revocation lists"
            }
        });
        let own = match self.own {
            Some(own) => own.start(&self.context).await,
            None => None,
        };
        let served = tokio::select! {
            served = self.served.run(&quit) => served?,
            Some(part) = parts.join_next() => {
                return Err(AppError::Task(part.map_or_else(|e| e.to_string(), str::to_owned)));
            }
        };
        self.readiness.report(Part::End, vec!["the end: ztunnel is stopping".to_owned()]);
        let limit = self.termination_deadline + END_SLACK;
        if timeout(limit, served.drain(self.termination_deadline)).await.is_err() {
            warn!("connections were still open after {limit:?} and are cut");
        }
        if let Some(own) = own {
            own.stop(Drain::Immediate).await;
        }
        xds_stop.cancel();
        admin_stop.cancel();
        while parts.join_next().await.is_some() {}
        info!("ztunnel ends");
        Ok(())
    }
}

/// Ours, on which the control plane's clients live, and those that carry traffic.
fn runtimes(workers: &Workers) -> Vec<runtime::Handle> {
    let others = workers.all().iter().map(|worker| worker.handle().clone());
    others.chain([runtime::Handle::current()]).collect()
}

fn build_certificates(
    config: &Config,
    token: &Token,
    terms: &Terms,
) -> Result<Certificates, AppError> {
    let channel = ControlChannel::new(config.ca.clone())
        .map_err(|source| AppError::Channel { name: "CA_ADDRESS", source })?
        .with_cryptography(&terms.cryptography)
        .with_mark(config.control_mark());
    let settings = CaSettings { cluster: config.node.cluster.clone(), ttl: config.certificate_ttl };
    let ca = CaClient::new(&channel, token.clone(), settings)
        .with_subject(config.mode.subject())
        .with_headers(&config.ca_headers);
    Ok(Certificates::with_terms(ca, terms))
}

fn build_source(
    config: &Config,
    token: Token,
    writer: ViewWriter,
    terms: &Terms,
    registry: &mut Registry,
    readiness: &Readiness,
) -> Result<Option<XdsClient>, AppError> {
    let source = &config.source;
    let base = source.local.as_ref().map(source::local::load).transpose()?.unwrap_or_default();
    let metrics = source::Metrics::register(registry);
    let Some(settings) = source.xds.clone() else {
        writer.publish(base);
        return Ok(None);
    };
    let address = settings.address.to_string();
    let channel = ControlChannel::new(settings)
        .map_err(|source| AppError::Channel { name: "XDS_ADDRESS", source })?
        .with_cryptography(&terms.cryptography)
        .with_mark(config.control_mark());
    let caller = Caller { node: config.node.clone(), token, headers: source.headers.clone() };
    let audience = Audience { writer, metrics, readiness: readiness.clone() };
    let xds = XdsClient::new(address, channel, caller, audience, source.rules, base)
        .map_err(|source| AppError::Thread { name: "xds-apply", source })?;
    Ok(Some(xds))
}

fn build_proxy(
    config: &Config,
    view: &ViewHandle,
    certificates: &Certificates,
    (fence, workers): (Fence, &Workers),
    telemetry: Telemetry,
) -> Arc<ProxyContext> {
    let mut settings = config.proxy.clone();
    settings.dns.upstreams = Upstreams::system().unwrap_or_else(|error| {
        warn!(%error, "no resolvers of our own: lookups go to those that pods ask");
        Upstreams::default()
    });
    ProxyContext::new(
        view.clone(),
        certificates.clone(),
        telemetry,
        fence,
        workers.clone(),
        settings,
    )
}

fn build_workloads(
    config: &Config,
    context: Arc<ProxyContext>,
    view: ViewHandle,
    registry: &mut Registry,
    readiness: &Readiness,
) -> Result<(Served, Handle), AppError> {
    let (metrics, readiness) = (workloads::Metrics::register(registry), readiness.clone());
    Ok(match &config.mode {
        Mode::Shared(settings) => {
            let (manager, handle) = Manager::new(settings.clone(), context, metrics, readiness)?;
            (Served::Pods(Box::new(manager)), handle)
        }
        Mode::Dedicated(info) => {
            let (machine, handle) = Machine::new(info.clone(), context, view, metrics, readiness);
            (Served::Machine(Box::new(machine)), handle)
        }
    })
}
