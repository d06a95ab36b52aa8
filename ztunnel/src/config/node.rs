//! Who we are.

use mesh::{Home, Identity};

use super::raw::Reader;
use crate::source::NodeInfo;

/// The pod that we run in, when Kubernetes tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnPod {
    /// Its identity.
    pub identity: Identity,
    /// Its name.
    pub name: String,
}

fn cluster(reader: &mut Reader<'_>) -> Option<String> {
    reader.text("ISTIO_META_CLUSTER_ID").or_else(|| reader.text("CLUSTER_ID"))
}

/// Where our pods are.
pub(super) fn home(reader: &mut Reader<'_>) -> Home {
    let cluster = cluster(reader).map_or_else(|| Home::default().cluster, Into::into);
    Home { cluster, node: reader.text("NODE_NAME").unwrap_or_default().into() }
}

pub(super) fn node(reader: &mut Reader<'_>) -> NodeInfo {
    let cluster = cluster(reader);
    NodeInfo {
        node: reader.required("NODE_NAME", "the Kubernetes node this ztunnel serves"),
        cluster: cluster.unwrap_or_else(|| "Kubernetes".to_owned()),
        pod_name: reader.text("POD_NAME").unwrap_or_default(),
        pod_namespace: reader.text("POD_NAMESPACE").unwrap_or_default(),
        // Control planes want some address; this one says nothing.
        instance_ip: reader.text("INSTANCE_IP").unwrap_or_else(|| "1.1.1.1".to_owned()),
        metadata: super::source::metadata(reader),
    }
}

/// Needs all three names.
pub(super) fn own_pod(reader: &mut Reader<'_>, trust_domain: &str) -> Option<OwnPod> {
    let names = ["POD_NAME", "POD_NAMESPACE", "SERVICE_ACCOUNT"].map(|name| reader.text(name));
    let [Some(name), Some(namespace), Some(account)] = names else { return None };
    match Identity::new(trust_domain, &namespace, &account) {
        Ok(identity) => Some(OwnPod { identity, name }),
        Err(error) => {
            reader.mistake("SERVICE_ACCOUNT", &error.to_string());
            None
        }
    }
}
