//! The open connections toward a pod, to be judged again when the view changes.
//!
//! One watcher per pod walks them after each change and speaks only to those that it
//! cuts; the others sleep on.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use mesh::{Connection, Decision, Denial};
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

/// Places of connections that have gone are given out again, the last one first.
#[derive(Debug, Default)]
struct Shard {
    places: Vec<Slot>,
    free: Option<usize>,
    taken: usize,
}

#[derive(Debug)]
enum Slot {
    Free {
        next: Option<usize>,
    },
    Taken {
        line: Arc<Line>,
        /// Since when the answer depends on a policy that has not arrived.
        doubtful_since: Option<Instant>,
    },
}

/// One connection, and what it is told.
#[derive(Debug)]
struct Line {
    connection: Connection,
    cut: OnceLock<Refusal>,
    waker: AtomicWaker,
}

/// A connection's place in the roster, free again when dropped.
#[derive(Debug)]
pub(super) struct Seat {
    roster: Arc<Roster>,
    line: Arc<Line>,
    shard: usize,
    place: usize,
}

impl Seat {
    /// Returns when the connection is no longer allowed; else never. For one task.
    pub(super) fn offence(&self) -> impl Future<Output = Refusal> {
        std::future::poll_fn(|cx| self.line.poll_cut(cx))
    }
}

impl Line {
    fn poll_cut(&self, cx: &mut Context<'_>) -> Poll<Refusal> {
        if self.cut.get().is_none() {
            self.waker.register(cx.waker());
        }
        self.cut.get().cloned().map_or(Poll::Pending, Poll::Ready)
    }
}

impl Roster {
    pub(super) fn new(workers: usize) -> Arc<Self> {
        Arc::new(Self { shards: (0..workers).map(|_| Mutex::default()).collect() })
    }

    /// Lists a connection. To be called before it is admitted: a change of the view after
    /// the admission then finds it here.
    pub(super) fn enter(self: &Arc<Self>, worker: usize, connection: Connection) -> Seat {
        let (cut, waker) = (OnceLock::new(), AtomicWaker::new());
        let line = Arc::new(Line { connection, cut, waker });
        let place = self.shard(worker).take(Arc::clone(&line));
        Seat { roster: Arc::clone(self), line, shard: worker, place }
    }

    fn shard(&self, worker: usize) -> MutexGuard<'_, Shard> {
        self.shards[worker].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Judges all connections again and cuts the offenders. Returns when to ask again,
    /// because answers depend on policies that have not arrived.
    async fn judge(
        &self,
        now: Instant,
        judge: impl Fn(&Connection) -> Decision,
    ) -> Option<Instant> {
        let mut again: Option<Instant> = None;
        for worker in 0..self.shards.len() {
            let mut from = 0;
            while let Some(next) = self.step(worker, from, (now, &judge), &mut again) {
                from = next;
                tokio::task::yield_now().await;
            }
        }
        again
    }

    /// Judges the next few, and returns where to go on.
    fn step(
        &self,
        worker: usize,
        from: usize,
        (now, judge): (Instant, &impl Fn(&Connection) -> Decision),
        again: &mut Option<Instant>,
    ) -> Option<usize> {
        let mut shard = self.shard(worker);
        let most = shard.places.len();
        for place in shard.places.iter_mut().skip(from).take(STEP) {
            if let Some(deadline) = place.judge(now, judge) {
                *again = Some(again.map_or(deadline, |other| other.min(deadline)));
            }
        }
        Some(from + STEP).filter(|next| *next < most)
    }
}

impl Shard {
    fn take(&mut self, line: Arc<Line>) -> usize {
        self.taken += 1;
        let taken = Slot::Taken { line, doubtful_since: None };
        let Some(free) = self.free else {
            self.places.push(taken);
            return self.places.len() - 1;
        };
        if let Slot::Free { next } = std::mem::replace(&mut self.places[free], taken) {
            self.free = next;
        }
        free
    }

    fn give_back(&mut self, place: usize) {
        self.taken -= 1;
        if self.taken == 0 {
            // Nothing is held while there is nobody.
            *self = Self::default();
            return;
        }
        self.places[place] = Slot::Free { next: self.free };
        self.free = Some(place);
    }
}

impl Slot {
    /// Returns until when the answer may wait.
    fn judge(&mut self, now: Instant, judge: impl Fn(&Connection) -> Decision) -> Option<Instant> {
        let Self::Taken { line, doubtful_since } = self else { return None };
        if line.cut.get().is_some() {
            return None;
        }
        let Decision::Deny(denial) = judge(&line.connection) else {
            *doubtful_since = None;
            return None;
        };
        if matches!(denial, Denial::Unknown(_)) {
            let deadline = *doubtful_since.get_or_insert(now) + KNOWLEDGE_WAIT;
            if now < deadline {
                return Some(deadline);
            }
        }
        // Only the watcher speaks, and once.
        let _ = line.cut.set(Refusal::Denied(denial));
        line.waker.wake();
        None
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.roster.shard(self.shard).give_back(self.place);
    }
}

/// Learns from the view who the pod is, and judges its inbound connections again at every
/// change. Changes that come while it does are judged together.
pub(super) async fn watch(pod: Arc<PodShared>) {
    let mut changes = pod.context.view.changes();
    let unknown = pod.context.settings.unknown_policy;
    loop {
        // Only a policy cuts what was allowed. That the workload is missing for a moment,
        // or for good because the pod is ending, does not.
        let again = match pod.lookup() {
            Ok((view, workload)) => {
                pod.confirm(&workload.identity);
                let judge =
                    |connection: &Connection| view.authorize_with(unknown, &workload, connection);
                pod.roster.judge(Instant::now(), judge).await
            }
            Err(_) => None,
        };
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = until(again) => {}
        }
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
    use std::net::SocketAddr;

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
        let seat = roster.enter(1, connection(1));
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
        assert!(seat.line.cut.get().is_none(), "it was cut too early");
        assert_eq!(roster.judge(again, unknown).await, None);
        assert_eq!(seat.offence().await.name(), "policy_unknown");
    }

    #[tokio::test]
    async fn only_the_offenders_of_many_hear_of_it() {
        let roster = Roster::new(3);
        let mut all = Vec::new();
        for port in 0..2000_u16 {
            all.push((port, roster.enter(usize::from(port % 3), connection(port))));
        }
        let deny = |connection: &Connection| match connection.source.port() % 7 {
            0 => Decision::Deny(Denial::Rejected(PolicyKey::parse("shop/broken").unwrap())),
            _ => Decision::Allow,
        };
        assert_eq!(roster.judge(Instant::now(), deny).await, None);
        for (port, seat) in &all {
            assert_eq!(seat.line.cut.get().is_some(), *port % 7 == 0, "{port}");
        }
    }

    #[test]
    fn places_are_given_out_again_and_an_empty_roster_holds_nothing() {
        let roster = Roster::new(1);
        let seats: Vec<_> = (0..4).map(|port| roster.enter(0, connection(port))).collect();
        let mut seats = seats.into_iter();
        drop((seats.next(), seats.next()));
        let again = [roster.enter(0, connection(5)), roster.enter(0, connection(6))];
        assert_eq!([again[0].place, again[1].place], [1, 0]);
        assert_eq!(roster.shard(0).places.len(), 4);
        drop((seats, again));
        assert_eq!(roster.shard(0).places.capacity(), 0);
    }
}
