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

use std::collections::BTreeMap;

use mesh::proto::envoy::service::discovery::v3 as discovery;
use mesh::proto::{ADDRESS_TYPE, AUTHORIZATION_TYPE};

use crate::shards::Shards;
use crate::world::{Resource, World};

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

    fn of(self, world: &World) -> &Shards<Resource> {
        match self {
            Self::Authorization => &world.authorizations,
            Self::Address => &world.addresses,
        }
    }
}

/// A client's subscription to all resources of a type.
#[derive(Debug)]
pub(super) struct Subscription {
    kind: Kind,
    has: Has,
    phase: Phase,
}

/// What the client has.
#[derive(Debug)]
enum Has {
    /// Names and versions, as it says itself after a reconnect.
    Claimed(BTreeMap<String, String>),
    /// What it was sent; shares its memory with the world of that time.
    Sent(Shards<Resource>),
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
    /// `claimed`: what the client says it has.
    pub(super) fn new(kind: Kind, claimed: BTreeMap<String, String>) -> Self {
        Self { kind, has: Has::Claimed(claimed), phase: Phase::Quiet }
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

    /// Is an answer still to come?
    pub(super) fn awaiting(&self) -> bool {
        self.phase != Phase::Quiet
    }

    /// The response that is due, if any; from now on it counts as sent.
    ///
    /// It is never cut in pieces: a client takes the first one for the complete state.
    pub(super) fn next(
        &mut self,
        world: &World,
        nonce: impl FnOnce() -> String,
    ) -> Option<discovery::DeltaDiscoveryResponse> {
        if self.awaiting() {
            return None;
        }
        let now = self.kind.of(world);
        let (resources, removed) = match &self.has {
            Has::Claimed(claimed) => self.since_claimed(now, claimed),
            Has::Sent(sent) => self.since_sent(now, sent),
        };
        let first = matches!(self.has, Has::Claimed(_));
        self.has = Has::Sent(now.clone());
        if resources.is_empty() && removed.is_empty() && !first {
            return None;
        }
        let nonce = nonce();
        self.phase = Phase::Awaiting { nonce: nonce.clone() };
        Some(discovery::DeltaDiscoveryResponse {
            resources,
            removed_resources: removed,
            type_url: self.kind.url().to_owned(),
            nonce,
            ..Default::default()
        })
    }

    fn since_claimed(
        &self,
        now: &Shards<Resource>,
        claimed: &BTreeMap<String, String>,
    ) -> (Vec<discovery::Resource>, Vec<String>) {
        let has = |name: &str, it: &Resource| claimed.get(name).is_some_and(|v| **v == *it.version);
        let resources =
            now.iter().filter(|(name, it)| !has(name, it)).map(|(name, it)| self.wrap(name, it));
        let removed = claimed.keys().filter(|name| now.get(name).is_none()).cloned();
        (resources.collect(), removed.collect())
    }

    fn since_sent(
        &self,
        now: &Shards<Resource>,
        sent: &Shards<Resource>,
    ) -> (Vec<discovery::Resource>, Vec<String>) {
        let resources = now.changed_since(sent).map(|(name, it)| self.wrap(name, it));
        let removed = now.removed_since(sent).map(|name| name.to_string());
        (resources.collect(), removed.collect())
    }

    fn wrap(&self, name: &str, resource: &Resource) -> discovery::Resource {
        discovery::Resource {
            name: name.to_owned(),
            version: resource.version.to_string(),
            resource: Some(prost_types::Any {
                type_url: self.kind.url().to_owned(),
                value: resource.content.to_vec(),
            }),
            ..Default::default()
        }
    }
}
