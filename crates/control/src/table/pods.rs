//! Pods, and the workloads that they become.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use mesh::proto::workload::{Address, PortList, address};

use super::index::Index;
use super::{Kind, Table, absent};
use crate::facts::PodFacts;
use crate::translate::{Around, pod_ports, service_name, slice_ports, uid, workload};

/// Pods by `namespace/name`, and by what other objects know of them.
#[derive(Debug, Default)]
pub(super) struct Pods {
    by_key: HashMap<String, PodFacts>,
    in_namespace: Index<String>,
    on_node: Index<String>,
    at: Index<IpAddr>,
}

impl Pods {
    pub(super) fn get(&self, key: &str) -> Option<&PodFacts> {
        self.by_key.get(key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&String, &PodFacts)> {
        self.by_key.iter()
    }

    pub(super) fn keys(&self) -> Vec<String> {
        self.by_key.keys().cloned().collect()
    }

    pub(super) fn in_namespace(
        &self,
        namespace: &str,
    ) -> impl Iterator<Item = (String, &PodFacts)> {
        let keys = self.in_namespace.get(namespace);
        keys.into_iter()
            .filter_map(|key| self.by_key.get_key_value(&key))
            .map(|(k, v)| (k.clone(), v))
    }

    pub(super) fn on_node(&self, node: &str) -> Vec<String> {
        self.on_node.get(node)
    }

    /// The pod that has this address to itself.
    pub(super) fn at(&self, address: &IpAddr) -> Option<String> {
        self.at.get(address).into_iter().next()
    }

    fn insert(&mut self, pod: PodFacts) {
        let key = pod.key();
        self.remove(&key);
        self.in_namespace.insert(pod.namespace.clone(), &key);
        self.on_node.insert(pod.node.clone(), &key);
        pod.own_addresses().iter().for_each(|address| self.at.insert(*address, &key));
        self.by_key.insert(key, pod);
    }

    fn remove(&mut self, key: &str) -> Option<PodFacts> {
        let pod = self.by_key.remove(key)?;
        self.in_namespace.remove(&pod.namespace, key);
        self.on_node.remove(&pod.node, key);
        pod.own_addresses().iter().for_each(|address| self.at.remove(address, key));
        Some(pod)
    }
}

impl Table {
    pub(crate) fn pod_seen(&mut self, pod: PodFacts) {
        let key = pod.key();
        let before = self.addresses_of(&key);
        self.world.place(&pod);
        self.pods.insert(pod);
        self.publish_pod(&key);
        self.pod_moved(&key, &before);
    }

    pub(crate) fn pod_gone(&mut self, key: &str) {
        let before = self.addresses_of(key);
        if let Some(pod) = self.pods.remove(key) {
            self.world.displace(key);
            self.world.withdraw(&uid(&self.names, &pod));
            self.pod_moved(key, &before);
        }
    }

    /// A complete list: what is not in it is gone.
    pub(crate) fn pods_listed(&mut self, pods: Vec<PodFacts>) {
        let present: BTreeSet<_> = pods.iter().map(PodFacts::key).collect();
        for key in absent(self.pods.by_key.keys(), &present) {
            self.pod_gone(&key);
        }
        for pod in pods {
            self.pod_seen(pod);
        }
        self.list_complete(Kind::Pods);
    }

    /// Publishes the workload that a pod is, or withdraws it when it is none any more.
    pub(super) fn publish_pod(&mut self, key: &str) {
        let Some(pod) = self.pods.get(key).filter(|_| self.complete()) else {
            return;
        };
        let uid = uid(&self.names, pod);
        match workload(&self.names, pod, self.around(key, pod)) {
            Some(message) => {
                let address = Address { r#type: Some(address::Type::Workload(message)) };
                self.world.publish(&uid, &address);
            }
            None => self.world.withdraw(&uid),
        }
    }

    fn around(&self, key: &str, pod: &PodFacts) -> Around {
        Around {
            policies: self.selecting(pod).into_iter().chain(self.demanded_of(pod)).collect(),
            services: self.services_of(key, pod),
            locality: self.locality_of(&pod.node),
        }
    }

    /// The services that select the pod, and those without a selector that have it in a
    /// slice.
    fn services_of(&self, key: &str, pod: &PodFacts) -> BTreeMap<String, PortList> {
        let mut services = BTreeMap::new();
        let near = self.services_in.get(&pod.namespace);
        for service in near.iter().filter_map(|key| self.services.get(key)) {
            if service.selects(&pod.labels) {
                services.insert(service_name(&self.names, service), pod_ports(service, pod));
            }
        }
        for slice in self.slices.with_pod(key, pod.own_addresses()) {
            let Some(service) = self.services.get(&slice.service_key()) else {
                continue;
            };
            // Where a selector decides, a slice lags behind it.
            if service.selector.is_empty() {
                let name = service_name(&self.names, service);
                let list: &mut PortList = services.entry(name).or_default();
                let new = slice_ports(service, slice).ports;
                let ports: Vec<_> = new.into_iter().filter(|it| !list.ports.contains(it)).collect();
                list.ports.extend(ports);
            }
        }
        services
    }

    fn addresses_of(&self, key: &str) -> Vec<IpAddr> {
        self.pods.get(key).map(|pod| pod.own_addresses().to_vec()).unwrap_or_default()
    }

    /// Slices that have an address which is a pod's now, or was, see it otherwise.
    fn pod_moved(&mut self, key: &str, before: &[IpAddr]) {
        let now = self.addresses_of(key);
        let changed = before.iter().filter(|it| !now.contains(it));
        let changed: Vec<_> = changed.chain(now.iter().filter(|it| !before.contains(it))).collect();
        for slice in self.slices.with_addresses(&changed) {
            self.publish_slice(&slice);
        }
    }
}
