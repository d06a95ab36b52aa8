//! The pure core in a world that it cannot rely on: random interleavings of ADD, DEL, label
//! and option flips, restarts, relists, damage and failures at every step. The table and the plan are
//! the real ones; the steps of an action stand here in the order in which `effects` has
//! them, and any of them may fail, or be the agent's last.

mod actions;
mod checks;
mod life;

use std::collections::{BTreeMap, VecDeque};

use capture::Options;
use fastrand::Rng;

use super::{Fact, Outcome, Table};
use crate::enrollment::{Older, Settings};
use crate::facts::{NamespaceFacts, PodFacts, PodUid};
use crate::testing::options;
use crate::ztunnel_link::Ack;

/// How many lives the world is given, each from a seed of its own.
const INTERLEAVINGS: u64 = 100_000;
/// Random events in one of them, before everybody has peace to finish.
const EVENTS: usize = 50;

/// Container IDs: a sandbox has one for ever.
type Container = String;

/// The rules in one sandbox.
#[derive(Clone, Debug, PartialEq)]
enum Rules {
    None,
    Capture(Options),
    Drained,
    /// Somebody in the pod has changed them.
    Damaged,
}

#[derive(Debug)]
struct Sandbox {
    uid: PodUid,
    rules: Rules,
    /// A capture of it has succeeded.
    captured: bool,
}

/// What an agent's process knows, and loses with its end.
#[derive(Debug, Default)]
struct Agent {
    table: Table,
    /// What a ztunnel that connects is told.
    roster: BTreeMap<PodUid, Container>,
}

/// How a step ends that does not succeed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    Failed,
    /// The agent died in the middle of it.
    Died,
}

#[derive(Debug)]
struct World {
    rng: Rng,
    settings: Settings,
    /// Steps may fail.
    chaos: bool,
    serial: usize,
    /// The truth of the API.
    pods: BTreeMap<PodUid, PodFacts>,
    namespace: NamespaceFacts,
    /// What the watch has not delivered yet.
    news: VecDeque<Fact>,
    /// The truth of the node, in the order of their making.
    sandboxes: BTreeMap<Container, Sandbox>,
    records: BTreeMap<PodUid, Container>,
    /// Whom ztunnel serves; none while it is away.
    ztunnel: Option<BTreeMap<PodUid, Container>>,
    agent: Option<Agent>,
    /// What should never have been done.
    wrong: Option<String>,
    story: Vec<String>,
}

impl World {
    fn new(seed: u64) -> Self {
        let older = Older::Keep;
        let mut world = Self {
            rng: Rng::with_seed(seed),
            settings: Settings {
                excluded_namespaces: [].into(),
                selectors: None,
                options: options(),
                older,
            },
            chaos: true,
            serial: 0,
            pods: BTreeMap::new(),
            namespace: NamespaceFacts {
                name: "shop".into(),
                dataplane_mode: None,
                labels: Default::default(),
            },
            news: VecDeque::new(),
            sandboxes: BTreeMap::new(),
            records: BTreeMap::new(),
            ztunnel: Some(BTreeMap::new()),
            agent: None,
            wrong: None,
            story: Vec::new(),
        };
        world.start_agent();
        world
    }

    fn tell(&mut self, what: impl Into<String>) {
        self.story.push(what.into());
    }

    fn next(&mut self) -> usize {
        self.serial += 1;
        self.serial
    }

    /// One step of an action is about to be done.
    fn step(&mut self) -> Result<(), Fault> {
        if !self.chaos {
            return Ok(());
        }
        match self.rng.u8(..) {
            0..40 => Err(Fault::Failed),
            40..48 => {
                self.tell("the agent dies");
                self.agent = None;
                Err(Fault::Died)
            }
            _ => Ok(()),
        }
    }

    fn agent(&mut self) -> Result<&mut Agent, Fault> {
        self.agent.as_mut().ok_or(Fault::Died)
    }

    /// The sandbox in which the pod's containers run, or will: the newest.
    fn sandbox_of(&self, uid: &PodUid) -> Option<&Container> {
        let of_pod = self.sandboxes.iter().filter(|(_, sandbox)| sandbox.uid == *uid);
        of_pod.map(|(container, _)| container).next_back()
    }

    fn ack(&self, uid: &PodUid) -> Ack {
        let Some(agent) = &self.agent else { return Ack::Unknown };
        let served = self.ztunnel.as_ref().and_then(|served| served.get(uid));
        match (agent.roster.get(uid), served) {
            (Some(known), Some(served)) if known == served => Ack::Serving,
            _ => Ack::Unknown,
        }
    }

    fn becomes(&mut self, uid: &PodUid, outcome: Outcome) -> Result<(), Fault> {
        let redirects = match outcome {
            Outcome::InPlace(_) => true,
            Outcome::PutRight(_) => {
                let pod = self.agent()?.table.get(uid);
                pod.is_some_and(|pod| pod.state.redirects())
            }
            _ => false,
        };
        if redirects
            && let Some(container) = self.records.get(uid)
            && let Some(sandbox) = self.sandboxes.get_mut(container)
        {
            sandbox.captured = true;
        }
        if let Some(pod) = self.agent()?.table.get_mut(uid) {
            pod.becomes(outcome);
        }
        Ok(())
    }
}

/// Runs one life. An error tells it as a story.
fn live(seed: u64) -> Result<(), String> {
    let mut world = World::new(seed);
    let lived = (0..EVENTS).try_for_each(|_| {
        world.something_happens();
        world.check()
    });
    let rested = lived.and_then(|()| world.come_to_rest()).and_then(|()| world.check_at_rest());
    // The next agent finds everything as it should be, and leaves it so.
    let ended = rested
        .and_then(|()| {
            world.agent = None;
            world.come_to_rest()
        })
        .and_then(|()| world.check_at_rest())
        .and_then(|()| world.check_records());
    ended.map_err(|wrong| format!("seed {seed}: {wrong}\n  {}", world.story.join("\n  ")))
}

#[test]
fn whatever_happens_in_whatever_order_ends_as_it_should() {
    let halves = [0, 1].map(|first| {
        std::thread::spawn(move || (first..INTERLEAVINGS).step_by(2).try_for_each(live))
    });
    for half in halves {
        half.join().unwrap().unwrap_or_else(|story| panic!("{story}"));
    }
}
