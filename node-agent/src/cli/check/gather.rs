//! Asks the API for everything that is judged.

use std::collections::BTreeMap;

use serde_json::Value;

use super::facts::{ClusterFacts, Known, MeshPod, Pod};
use super::parse;
use super::policy::Policy;
use crate::enrollment::{Enrollment, Settings, Wishes, enrollment};
use crate::facts::NamespaceFacts;
use crate::kube::{KubeApi, Listing, namespace_facts};

const PODS: Listing = Listing::all("v1", "pods");
const NAMESPACES: Listing = Listing::all("v1", "namespaces");
const NODES: Listing = Listing::all("v1", "nodes");
const CILIUM: Listing = Listing::named("configmaps", "cilium-config");
const KUBE_PROXY: Listing = Listing::named("configmaps", "kube-proxy");
const FELIX: Listing = Listing::all("crd.projectcalico.org/v1", "felixconfigurations");
const CALICO: Listing = Listing::all("crd.projectcalico.org/v1", "clusterinformations");
const INSTALLATIONS: Listing = Listing::all("operator.tigera.io/v1", "installations");
const CLUSTERWIDE: Listing = Listing::all("cilium.io/v2", "ciliumclusterwidenetworkpolicies");

type Parse = fn(&Value) -> Vec<Policy>;

/// The kinds of policies, and how they are read.
const POLICIES: [(&str, Listing, Parse); 4] = [
    (
        "NetworkPolicy",
        Listing::all("networking.k8s.io/v1", "networkpolicies"),
        parse::network_policy,
    ),
    (
        "CiliumNetworkPolicy",
        Listing::all("cilium.io/v2", "ciliumnetworkpolicies"),
        parse::cilium_policy,
    ),
    (
        "Calico's NetworkPolicy",
        Listing::all("crd.projectcalico.org/v1", "networkpolicies"),
        parse::calico_policy,
    ),
    (
        "Calico's GlobalNetworkPolicy",
        Listing::all("crd.projectcalico.org/v1", "globalnetworkpolicies"),
        parse::calico_policy,
    ),
];

/// Everything, as far as the account may read it.
pub(super) async fn cluster(api: &KubeApi) -> Known<ClusterFacts> {
    // Who does not answer this answers nothing, and need not be asked twenty times.
    let version = api.version().await.map_err(|error| error.to_string())?;
    let (pods, namespaces, nodes) =
        tokio::join!(some(api, &PODS), some(api, &NAMESPACES), some(api, &NODES));
    let (cilium, kube_proxy, clusterwide) =
        tokio::join!(some(api, &CILIUM), some(api, &KUBE_PROXY), any(api, &CLUSTERWIDE));
    let (felix, calico, installations) =
        tokio::join!(any(api, &FELIX), any(api, &CALICO), any(api, &INSTALLATIONS));
    let mut policies = policies(api).await;
    let of_all = |items: &[Value]| items.iter().flat_map(parse::cilium_policy).collect();
    match &clusterwide {
        Ok(None) => {}
        Ok(Some(items)) => {
            policies.insert("CiliumClusterwideNetworkPolicy", Ok(of_all(items)));
        }
        Err(why) => {
            policies.insert("CiliumClusterwideNetworkPolicy", Err(why.clone()));
        }
    }
    Ok(ClusterFacts {
        version: Ok(version),
        nodes: nodes.map(|nodes| nodes.iter().map(parse::node).collect()),
        pods: pods.map(|pods| pods.iter().filter_map(parse::pod).collect()),
        namespaces: namespaces.map(|it| it.iter().filter_map(namespace_facts).collect()),
        cilium: cilium.map(|maps| maps.iter().map(parse::cilium).collect()),
        proxy_mode: kube_proxy.map(|maps| maps.iter().find_map(parse::proxy_mode)),
        felix,
        calico_version: first(calico, |it| &it["spec"]["calicoVersion"]),
        calico_data_plane: first(
            installations,
            |it| &it["spec"]["calicoNetwork"]["linuxDataplane"],
        ),
        probe_policy: clusterwide
            .map(|items| items.iter().flatten().find_map(parse::admits_probes)),
        policies,
    })
}

/// The pods that belong to the mesh by the agent's own decision.
pub(super) fn mesh(cluster: &Known<ClusterFacts>, settings: &Settings) -> Known<Vec<MeshPod>> {
    let cluster = cluster.as_ref().map_err(Clone::clone)?;
    let pods = cluster.pods.as_ref().map_err(Clone::clone)?;
    let namespaces = cluster.namespaces.as_ref().map_err(Clone::clone)?;
    let namespaces: BTreeMap<&str, &NamespaceFacts> =
        namespaces.iter().map(|it| (it.name.as_str(), it)).collect();
    let belongs = |pod: &&Pod| {
        let namespace = namespaces.get(pod.facts.name.namespace.as_str()).copied();
        let decided = enrollment(&pod.facts, &Wishes::default(), namespace, settings);
        matches!(decided, Enrollment::Capture(_))
    };
    let mesh_pod = |pod: &Pod| MeshPod {
        name: pod.facts.name.clone(),
        labels: pod.facts.labels.clone(),
        ports: pod.ports.clone(),
    };
    Ok(pods.iter().filter(belongs).map(mesh_pod).collect())
}

async fn policies(api: &KubeApi) -> BTreeMap<&'static str, Known<Vec<Policy>>> {
    let mut policies = BTreeMap::new();
    for (kind, listing, parse) in POLICIES {
        match any(api, &listing).await {
            Ok(None) => {}
            Ok(Some(items)) => {
                policies.insert(kind, Ok(items.iter().flat_map(parse).collect()));
            }
            Err(why) => {
                policies.insert(kind, Err(why));
            }
        }
    }
    policies
}

/// Objects of a kind that not every cluster has.
async fn any(api: &KubeApi, listing: &Listing) -> Known<Option<Vec<Value>>> {
    api.items(listing).await.map_err(|error| error.to_string())
}

/// Objects of a kind that every cluster has.
async fn some(api: &KubeApi, listing: &Listing) -> Known<Vec<Value>> {
    Ok(any(api, listing).await?.unwrap_or_default())
}

fn first(items: Known<Option<Vec<Value>>>, pick: fn(&Value) -> &Value) -> Known<Option<String>> {
    let items = items?.unwrap_or_default();
    Ok(items.iter().find_map(|it| Some(pick(it).as_str()?.to_owned())))
}
