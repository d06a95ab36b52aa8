//! Everything known about the mesh at one moment.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::claims::Claims;
use crate::policy::{Connection, Decision, Policy, PolicyKey, PolicySet, Scope};
use crate::proto::security::Authorization;
use crate::proto::workload as proto;
use crate::workload::{Network, Protocol, Uid, Workload, parse_address};

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

/// Where a workload answers.
type Place = (Network, IpAddr);

/// Pod name, namespace and service account.
type PodNames = [Arc<str>; 3];

/// An immutable-by-convention snapshot: writers clone it, change the clone and publish
/// that. Values are shared, so a clone copies only the maps.
///
/// Of resources that could not be used it keeps what must not go out in clear text or
/// unjudged because of that: addresses, and the workloads that a policy was about.
#[derive(Clone, Debug, Default)]
pub struct View {
    workloads: HashMap<Uid, Arc<Workload>>,
    by_address: Claims<Place>,
    by_names: Claims<PodNames>,
    /// Workloads whose last version was rejected, with the places it names.
    rejected: HashMap<Uid, Arc<[Place]>>,
    rejected_places: Claims<Place>,
    policies: PolicySet,
}

impl View {
    /// Adds a workload or replaces the one with its uid.
    pub fn insert_workload(&mut self, workload: Workload) {
        self.remove_workload(&workload.uid.clone());
        let workload = Arc::new(workload);
        for place in places(&workload) {
            self.by_address.claim(place, &workload.uid);
        }
        self.by_names.claim(names(&workload), &workload.uid);
        self.workloads.insert(Arc::clone(&workload.uid), workload);
    }

    /// Forgets a workload, and what was kept of a rejected version. An address that
    /// another workload names too is that one's.
    pub fn remove_workload(&mut self, uid: &str) {
        self.accept_workload(uid);
        let Some(old) = self.workloads.remove(uid) else {
            return;
        };
        for place in places(&old) {
            self.by_address.release(&place, uid);
        }
        self.by_names.release(&names(&old), uid);
    }

    /// Remembers the addresses of a workload of which a version cannot be used, as far as
    /// they can be read; see [`View::rejected_at`]. A usable version that came before
    /// stays in use.
    pub fn reject_workload(&mut self, uid: &str, message: &proto::Workload) {
        self.accept_workload(uid);
        let (uid, network): (Uid, Network) = (uid.into(), message.network.as_str().into());
        let places: Arc<[Place]> = message
            .addresses
            .iter()
            .filter(|_| message.network_mode != proto::NetworkMode::HostNetwork as i32)
            .filter_map(|bytes| parse_address(bytes))
            .map(|ip| (Arc::clone(&network), ip))
            .collect();
        for place in &*places {
            self.rejected_places.claim(place.clone(), &uid);
        }
        self.rejected.insert(uid, places);
    }

    fn accept_workload(&mut self, uid: &str) {
        for place in self.rejected.remove(uid).iter().flat_map(|it| it.iter()) {
            self.rejected_places.release(place, uid);
        }
    }

    /// Adds a policy or replaces the one of that name.
    pub fn insert_policy(&mut self, policy: Policy) {
        self.policies.insert(policy);
    }

    /// Forgets a policy, and that a version of it was rejected.
    pub fn remove_policy(&mut self, key: &PolicyKey) {
        self.policies.remove(key);
    }

    /// Denies everything that a policy may be about whose first version cannot be used:
    /// nobody knows what it forbids. Without a readable `message` that is everything. A
    /// usable version that came before stays in use instead.
    pub fn reject_policy(&mut self, key: PolicyKey, message: Option<&Authorization>) {
        if message.is_some_and(|message| message.dry_run) {
            return;
        }
        let scope = message.and_then(|message| Scope::parse(message.scope));
        self.policies.reject(key, scope.unwrap_or(Scope::Global));
    }

    /// The workload with this key.
    #[must_use]
    pub fn workload(&self, uid: &str) -> Option<&Arc<Workload>> {
        self.workloads.get(uid)
    }

    /// The workload that answers at this address. Where two say so, because an address was
    /// given to the next pod before everybody has heard of the end of the first, it is the
    /// one that was told of last, but one in the mesh before one that is not: a wrong peer
    /// cannot prove to be the right one, while clear text finds any reader.
    #[must_use]
    pub fn by_address(&self, network: &Network, ip: IpAddr) -> Option<&Arc<Workload>> {
        let place = (Arc::clone(network), ip.to_canonical());
        let claimants = self.by_address.claimants(&place);
        let mut known = claimants.filter_map(|uid| self.workloads.get(uid));
        let last = known.next()?;
        let meshed = |workload: &&Arc<Workload>| workload.protocol == Protocol::Hbone;
        Some(if meshed(&last) { last } else { known.find(meshed).unwrap_or(last) })
    }

    /// The workload of which a version was rejected that names this address. Whether it
    /// wants a tunnel is not known.
    #[must_use]
    pub fn rejected_at(&self, network: &Network, ip: IpAddr) -> Option<&Uid> {
        let place = (Arc::clone(network), ip.to_canonical());
        self.rejected_places.holder(&place)
    }

    /// The workload that a pod of this node is, found by the names its agent gave.
    #[must_use]
    pub fn local(&self, pod: LocalWorkload<'_>) -> Option<&Arc<Workload>> {
        let names = [pod.name, pod.namespace, pod.service_account].map(Arc::from);
        self.workloads.get(self.by_names.holder(&names)?)
    }

    /// All workloads, in no order.
    pub fn workloads(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.workloads.values()
    }

