//! The thin shell around the session: packets in, proxies started and stopped, answers
//! out.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use netns::{NetnsError, NetnsId, PodNetns};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use zds::link::{Link, LinkError, Packet};

use super::Metrics;
use super::agent;
use super::event::{Action, Event, Pod};
use super::handle::{Handle, Pods, Settings};
use super::session::Session;
use crate::admin::{Part, Readiness};
use crate::backoff::Backoff;
use crate::proxy::{self, Drain, PodProxy, ProxyContext};

const FIRST_WAIT: Duration = Duration::from_millis(10);
/// The agent is on this node: looking for it costs next to nothing, and until it is found
/// no pod starts and no label counts.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// For a pod that is gone to let go of its connections.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// Runs the session and owns the proxies.
#[derive(Debug)]
pub struct Manager {
    settings: Settings,
    context: Arc<ProxyContext>,
    metrics: Metrics,
    readiness: Readiness,
    /// ztunnel's own namespace, which no pod has.
    home: NetnsId,
    pub(super) session: Session<PodNetns>,
    pub(super) link: Option<Link>,
    reconnect: Reconnect,
    /// The attempt to connect that is under way, at most one: a task, because what else
    /// happens must not cut it in the middle.
    dials: JoinSet<Result<Link, LinkError>>,
    starts: JoinSet<Result<PodProxy, String>>,
    /// Whose start a task is: a panic leaves nothing else behind.
    starting: HashMap<Id, String>,
    pub(super) proxies: HashMap<String, PodProxy>,
    questions: mpsc::Receiver<oneshot::Sender<Pods>>,
}

#[derive(Debug)]
struct Reconnect {
    backoff: Backoff,
    at: Instant,
}

/// One turn of the loop.
enum Turn {
    Stop,
    Link(Result<Link, LinkError>),
    Packet(Result<Option<Packet>, LinkError>),
    Started(Result<(Id, Result<PodProxy, String>), JoinError>),
    Question(oneshot::Sender<Pods>),
    Tick,
}

impl Manager {
    /// Puts the manager together; nothing is connected yet.
    ///
    /// # Errors
    /// [`NetnsError`] when ztunnel's own namespace cannot be looked at.
    pub fn new(
        settings: Settings,
        context: Arc<ProxyContext>,
        metrics: Metrics,
        readiness: Readiness,
    ) -> Result<(Self, Handle), NetnsError> {
        let (questions, asked) = mpsc::channel(1);
        let backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        let manager = Self {
            settings,
            context,
            metrics,
            readiness,
            home: PodNetns::current()?.id(),
            session: Session::new(),
            link: None,
            reconnect: Reconnect { backoff, at: Instant::now() },
            dials: JoinSet::new(),
            starts: JoinSet::new(),
            starting: HashMap::new(),
            proxies: HashMap::new(),
            questions: asked,
        };
        manager.report();
        Ok((manager, Handle { questions }))
    }

