//! Workloads and services that are asked for when a connection needs them.
//!
//! ```text
//!             lookup            subscribed, answered
//! (nothing) ─────────► Asked ────────────────────────► Answered ──unused for long──► (nothing)
//!                       │  └ lookups wait for one answer    └ lookups return at once
//!                       └ no answer in time: the lookup fails, the question stays
//! ```
//!
//! An answered name stays subscribed: the view is right about it until it is given up,
//! whether there is something under it or not. So nothing of the answer is kept here.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mesh::Network;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

/// How long a connection waits for an answer.
pub const LOOKUP_PATIENCE: Duration = Duration::from_secs(5);

/// Names asked for at one time. An application that dials every address there is must not
/// fill our memory, nor that of the control plane.
const NAMES: usize = 20_000;

/// A name that nobody looked up for so long is given up.
const UNUSED: Duration = Duration::from_secs(30 * 60);

/// Istio's kind of objects that stand for machines, as it is in their UIDs.
const MACHINES: &str = "networking.istio.io/WorkloadEntry";

/// Why nothing is known about a destination: it must not be taken for one outside of the
/// mesh.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// The control plane is away, or slow.
    #[error("the control plane did not say within {LOOKUP_PATIENCE:?} what {0} is")]
    Deadline(Arc<str>),
    /// More names than we remember are in use.
    #[error("{NAMES} destinations are asked for already: {0} is one too many")]
    Full(Arc<str>),
}

/// How the control plane names what is at an address.
#[must_use]
pub(super) fn address_name(network: &Network, ip: IpAddr) -> String {
    format!("{network}/{}", ip.to_canonical())
}

/// Everything that is asked for on demand.
#[derive(Debug)]
pub(super) struct Demand {
    /// The cluster whose pods are ours.
    cluster: String,
    patience: Duration,
    names: Mutex<Names>,
    news: Notify,
}

#[derive(Debug, Default)]
struct Names {
    asked: HashMap<Arc<str>, Question>,
    /// Not told to the control plane yet.
    new: Vec<Arc<str>>,
}

#[derive(Debug)]
struct Question {
    /// Whether there was an answer.
    answered: watch::Sender<bool>,
    used: Instant,
}

/// What to tell the control plane.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) subscribe: Vec<Arc<str>>,
    pub(super) unsubscribe: Vec<Arc<str>>,
}

impl Demand {
    /// Nothing is asked for yet.
    pub(super) fn new(cluster: &str) -> Self {
        let (names, news) = (Mutex::default(), Notify::new());
        Self { cluster: cluster.to_owned(), patience: LOOKUP_PATIENCE, names, news }
    }

    /// Asks for a pod of this cluster without waiting. There is no error: whoever needs
    /// the pod waits for it to be in the view.
    pub(super) fn ask_for_pod(&self, namespace: &str, name: &str) {
        let uid = format!("{}//Pod/{namespace}/{name}", self.cluster);
        let _ = self.ask(&uid.into(), Instant::now());
    }

    /// The same for the machine that we run on, which may be registered as an entry of its own
    /// or as a pod.
    pub(super) fn ask_for_machine(&self, namespace: &str, name: &str) {
        let uid = format!("{}/{MACHINES}/{namespace}/{name}", self.cluster);
        let _ = self.ask(&uid.into(), Instant::now());
        self.ask_for_pod(namespace, name);
    }

    /// Returns when the view says what `name` is, even if that is nothing.
    pub(super) async fn lookup(&self, name: String) -> Result<(), LookupError> {
        let name: Arc<str> = name.into();
        let mut answered = self.ask(&name, Instant::now())?;
        // The sender lives in the table; a name that is given up while it is waited for
        // ends the wait.
        match timeout(self.patience, answered.wait_for(|answered| *answered)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(LookupError::Deadline(name)),
        }
    }

    fn ask(&self, name: &Arc<str>, now: Instant) -> Result<watch::Receiver<bool>, LookupError> {
        let mut names = self.names();
        if let Some(question) = names.asked.get_mut(name) {
            question.used = now;
            return Ok(question.answered.subscribe());
        }
        if names.asked.len() >= NAMES {
            return Err(LookupError::Full(Arc::clone(name)));
        }
        let answered = watch::Sender::new(false);
        let answer = answered.subscribe();
        names.asked.insert(Arc::clone(name), Question { answered, used: now });
        names.new.push(Arc::clone(name));
        drop(names);
        self.news.notify_one();
        Ok(answer)
    }

    /// The control plane said something about these names, and the view has it.
    pub(super) fn answered(&self, told: &[String]) {
        let names = self.names();
        for question in told.iter().filter_map(|name| names.asked.get(&**name)) {
            question.answered.send_replace(true);
        }
    }

