//! Everything known about the mesh at one moment.

mod rejected;
mod services;

#[cfg(test)]
mod oracle_tests;
#[cfg(test)]
mod service_tests;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;

use crate::index::{Hashing, Index};
use crate::intern::Interner;
use crate::places::Places;
use crate::policy::{Connection, Decision, Policy, PolicyKey, PolicySet, Scope, UnknownPolicy};
use crate::proto::security::Authorization;
use crate::proto::workload as proto;
use crate::service::{Service, ServiceKey};
use crate::workload::{Network, Protocol, Uid, Workload, named_end};
use rejected::Rejections;
use services::Services;

pub use services::Members;

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

/// Where the pods are that node agents speak of: in a mesh of several clusters there are
/// pods of the same names in each of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    /// Cluster id, the first part of workloads' uids.
    pub cluster: Arc<str>,
    /// Name of the node; empty: it is not known.
    pub node: Arc<str>,
}

impl Default for Home {
    /// Istio's cluster id, on whichever node.
    fn default() -> Self {
        Self { cluster: "Kubernetes".into(), node: "".into() }
    }
}

impl Home {
    /// Does its uid say that it is the pod of this name here?
    fn names(&self, workload: &Workload, pod: LocalWorkload<'_>) -> bool {
        let rest = workload.uid().strip_prefix(&*self.cluster);
        let names = rest.and_then(|rest| rest.strip_prefix("//Pod/")?.split_once('/'));
        names == Some((pod.namespace, pod.name))
    }

    /// May it be here? Not everybody says where it is.
    fn may_have(&self, workload: &Workload) -> bool {
        self.node.is_empty() || workload.node.is_empty() || workload.node == self.node
    }
}

/// An immutable-by-convention snapshot: writers clone it, change the clone and publish
/// that. A clone copies a handful of pointers; a change copies what it touches.
///
/// Of resources that could not be used it keeps what must not go out in clear text or
/// unjudged because of that: addresses, and the workloads that a policy was about.
#[derive(Clone, Debug, Default)]
pub struct View {
    hashing: Hashing,
    interner: Interner,
    /// By the end of their uid, which names pods.
    workloads: Index<Workload>,
    by_address: Places<Workload>,
    /// Those that their uid does not name.
    by_names: Index<Workload>,
    services: Services,
    rejected_workloads: Rejections<Uid>,
    rejected_services: Rejections<ServiceKey>,
    policies: Arc<PolicySet>,
}

impl View {
    /// Adds a workload or replaces the one with its uid.
    pub fn insert_workload(&mut self, mut workload: Workload) {
        self.remove_workload(&Uid::clone(workload.uid()));
        self.interner.workload(&mut workload);
        let workload = Arc::new(workload);
        self.by_address.insert(&workload);
        if !workload.is_named_by_uid() {
            self.by_names.claim(self.names_hash(LocalWorkload::of(&workload)), &workload);
        }
        self.services.join(&workload);
        self.workloads.claim(self.uid_hash(workload.uid()), &workload);
    }

    /// Forgets a workload, and what was kept of a rejected version. An address that
    /// another workload names too is that one's.
    pub fn remove_workload(&mut self, uid: &str) {
        self.rejected_workloads.remove(uid);
        let Some(old) = self.workload(uid).cloned() else {
            return;
        };
        self.workloads.release(self.uid_hash(uid), &old);
        self.by_address.remove(&old);
        if !old.is_named_by_uid() {
            self.by_names.release(self.names_hash(LocalWorkload::of(&old)), &old);
        }
        self.services.leave(&old);
    }

    /// Remembers the addresses of a workload of which a version cannot be used, as far as
    /// they can be read; see [`View::rejected_at`]. A usable version that came before
    /// stays in use.
    pub fn reject_workload(&mut self, uid: &str, message: &proto::Workload) {
        self.rejected_workloads.insert(uid.into(), rejected::of_workload(message));
    }

    /// Adds a service or replaces the one of that name.
    pub fn insert_service(&mut self, mut service: Service) {
        self.rejected_services.remove(&service.key);
        self.interner.service(&mut service);
        self.services.insert(service);
    }

    /// Forgets a service, and what was kept of a rejected version.
    pub fn remove_service(&mut self, key: &ServiceKey) {
        self.rejected_services.remove(key);
        self.services.remove(key);
    }

    /// Remembers the addresses of a service of which a version cannot be used, as far as
    /// they can be read; see [`View::rejected_service_at`]. A usable version that came
    /// before stays in use.
    pub fn reject_service(&mut self, key: &ServiceKey, message: &proto::Service) {
        self.rejected_services.insert(key.clone(), rejected::of_service(key, message));
    }

    /// Adds a policy or replaces the one of that name.
    pub fn insert_policy(&mut self, policy: Policy) {
        Arc::make_mut(&mut self.policies).insert(policy);
    }

    /// Forgets a policy, and that a version of it was rejected.
    pub fn remove_policy(&mut self, key: &PolicyKey) {
        Arc::make_mut(&mut self.policies).remove(key);
    }

