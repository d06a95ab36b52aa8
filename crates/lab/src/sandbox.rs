//! What a container runtime makes for a pod: a namespace, attached by a conflist.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ipnetwork::IpNetwork;
use netns::{Fence, NamedNetns};
use serde_json::{Map, Value};

use crate::cni_runtime::{Attachment, CniError, Conflist, Runtime};
use crate::kubelet::PodFailure;
use crate::net::links::Links;
use crate::net::sysctl;
use crate::other_users;
use crate::place::Place;
use crate::pod::{PodSpec, Users};

/// Name of the interface inside a pod.
const IFNAME: &str = "eth0";

/// Where sandboxes are made.
#[derive(Debug)]
pub(crate) struct Workshop {
    pub fence: Fence,
    pub netns_folder: PathBuf,
    pub patience: Duration,
}

/// A pod's namespace and its attachment.
#[derive(Debug)]
pub(crate) struct Sandbox {
    pub place: Place,
    pub attachment: Attachment,
    pub result: Value,
    /// The configuration that ADD was done with; DEL must not depend on a later edit.
    list: Conflist,
    runtime: Runtime,
    named: Mutex<Option<NamedNetns>>,
}

impl Workshop {
    /// Makes the namespace and calls ADD. After a failure neither is there.
    pub async fn sandbox(
        &self,
        runtime: &Runtime,
        spec: &PodSpec,
        uid: &str,
    ) -> Result<Sandbox, PodFailure> {
        let list = runtime.load().map_err(CniError::from)?;
        let file = format!("pod-{}-{}", spec.namespace, spec.name);
        let name = format!("pod {}/{}", spec.namespace, spec.name);
        let (place, named) = self.namespace(&file, name, spec.users).await?;
        let attachment = attachment(spec, uid, place.path());
        // A failed ADD has undone itself, and the namespace goes with `named`.
        let result = runtime.add(&list, &attachment).await?;
        let (runtime, named) = (runtime.clone(), Mutex::new(Some(named)));
        Ok(Sandbox { place, attachment, result, list, runtime, named })
    }

    /// A namespace as a runtime makes it before it calls plugins.
    pub async fn namespace(
        &self,
        file: &str,
        name: String,
        users: Users,
    ) -> Result<(Place, NamedNetns), PodFailure> {
        if self.netns_folder.join(file).exists() {
            return Err(PodFailure::Taken(file.to_owned()));
        }
        let named = match users {
            Users::Node => NamedNetns::create(&self.netns_folder, file)?,
            Users::Own => other_users::namespace(&self.netns_folder, file).await?,
        };
        let place = Place::new(name, &named, &self.fence, self.patience);
        sysctl::prepare_pod(&place).await?;
        Links::open(&place).await?.up("lo").await?;
        Ok((place, named))
    }
}

impl Sandbox {
    /// As containerd does it: DEL while the namespace is there, and again, when the
    /// sandbox is removed, without namespace and result.
    pub async fn remove(&self) -> Result<(), CniError> {
        let first = self.runtime.del(&self.list, &self.attachment).await;
        drop(self.named.lock().unwrap_or_else(PoisonError::into_inner).take());
        let late = self.attachment.without_netns();
        let second = self.runtime.del(&self.list, &late).await;
        first.and(second)
    }

    pub async fn check(&self) -> Result<(), CniError> {
        self.runtime.check(&self.list, &self.attachment).await
    }

    /// The pod's addresses, from a result of specification 0.3 or later.
    pub fn addresses(&self) -> Vec<IpAddr> {
        addresses(&self.result)
    }
}

fn attachment(spec: &PodSpec, uid: &str, netns: &Path) -> Attachment {
    let container_id = container_id();
    let args = [
        ("IgnoreUnknown", "1"),
        ("K8S_POD_NAMESPACE", &spec.namespace),
        ("K8S_POD_NAME", &spec.name),
        ("K8S_POD_INFRA_CONTAINER_ID", &container_id),
        ("K8S_POD_UID", uid),
    ];
    Attachment {
        args: args.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec(),
        container_id,
        netns: Some(netns.to_owned()),
        ifname: IFNAME.into(),
        capability_args: Map::new(),
    }
}

/// 256 bits in hexadecimal, as runtimes name their containers.
pub(crate) fn container_id() -> String {
    (0..4u8).map(|part| format!("{:016x}", RandomState::new().hash_one(part))).collect()
}

fn addresses(result: &Value) -> Vec<IpAddr> {
    let ips = result["ips"].as_array().map(Vec::as_slice).unwrap_or_default();
    let parse = |ip: &Value| ip["address"].as_str()?.parse::<IpNetwork>().ok();
    ips.iter().filter_map(parse).map(|network| network.ip()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn addresses_come_from_the_result_in_its_order() {
        let result = json!({"ips": [
            {"address": "10.20.1.5/24", "gateway": "10.20.1.1"},
            {"address": "fd00:20:1::5/64"},
            {"address": "not one"}, {},
        ]});
        let found: Vec<_> = addresses(&result).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["10.20.1.5", "fd00:20:1::5"]);
        assert_eq!(addresses(&json!({})), Vec::<IpAddr>::new());
    }

    #[test]
    fn container_ids_differ_and_look_like_containerds() {
        let (a, b) = (container_id(), container_id());
        assert_ne!(a, b);
        assert!(a.len() == 64 && a.chars().all(|c| c.is_ascii_hexdigit()));
    }
}
