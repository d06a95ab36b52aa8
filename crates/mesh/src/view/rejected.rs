//! What remains of workloads and services that cannot be used: where they are.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;

use crate::places::{Placed, Places};
use crate::proto::workload as proto;
use crate::service::parse_visibility;
use crate::service::{ServiceAddress, ServiceKey, Visibility, parse_service_address};
use crate::workload::{Network, parse_address};

/// Resources of one kind, by key and by address. A clone is cheap.
#[derive(Clone, Debug)]
pub(super) struct Rejections<K> {
    by_key: Arc<HashMap<K, Arc<Rejected<K>>>>,
    places: Places<Rejected<K>>,
}

/// What could be read of a resource.
#[derive(Debug)]
pub(super) struct Rejected<K> {
    key: K,
    remains: Remains,
}

/// Where it is, and for whom.
#[derive(Debug)]
pub(super) struct Remains {
    places: Box<[ServiceAddress]>,
    /// Only clients of this namespace are concerned.
    only_for: Option<Box<str>>,
}

/// A workload of the host network has no address of its own.
pub(super) fn of_workload(message: &proto::Workload) -> Remains {
    let network: Network = message.network.as_str().into();
    let own = message.network_mode != proto::NetworkMode::HostNetwork as i32;
    let addresses = message.addresses.iter().filter(|_| own);
    let place = |ip| ServiceAddress { network: Arc::clone(&network), net: IpNetwork::from(ip) };
    let places = addresses.filter_map(|bytes| parse_address(bytes)).map(place).collect();
    Remains { places, only_for: None }
}

/// Addresses that cannot be read are passed over.
pub(super) fn of_service(key: &ServiceKey, message: &proto::Service) -> Remains {
    let hidden = parse_visibility(message.visibility) == Visibility::Namespace;
    Remains {
        places: message.addresses.iter().filter_map(parse_service_address).collect(),
        only_for: hidden.then(|| key.namespace().into()),
    }
}

impl<K: Clone + Eq + Hash> Rejections<K> {
    /// Replaces what was kept of an earlier version.
    pub(super) fn insert(&mut self, key: K, remains: Remains) {
        self.remove(&key);
        let rejected = Arc::new(Rejected { key: key.clone(), remains });
        self.places.insert(&rejected);
        Arc::make_mut(&mut self.by_key).insert(key, rejected);
    }

    pub(super) fn remove<Q: Eq + Hash + ?Sized>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
    {
        // Most often there is nothing, and nothing to copy.
        if !self.by_key.contains_key(key) {
            return;
        }
        if let Some(rejected) = Arc::make_mut(&mut self.by_key).remove(key) {
            self.places.remove(&rejected);
        }
    }

    /// Those at this address, the last told of first, then those around it.
    pub(super) fn at(&self, network: &str, ip: IpAddr) -> impl Iterator<Item = &Arc<Rejected<K>>> {
        let around = self.places.around(network, ip).map(|(_, rejected)| rejected);
        self.places.exactly_at(network, ip).chain(around)
    }
}

impl<K> Rejected<K> {
    pub(super) fn key(&self) -> &K {
        &self.key
    }

    pub(super) fn visible_to(&self, namespace: &str) -> bool {
        self.remains.only_for.as_deref().is_none_or(|only| only == namespace)
    }
}

impl<K> Placed for Rejected<K> {
    fn places(&self) -> impl Iterator<Item = (&Network, IpNetwork)> {
        self.remains.places.iter().map(|it| (&it.network, it.net))
    }
}

impl<K> Default for Rejections<K> {
    fn default() -> Self {
        Self { by_key: Arc::default(), places: Places::default() }
    }
}
