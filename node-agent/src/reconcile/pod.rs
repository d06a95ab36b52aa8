//! PURE. What the agent believes about one pod.

use std::net::IpAddr;

use capture::Options;

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
    /// It ends: its sandbox goes away, or the API has forgotten it.
    pub ending: bool,
    /// The last failure, until something succeeds.
    pub trouble: Option<String>,
    /// A list or a watch of this process has shown it, so its absence means something.
    pub listed: bool,
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
            ending: false,
            trouble: None,
            listed: false,
        }
    }

    /// Takes in what the API shows. What was said before counts where this means nothing.
    pub fn learn(&mut self, facts: PodFacts) {
        (self.wishes, self.mistakes) = self.wishes.hear(&facts.options);
        self.facts = Some(facts);
    }
}

impl Default for Pod {
    fn default() -> Self {
        Self::new()
    }
}

/// What a captured pod says about itself.
#[must_use]
pub fn captured_annotations() -> Annotations {
    Annotations { redirection: true, observed: Some("captured".into()) }
}
