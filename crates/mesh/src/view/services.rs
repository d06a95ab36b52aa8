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

/// The workloads of one service.
#[derive(Clone, Debug)]
struct Endpoints {
    service: ServiceKey,
    workloads: Vec<Arc<Workload>>,
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
                Some(endpoints) => push(&mut Arc::make_mut(endpoints).workloads, workload),
                None => {
                    let workloads = vec![Arc::clone(workload)];
                    let endpoints = Endpoints { service: key.clone(), workloads };
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
            let workloads = &mut Arc::make_mut(endpoints).workloads;
            if let Some(at) = workloads.iter().position(|it| Arc::ptr_eq(it, workload)) {
                workloads.swap_remove(at);
            }
            if workloads.is_empty() {
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

    pub(super) fn endpoints(&self, key: &ServiceKey) -> &[Arc<Workload>] {
        let mut found = self.endpoints.claimants(self.hashing.of(key));
        found.find(|it| it.service == *key).map_or(&[], |it| &it.workloads)
    }
}

/// Grows by an eighth, not by a whole: most services are small, and there are many.
fn push(workloads: &mut Vec<Arc<Workload>>, workload: &Arc<Workload>) {
    if workloads.len() == workloads.capacity() {
        workloads.reserve_exact(workloads.len() / 8 + 1);
    }
    workloads.push(Arc::clone(workload));
}
