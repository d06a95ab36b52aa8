//! Services and their slices, and what they become: services, workloads of endpoints that
//! are no pods, and memberships of pods.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use mesh::proto::workload::{Address, address};

use super::index::Index;
use super::{Kind, Table, absent};
use crate::facts::{ServiceFacts, SliceFacts, Target};
use crate::translate::{endpoint, endpoint_uid, service, service_name, slice_ports};

/// Slices by `namespace/name`, and by what they mention.
#[derive(Debug, Default)]
pub(super) struct Slices {
    by_key: HashMap<String, SliceFacts>,
    of_service: Index<String>,
    naming_pod: Index<String>,
    with_address: Index<IpAddr>,
    on_node: Index<String>,
    /// Uids of the workloads that a slice's endpoints have become.
    published: HashMap<String, BTreeSet<String>>,
}

impl Slices {
    pub(super) fn keys(&self) -> Vec<String> {
        self.by_key.keys().cloned().collect()
    }

    pub(super) fn on_node(&self, node: &str) -> Vec<String> {
        self.on_node.get(node)
    }

    /// The slices that have this pod among their endpoints, by name or by address.
    pub(super) fn with_pod(&self, pod: &str, addresses: &[IpAddr]) -> Vec<&SliceFacts> {
        let mut keys: BTreeSet<_> = self.naming_pod.get(pod).into_iter().collect();
        keys.extend(addresses.iter().flat_map(|address| self.with_address.get(address)));
        keys.iter().filter_map(|key| self.by_key.get(key)).collect()
    }

    pub(super) fn with_addresses(&self, addresses: &[&IpAddr]) -> BTreeSet<String> {
        addresses.iter().flat_map(|address| self.with_address.get(*address)).collect()
    }

    fn insert(&mut self, slice: SliceFacts) {
        let key = slice.key();
        self.remove(&key);
        self.of_service.insert(slice.service_key(), &key);
        for endpoint in &slice.endpoints {
            match &endpoint.target {
                Target::Pod(name) => self.naming_pod.insert(pod_key(&slice, name), &key),
                Target::Address => {
                    endpoint.addresses.iter().for_each(|it| self.with_address.insert(*it, &key));
                }
            }
            self.on_node.insert(endpoint.node.clone(), &key);
        }
        self.by_key.insert(key, slice);
    }

    fn remove(&mut self, key: &str) -> Option<SliceFacts> {
        let slice = self.by_key.remove(key)?;
        self.of_service.remove(&slice.service_key(), key);
        for endpoint in &slice.endpoints {
            match &endpoint.target {
                Target::Pod(name) => self.naming_pod.remove(&pod_key(&slice, name), key),
                Target::Address => {
                    endpoint.addresses.iter().for_each(|it| self.with_address.remove(it, key));
                }
            }
            self.on_node.remove(&endpoint.node, key);
        }
        Some(slice)
    }
}

impl Table {
    pub(crate) fn service_seen(&mut self, service: ServiceFacts) {
        let key = service.key();
        if self.services.get(&key) == Some(&service) {
            return;
        }
        self.services_in.insert(service.namespace.clone(), &key);
        let former = self.services.insert(key.clone(), service);
        self.publish_service(&key);
        let now = self.services.get(&key).cloned();
        self.republish_endpoints(former.iter().chain(&now));
    }

    pub(crate) fn service_gone(&mut self, key: &str) {
        if let Some(service) = self.services.remove(key) {
            self.services_in.remove(&service.namespace, key);
            self.world.withdraw(&service_name(&self.names, &service));
            self.republish_endpoints([&service].into_iter());
        }
    }

    /// A complete list: what is not in it is gone.
    pub(crate) fn services_listed(&mut self, services: Vec<ServiceFacts>) {
        let present: BTreeSet<_> = services.iter().map(ServiceFacts::key).collect();
        for key in absent(self.services.keys(), &present) {
            self.service_gone(&key);
        }
        for service in services {
            self.service_seen(service);
        }
        self.list_complete(Kind::Services);
    }

    pub(crate) fn slice_seen(&mut self, slice: SliceFacts) {
        let key = slice.key();
        let mut pods = self.pods_in(&key);
        self.slices.insert(slice);
        pods.extend(self.pods_in(&key));
        self.publish_slice(&key);
        pods.iter().for_each(|pod| self.publish_pod(pod));
    }

