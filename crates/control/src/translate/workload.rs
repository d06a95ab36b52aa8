//! A pod becomes a workload.

use std::collections::BTreeMap;
use std::net::IpAddr;

use mesh::proto::workload::{
    Locality, NetworkMode, PortList, TunnelProtocol, Workload, WorkloadStatus, WorkloadType,
};

use super::Names;
use crate::facts::{Health, Life, NodeFacts, Owner, PodFacts, PodNetwork, Reach};

/// What other objects say about a pod.
#[derive(Clone, Debug, Default)]
pub(crate) struct Around {
    /// Keys of the policies that select it.
    pub(crate) policies: Vec<String>,
    /// Names of the services that it is an endpoint of, with the ports.
    pub(crate) services: BTreeMap<String, PortList>,
    /// Where its node is.
    pub(crate) locality: Option<Locality>,
}

/// The workload that a pod is; `None` while it has no address, and once it has ended.
pub(crate) fn workload(names: &Names, pod: &PodFacts, around: Around) -> Option<Workload> {
    if pod.life == Life::Ended || pod.addresses.is_empty() {
        return None;
    }
    let made_by = made_by(pod);
    let tunnel = match (pod.reach, pod.network) {
        (Reach::Tunnel, PodNetwork::Own) => TunnelProtocol::Hbone,
        _ => TunnelProtocol::None,
    };
    Some(Workload {
        uid: uid(names, pod),
        name: pod.name.clone(),
        namespace: pod.namespace.clone(),
        addresses: pod.addresses.iter().map(octets).collect(),
        tunnel_protocol: tunnel as i32,
        trust_domain: names.trust_domain.clone(),
        service_account: pod.service_account.clone(),
        node: pod.node.clone(),
        canonical_name: canonical_name(pod, &made_by),
        canonical_revision: canonical_revision(pod),
        workload_type: made_by.kind as i32,
        workload_name: made_by.name,
        authorization_policies: around.policies,
        services: around.services,
        locality: around.locality,
        status: status(pod.health) as i32,
        cluster_id: names.cluster_id.clone(),
        network_mode: match pod.network {
            PodNetwork::Own => NetworkMode::Standard,
            PodNetwork::Host => NetworkMode::HostNetwork,
        } as i32,
        ..Workload::default()
    })
}

/// Key of the resource that a pod becomes.
pub(crate) fn uid(names: &Names, pod: &PodFacts) -> String {
    format!("{}//Pod/{}/{}", names.cluster_id, pod.namespace, pod.name)
}

/// Where a node is; `None` when nothing is known of it.
pub(crate) fn locality(node: &NodeFacts) -> Option<Locality> {
    let NodeFacts { region, zone, subzone, .. } = node.clone();
    let locality = Locality { region, zone, subzone };
    (locality != Locality::default()).then_some(locality)
}

pub(super) fn status(health: Health) -> WorkloadStatus {
    match health {
        Health::Ready => WorkloadStatus::Healthy,
        Health::NotReady => WorkloadStatus::Unhealthy,
    }
}

