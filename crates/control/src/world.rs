//! One moment of the cluster as the two services see it: what discovery sends, and which
//! service account runs where.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use mesh::proto::workload::Address;
use prost::Message;

mod directory;

pub(crate) use directory::aliases;

use directory::Directory;

use crate::facts::{Account, Life, PodFacts};
use crate::shards::Shards;

/// A snapshot; copies share what has not changed.
#[derive(Clone, Debug, Default)]
pub(crate) struct World {
    /// Workloads by uid, services by `namespace/hostname`.
    pub(crate) addresses: Shards<Resource>,
    directory: Directory,
    /// Policies by `namespace/name`.
    pub(crate) authorizations: Shards<Resource>,
    /// Pods that can still run, by `namespace/name`.
    placements: Shards<Placement>,
    /// How many pods of each service account can still run, by node.
    accounts: Shards<BTreeMap<Account, usize>>,
}

/// An encoded resource. Its version is a hash of its content: the same for the same
/// content, also after a restart, so that clients need not be sent everything again.
#[derive(Clone, Debug)]
pub(crate) struct Resource {
    pub(crate) version: Arc<str>,
    pub(crate) content: Arc<[u8]>,
}

impl Resource {
    pub(crate) fn new(message: &impl Message) -> Self {
        let content = message.encode_to_vec();
        let mut hasher = DefaultHasher::new();
        content.hash(&mut hasher);
        Self { version: format!("{:016x}", hasher.finish()).into(), content: content.into() }
    }

    /// What it says, if it is a workload or a service.
    pub(crate) fn address(&self) -> Option<Address> {
        Address::decode(&*self.content).ok()
    }
}

impl PartialEq for Resource {
    fn eq(&self, other: &Self) -> bool {
        self.content == other.content
    }
}

/// Where a pod is and whose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Placement {
    /// UID of the pod: a name may be used again.
    pub(crate) uid: String,
    pub(crate) node: String,
    pub(crate) account: Account,
}

impl World {
    /// Adds or replaces a workload or a service.
    pub(crate) fn publish(&mut self, name: &str, address: &Address) {
        let resource = Resource::new(address);
        if self.addresses.get(name) == Some(&resource) {
            return;
        }
        self.withdraw(name);
        self.directory.enter(name, address);
        self.addresses.insert(name, resource);
    }

    /// Takes a workload or a service away.
    pub(crate) fn withdraw(&mut self, name: &str) {
        if let Some(address) = self.addresses.get(name).and_then(Resource::address) {
            self.directory.leave(name, &address);
        }
        self.addresses.remove(name);
    }

    /// Names of the workloads and services that somebody means who asks for this: a name,
    /// or `network/address`. A service comes with its endpoints.
    pub(crate) fn meant_by(&self, asked: &str) -> Vec<Arc<str>> {
        let mut names = self.directory.at(asked);
        if self.addresses.get(asked).is_some() {
            names.push(asked.into());
        }
        let endpoints: Vec<_> =
            names.iter().flat_map(|name| self.directory.endpoints(name)).collect();
        names.extend(endpoints);
        names
    }

    /// The pod of this name, if it can still run and has a node.
    pub(crate) fn placement(&self, namespace: &str, name: &str) -> Option<&Placement> {
        self.placements.get(&format!("{namespace}/{name}"))
    }

    /// Is there a pod of this service account on that node that can still run?
    pub(crate) fn runs_on(&self, node: &str, account: &Account) -> bool {
        self.accounts.get(node).is_some_and(|accounts| accounts.contains_key(account))
    }

    /// Notes where a pod is, or that it is nowhere any more.
    pub(crate) fn place(&mut self, pod: &PodFacts) {
        self.displace(&pod.key());
        if pod.life == Life::Ended || pod.node.is_empty() {
            return;
        }
        let account = pod.account();
        let mut accounts = self.accounts.get(&pod.node).cloned().unwrap_or_default();
        *accounts.entry(account.clone()).or_default() += 1;
        self.accounts.insert(&pod.node, accounts);
        let placement = Placement { uid: pod.uid.clone(), node: pod.node.clone(), account };
        self.placements.insert(&pod.key(), placement);
    }

    /// Forgets where a pod was.
    pub(crate) fn displace(&mut self, key: &str) {
        let Some(Placement { node, account, .. }) = self.placements.get(key).cloned() else {
            return;
        };
        self.placements.remove(key);
        let mut accounts = self.accounts.get(&node).cloned().unwrap_or_default();
        match accounts.get_mut(&account) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                accounts.remove(&account);
            }
        }
        if accounts.is_empty() {
            self.accounts.remove(&node);
        } else {
            self.accounts.insert(&node, accounts);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;

    #[test]
    fn an_account_runs_on_a_node_as_long_as_one_of_its_pods_does() {
        let mut world = World::default();
        let account = Account { namespace: "shop".into(), name: "cart".into() };
        let (a, b) = (pod("shop", "a"), pod("shop", "b"));
        assert!(!world.runs_on("n1", &account));
        world.place(&a);
        world.place(&a);
        world.place(&b);
        world.displace(&a.key());
        assert!(world.runs_on("n1", &account));
        assert!(!world.runs_on("n2", &account));
        world.place(&PodFacts { life: Life::Ended, ..b });
        assert!(!world.runs_on("n1", &account));
        assert_eq!(world.placement("shop", "b"), None);
    }

    #[test]
    fn a_pod_that_moves_is_where_it_went() {
        let mut world = World::default();
        let a = pod("shop", "a");
        world.place(&PodFacts { node: String::new(), ..a.clone() });
        assert_eq!(world.placement("shop", "a"), None);
        world.place(&a);
        world.place(&PodFacts { node: "n2".into(), uid: "other".into(), ..a.clone() });
        assert_eq!(world.placement("shop", "a").unwrap().uid, "other");
        assert!(!world.runs_on("n1", &a.account()));
        assert!(world.runs_on("n2", &a.account()));
    }
}