    pub(crate) fn slice_gone(&mut self, key: &str) {
        let pods = self.pods_in(key);
        if self.slices.remove(key).is_some() {
            self.publish_slice(key);
            pods.iter().for_each(|pod| self.publish_pod(pod));
        }
    }

    /// A complete list: what is not in it is gone.
    pub(crate) fn slices_listed(&mut self, slices: Vec<SliceFacts>) {
        let present: BTreeSet<_> = slices.iter().map(SliceFacts::key).collect();
        for key in absent(self.slices.by_key.keys(), &present) {
            self.slice_gone(&key);
        }
        for slice in slices {
            self.slice_seen(slice);
        }
        self.list_complete(Kind::Slices);
    }

    /// Publishes the service, or withdraws one that has become an alias.
    pub(super) fn publish_service(&mut self, key: &str) {
        let Some(facts) = self.services.get(key).filter(|_| self.complete()) else {
            return;
        };
        let name = service_name(&self.names, facts);
        match service(&self.names, facts) {
            Some(message) => {
                let address = Address { r#type: Some(address::Type::Service(message)) };
                self.world.publish(&name, &address);
            }
            None => self.world.withdraw(&name),
        }
    }

    /// Publishes the workloads of a slice's endpoints that are no pods, and withdraws
    /// those that are no longer among them.
    pub(super) fn publish_slice(&mut self, key: &str) {
        if !self.complete() {
            return;
        }
        let wanted = self.workloads_of(key);
        let former = self.slices.published.remove(key).unwrap_or_default();
        for uid in former.iter().filter(|uid| !wanted.contains_key(*uid)) {
            self.world.withdraw(uid);
        }
        for (uid, address) in &wanted {
            self.world.publish(uid, address);
        }
        if !wanted.is_empty() {
            self.slices.published.insert(key.to_owned(), wanted.into_keys().collect());
        }
    }

    fn workloads_of(&self, key: &str) -> BTreeMap<String, Address> {
        let slice = self.slices.by_key.get(key);
        let found = slice.and_then(|slice| Some((slice, self.services.get(&slice.service_key())?)));
        let Some((slice, service)) = found else {
            return BTreeMap::new();
        };
        let name = service_name(&self.names, service);
        let ports = slice_ports(service, slice);
        let strangers = slice.endpoints.iter().filter(|it| {
            it.target == Target::Address && it.addresses.iter().all(|ip| self.pods.at(ip).is_none())
        });
        strangers
            .map(|it| {
                let services = [(name.clone(), ports.clone())].into();
                let locality = self.locality_of(&it.node);
                let message = endpoint(&self.names, slice, it, services, locality);
                let address = Address { r#type: Some(address::Type::Workload(message)) };
                (endpoint_uid(&self.names, slice, it), address)
            })
            .collect()
    }

    /// The pods that a slice mentions.
    fn pods_in(&self, slice: &str) -> BTreeSet<String> {
        let Some(slice) = self.slices.by_key.get(slice) else {
            return BTreeSet::new();
        };
        let pods = slice.endpoints.iter().flat_map(|it| match &it.target {
            Target::Pod(name) => vec![pod_key(slice, name)],
            Target::Address => it.addresses.iter().filter_map(|ip| self.pods.at(ip)).collect(),
        });
        pods.collect()
    }

    /// Everybody who is or was an endpoint of one of these.
    fn republish_endpoints<'a>(&mut self, services: impl Iterator<Item = &'a ServiceFacts>) {
        let (mut pods, mut slices) = (BTreeSet::new(), BTreeSet::new());
        for service in services {
            let near = self.pods.in_namespace(&service.namespace);
            pods.extend(near.filter(|(_, pod)| service.selects(&pod.labels)).map(|(key, _)| key));
            slices.extend(self.slices.of_service.get(&service.key()));
        }
        pods.extend(slices.iter().flat_map(|slice| self.pods_in(slice)));
        pods.iter().for_each(|pod| self.publish_pod(pod));
        slices.iter().for_each(|slice| self.publish_slice(slice));
    }
}

fn pod_key(slice: &SliceFacts, name: &str) -> String {
    format!("{}/{name}", slice.namespace)
}
