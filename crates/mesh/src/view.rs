//! Everything known about the mesh at one moment.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::policy::{Connection, Decision, Policy, PolicyKey, PolicySet};
use crate::workload::{Network, Uid, Workload};

/// A pod as its node agent knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalWorkload<'a> {
    /// Pod name.
    pub name: &'a str,
    /// Namespace.
    pub namespace: &'a str,
    /// Service account.
    pub service_account: &'a str,
}

/// An immutable-by-convention snapshot: writers clone it, change the clone and publish
/// that. Values are shared, so a clone copies only the maps.
#[derive(Clone, Debug, Default)]
pub struct View {
    workloads: HashMap<Uid, Arc<Workload>>,
    by_address: HashMap<(Network, IpAddr), Uid>,
    policies: PolicySet,
}

impl View {
    /// Adds a workload or replaces the one with its uid.
    pub fn insert_workload(&mut self, workload: Workload) {
        self.remove_workload(&workload.uid.clone());
        let workload = Arc::new(workload);
        if !workload.host_network {
            for address in &workload.addresses {
                let key = (Arc::clone(&workload.network), *address);
                self.by_address.insert(key, Arc::clone(&workload.uid));
            }
        }
        self.workloads.insert(Arc::clone(&workload.uid), workload);
    }

    /// Forgets a workload. An address that another workload has taken over meanwhile
    /// stays with that one.
    pub fn remove_workload(&mut self, uid: &str) {
        let Some(old) = self.workloads.remove(uid) else {
            return;
        };
        for address in &old.addresses {
            let key = (Arc::clone(&old.network), *address);
            if self
                .by_address
                .get(&key)
                .is_some_and(|holder| **holder == *uid)
            {
                self.by_address.remove(&key);
            }
        }
    }

    /// Adds a policy or replaces the one of that name.
    pub fn insert_policy(&mut self, policy: Policy) {
        self.policies.insert(policy);
    }

    /// Forgets a policy.
    pub fn remove_policy(&mut self, key: &PolicyKey) {
        self.policies.remove(key);
    }

    /// The workload with this key.
    #[must_use]
    pub fn workload(&self, uid: &str) -> Option<&Arc<Workload>> {
        self.workloads.get(uid)
    }

    /// The workload that answers at this address.
    #[must_use]
    pub fn by_address(&self, network: &Network, ip: IpAddr) -> Option<&Arc<Workload>> {
        let uid = self
            .by_address
            .get(&(Arc::clone(network), ip.to_canonical()))?;
        self.workloads.get(uid)
    }

    /// The workload that a pod of this node is, found by the names its agent gave.
    #[must_use]
    pub fn local(&self, pod: LocalWorkload<'_>) -> Option<&Arc<Workload>> {
        self.workloads.values().find(|workload| {
            *workload.name == *pod.name
                && *workload.namespace == *pod.namespace
                && workload.identity.service_account() == pod.service_account
        })
    }

    /// All workloads, in no order.
    pub fn workloads(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.workloads.values()
    }

    /// All policies, in no order.
    pub fn policies(&self) -> impl Iterator<Item = &Arc<Policy>> {
        self.policies.iter()
    }

    /// May this connection reach `destination`?
    #[must_use]
    pub fn authorize(&self, destination: &Workload, connection: &Connection) -> Decision {
        self.policies.decide(destination, connection)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Identity, Protocol};

    fn pod(uid: &str, ip: &str) -> Workload {
        Workload {
            uid: uid.into(),
            name: uid.into(),
            namespace: "shop".into(),
            identity: Identity::new("", "shop", "cart").unwrap(),
            network: "".into(),
            addresses: vec![ip.parse().unwrap()],
            protocol: Protocol::Hbone,
            host_network: false,
            node: "n1".into(),
            cluster: "Kubernetes".into(),
            canonical_name: "".into(),
            canonical_revision: "".into(),
            owner: "".into(),
            policies: Vec::new(),
        }
    }

    #[test]
    fn an_address_belongs_to_whoever_took_it_last() {
        let mut view = View::default();
        let network: Network = "".into();
        let ip: IpAddr = "10.0.0.1".parse().unwrap();
        view.insert_workload(pod("old", "10.0.0.1"));
        view.insert_workload(pod("new", "10.0.0.1"));
        view.remove_workload("old");
        assert_eq!(&*view.by_address(&network, ip).unwrap().uid, "new");
        view.insert_workload(pod("new", "10.0.0.2"));
        assert!(
            view.by_address(&network, ip).is_none(),
            "the former address is forgotten"
        );
    }

    #[test]
    fn a_host_network_workload_is_never_found_by_address() {
        let mut view = View::default();
        view.insert_workload(Workload {
            host_network: true,
            ..pod("a", "10.0.0.1")
        });
        assert!(
            view.by_address(&"".into(), "10.0.0.1".parse().unwrap())
                .is_none()
        );
        assert!(view.workload("a").is_some());
    }

    #[test]
    fn a_mapped_address_is_the_ipv4_one() {
        let mut view = View::default();
        view.insert_workload(pod("a", "10.0.0.1"));
        assert!(
            view.by_address(&"".into(), "::ffff:10.0.0.1".parse().unwrap())
                .is_some()
        );
    }
}