    /// All policies, in no order.
    pub fn policies(&self) -> impl Iterator<Item = &Arc<Policy>> {
        self.policies.iter()
    }

    /// The policies that apply to `destination`, enforced or not.
    pub fn applicable_policies(
        &self,
        destination: &Workload,
    ) -> impl Iterator<Item = &Arc<Policy>> {
        self.policies.applicable(destination)
    }

    /// May this connection reach `destination`?
    #[must_use]
    pub fn authorize(&self, destination: &Workload, connection: &Connection) -> Decision {
        self.policies.decide(destination, connection)
    }
}

/// A workload of the host network has no address of its own.
fn places(workload: &Workload) -> impl Iterator<Item = Place> {
    let own: &[IpAddr] = if workload.host_network { &[] } else { &workload.addresses };
    own.iter().map(|ip| (Arc::clone(&workload.network), ip.to_canonical()))
}

fn names(workload: &Workload) -> PodNames {
    [
        Arc::clone(&workload.name),
        Arc::clone(&workload.namespace),
        workload.identity.service_account_shared(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Identity;

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
        assert!(view.by_address(&network, ip).is_none(), "the former address is forgotten");
    }

    #[test]
    fn a_host_network_workload_is_never_found_by_address() {
        let mut view = View::default();
        view.insert_workload(Workload { host_network: true, ..pod("a", "10.0.0.1") });
        assert!(view.by_address(&"".into(), "10.0.0.1".parse().unwrap()).is_none());
        assert!(view.workload("a").is_some());
    }

    #[test]
    fn a_mapped_address_is_the_ipv4_one() {
        let mut view = View::default();
        view.insert_workload(pod("a", "10.0.0.1"));
        assert!(view.by_address(&"".into(), "::ffff:10.0.0.1".parse().unwrap()).is_some());
    }

    fn local<'a>(view: &'a View, names: [&str; 3]) -> Option<&'a str> {
        let [name, namespace, service_account] = names;
        let pod = LocalWorkload { name, namespace, service_account };
        view.local(pod).map(|workload| &*workload.uid)
    }

    #[test]
    fn a_pod_is_found_by_all_its_names() {
        let mut view = View::default();
        view.insert_workload(pod("a", "10.0.0.1"));
        assert_eq!(local(&view, ["a", "shop", "cart"]), Some("a"));
        for others in [["b", "shop", "cart"], ["a", "bank", "cart"], ["a", "shop", "till"]] {
            assert_eq!(local(&view, others), None, "{others:?}");
        }
        view.insert_workload(Workload {
            identity: Identity::new("", "shop", "till").unwrap(),
            ..pod("a", "10.0.0.1")
        });
        assert_eq!(local(&view, ["a", "shop", "cart"]), None, "the former name");
        assert_eq!(local(&view, ["a", "shop", "till"]), Some("a"));
        view.remove_workload("a");
        assert_eq!(local(&view, ["a", "shop", "till"]), None);
    }

    #[test]
    fn an_address_of_two_goes_back_to_the_one_that_stays() {
        let mut view = View::default();
        let ip: IpAddr = "10.0.0.1".parse().unwrap();
        view.insert_workload(pod("stays", "10.0.0.1"));
        view.insert_workload(pod("goes", "10.0.0.1"));
        view.remove_workload("goes");
        let holder = view.by_address(&"".into(), ip).map(|it| &*it.uid);
        assert_eq!(holder, Some("stays"), "unknown would mean clear text");
    }

    #[test]
    fn news_of_an_ending_pod_do_not_take_its_address_out_of_the_mesh() {
        let mut view = View::default();
        let ip: IpAddr = "10.0.0.1".parse().unwrap();
        let ending = Workload { protocol: Protocol::Plain, ..pod("ending", "10.0.0.1") };
        view.insert_workload(ending.clone());
        view.insert_workload(pod("new", "10.0.0.1"));
        view.insert_workload(ending);
        let holder = view.by_address(&"".into(), ip).map(|it| &*it.uid);
        assert_eq!(holder, Some("new"), "the other would mean clear text");
        view.remove_workload("new");
        let holder = view.by_address(&"".into(), ip).map(|it| &*it.uid);
        assert_eq!(holder, Some("ending"));
    }

    #[test]
    fn a_rejected_workload_keeps_the_addresses_that_can_be_read() {
        let mut view = View::default();
        let ip: IpAddr = "10.0.0.1".parse().unwrap();
        let message = proto::Workload {
            addresses: vec![vec![1, 2, 3], vec![10, 0, 0, 1]],
            ..Default::default()
        };
        view.reject_workload("a", &message);
        view.reject_workload("a", &message);
        assert_eq!(&**view.rejected_at(&"".into(), ip).unwrap(), "a");
        assert!(view.rejected_at(&"other".into(), ip).is_none());
        assert!(view.by_address(&"".into(), ip).is_none());
        view.insert_workload(pod("a", "10.0.0.1"));
        assert!(view.rejected_at(&"".into(), ip).is_none(), "a usable one");
        view.reject_workload("a", &message);
        assert!(view.by_address(&"".into(), ip).is_some(), "stays in use");
        view.remove_workload("a");
        assert!(view.rejected_at(&"".into(), ip).is_none(), "it is gone");
    }

    #[test]
    fn a_rejected_host_network_workload_has_no_address() {
        let mut view = View::default();
        let message = proto::Workload {
            addresses: vec![vec![10, 0, 0, 1]],
            network_mode: proto::NetworkMode::HostNetwork as i32,
            ..Default::default()
        };
        view.reject_workload("a", &message);
        let ip = "10.0.0.1".parse().unwrap();
        assert!(view.rejected_at(&"".into(), ip).is_none());
    }
}
