//! Workloads and services that are asked for when a connection needs them.
//!
//! ```text
//!             lookup            subscribed, answered
//! (nothing) ─────────► Asked ────────────────────────► Answered ──unused for long──► (nothing)
//!                       │  └ lookups wait for one answer    │ └ or others need the room
//!                       │                                   └ lookups return at once
//!                       └ no answer in time: the lookup fails, the question stays
//! ```
//!
//! An answered name stays subscribed: the view is right about it until it is given up,
//! whether there is something under it or not. So nothing of the answer is kept here.
//!
//! The pods of this node are never given up while they are served: nobody looks them up
//! when a policy changes, and their open connections are judged by what the view says of
//! them.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mesh::Network;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

/// How long a connection waits for an answer.
pub const LOOKUP_PATIENCE: Duration = Duration::from_secs(5);

/// Names asked for at one time. An application that dials every address there is must not
/// fill our memory, nor that of the control plane; nor may it keep others from asking, so
/// the names that were not used for longest make room.
const NAMES: usize = 20_000;

/// So many make room at once, because finding them takes a look at all.
const ROOM: usize = NAMES / 8;

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
    /// More names than we remember are waited for at this moment.
    #[error("{NAMES} destinations are waited for already: {0} is one too many")]
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
    /// Given up, which the control plane has not been told yet: until then it goes on to
    /// tell what it knows of them. With whether there was an answer.
    gone: HashMap<Arc<str>, bool>,
}

#[derive(Debug)]
struct Question {
    /// Whether there was an answer.
    answered: watch::Sender<bool>,
    used: Instant,
    /// Served pods that it is about.
    keepers: usize,
    /// Whether the control plane knows that it is asked for.
    told: bool,
}

impl Question {
    fn new(answered: bool, now: Instant) -> Self {
        let answered = watch::Sender::new(answered);
        Self { answered, used: now, keepers: 0, told: false }
    }

    /// Nobody needs it at this moment.
    fn is_idle(&self) -> bool {
        self.keepers == 0 && self.answered.receiver_count() == 0
    }
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

    /// Asks for a pod of this cluster, and goes on asking until as many calls of
    /// [`Demand::let_go`]. Returns the name. There is no bound: the node's agent bounds
    /// its pods.
    pub(super) fn keep_pod(&self, namespace: &str, name: &str) -> Arc<str> {
        let uid: Arc<str> = format!("{}//Pod/{namespace}/{name}", self.cluster).into();
        let mut names = self.names();
        let is_news = names.ask(&uid, Instant::now()).1;
        if let Some(question) = names.asked.get_mut(&uid) {
            question.keepers += 1;
        }
        drop(names);
        self.tell(is_news);
        uid
    }

    /// A pod is not served any more.
    pub(super) fn let_go(&self, uid: &str) {
        if let Some(question) = self.names().asked.get_mut(uid) {
            question.keepers = question.keepers.saturating_sub(1);
            question.used = Instant::now();
        }
    }

    /// The same for the machine that we run on, which may be registered as an entry of its own
    /// or as a pod.
    pub(super) fn ask_for_machine(&self, namespace: &str, name: &str) {
        let entry = format!("{}/{MACHINES}/{namespace}/{name}", self.cluster);
        let pod = format!("{}//Pod/{namespace}/{name}", self.cluster);
        for uid in [entry, pod] {
            let _ = self.ask(&uid.into(), Instant::now());
        }
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
        if names.asked.len() >= NAMES && !names.asked.contains_key(name) && !names.make_room() {
            return Err(LookupError::Full(Arc::clone(name)));
        }
        let (answer, is_news) = names.ask(name, now);
        drop(names);
        self.tell(is_news);
        Ok(answer)
    }

    fn tell(&self, is_news: bool) {
        if is_news {
            self.news.notify_one();
        }
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
        names.gone.clear();
        names.asked.values_mut().for_each(|question| question.told = true);
        names.asked.keys().cloned().collect()
    }

    /// Returns when names were added. Safe to be dropped at any time.
    pub(super) async fn news(&self) {
        self.news.notified().await;
    }

