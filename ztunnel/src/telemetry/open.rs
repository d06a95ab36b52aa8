//! The connections that are open right now.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mesh::ServiceKey;

use super::connection::Record;
use super::{ConnectionOpen, Direction, Security};

/// Enough that workers rarely meet.
const SHARDS: u64 = 16;

/// An open connection, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenConnection {
    /// Seen from the pod.
    pub direction: Direction,
    /// Who dialled.
    pub src: SocketAddr,
    /// Whom it reaches.
    pub dst: SocketAddr,
    /// The service by which it was dialled.
    pub service: Option<ServiceKey>,
    /// The address that was dialled, before anybody chose a workload for it.
    pub dialled: SocketAddr,
    /// Where the tunnel that carries it ends.
    pub hbone_addr: Option<SocketAddr>,
    /// How the bytes travel.
    pub security: Security,
}

impl OpenConnection {
    fn of(facts: &ConnectionOpen) -> Self {
        Self {
            direction: facts.direction,
            src: facts.src.addr,
            dst: facts.dst.addr,
            service: facts.service.as_ref().map(|service| service.key.clone()),
            dialled: facts.dialled,
            hbone_addr: facts.hop.as_ref().map(|hop| hop.peer),
            security: facts.security,
        }
    }
}

impl fmt::Display for OpenConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} -> {}", self.direction.as_str(), self.src, self.dst)
    }
}

#[derive(Debug, Default)]
pub(super) struct OpenConnections {
    next: AtomicU64,
    shards: [Mutex<HashMap<u64, Arc<Record>>>; SHARDS as usize],
}

impl OpenConnections {
    /// Takes a connection in; the number is for [`OpenConnections::remove`].
    pub(super) fn insert(&self, record: Arc<Record>) -> u64 {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.shard(number).insert(number, record);
        number
    }

    pub(super) fn remove(&self, number: u64) {
        self.shard(number).remove(&number);
    }

    pub(super) fn for_each(&self, mut act: impl FnMut(&Record)) {
        for number in 0..SHARDS {
            self.shard(number).values().for_each(|record| act(record));
        }
    }

    /// All of them, by namespace and name of their pod.
    pub(super) fn list(&self) -> HashMap<(Arc<str>, Arc<str>), Vec<OpenConnection>> {
        let mut all: HashMap<_, Vec<_>> = HashMap::new();
        self.for_each(|record| {
            let facts = &record.facts;
            let Some(own) = &facts.own().workload else { return };
            let pod = (Arc::clone(&own.namespace), Arc::from(own.name()));
            all.entry(pod).or_default().push(OpenConnection::of(facts));
        });
        all
    }

    /// Those of one pod, at most so many.
    pub(super) fn list_of(&self, namespace: &str, name: &str, most: usize) -> Vec<OpenConnection> {
        let mut listed = Vec::new();
        self.for_each(|record| {
            let own = record.facts.own().workload.as_ref();
            let of_pod = own.is_some_and(|own| *own.namespace == *namespace && own.name() == name);
            if of_pod && listed.len() < most {
                listed.push(OpenConnection::of(&record.facts));
            }
        });
        listed
    }

    fn shard(&self, number: u64) -> MutexGuard<'_, HashMap<u64, Arc<Record>>> {
        let index = usize::try_from(number % SHARDS).unwrap_or(0);
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}
