//! The open connections of a pod: to be judged again when the view changes, and to be
//! named when they outlive a drain.
//!
//! One watcher per pod walks them after each change and speaks only to those that it
//! cuts; the others sleep on.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mesh::{Connection, Decision, Denial};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use super::KNOWLEDGE_WAIT;
use super::pod::PodShared;
use super::refusal::Refusal;

/// How many connections are judged before other tasks get their turn.
const STEP: usize = 256;

/// Connections by worker, so that workers do not wait for each other.
#[derive(Debug)]
pub(super) struct Roster {
    shards: Box<[Mutex<Shard>]>,
}

#[derive(Debug, Default)]
struct Shard {
    next: u64,
    open: BTreeMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    connection: Connection,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// Judged by policies.
    Inbound {
        /// Since when the answer depends on a policy that has not arrived.
        doubtful_since: Option<Instant>,
        /// Taken when it is cut.
        cut: Option<oneshot::Sender<Refusal>>,
    },
    /// Only listed.
    Outbound,
}

/// A connection's line in the roster, gone when dropped.
#[derive(Debug)]
pub(super) struct Seat {
    roster: Arc<Roster>,
    shard: usize,
    key: u64,
}

/// Says why an inbound connection must end.
#[derive(Debug)]
pub(super) struct Offence(oneshot::Receiver<Refusal>);

impl Offence {
    /// Returns when the connection is no longer allowed; else never.
    pub(super) async fn committed(&mut self) -> Refusal {
        match (&mut self.0).await {
            Ok(refusal) => refusal,
            Err(_) => std::future::pending().await,
        }
    }
}

/// An open connection, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) direction: &'static str,
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
}

impl fmt::Display for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} -> {}", self.direction, self.source, self.destination)
    }
}

impl Roster {
    pub(super) fn new(workers: usize) -> Arc<Self> {
        Arc::new(Self { shards: (0..workers).map(|_| Mutex::default()).collect() })
    }

    /// Lists an inbound connection. To be called before it is admitted: a change of the
    /// view after the admission then finds it here.
    pub(super) fn inbound(
        self: &Arc<Self>,
        worker: usize,
        connection: Connection,
    ) -> (Seat, Offence) {
        let (sender, receiver) = oneshot::channel();
        let kind = Kind::Inbound { doubtful_since: None, cut: Some(sender) };
        (self.enter(worker, Entry { connection, kind }), Offence(receiver))
    }

    /// Lists an outbound connection.
    pub(super) fn outbound(
        self: &Arc<Self>,
        worker: usize,
        source: SocketAddr,
        destination: SocketAddr,
    ) -> Seat {
        let connection = Connection { source, identity: None, destination };
        self.enter(worker, Entry { connection, kind: Kind::Outbound })
    }

    fn enter(self: &Arc<Self>, worker: usize, entry: Entry) -> Seat {
        let mut shard = self.shard(worker);
        let key = shard.next;
        shard.next += 1;
        shard.open.insert(key, entry);
        Seat { roster: Arc::clone(self), shard: worker, key }
    }

    fn shard(&self, worker: usize) -> MutexGuard<'_, Shard> {
        self.shards[worker].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first `most` open connections, and how many there are in all.
    pub(super) fn list(&self, most: usize) -> (Vec<Listed>, usize) {
        let (mut listed, mut count) = (Vec::new(), 0);
        for worker in 0..self.shards.len() {
            let shard = self.shard(worker);
            count += shard.open.len();
            let wanted = most - listed.len();
            listed.extend(shard.open.values().take(wanted).map(Entry::listed));
        }
        (listed, count)
    }

    /// Judges the inbound connections again and cuts the offenders. Returns when to ask
    /// again, because answers depend on policies that have not arrived.
    async fn judge(
        &self,
        now: Instant,
        judge: impl Fn(&Connection) -> Decision,
    ) -> Option<Instant> {
        let judge = |entry: &mut Entry| entry.judge(now, &judge);
        let mut again: Option<Instant> = None;
        for worker in 0..self.shards.len() {
            let mut from = Bound::Unbounded;
            while let Some(last) = self.step(worker, from, judge, &mut again) {
                from = Bound::Excluded(last);
                tokio::task::yield_now().await;
            }
        }
        again
    }

    /// Judges the next few, and returns the last of them.
    fn step(
        &self,
        worker: usize,
        from: Bound<u64>,
        judge: impl Fn(&mut Entry) -> Option<Instant>,
        again: &mut Option<Instant>,
    ) -> Option<u64> {
        let mut last = None;
        for (key, entry) in self.shard(worker).open.range_mut((from, Bound::Unbounded)).take(STEP) {
            last = Some(*key);
            if let Some(deadline) = judge(entry) {
                *again = Some(again.map_or(deadline, |other| other.min(deadline)));
            }
        }
        last
    }
}