    /// What changed since the last call, with the names given up that nobody uses.
    pub(super) fn change(&self, now: Instant) -> Change {
        let mut names = self.names();
        let stale = |question: &Question| {
            question.is_idle() && now.saturating_duration_since(question.used) >= UNUSED
        };
        let stale = names.asked.iter().filter(|(_, question)| stale(question));
        let stale: Vec<_> = stale.map(|(name, _)| Arc::clone(name)).collect();
        names.give_up(&stale);
        let subscribe = std::mem::take(&mut names.new);
        for name in &subscribe {
            if let Some(question) = names.asked.get_mut(name) {
                question.told = true;
            }
        }
        let unsubscribe = std::mem::take(&mut names.gone).into_keys().collect();
        Change { subscribe, unsubscribe }
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Names {
    /// Where the answer will come, and whether the control plane must be told.
    fn ask(&mut self, name: &Arc<str>, now: Instant) -> (watch::Receiver<bool>, bool) {
        if let Some(question) = self.asked.get_mut(name) {
            question.used = now;
            return (question.answered.subscribe(), false);
        }
        let before = self.gone.remove(name);
        let question =
            Question { told: before.is_some(), ..Question::new(before.unwrap_or(false), now) };
        let answer = question.answered.subscribe();
        if before.is_none() {
            self.new.push(Arc::clone(name));
        }
        self.asked.insert(Arc::clone(name), question);
        (answer, before.is_none())
    }

    /// Gives up the names that nobody used for longest; `false` when all are needed.
    fn make_room(&mut self) -> bool {
        let idle = self.asked.iter().filter(|(_, question)| question.is_idle());
        let mut idle: Vec<_> = idle.map(|(name, it)| (it.used, Arc::clone(name))).collect();
        idle.sort_unstable();
        let idle: Vec<_> = idle.into_iter().take(ROOM).map(|(_, name)| name).collect();
        self.give_up(&idle);
        !idle.is_empty()
    }

    fn give_up(&mut self, names: &[Arc<str>]) {
        let mut never_told = HashSet::new();
        for name in names {
            match self.asked.remove(name) {
                Some(question) if question.told => {
                    self.gone.insert(Arc::clone(name), *question.answered.borrow());
                }
                _ => {
                    never_told.insert(Arc::clone(name));
                }
            }
        }
        if !never_told.is_empty() {
            self.new.retain(|name| !never_told.contains(name));
        }
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
        demand.keep_pod("shop", "cart-1");
        demand.keep_pod("shop", "cart-1");
        let subscribe = demand.change(Instant::now()).subscribe;
        assert_eq!(subscribe, [name("Kubernetes//Pod/shop/cart-1")]);
    }

    /// Its workload lists the policies that its connections are judged by.
    #[test]
    fn a_pod_is_not_given_up_while_it_is_served_however_quiet_it_is() {
        let demand = demand();
        let uid = demand.keep_pod("shop", "cart-1");
        demand.keep_pod("shop", "cart-1");
        demand.change(Instant::now());
        let later = Instant::now() + 10 * UNUSED;
        assert_eq!(demand.change(later), Change::default());
        demand.let_go(&uid);
        assert_eq!(demand.change(later), Change::default(), "one of the two serves it still");
        demand.let_go(&uid);
        assert_eq!(demand.change(later).unsubscribe, [uid]);
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
        drop(demand.ask(&name("old"), begin).unwrap());
        drop(demand.ask(&name("used"), begin).unwrap());
        drop(demand.ask(&name("used"), begin + UNUSED / 2).unwrap());
        demand.change(begin);
        let change = demand.change(begin + UNUSED);
        assert_eq!(change.unsubscribe, [name("old")]);
        assert_eq!(demand.all(), [name("used")]);
    }

    #[test]
    fn who_dials_everything_does_not_keep_others_from_asking() {
        let demand = demand();
        let begin = Instant::now();
        let uid = demand.keep_pod("shop", "cart-1");
        for number in 1..NAMES {
            let now = begin + Duration::from_millis(u64::try_from(number).unwrap());
            drop(demand.ask(&number.to_string().into(), now).unwrap());
        }
        demand.change(begin);
        assert!(demand.ask(&name("more"), begin + UNUSED / 2).is_ok());
        let change = demand.change(begin + UNUSED / 2);
        assert_eq!(change.subscribe, [name("more")]);
        assert_eq!(change.unsubscribe.len(), ROOM);
        assert!(change.unsubscribe.contains(&name("1")), "the longest unused go");
        let left = demand.all();
        assert_eq!(left.len(), NAMES - ROOM + 1);
        assert!(left.contains(&uid) && left.contains(&(NAMES - 1).to_string().into()));
    }

    #[test]
    fn what_is_waited_for_makes_no_room() {
        let demand = demand();
        let now = Instant::now();
        let mut waiting: Vec<_> =
            (0..NAMES).map(|number| demand.ask(&number.to_string().into(), now).unwrap()).collect();
        let error = demand.ask(&name("more"), now).unwrap_err();
        assert_eq!(error, LookupError::Full(name("more")));
        assert!(demand.ask(&name("7"), now).is_ok(), "known ones go on");
        waiting.truncate(NAMES - 1);
        assert!(demand.ask(&name("more"), now).is_ok());
        let change = demand.change(now);
        assert_eq!((change.subscribe.len(), change.unsubscribe.len()), (NAMES, 0), "never told");
    }

    #[tokio::test]
    async fn a_name_that_is_wanted_back_in_time_was_never_given_up() {
        let demand = demand();
        let now = Instant::now();
        drop(demand.ask(&name("old"), now).unwrap());
        demand.change(now);
        demand.answered(&["old".to_owned()]);
        assert!(demand.names().make_room());
        assert_eq!(demand.lookup("old".to_owned()).await, Ok(()), "the view is right about it");
        assert_eq!(demand.change(now), Change::default());
    }
}
