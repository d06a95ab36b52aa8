//! What one client has been sent of one type. Pure.
//!
//! ```text
//!           subscribe            next: a difference        ACK or NACK
//! (nothing) ────────► Quiet ─────────────────────► Awaiting ────────► Quiet
//!                       └─ the first response is sent even when it is empty
//! ```
//!
//! At most one response is unanswered. What changes meanwhile is in the next one, as the
//! difference to what was sent: so a slow client costs no memory, whatever it misses.
//!
//! A large difference is sent in several responses, one after the other. Only the first
//! response to who wants everything is never cut in pieces, because a client takes it for
//! the complete state, and would take what it does not name for unknown to the mesh.

use std::collections::BTreeMap;

use mesh::proto::envoy::service::discovery::v3 as discovery;
use mesh::proto::{ADDRESS_TYPE, AUTHORIZATION_TYPE};

use super::demand::Demand;
use crate::shards::Shards;
use crate::world::{Resource, World};

/// A response is ended when its resources have come to so many bytes.
const FULL: usize = 4 << 20;

/// A type of resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Authorization,
    Address,
}

impl Kind {
    /// In the order in which they are sent: a policy before the workloads that list it.
    pub(super) const ALL: [Self; 2] = [Self::Authorization, Self::Address];

    pub(super) fn from_url(url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.url() == url)
    }

    pub(super) fn url(self) -> &'static str {
        match self {
            Self::Authorization => AUTHORIZATION_TYPE,
            Self::Address => ADDRESS_TYPE,
        }
    }

    pub(super) fn of(self, world: &World) -> &Shards<Resource> {
        match self {
            Self::Authorization => &world.authorizations,
            Self::Address => &world.addresses,
        }
    }
}

/// What a client wants to have from now on, or no longer; `*` is everything.
#[derive(Debug, Default)]
pub(super) struct Asked {
    pub(super) subscribe: Vec<String>,
    pub(super) unsubscribe: Vec<String>,
}

impl Asked {
    /// To have subscribed to everything and to nothing of it is a subscription by name.
    fn by_name(&self) -> bool {
        self.unsubscribe.iter().any(|name| name == "*")
    }

    fn everything(&self) -> bool {
        self.subscribe.iter().any(|name| name == "*") && !self.by_name()
    }
}

/// A client's subscription to resources of a type.
#[derive(Debug)]
pub(super) struct Subscription {
    kind: Kind,
    has: Has,
    phase: Phase,
}

/// What the client wants, and has of it.
#[derive(Debug)]
enum Has {
    /// It wants everything; names and versions are what it says itself after a reconnect.
    Claimed(BTreeMap<String, String>),
    /// It wants everything; what it was sent shares its memory with the world of then.
    Sent(Shards<Resource>),
    /// It wants what it names.
    Named(Demand),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    Quiet,
    Awaiting { nonce: String },
}

/// What an answer was to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The response that is waited for.
    Fits,
    /// An earlier one.
    Stale,
}

impl Subscription {
    /// `claimed`: what the client says it has. To name nothing is to want everything.
    pub(super) fn new(kind: Kind, asked: Asked, claimed: BTreeMap<String, String>) -> Self {
        let nothing_named = asked.subscribe.is_empty() && !asked.by_name();
        let has = if asked.everything() || nothing_named {
            Has::Claimed(claimed)
        } else {
            let mut demand = Demand::resumed(claimed);
            demand.change(asked.subscribe, &asked.unsubscribe);
            Has::Named(demand)
        };
        Self { kind, has, phase: Phase::Quiet }
    }

    /// The client wants more, or less. Who wants everything is sent everything, whatever
    /// else it names.
    pub(super) fn ask(&mut self, asked: Asked) {
        if asked.everything() {
            if let Has::Named(demand) = &self.has {
                self.has = Has::Claimed(demand.versions());
            }
            return;
        }
        if asked.by_name() && !matches!(self.has, Has::Named(_)) {
            self.has = Has::Named(Demand::default());
        }
        if let Has::Named(demand) = &mut self.has {
            demand.change(asked.subscribe, &asked.unsubscribe);
        }
    }