    /// Denies everything that a policy may be about whose first version cannot be used:
    /// nobody knows what it forbids. Without a readable `message` that is everything. A
    /// usable version that came before stays in use instead.
    pub fn reject_policy(&mut self, key: PolicyKey, message: Option<&Authorization>) {
        if message.is_some_and(|message| message.dry_run) {
            return;
        }
        let scope = message.and_then(|message| Scope::parse(message.scope));
        Arc::make_mut(&mut self.policies).reject(key, scope.unwrap_or(Scope::Global));
    }

    /// The workload with this key.
    #[must_use]
    pub fn workload(&self, uid: &str) -> Option<&Arc<Workload>> {
        self.workloads.claimants(self.uid_hash(uid)).find(|it| **it.uid() == *uid)
    }

    /// The workload that answers at this address. Where two say so, because an address was
    /// given to the next pod before everybody has heard of the end of the first, it is the
    /// one that was told of last, but one in the mesh before one that is not: a wrong peer
    /// cannot prove to be the right one, while clear text finds any reader.
    #[must_use]
    pub fn by_address(&self, network: &Network, ip: IpAddr) -> Option<&Arc<Workload>> {
        let mut known = self.by_address.exactly_at(network, ip);
        let last = known.next()?;
        let meshed = |workload: &&Arc<Workload>| workload.protocol == Protocol::Hbone;
        Some(if meshed(&last) { last } else { known.find(meshed).unwrap_or(last) })
    }

    /// The workload of which a version was rejected that names this address. Whether it
    /// wants a tunnel is not known.
    #[must_use]
    pub fn rejected_at(&self, network: &Network, ip: IpAddr) -> Option<&Uid> {
        self.rejected_workloads.at(network, ip).next().map(|it| it.key())
    }

    /// The service of which a version was rejected that clients of this namespace might
    /// find at this address. Where its traffic should go is not known.
    #[must_use]
    pub fn rejected_service_at(
        &self,
        client_namespace: &str,
        network: &Network,
        ip: IpAddr,
    ) -> Option<&ServiceKey> {
        let mut found = self.rejected_services.at(network, ip);
        found.find(|it| it.visible_to(client_namespace)).map(|it| it.key())
    }

    /// The workload that a pod of this node is, found by the names its agent gave: the one
    /// whose uid says so, else one of these names that may be here, rather one whose uid
    /// has them too. Never one of another node: other policies may be for that.
    #[must_use]
    pub fn local(&self, pod: LocalWorkload<'_>, home: &Home) -> Option<&Arc<Workload>> {
        let end = self.hashing.of((pod.namespace, pod.name));
        let by_uid = || self.workloads.claimants(end).filter(|it| LocalWorkload::of(it) == pod);
        let by_names = self.by_names.claimants(self.names_hash(pod));
        by_uid().find(|it| home.names(it, pod)).or_else(|| {
            let by_names = by_names.filter(|it| LocalWorkload::of(it) == pod);
            by_uid().chain(by_names).find(|it| home.may_have(it))
        })
    }

    /// All workloads, in no order.
    pub fn workloads(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.workloads.values()
    }

    /// The service with this key.
    #[must_use]
    pub fn service(&self, key: &ServiceKey) -> Option<&Arc<Service>> {
        self.services.get(key)
    }

    /// The service that clients of this namespace find at this address: of several the
    /// one of their own namespace, then the one with the longest prefix, then the
    /// canonical one, and never one that is not visible to them. One that names the very
    /// address comes before all ranges.
    #[must_use]
    pub fn service_at(
        &self,
        client_namespace: &str,
        network: &Network,
        ip: IpAddr,
    ) -> Option<&Arc<Service>> {
        self.services.at(client_namespace, network, ip)
    }

    /// The services of this hostname, whatever their namespace, in no order.
    pub fn services_named(&self, hostname: &str) -> impl Iterator<Item = &Arc<Service>> {
        self.services.named(hostname)
    }

    /// All services, in no order.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.all()
    }

    /// The workloads that say they belong to this service, healthy or not, in no order.
    /// The service itself may not be known.
    pub fn endpoints(&self, service: &ServiceKey) -> impl Iterator<Item = &Arc<Workload>> {
        self.members(service).all().iter()
    }

    /// The same, to be chosen from.
    #[must_use]
    pub fn members(&self, service: &ServiceKey) -> Members<'_> {
        self.services.members(service)
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

    /// May this connection reach `destination`? Not while a policy that it lists is not
    /// known.
    #[must_use]
    pub fn authorize(&self, destination: &Workload, connection: &Connection) -> Decision {
        self.authorize_with(UnknownPolicy::Deny, destination, connection)
    }

    /// The same, where an operator may have said what an unknown policy means.
    #[must_use]
    pub fn authorize_with(
        &self,
        unknown: UnknownPolicy,
        destination: &Workload,
        connection: &Connection,
    ) -> Decision {
        self.policies.decide(destination, connection, unknown)
    }

    fn uid_hash(&self, uid: &str) -> u64 {
        self.hashing.of(named_end(uid).split_once('/').unwrap_or(("", uid)))
    }

    fn names_hash(&self, names: LocalWorkload<'_>) -> u64 {
        self.hashing.of([names.name, names.namespace, names.service_account])
    }
}

impl<'a> LocalWorkload<'a> {
    fn of(workload: &'a Workload) -> Self {
        Self {
            name: workload.name(),
            namespace: &workload.namespace,
            service_account: workload.identity.service_account(),
        }
    }
}
