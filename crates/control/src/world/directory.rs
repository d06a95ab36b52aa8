//! What can be looked up besides names: who has an address, and who serves a service.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use mesh::proto::workload::{Address, NetworkMode, address};

use crate::shards::Shards;

type Names = BTreeSet<Arc<str>>;

/// Two indexes over the workloads and services of a world.
#[derive(Clone, Debug, Default)]
pub(super) struct Directory {
    /// By `network/address`.
    at: Shards<Names>,
    /// Workloads by the name of a service.
    endpoints: Shards<Names>,
}

impl Directory {
    pub(super) fn enter(&mut self, name: &str, address: &Address) {
        let name: Arc<str> = name.into();
        for alias in aliases(address) {
            self.at.update(&alias, |names| {
                names.insert(Arc::clone(&name));
            });
        }
        for service in services(address) {
            self.endpoints.update(service, |names| {
                names.insert(Arc::clone(&name));
            });
        }
    }

    pub(super) fn leave(&mut self, name: &str, address: &Address) {
        for alias in aliases(address) {
            remove(&mut self.at, &alias, name);
        }
        for service in services(address) {
            remove(&mut self.endpoints, service, name);
        }
    }

    pub(super) fn at(&self, alias: &str) -> Vec<Arc<str>> {
        self.at.get(alias).into_iter().flatten().cloned().collect()
    }

    pub(super) fn endpoints(&self, service: &str) -> Vec<Arc<str>> {
        self.endpoints.get(service).into_iter().flatten().cloned().collect()
    }
}

fn remove(index: &mut Shards<Names>, key: &str, name: &str) {
    index.update(key, |names| {
        names.remove(name);
    });
    if index.get(key).is_some_and(BTreeSet::is_empty) {
        index.remove(key);
    }
}

/// The `network/address` names under which this can be asked for. What shares its address
/// with others cannot.
pub(crate) fn aliases(address: &Address) -> Vec<String> {
    let named = |network: &str, octets: &[u8]| Some(format!("{network}/{}", ip(octets)?));
    match &address.r#type {
        Some(address::Type::Workload(it)) if it.network_mode() == NetworkMode::Standard => {
            it.addresses.iter().filter_map(|octets| named(&it.network, octets)).collect()
        }
        Some(address::Type::Service(it)) => {
            let single = it.addresses.iter().filter(|it| it.length.is_none());
            single.filter_map(|it| named(&it.network, &it.address)).collect()
        }
        _ => Vec::new(),
    }
}

fn services(address: &Address) -> Vec<&str> {
    match &address.r#type {
        Some(address::Type::Workload(it)) => it.services.keys().map(String::as_str).collect(),
        _ => Vec::new(),
    }
}

fn ip(octets: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from)).ok()
}