    /// Every name, for the beginning of a stream: none of them is new after that.
    pub(super) fn all(&self) -> Vec<Arc<str>> {
        let mut names = self.names();
        names.new.clear();
        names.asked.keys().cloned().collect()
    }

    /// Returns when names were added. Safe to be dropped at any time.
    pub(super) async fn news(&self) {
        self.news.notified().await;
    }

    /// What changed since the last call, with the names given up that nobody uses.
    pub(super) fn change(&self, now: Instant) -> Change {
        let mut names = self.names();
        let subscribe = std::mem::take(&mut names.new);
        let stale = |question: &Question| now.saturating_duration_since(question.used) >= UNUSED;
        let unsubscribe: Vec<_> = names
            .asked
            .iter()
            .filter(|(_, question)| stale(question))
            .map(|(name, _)| Arc::clone(name))
            .collect();
        unsubscribe.iter().for_each(|name| {
            names.asked.remove(name);
        });
        Change { subscribe, unsubscribe }
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demand() -> Demand {
        Demand::new("Kubernetes")
    }

    #[test]
    fn a_pod_of_ours_is_asked_for_by_the_uid_that_control_planes_give_it() {
        let demand = demand();
        demand.ask_for_pod("shop", "cart-1");
        demand.ask_for_pod("shop", "cart-1");
        let subscribe = demand.change(Instant::now()).subscribe;
        assert_eq!(subscribe, [name("Kubernetes//Pod/shop/cart-1")]);
    }

    #[test]
    fn a_machine_is_asked_for_as_an_entry_and_as_a_pod() {
        let demand = demand();
        demand.ask_for_machine("shop", "vm-1");
        let entry = name("Kubernetes/networking.istio.io/WorkloadEntry/shop/vm-1");
        let subscribe = demand.change(Instant::now()).subscribe;
        assert_eq!(subscribe, [entry, name("Kubernetes//Pod/shop/vm-1")]);
    }

    fn name(text: &str) -> Arc<str> {
        text.into()
    }

    #[tokio::test]
    async fn many_lookups_of_a_name_are_one_question_and_one_answer() {
        let demand = Arc::new(demand());
        let lookups: Vec<_> = (0..10)
            .map(|_| {
                let demand = Arc::clone(&demand);
                tokio::spawn(async move { demand.lookup("/10.0.0.1".to_owned()).await })
            })
            .collect();
        demand.news().await;
        assert_eq!(demand.change(Instant::now()).subscribe, [name("/10.0.0.1")]);
        assert_eq!(demand.change(Instant::now()), Change::default(), "asked once");
        demand.answered(&["/10.0.0.2".to_owned(), "/10.0.0.1".to_owned()]);
        for lookup in lookups {
            assert_eq!(lookup.await.unwrap(), Ok(()));
        }
        assert_eq!(demand.lookup("/10.0.0.1".to_owned()).await, Ok(()), "it is remembered");
        assert_eq!(demand.change(Instant::now()), Change::default());
    }

    #[tokio::test]
    async fn without_an_answer_a_lookup_fails_and_the_question_stays() {
        let demand = Demand { patience: Duration::from_millis(1), ..demand() };
        let error = demand.lookup("/10.0.0.1".to_owned()).await.unwrap_err();
        assert_eq!(error, LookupError::Deadline(name("/10.0.0.1")));
        assert_eq!(demand.all(), [name("/10.0.0.1")], "the next stream asks for it too");
        assert_eq!(demand.change(Instant::now()), Change::default());
        demand.answered(&["/10.0.0.1".to_owned()]);
        assert_eq!(demand.lookup("/10.0.0.1".to_owned()).await, Ok(()));
    }

    #[tokio::test]
    async fn names_that_nobody_uses_are_given_up() {
        let demand = demand();
        let begin = Instant::now();
        let _old = demand.ask(&name("old"), begin).unwrap();
        let _used = demand.ask(&name("used"), begin).unwrap();
        let _used = demand.ask(&name("used"), begin + UNUSED / 2).unwrap();
        demand.change(begin);
        let change = demand.change(begin + UNUSED);
        assert_eq!(change.unsubscribe, [name("old")]);
        assert_eq!(demand.all(), [name("used")]);
    }

    #[test]
    fn the_number_of_names_is_bounded() {
        let demand = demand();
        for number in 0..NAMES {
            demand.ask(&number.to_string().into(), Instant::now()).unwrap();
        }
        let error = demand.ask(&name("more"), Instant::now()).unwrap_err();
        assert_eq!(error, LookupError::Full(name("more")));
        assert!(demand.ask(&name("7"), Instant::now()).is_ok(), "known ones go on");
    }
}
