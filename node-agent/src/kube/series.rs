//! PURE. Which Events are written, and when. What is told again within minutes is counted in
//! the Event that was written first, and nobody, however often something happens, makes the
//! agent write more than the API server and its readers can stand.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, SystemTime};

use super::EventReason;
use crate::facts::{PodName, PodUid};

/// What is told again within this time after it was told last is the same series.
const WINDOW: Duration = Duration::from_secs(600);
/// Between two writes of one series.
const REPEAT_PAUSE: Duration = Duration::from_secs(30);
/// What one pod may have written at once, and how long it takes until it may have one more.
const POD: Allowance = Allowance { most: 10, every: Duration::from_secs(30) };
/// The same of the whole node: what a change of a namespace of 250 pods needs, and then ten a
/// second.
const NODE: Allowance = Allowance { most: 300, every: Duration::from_millis(100) };
/// Series that are remembered.
const MOST: usize = 2048;
/// Of a pod's name, what fits the name of an Event with what comes behind it.
const LONGEST_POD: usize = 220;

/// What is told about which pod; of some reasons, about our node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Topic {
    pub(super) uid: PodUid,
    pub(super) pod: PodName,
    pub(super) reason: EventReason,
    pub(super) message: String,
}

/// A moment, by both clocks. The monotonic one counts from any beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    pub(super) since: Duration,
    pub(super) wall: SystemTime,
}

/// One request that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Write {
    pub(super) series: u64,
    pub(super) topic: Topic,
    /// Of the Event.
    pub(super) name: String,
    pub(super) kind: Kind,
    /// How often it was told by now.
    pub(super) count: u32,
    pub(super) first: SystemTime,
    pub(super) last: SystemTime,
}

/// Whether the Event is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Create,
    Count,
}

/// What to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Write(Box<Write>),
    /// Nothing before this time has passed.
    Wait(Duration),
    /// Nothing before something is told.
    Idle,
}

#[derive(Debug)]
struct Series {
    topic: Topic,
    name: String,
    count: u32,
    /// How often, as far as the API knows.
    written: u32,
    written_at: Option<Duration>,
    first: SystemTime,
    last: Moment,
}

#[derive(Clone, Copy, Debug)]
struct Allowance {
    most: u32,
    every: Duration,
}

/// What is left of an [`Allowance`].
#[derive(Clone, Copy, Debug)]
struct Purse {
    left: u32,
    /// When the last one came back.
    at: Duration,
}

/// Everything that was told lately.
#[derive(Debug)]
pub(super) struct Book {
    series: BTreeMap<u64, Series>,
    by_topic: HashMap<Topic, u64>,
    next: u64,
    node: Purse,
    pods: HashMap<PodUid, Purse>,
    dropped: u64,
}

impl Default for Book {
    fn default() -> Self {
        let (series, by_topic, pods) = (BTreeMap::new(), HashMap::new(), HashMap::new());
        Self { series, by_topic, next: 0, node: NODE.full(Duration::ZERO), pods, dropped: 0 }
    }
}

impl Book {
    /// Somebody tells something.
    pub(super) fn note(&mut self, topic: Topic, now: Moment) {
        self.forget(now.since);
        if let Some(series) = self.by_topic.get(&topic).and_then(|id| self.series.get_mut(id)) {
            series.count = series.count.saturating_add(1);
            series.last = now;
            return;
        }
        if self.series.len() >= MOST {
            self.drop_oldest();
        }
        let id = self.next;
        self.next += 1;
        let name = name(&topic.pod.name, now.wall, id);
        self.by_topic.insert(topic.clone(), id);
        let (count, written, written_at) = (1, 0, None);
        let series = Series { topic, name, count, written, written_at, first: now.wall, last: now };
        self.series.insert(id, series);
    }

    /// What is due: what was told first comes first. Its allowance is taken with it.
    pub(super) fn next(&mut self, now: Duration) -> Next {
        self.forget(now);
        let mut soonest: Option<Duration> = None;
        let mut due = None;
        for (id, series) in self.series.iter().filter(|(_, series)| series.count > series.written) {
            let pod = self.pods.get(&series.topic.uid).copied();
            let pod = pod.unwrap_or_else(|| POD.full(now)).wait(POD, now);
            let repeat = series.written_at.map(|at| (at + REPEAT_PAUSE).saturating_sub(now));
            let wait = pod.max(repeat.unwrap_or_default()).max(self.node.wait(NODE, now));
            if wait.is_zero() {
                due = Some(*id);
                break;
            }
            soonest = Some(soonest.map_or(wait, |soonest| soonest.min(wait)));
        }
        match (due, soonest) {
            (Some(id), _) => Next::Write(Box::new(self.take(id, now))),
            (None, Some(wait)) => Next::Wait(wait),
            (None, None) => Next::Idle,
        }
    }