impl Entry {
    /// Returns until when the answer may wait.
    fn judge(&mut self, now: Instant, judge: impl Fn(&Connection) -> Decision) -> Option<Instant> {
        let Kind::Inbound { doubtful_since, cut } = &mut self.kind else { return None };
        if cut.is_none() {
            return None;
        }
        let Decision::Deny(denial) = judge(&self.connection) else {
            *doubtful_since = None;
            return None;
        };
        if matches!(denial, Denial::Unknown(_)) {
            let deadline = *doubtful_since.get_or_insert(now) + KNOWLEDGE_WAIT;
            if now < deadline {
                return Some(deadline);
            }
        }
        if let Some(cut) = cut.take() {
            // A connection that ends just now does not listen any more.
            let _ = cut.send(Refusal::Denied(denial));
        }
        None
    }

    fn listed(&self) -> Listed {
        let direction = match self.kind {
            Kind::Inbound { .. } => "inbound",
            Kind::Outbound => "outbound",
        };
        let Connection { source, destination, .. } = self.connection;
        Listed { direction, source, destination }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.roster.shard(self.shard).open.remove(&self.key);
    }
}

/// Judges the pod's inbound connections again at every change of the view. Changes that
/// come while it does are judged together.
pub(super) async fn watch(pod: Arc<PodShared>) {
    let mut changes = pod.context.view.changes();
    let unknown = pod.context.settings.unknown_policy;
    let mut again = None;
    loop {
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = until(again) => {}
        }
        // Only a policy cuts what was allowed. That the workload is missing for a moment,
        // or for good because the pod is ending, does not.
        again = match pod.lookup() {
            Ok((view, workload)) => {
                let judge =
                    |connection: &Connection| view.authorize_with(unknown, &workload, connection);
                pod.roster.judge(Instant::now(), judge).await
            }
            Err(_) => None,
        };
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use mesh::PolicyKey;

    use super::*;

    fn connection(port: u16) -> Connection {
        let source = SocketAddr::from(([10, 0, 0, 1], port));
        let destination = SocketAddr::from(([10, 0, 0, 2], 80));
        Connection { source, identity: None, destination }
    }

    fn unknown(_: &Connection) -> Decision {
        Decision::Deny(Denial::Unknown(PolicyKey::parse("shop/late").unwrap()))
    }

    #[tokio::test]
    async fn a_missing_policy_is_waited_for_before_anything_is_cut() {
        let roster = Roster::new(2);
        let (_seat, mut offence) = roster.inbound(1, connection(1));
        let begin = Instant::now();
        let again = roster.judge(begin, unknown).await;
        assert_eq!(again, Some(begin + KNOWLEDGE_WAIT));
        let later = begin + KNOWLEDGE_WAIT / 2;
        assert_eq!(roster.judge(later, unknown).await, again, "the first doubt counts");
        // The policy comes, and allows; later it is gone again.
        let later = begin + KNOWLEDGE_WAIT;
        assert_eq!(roster.judge(later, |_| Decision::Allow).await, None);
        let again = roster.judge(later, unknown).await.unwrap();
        assert_eq!(again, later + KNOWLEDGE_WAIT);
        assert!(offence.0.try_recv().is_err(), "it was cut too early");
        assert_eq!(roster.judge(again, unknown).await, None);
        assert_eq!(offence.committed().await.name(), "policy_unknown");
    }

    #[tokio::test]
    async fn only_the_offenders_of_many_hear_of_it() {
        let roster = Roster::new(3);
        let mut all = Vec::new();
        for port in 0..2000_u16 {
            all.push((port, roster.inbound(usize::from(port % 3), connection(port))));
        }
        let deny = |connection: &Connection| match connection.source.port() % 7 {
            0 => Decision::Deny(Denial::Rejected(PolicyKey::parse("shop/broken").unwrap())),
            _ => Decision::Allow,
        };
        assert_eq!(roster.judge(Instant::now(), deny).await, None);
        for (port, (_seat, offence)) in &mut all {
            assert_eq!(offence.0.try_recv().is_ok(), *port % 7 == 0, "{port}");
        }
    }

    #[test]
    fn the_list_is_short_and_its_count_is_whole() {
        let roster = Roster::new(2);
        let out = roster.outbound(0, connection(7).source, connection(7).destination);
        let seats: Vec<_> =
            (0..5).map(|port| roster.inbound(usize::from(port % 2), connection(port))).collect();
        let (listed, count) = roster.list(4);
        assert_eq!((listed.len(), count), (4, 6));
        assert_eq!(listed[0].to_string(), "outbound 10.0.0.1:7 -> 10.0.0.2:80");
        drop((out, seats));
        assert_eq!(roster.list(4), (Vec::new(), 0));
    }
}
