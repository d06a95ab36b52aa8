//! The machine that ztunnel runs on, as the one thing that it serves.
//!
//! There is no agent: the machine's own rules capture its traffic, or nothing does. The
//! machine is served from the start to the end of the process, so a port that cannot be had
//! ends it: whoever supervises it tries again.

use std::sync::Arc;
use std::time::Duration;

use netns::Workplace;
use tokio::sync::{mpsc, oneshot};
use tokio::time::interval;
use tokio_util::sync::CancellationToken;
use tracing::info;
use zds::WorkloadInfo;

use super::event::PodState;
use super::handle::{Handle, Pods};
use super::metrics::Metrics;
use crate::admin::{Part, Readiness};
use crate::proxy::{Claim, Drain, Listeners, NameServer, Pod, PodProxy, ProxyContext, ProxyError};
use crate::source::ViewHandle;

/// Where the view has only what is asked for, it forgets what nobody uses for long.
const ASK_EVERY: Duration = Duration::from_secs(60);

/// Serves the machine.
#[derive(Debug)]
pub struct Machine {
    info: WorkloadInfo,
    context: Arc<ProxyContext>,
    metrics: Metrics,
    readiness: Readiness,
    view: ViewHandle,
    questions: mpsc::Receiver<oneshot::Sender<Pods>>,
    proxy: Option<PodProxy>,
}

impl Machine {
    /// The machine is `info` to the mesh, of which `view` is known. Nothing is bound yet.
    #[must_use]
    pub fn new(
        info: WorkloadInfo,
        context: Arc<ProxyContext>,
        view: ViewHandle,
        metrics: Metrics,
        readiness: Readiness,
    ) -> (Self, Handle) {
        let (questions, asked) = mpsc::channel(1);
        let machine =
            Self { info, context, metrics, readiness, view, questions: asked, proxy: None };
        machine.report();
        (machine, Handle { questions })
    }

    /// Serves until `stop`; then connections go on until [`Machine::drain`].
    ///
    /// # Errors
    /// [`ProxyError`]. "Address in use" means that another proxy runs, or that an application
    /// has one of the ports.
    pub async fn run(mut self, stop: &CancellationToken) -> Result<Self, ProxyError> {
        let pod = Pod {
            uid: self.uid(),
            info: self.info.clone(),
            netns: Workplace::Own,
            listeners: Listeners::ToBind(Claim::Shared),
            name_server: NameServer::AsConfigured,
        };
        self.proxy = Some(PodProxy::start(&self.context, pod).await?);
        self.metrics.started.inc();
        let (mut changes, mut ask) = (self.view.changes(), interval(ASK_EVERY));
        loop {
            self.report();
            tokio::select! {
                () = stop.cancelled() => return Ok(self),
                Some(answer) = self.questions.recv() => drop(answer.send(self.pods())),
                Ok(()) = changes.changed() => {}
                _ = ask.tick() => self.view.ask_for_machine(&self.info.namespace, &self.info.name),
            }
        }
    }

    /// Lets connections finish, at most for `deadline`.
    pub async fn drain(self, deadline: Duration) {
        info!(?deadline, "draining");
        if let Some(proxy) = self.proxy {
            proxy.stop(Drain::Graceful(deadline)).await;
        }
    }

    /// Nobody gives a machine a UID; its names are as good.
    fn uid(&self) -> String {
        format!("{}/{}", self.info.namespace, self.info.name)
    }

    /// That the mesh does not know the machine is the mistake that is made when one
    /// is set up, so it is told in full.
    fn report(&self) {
        let WorkloadInfo { name, namespace, service_account } = &self.info;
        let waiting = match &self.proxy {
            None => Some("the listeners of this machine".to_owned()),
            Some(proxy) if proxy.is_able() => None,
            Some(_) => Some(format!(
                "workload {namespace}/{name} of service account {service_account}, this machine, \
                 to be known to the mesh"
            )),
        };
        self.readiness.report(Part::Machine, waiting.into_iter().collect());
        self.metrics.active.set(i64::from(self.proxy.is_some()));
    }

    fn pods(&self) -> Pods {
        let (state, connections) = match &self.proxy {
            Some(proxy) => (PodState::Up, proxy.connections()),
            None => (PodState::Pending(None), Default::default()),
        };
        [(self.uid(), (self.info.clone(), state, connections))].into()
    }
}