    /// It was written.
    pub(super) fn written(&mut self, write: &Write) {
        if let Some(series) = self.series.get_mut(&write.series) {
            series.written = write.count;
        }
    }

    /// Nobody took it: it is due as before, and has cost nothing.
    pub(super) fn postponed(&mut self, write: &Write) {
        self.node.refund(NODE);
        if let Some(purse) = self.pods.get_mut(&write.topic.uid) {
            purse.refund(POD);
        }
        if let Some(series) = self.series.get_mut(&write.series) {
            series.written_at = None;
        }
    }

    /// The Event that was to be counted in is not there any more: it is written anew, with
    /// what was told since.
    pub(super) fn vanished(&mut self, write: &Write) {
        let id = self.next;
        if let Some(series) = self.series.get_mut(&write.series) {
            self.next += 1;
            series.count = series.count.saturating_sub(series.written).max(1);
            series.written = 0;
            series.written_at = None;
            series.first = series.last.wall;
            series.name = name(&series.topic.pod.name, series.last.wall, id);
        }
    }

    /// It will never be written: its pod's namespace is gone, or the API refuses it.
    pub(super) fn refused(&mut self, write: &Write) {
        self.dropped += 1;
        self.remove(write.series);
    }

    /// How many were given up since the last call.
    pub(super) fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }

    fn take(&mut self, id: u64, now: Duration) -> Write {
        self.node.spend(NODE, now);
        let series = self.series.get_mut(&id).expect("it was just found");
        let purse = self.pods.entry(series.topic.uid.clone());
        purse.or_insert_with(|| POD.full(now)).spend(POD, now);
        series.written_at = Some(now);
        Write {
            series: id,
            topic: series.topic.clone(),
            name: series.name.clone(),
            kind: if series.written == 0 { Kind::Create } else { Kind::Count },
            count: series.count,
            first: series.first,
            last: series.last.wall,
        }
    }

    /// What was not told again for a while, written or not, and purses that are full again.
    fn forget(&mut self, now: Duration) {
        let is_old = |series: &Series| series.last.since + WINDOW <= now;
        let old: Vec<u64> =
            self.series.iter().filter(|(_, series)| is_old(series)).map(|(id, _)| *id).collect();
        for id in old {
            let unwritten = self.series.get(&id).is_some_and(|s| s.count > s.written);
            self.dropped += u64::from(unwritten);
            self.remove(id);
        }
        self.pods.retain(|_, purse| purse.refilled(POD, now).left < POD.most);
    }

    /// One that is written, if there is any.
    fn drop_oldest(&mut self) {
        let done = self.series.iter().find(|(_, series)| series.count == series.written);
        let oldest = done.or_else(|| self.series.iter().next());
        if let Some((id, series)) = oldest.map(|(id, series)| (*id, series)) {
            self.dropped += u64::from(series.count > series.written);
            self.remove(id);
        }
    }

    fn remove(&mut self, id: u64) {
        if let Some(series) = self.series.remove(&id) {
            self.by_topic.remove(&series.topic);
        }
    }
}

impl Allowance {
    fn full(self, now: Duration) -> Purse {
        Purse { left: self.most, at: now }
    }
}

impl Purse {
    fn refilled(self, allowance: Allowance, now: Duration) -> Self {
        let passed = now.saturating_sub(self.at).as_millis() / allowance.every.as_millis();
        let back = u32::try_from(passed).unwrap_or(u32::MAX);
        let left = self.left.saturating_add(back).min(allowance.most);
        Self { left, at: self.at + allowance.every.saturating_mul(back) }
    }

    fn wait(self, allowance: Allowance, now: Duration) -> Duration {
        let purse = self.refilled(allowance, now);
        if purse.left > 0 {
            return Duration::ZERO;
        }
        (purse.at + allowance.every).saturating_sub(now)
    }

    fn spend(&mut self, allowance: Allowance, now: Duration) {
        *self = self.refilled(allowance, now);
        // From a full purse the time begins to count now.
        if self.left == allowance.most {
            self.at = now;
        }
        self.left = self.left.saturating_sub(1);
    }

    fn refund(&mut self, allowance: Allowance) {
        self.left = self.left.saturating_add(1).min(allowance.most);
    }
}

/// Names of Events are ours to give, so that they can be found again.
fn name(pod: &str, wall: SystemTime, id: u64) -> String {
    let short: String = pod.chars().take(LONGEST_POD).collect();
    let short = short.trim_end_matches(['-', '.']);
    let since = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    format!("{short}.{:x}{id:x}", since.as_nanos())
}

#[cfg(test)]
mod tests;
