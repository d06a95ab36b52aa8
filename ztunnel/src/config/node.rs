//! Who we are.

use mesh::{Home, Identity};
use zds::WorkloadInfo;

use super::mode::Mode;
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

/// A machine of its own is of no node, and its control plane wants to hear the names that its
/// token is for.
pub(super) fn node(reader: &mut Reader<'_>, mode: &Mode) -> NodeInfo {
    let cluster = cluster(reader);
    let machine = mode.machine().cloned().unwrap_or_default();
    NodeInfo {
        node: match mode {
            Mode::Shared(_) => {
                reader.required("NODE_NAME", "the Kubernetes node this ztunnel serves")
            }
            Mode::Dedicated(_) => reader.text("NODE_NAME").unwrap_or_default(),
        },
        cluster: cluster.unwrap_or_else(|| "Kubernetes".to_owned()),
        pod_name: reader.text("POD_NAME").unwrap_or(machine.name),
        pod_namespace: reader.text("POD_NAMESPACE").unwrap_or(machine.namespace),
        // Control planes want some address; this one says nothing.
        instance_ip: reader.text("INSTANCE_IP").unwrap_or_else(|| "1.1.1.1".to_owned()),
        metadata: super::source::metadata(reader),
    }
}

/// Needs all three names. A machine's port 15008 is for the machine.
pub(super) fn own_pod(
    reader: &mut Reader<'_>,
    trust_domain: Option<&str>,
    mode: &Mode,
) -> Option<OwnPod> {
    let names = ["POD_NAME", "POD_NAMESPACE", "SERVICE_ACCOUNT"].map(|name| reader.text(name));
    if let Some(machine) = mode.machine() {
        contradiction(reader, machine, &names);
        return None;
    }
    let [Some(name), Some(namespace), Some(account)] = names else { return None };
    match Identity::new(trust_domain.unwrap_or_default(), &namespace, &account) {
        Ok(identity) => Some(OwnPod { identity, name }),
        Err(error) => {
            reader.mistake("SERVICE_ACCOUNT", &error.to_string());
            None
        }
    }
}

/// The control plane would refuse who calls by other names than those of its token.
fn contradiction(reader: &mut Reader<'_>, machine: &WorkloadInfo, names: &[Option<String>; 3]) {
    let [_, namespace, account] = names;
    for (name, value, expected) in [
        ("POD_NAMESPACE", namespace, &machine.namespace),
        ("SERVICE_ACCOUNT", account, &machine.service_account),
    ] {
        if value.as_ref().is_some_and(|value| value != expected) {
            reader.warning(format!("{name} is not the one of PROXY_WORKLOAD_INFO, {expected}"));
        }
    }
}