    /// The client answered, well or not: what it was sent is not sent again until it
    /// changes. A client that rejected a resource gets it anew when it reconnects, because
    /// then it does not claim it.
    pub(super) fn answered(&mut self, nonce: &str) -> Answer {
        match &self.phase {
            Phase::Awaiting { nonce: awaited } if awaited == nonce => {
                self.phase = Phase::Quiet;
                Answer::Fits
            }
            _ => Answer::Stale,
        }
    }

    /// Whether it asks for more names than anybody needs.
    pub(super) fn is_too_much(&self) -> bool {
        matches!(&self.has, Has::Named(demand) if demand.is_too_much())
    }

    /// Is an answer still to come?
    pub(super) fn awaiting(&self) -> bool {
        self.phase != Phase::Quiet
    }

    /// The response that is due, if any; from now on it counts as sent.
    pub(super) fn next(
        &mut self,
        world: &World,
        nonce: impl FnOnce() -> String,
    ) -> Option<discovery::DeltaDiscoveryResponse> {
        if self.awaiting() {
            return None;
        }
        let now = self.kind.of(world);
        let (batch, first) = match &mut self.has {
            Has::Claimed(claimed) => {
                let batch = since_claimed(now, claimed);
                self.has = Has::Sent(now.clone());
                (batch, true)
            }
            Has::Sent(sent) => (bring_up_to_date(sent, now), false),
            Has::Named(demand) => (demand.next(self.kind, world), false),
        };
        if batch.is_empty() && !first {
            return None;
        }
        let nonce = nonce();
        self.phase = Phase::Awaiting { nonce: nonce.clone() };
        let url = self.kind.url();
        let wrap = |(name, resource, aliases)| wrap(url, name, &resource, aliases);
        Some(discovery::DeltaDiscoveryResponse {
            resources: batch.resources.into_iter().map(wrap).collect(),
            removed_resources: batch.removed,
            type_url: url.to_owned(),
            nonce,
            ..Default::default()
        })
    }
}

/// What one response says.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Name, content, other names.
    resources: Vec<(String, Resource, Vec<String>)>,
    removed: Vec<String>,
    bytes: usize,
}

impl Batch {
    pub(super) fn add(&mut self, name: &str, resource: &Resource, aliases: Vec<String>) {
        self.bytes += name.len() + resource.content.len();
        self.resources.push((name.to_owned(), resource.clone(), aliases));
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.bytes += name.len();
        self.removed.push(name.to_owned());
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes >= FULL
    }

    fn is_empty(&self) -> bool {
        self.resources.is_empty() && self.removed.is_empty()
    }
}

fn since_claimed(now: &Shards<Resource>, claimed: &BTreeMap<String, String>) -> Batch {
    let mut batch = Batch::default();
    for (name, resource) in now.iter() {
        if claimed.get(&**name).is_none_or(|version| **version != *resource.version) {
            batch.add(name, resource, Vec::new());
        }
    }
    for name in claimed.keys().filter(|name| now.get(name).is_none()) {
        batch.remove(name);
    }
    batch
}

/// As much of the difference as goes into one response; `sent` becomes what the client
/// has after it.
fn bring_up_to_date(sent: &mut Shards<Resource>, now: &Shards<Resource>) -> Batch {
    let mut batch = Batch::default();
    for (name, resource) in now.changed_since(sent) {
        if batch.is_full() {
            break;
        }
        batch.add(name, resource, Vec::new());
    }
    for name in now.removed_since(sent) {
        if batch.is_full() {
            break;
        }
        batch.remove(name);
    }
    if batch.is_full() {
        batch.resources.iter().for_each(|(name, it, _)| sent.insert(name, it.clone()));
        batch.removed.iter().for_each(|name| sent.remove(name));
    } else {
        // Shares its memory again.
        *sent = now.clone();
    }
    batch
}

fn wrap(url: &str, name: String, resource: &Resource, aliases: Vec<String>) -> discovery::Resource {
    discovery::Resource {
        name,
        version: resource.version.to_string(),
        aliases,
        resource: Some(prost_types::Any {
            type_url: url.to_owned(),
            value: resource.content.to_vec(),
        }),
        ..Default::default()
    }
}
