//! Services and the workloads behind them.

use std::cmp::Reverse;
use std::net::IpAddr;
use std::sync::Arc;

use crate::index::{Hashing, Index};
use crate::places::Places;
use crate::service::{Service, ServiceKey};
use crate::workload::Workload;

/// Services by key, address and hostname, and their endpoints. A clone is cheap.
#[derive(Clone, Debug, Default)]
pub(super) struct Services {
    hashing: Hashing,
    by_key: Index<Service>,
    by_hostname: Index<Service>,
    by_address: Places<Service>,
    /// By key of the service, which may be unknown.
    endpoints: Index<Endpoints>,
}

/// The workloads of one service, in the order of their nodes' names.
#[derive(Clone, Debug)]
struct Endpoints {
    service: ServiceKey,
    workloads: Vec<Arc<Workload>>,
    /// See [`Members::most_capacity`].
    most_capacity: u32,
    /// See [`Members::kinds`]; empty for the small.
    kinds: Vec<Arc<Workload>>,
}

/// Services with more workloads than this know of what kinds they are.
const LARGE: usize = 64;

/// Kinds of which one service knows. Those of more are not of a template.
const KINDS: usize = 16;

/// The workloads that say they belong to a service, healthy or not. There may be
/// thousands: look at some.
#[derive(Clone, Copy, Debug, Default)]
pub struct Members<'a> {
    workloads: &'a [Arc<Workload>],
    most_capacity: u32,
    kinds: &'a [Arc<Workload>],
}

impl<'a> Members<'a> {
    /// All of them. The order is of no use to others.
    #[must_use]
    pub fn all(&self) -> &'a [Arc<Workload>] {
        self.workloads
    }

    /// Those on the node of this name.
    #[must_use]
    pub fn on_node(&self, node: &str) -> &'a [Arc<Workload>] {
        let here = &self.workloads[self.workloads.partition_point(|it| *it.node < *node)..];
        &here[..here.partition_point(|it| *it.node == *node)]
    }

    /// None has a greater capacity. It may be that none has as much any more.
    #[must_use]
    pub fn most_capacity(&self) -> u32 {
        self.most_capacity
    }

    /// Every one is a sibling of one of these, some of which may have left; `None` where
    /// they are few anyway, or of too many kinds.
    #[must_use]
    pub fn kinds(&self) -> Option<&'a [Arc<Workload>]> {
        (1..=KINDS).contains(&self.kinds.len()).then_some(self.kinds)
    }
}

impl Services {
    /// Adds a service or replaces the one of that name.
    pub(super) fn insert(&mut self, service: Service) {
        self.remove(&service.key);
        let service = Arc::new(service);
        self.by_key.claim(self.hashing.of(&service.key), &service);
        self.by_hostname.claim(self.hashing.of(service.key.hostname()), &service);
        self.by_address.insert(&service);
    }

    pub(super) fn remove(&mut self, key: &ServiceKey) {
        let Some(old) = self.get(key).cloned() else {
            return;
        };
        self.by_key.release(self.hashing.of(key), &old);
        self.by_hostname.release(self.hashing.of(key.hostname()), &old);
        self.by_address.remove(&old);
    }

    /// Makes the workload an endpoint of its services.
    pub(super) fn join(&mut self, workload: &Arc<Workload>) {
        for membership in &*workload.services {
            let key = &membership.service;
            let hash = self.hashing.of(key);
            match self.endpoints.find_mut(hash, |it| it.service == *key) {
                Some(endpoints) => Arc::make_mut(endpoints).add(workload),
                None => {
                    let workloads = vec![Arc::clone(workload)];
                    let (service, most_capacity) = (key.clone(), workload.capacity);
                    let kinds = Vec::new();
                    let endpoints = Endpoints { service, workloads, most_capacity, kinds };
                    self.endpoints.claim(hash, &Arc::new(endpoints));
                }
            }
        }
    }

    /// Takes it out of them again.
    pub(super) fn leave(&mut self, workload: &Arc<Workload>) {
        for membership in &*workload.services {
            let key = &membership.service;
            let hash = self.hashing.of(key);
            let Some(endpoints) = self.endpoints.find_mut(hash, |it| it.service == *key) else {
                continue;
            };
            Arc::make_mut(endpoints).remove(workload);
            if endpoints.workloads.is_empty() {
                let empty = Arc::clone(endpoints);
                self.endpoints.release(hash, &empty);
            }
        }
    }

    pub(super) fn get(&self, key: &ServiceKey) -> Option<&Arc<Service>> {
        self.by_key.claimants(self.hashing.of(key)).find(|it| it.key == *key)
    }

    /// See [`View::service_at`](super::View::service_at). Of equals it is the first by
    /// name, so that all nodes agree.
    pub(super) fn at(&self, client: &str, network: &str, ip: IpAddr) -> Option<&Arc<Service>> {
        let best = |(prefix, service): &(u8, &Arc<Service>)| {
            let near = service.key.namespace() == client;
            (near, *prefix, service.canonical, Reverse(service.key.clone()))
        };
        let visible = |(_, service): &(u8, &Arc<Service>)| service.visible_to(client);
        let exact = self.by_address.exactly_at(network, ip).map(|service| (u8::MAX, service));
        let found = exact.filter(visible).max_by_key(best);
        let around = || self.by_address.around(network, ip).filter(visible).max_by_key(best);
        found.or_else(around).map(|(_, service)| service)
    }

    pub(super) fn named(&self, hostname: &str) -> impl Iterator<Item = &Arc<Service>> {
        let meant = move |service: &&Arc<Service>| service.key.hostname() == hostname;
        self.by_hostname.claimants(self.hashing.of(hostname)).filter(meant)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.by_key.values()
    }

    pub(super) fn members(&self, key: &ServiceKey) -> Members<'_> {
        let mut found = self.endpoints.claimants(self.hashing.of(key));
        let found = found.find(|it| it.service == *key);
        found.map_or_else(Members::default, |it| Members {
            workloads: &it.workloads,
            most_capacity: it.most_capacity,
            kinds: &it.kinds,
        })
    }
}

impl Endpoints {
    /// Grows by an eighth, not by a whole: most services are small, and there are many.
    fn add(&mut self, workload: &Arc<Workload>) {
        let workloads = &mut self.workloads;
        if workloads.len() == workloads.capacity() {
            workloads.reserve_exact(workloads.len() / 8 + 1);
        }
        let at = workloads.partition_point(|it| it.node <= workload.node);
        workloads.insert(at, Arc::clone(workload));
        self.most_capacity = self.most_capacity.max(workload.capacity);
        match self.workloads.len() {
            0..=LARGE => {}
            _ if self.kinds.is_empty() => {
                for workload in &self.workloads {
                    note(&mut self.kinds, workload);
                }
            }
            _ => note(&mut self.kinds, workload),
        }
    }

    fn remove(&mut self, workload: &Arc<Workload>) {
        let from = self.workloads.partition_point(|it| it.node < workload.node);
        let found = self.workloads[from..].iter().position(|it| Arc::ptr_eq(it, workload));
        if let Some(at) = found {
            self.workloads.remove(from + at);
        }
        if self.workloads.len() <= LARGE {
            self.kinds = Vec::new();
        }
    }
}

/// One more than [`KINDS`] says that there are too many.
fn note(kinds: &mut Vec<Arc<Workload>>, workload: &Arc<Workload>) {
    if kinds.len() <= KINDS && !kinds.iter().any(|it| it.is_sibling_of(workload)) {
        kinds.push(Arc::clone(workload));
    }
}