pub(super) fn octets(address: &IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// What stands for a pod in telemetry.
struct MadeBy {
    kind: WorkloadType,
    name: String,
}

/// The owner's owner is not in the pod, but its name is: a Deployment's ReplicaSets and a
/// CronJob's Jobs carry it in front of their suffix. Owners of other kinds have no type
/// of their own in the message, so their pods stand for themselves.
fn made_by(pod: &PodFacts) -> MadeBy {
    let itself = || MadeBy { kind: WorkloadType::Pod, name: pod.name.clone() };
    let Some(Owner { kind, name }) = &pod.owner else {
        return itself();
    };
    match kind.as_str() {
        "ReplicaSet" => match deployment(name, pod.labels.get("pod-template-hash")) {
            Some(name) => MadeBy { kind: WorkloadType::Deployment, name },
            None => itself(),
        },
        "Job" => match cron_job(name) {
            Some(name) => MadeBy { kind: WorkloadType::Cronjob, name },
            None => MadeBy { kind: WorkloadType::Job, name: name.clone() },
        },
        _ => itself(),
    }
}

fn deployment(replica_set: &str, hash: Option<&String>) -> Option<String> {
    let name = replica_set.strip_suffix(hash?.as_str())?.strip_suffix('-')?;
    (!name.is_empty()).then(|| name.to_owned())
}

/// A CronJob's Jobs end in their minute (8 digits by now) or second (10) since 1970.
fn cron_job(job: &str) -> Option<String> {
    let (name, time) = job.rsplit_once('-')?;
    let digits = (8..=10).contains(&time.len()) && time.bytes().all(|byte| byte.is_ascii_digit());
    (digits && !name.is_empty()).then(|| name.to_owned())
}

fn canonical_name(pod: &PodFacts, made_by: &MadeBy) -> String {
    let labels = ["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"];
    first_label(pod, &labels).unwrap_or(&made_by.name).to_owned()
}

fn canonical_revision(pod: &PodFacts) -> String {
    let labels = ["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"];
    first_label(pod, &labels).unwrap_or("latest").to_owned()
}

fn first_label<'a>(pod: &'a PodFacts, keys: &[&str]) -> Option<&'a str> {
    keys.iter().find_map(|key| pod.labels.get(*key)).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{names, pod};

    fn translate(pod: &PodFacts) -> Workload {
        workload(&names(), pod, Around::default()).unwrap()
    }

    fn owned(kind: &str, name: &str, labels: &[(&str, &str)]) -> PodFacts {
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let owner = Some(Owner { kind: kind.into(), name: name.into() });
        PodFacts { owner, labels, ..pod("shop", "cart-1") }
    }

    #[test]
    fn a_captured_pod_is_an_hbone_workload() {
        let pod = PodFacts {
            reach: Reach::Tunnel,
            addresses: vec!["10.0.0.2".parse().unwrap(), "fd00::2".parse().unwrap()],
            ..pod("shop", "cart-1")
        };
        let around = Around { policies: vec!["shop/p".into()], ..Around::default() };
        let message = workload(&names(), &pod, around).unwrap();
        assert_eq!(message.uid, "Kubernetes//Pod/shop/cart-1");
        assert_eq!(message.tunnel_protocol(), TunnelProtocol::Hbone);
        assert_eq!(message.addresses[0], [10, 0, 0, 2]);
        assert_eq!(message.addresses[1].len(), 16);
        assert_eq!(message.network_mode(), NetworkMode::Standard);
        assert_eq!(message.network, "");
        // The receiving end reads it without complaint.
        let parsed = mesh::Workload::try_from(message).unwrap();
        assert_eq!(parsed.identity.to_string(), "spiffe://cluster.local/ns/shop/sa/cart");
        assert_eq!(parsed.policies.len(), 1);
    }

    #[test]
    fn reach_network_and_readiness() {
        use PodNetwork::{Host, Own};
        for (reach, network, health, tunnel, mode, status) in [
            (Reach::Direct, Own, Health::Ready, TunnelProtocol::None, NetworkMode::Standard, 0),
            (Reach::Tunnel, Own, Health::NotReady, TunnelProtocol::Hbone, NetworkMode::Standard, 1),
            (Reach::Tunnel, Host, Health::Ready, TunnelProtocol::None, NetworkMode::HostNetwork, 0),
            (Reach::Direct, Host, Health::Ready, TunnelProtocol::None, NetworkMode::HostNetwork, 0),
        ] {
            let message = translate(&PodFacts { reach, network, health, ..pod("shop", "cart-1") });
            assert_eq!(message.tunnel_protocol(), tunnel);
            assert_eq!(message.network_mode(), mode);
            assert_eq!(message.status, status);
        }
    }

    #[test]
    fn a_pod_without_address_or_life_is_no_workload() {
        let no_ip = PodFacts { addresses: vec![], ..pod("shop", "cart-1") };
        assert_eq!(workload(&names(), &no_ip, Around::default()), None);
        let ended = PodFacts { life: Life::Ended, ..pod("shop", "cart-1") };
        assert_eq!(workload(&names(), &ended, Around::default()), None);
    }

    #[test]
    fn owners_give_type_and_name() {
        use WorkloadType::{Cronjob, Deployment, Job, Pod};
        let hash = [("pod-template-hash", "6c7f")];
        for (pod, kind, name) in [
            (owned("ReplicaSet", "cart-6c7f", &hash), Deployment, "cart"),
            (owned("ReplicaSet", "my-cart-6c7f", &hash), Deployment, "my-cart"),
            (owned("ReplicaSet", "cart-other", &hash), Pod, "cart-1"),
            (owned("ReplicaSet", "cart-6c7f", &[]), Pod, "cart-1"),
            (owned("Job", "backup", &[]), Job, "backup"),
            (owned("Job", "backup-29113460", &[]), Cronjob, "backup"),
            (owned("Job", "backup-1", &[]), Job, "backup-1"),
            (owned("Job", "-29113460", &[]), Job, "-29113460"),
            (owned("StatefulSet", "db", &[]), Pod, "cart-1"),
            (PodFacts { owner: None, ..pod("shop", "cart-1") }, Pod, "cart-1"),
        ] {
            let message = translate(&pod);
            assert_eq!(message.workload_type(), kind, "{:?}", pod.owner);
            assert_eq!(message.workload_name, name, "{:?}", pod.owner);
        }
    }

    #[test]
    fn canonical_names_come_from_labels_then_from_the_owner() {
        let hash = ("pod-template-hash", "6c7f");
        let all = [
            ("service.istio.io/canonical-name", "a"),
            ("app.kubernetes.io/name", "b"),
            ("app", "c"),
            hash,
        ];
        for (from, expected) in [(0, "a"), (1, "b"), (2, "c"), (3, "cart")] {
            let pod = owned("ReplicaSet", "cart-6c7f", &all[from..]);
            assert_eq!(translate(&pod).canonical_name, expected);
        }
        let all = [
            ("service.istio.io/canonical-revision", "v1"),
            ("app.kubernetes.io/version", "v2"),
            ("version", "v3"),
        ];
        for (from, expected) in [(0, "v1"), (1, "v2"), (2, "v3"), (3, "latest")] {
            let pod = owned("ReplicaSet", "cart", &all[from..]);
            assert_eq!(translate(&pod).canonical_revision, expected);
        }
    }
}
