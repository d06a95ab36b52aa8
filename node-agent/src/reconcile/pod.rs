//! PURE. What the agent believes about one pod.

use std::net::IpAddr;
use std::time::Instant;

use capture::Options;

use super::aging::{Aging, PutOff};
use crate::enrollment::{Mistake, Wishes};
use crate::facts::{Annotations, PodFacts};

/// How far a pod is in or out of the mesh.
///
/// ```text
/// Unknown ─look─► Outside ─capture─► Captured ─withdraw─► Withdrawn ─wait─► PeersKnow
///    │                ▲                 ▲  ▲                   │                │
///    └──────look──────┼─────────────────┘  └──── repair ───────┴───┬────────────┤
///                     └─remove─ Drained ◄─wait─ Draining ◄─drain───┼────────────┘
///                                   └──────────────┴─── repair ────┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// Nobody has looked yet.
    Unknown,
    /// Nothing of ours is in it.
    Outside,
    /// Rules are in place and ztunnel serves it.
    Captured,
    /// Leaving: peers are no longer told to use the tunnel.
    Withdrawn,
    /// Leaving: peers have had time to learn it.
    PeersKnow,
    /// Leaving: new connections are direct, old ones live on.
    Draining,
    /// Leaving: the old connections have ended, or their time has.
    Drained,
}

impl State {
    /// All of them, for those who count.
    pub const ALL: [Self; 7] = [
        Self::Unknown,
        Self::Outside,
        Self::Captured,
        Self::Withdrawn,
        Self::PeersKnow,
        Self::Draining,
        Self::Drained,
    ];

    /// Its name in metrics and in the state dump.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Outside => "outside",
            Self::Captured => "captured",
            Self::Withdrawn => "withdrawn",
            Self::PeersKnow => "peers_know",
            Self::Draining => "draining",
            Self::Drained => "drained",
        }
    }
}

/// What the plugin told about a pod, as far as decisions need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The sandbox; empty where only its namespace was found.
    pub container_id: String,
    /// The pod's addresses; the API tells them later.
    pub ips: Vec<IpAddr>,
}

/// What is believed about one pod.
#[derive(Clone, Debug)]
pub struct Pod {
    /// What the API shows; `None` when it shows no such pod (any more).
    pub facts: Option<PodFacts>,
    /// What it wants of us, from all that it said.
    pub wishes: Wishes,
    /// What it says that means nothing.
    pub mistakes: Vec<Mistake>,
    /// Mistakes that people have been told.
    pub told: Vec<Mistake>,
    /// Where its namespace is, if the plugin ever told.
    pub attachment: Option<Attachment>,
    /// How far it is in or out.
    pub state: State,
    /// The rules that are in place.
    pub applied: Option<Options>,
    /// It is time to look again.
    pub due: bool,
    /// Policy rules of others that may lead its answers past ztunnel.
    pub overtaken: Vec<String>,
    /// Whether there may be connections that are older than the capture and not ended.
    pub aging: Option<Aging>,
    /// When its rules came last, or this process has found them.
    pub ruled: Option<Instant>,
    /// It is time to end them.
    pub older_due: bool,
    /// That has failed.
    pub older_put_off: Option<PutOff>,
    /// It ends: its sandbox goes away, or the API has forgotten it.
    pub ending: bool,
    /// The last failure, until something succeeds.
    pub trouble: Option<String>,
    /// A list or a watch of this process has shown it, so its absence means something.
    pub listed: bool,
    /// A list of this process lacked it since it was last attached.
    pub missed: bool,
}

impl Pod {
    /// A pod nobody knows anything about.
    #[must_use]
    pub fn new() -> Self {
        Self {
            facts: None,
            wishes: Wishes::default(),
            mistakes: Vec::new(),
            told: Vec::new(),
            attachment: None,
            state: State::Unknown,
            applied: None,
            due: false,
            overtaken: Vec::new(),
            aging: None,
            ruled: None,
            older_due: false,
            older_put_off: None,
            ending: false,
            trouble: None,
            listed: false,
            missed: false,
        }
    }

    /// Takes in what the API shows. What was said before counts where this means nothing.
    /// Tells whether other texts count now: the next life of the agent must know them.
    pub fn learn(&mut self, facts: PodFacts) -> bool {
        let before = std::mem::take(&mut self.wishes);
        (self.wishes, self.mistakes) = before.hear(&facts.options);
        self.facts = Some(facts);
        self.wishes.texts() != before.texts()
    }
}

/// What came of an action that succeeded, as far as beliefs go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A look found nothing of ours in the pod.
    FoundNothing,
    /// A look found it captured: by these rules, or by others, which are then replaced
    /// without a gap, or removed.
    FoundCaptured(Option<Options>),
    /// These rules are in place, and were observed.
    InPlace(Options),
    /// Peers were told not to use the tunnel any more.
    Withdrawn,
    /// They have had their time.
    PeersKnow,
    /// New connections are direct.
    Draining,
    /// Old connections have ended, or their time has.
    Drained,
    /// Nothing of ours is left in the pod.
    Removed,
    /// Connections that are older than the capture were ended, once more.
    OlderEnded,
    /// They could not be, at this time.
    OlderNotEnded(Instant),
    /// A capture has failed and left something in the pod, which is to be completed or
    /// removed.
    LeftBehind,
}

impl Pod {
    /// Takes in what came of an action.
    pub fn becomes(&mut self, outcome: Outcome) {
        if !matches!(outcome, Outcome::OlderNotEnded(_)) {
            self.trouble = None;
        }
        match outcome {
            Outcome::FoundNothing | Outcome::Removed => {
                self.state = State::Outside;
                self.applied = None;
                self.due = false;
                self.overtaken = Vec::new();
                self.aging = None;
            }
            Outcome::FoundCaptured(applied) => {
                self.state = State::Captured;
                self.applied = applied;
                self.due = true;
            }
            Outcome::InPlace(options) => {
                self.state = State::Captured;
                self.applied = Some(options);
                self.due = false;
            }
            Outcome::Withdrawn => self.state = State::Withdrawn,
            Outcome::PeersKnow => self.state = State::PeersKnow,
            Outcome::Draining => self.state = State::Draining,
            Outcome::Drained | Outcome::LeftBehind => self.state = State::Drained,
            Outcome::OlderEnded => self.older_ended(),
            Outcome::OlderNotEnded(since) => self.older_not_ended(since),
        }
    }

    fn older_not_ended(&mut self, since: Instant) {
        self.older_due = false;
        self.older_put_off = Some(PutOff::again(self.older_put_off, since));
    }

    fn older_ended(&mut self) {
        self.older_due = false;
        self.older_put_off = None;
        self.aging = self.aging.map(Aging::passed);
    }
}

impl Pod {
    /// What it says about itself when it is captured.
    #[must_use]
    pub fn captured_annotations(&self) -> Annotations {
        if self.overtaken.is_empty() {
            return captured_annotations();
        }
        let text = format!("impaired: {}", overtaken(&self.overtaken));
        Annotations { observed: Some(text), ..captured_annotations() }
    }
}

/// What others' policy rules do to a pod, in words.
pub(super) fn overtaken(rules: &[String]) -> String {
    let rules = rules.join(", ");
    format!("{rules} of somebody else comes before ours and may lead answers past ztunnel")
}

impl Default for Pod {
    fn default() -> Self {
        Self::new()
    }
}

/// What a captured pod says about itself when all is well.
#[must_use]
pub fn captured_annotations() -> Annotations {
    Annotations { redirection: true, observed: Some("captured".into()) }
}