    /// Follows the agent until `stop`, then returns with the pods still served.
    pub async fn run(mut self, stop: &CancellationToken) -> Self {
        let mut retry = interval(self.settings.retry_every);
        retry.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            match self.turn(stop, &mut retry).await {
                Turn::Stop => return self,
                Turn::Link(link) => self.connected(link).await,
                Turn::Packet(packet) => self.received(packet).await,
                Turn::Started(done) => self.started(done).await,
                // Who asked may have gone away.
                Turn::Question(answer) => drop(answer.send(self.pods())),
                Turn::Tick => self.handle(Event::Tick).await,
            }
            self.report();
        }
    }

    /// Lets the pods' connections finish, at most for `deadline`. The agent hears nothing
    /// more: to it we are gone.
    pub async fn drain(mut self, deadline: Duration) {
        self.link = None;
        self.dials.abort_all();
        self.starts.shutdown().await;
        let mut drains: JoinSet<()> =
            self.proxies.into_values().map(|proxy| proxy.stop(Drain::Graceful(deadline))).collect();
        info!(pods = drains.len(), ?deadline, "draining");
        while drains.join_next().await.is_some() {}
    }

    async fn turn(&mut self, stop: &CancellationToken, retry: &mut tokio::time::Interval) -> Turn {
        // Answers correlate by order only: no request is read while one is unanswered.
        let listen = !self.session.owes_ack();
        if self.link.is_none() && self.dials.is_empty() {
            let (socket, at) = (self.settings.socket.clone(), self.reconnect.at);
            let features = agent::features(self.settings.handover, self.context.name_servers());
            self.dials.spawn(agent::connect(socket, features, at));
        }
        tokio::select! {
            () = stop.cancelled() => Turn::Stop,
            Some(done) = self.starts.join_next_with_id() => Turn::Started(done),
            Some(answer) = self.questions.recv() => Turn::Question(answer),
            packet = agent::receive(self.link.as_ref()), if listen => Turn::Packet(packet),
            Some(dialled) = self.dials.join_next() => Turn::Link(dialled.unwrap_or_else(|panic| {
                Err(LinkError::Io { step: "connect to the agent", source: panic.into() })
            })),
            _ = retry.tick() => Turn::Tick,
        }
    }

    async fn connected(&mut self, link: Result<Link, LinkError>) {
        let socket = self.settings.socket.display();
        match link {
            Ok(link) => {
                info!(%socket, "connected to the node agent");
                self.link = Some(link);
                self.handle(Event::Connected).await;
            }
            Err(error) => {
                let told = self.reconnect.backoff.worth_telling();
                let wait = self.reconnect.backoff.wait();
                self.reconnect.at = Instant::now() + wait;
                if told {
                    warn!(
                        %socket, %error, retry_in = ?wait,
                        "no connection to the node agent (does it run on this node?)"
                    );
                } else {
                    debug!(%socket, %error, retry_in = ?wait, "still no node agent");
                }
            }
        }
    }

    async fn received(&mut self, packet: Result<Option<Packet>, LinkError>) {
        let event = match packet {
            Ok(Some(packet)) => agent::parse(packet, self.home),
            Ok(None) => {
                warn!("the node agent closed the connection; its pods stay served");
                self.disconnect();
                Event::Disconnected
            }
            Err(LinkError::Violation(violation)) => Event::Malformed(violation.to_string()),
            Err(error @ LinkError::Io { .. }) => {
                warn!(%error, "connection to the node agent lost; its pods stay served");
                self.disconnect();
                Event::Disconnected
            }
        };
        self.handle(event).await;
        if self.session.live() {
            // The agent is sound: the next failure is a new one.
            self.reconnect.backoff.reset();
        }
    }

    async fn started(&mut self, done: Result<(Id, Result<PodProxy, String>), JoinError>) {
        let (id, result) = match done {
            Ok((id, result)) => (id, result),
            Err(error) => (error.id(), Err(format!("start of the proxy ended early: {error}"))),
        };
        let Some(uid) = self.starting.remove(&id) else {
            return;
        };
        let result = match result {
            Ok(proxy) => {
                self.metrics.started.inc();
                info!(uid, "pod is served");
                self.proxies.insert(uid.clone(), proxy);
                Ok(())
            }
            Err(error) => {
                warn!(uid, error, "pod cannot be served yet");
                Err(error)
            }
        };
        self.handle(Event::Started(uid, result)).await;
    }

    /// Stops come first in every list of actions. They go side by side: the agent waits
    /// for the answer behind them, however many pods are gone.
    async fn handle(&mut self, event: Event<PodNetns>) {
        let (stops, rest): (Vec<_>, Vec<_>) =
            self.session.on(event).into_iter().partition(|it| matches!(it, Action::Stop(_)));
        let stops: Vec<_> = stops.iter().filter_map(|action| self.stop(action)).collect();
        join_all(stops).await;
        for action in rest {
            match action {
                // They are done.
                Action::Stop(_) => {}
                Action::Ack(result) => self.ack(result).await,
                Action::GiveBack(uid, asked) => self.give_back(&uid, asked).await,
                Action::Adopt(pod, asked) => self.adopt(pod, asked).await,
                Action::Start(pod) => self.start(pod),
                Action::Close => self.disconnect(),
            }
        }
    }

    fn start(&mut self, pod: Pod<PodNetns>) {
        let Pod { uid, info, netns, id, listeners, name_server } = pod;
        info!(uid, pod = info.name, namespace = info.namespace, netns = %id, "starting a pod");
        let (context, deadline) = (Arc::clone(&self.context), self.start_deadline());
        let pod =
            proxy::Pod { uid: uid.clone(), info, netns: netns.into(), listeners, name_server };
        let task = self.starts.spawn(async move {
            match timeout(deadline, PodProxy::start(&context, pod)).await {
                Ok(Ok(proxy)) => Ok(proxy),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err(format!("its proxy did not start within {deadline:?}")),
            }
        });
        self.starting.insert(task.id(), uid);
    }

    fn stop(&mut self, action: &Action<PodNetns>) -> Option<impl Future<Output = ()> + use<>> {
        let Action::Stop(uid) = action else { return None };
        let (uid, proxy) = (uid.clone(), self.proxies.remove(uid)?);
        self.metrics.stopped.inc();
        info!(uid, "pod is gone, its proxy stops");
        Some(async move {
            if timeout(STOP_PATIENCE, proxy.stop(Drain::Immediate)).await.is_err() {
                warn!(uid, "proxy did not stop within {STOP_PATIENCE:?} and was dropped");
            }
        })
    }

    /// For a pod to be served, or served differently.
    pub(super) fn start_deadline(&self) -> Duration {
        self.settings.start_deadline
    }

    pub(super) fn disconnect(&mut self) {
        self.link = None;
        self.reconnect.at = Instant::now() + self.reconnect.backoff.wait();
    }

    fn report(&self) {
        let waiting = self.session.waiting().map(str::to_owned);
        self.readiness.report(Part::Agent, waiting.into_iter().collect());
        self.metrics.active.set(count(self.proxies.len()));
        let unattended = if self.session.live() { 0 } else { self.proxies.len() };
        self.metrics.unattended.set(count(unattended));
        self.metrics.pending.set(count(self.session.pending_count()));
    }

    fn pods(&self) -> Pods {
        let known = self.session.pods().map(|(uid, info, state)| {
            let connections = self.proxies.get(uid).map(PodProxy::connections);
            (uid.to_owned(), (info.clone(), state, connections.unwrap_or_default()))
        });
        known.collect()
    }
}

fn count(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[path = "manager_tests.rs"]
mod tests;
