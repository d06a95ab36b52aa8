//! The pods of this node and their open connections.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use serde::Serialize;

use crate::telemetry::{Direction, OpenConnection, Security};
use crate::workloads::{PodState, Pods};

/// By the pod's uid.
pub(super) type PodStates = BTreeMap<String, WorkloadState>;

/// A pod of this node.
#[derive(Debug, Serialize)]
pub(super) struct WorkloadState {
    /// `Up` or `Pending`.
    state: &'static str,
    /// Ours: why it is pending, when an attempt failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    connections: Connections,
    info: WorkloadInfo,
}

#[derive(Debug, Default, Serialize)]
struct Connections {
    inbound: Vec<Connection>,
    outbound: Vec<Connection>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Connection {
    src: SocketAddr,
    original_dst: Option<String>,
    actual_dst: SocketAddr,
    protocol: &'static str,
}

/// The names that the node agent gave.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct WorkloadInfo {
    name: String,
    namespace: String,
    service_account: String,
}

/// Open connections by namespace and name of their pod.
type Open = HashMap<(Arc<str>, Arc<str>), Vec<OpenConnection>>;

pub(super) fn pod_states(pods: Pods, mut open: Open) -> PodStates {
    let states = pods.into_iter().map(|(uid, (info, state, _counts))| {
        let (state, reason) = match state {
            PodState::Up => ("Up", None),
            PodState::Pending(reason) => ("Pending", reason),
        };
        let key = (info.namespace.as_str().into(), info.name.as_str().into());
        let connections = Connections::of(&open.remove(&key).unwrap_or_default());
        let info = WorkloadInfo {
            name: info.name,
            namespace: info.namespace,
            service_account: info.service_account,
        };
        (uid, WorkloadState { state, reason, connections, info })
    });
    states.collect()
}

impl Connections {
    fn of(open: &[OpenConnection]) -> Self {
        let mut all = Self::default();
        for connection in open {
            let list = match connection.direction {
                Direction::Inbound => &mut all.inbound,
                Direction::Outbound => &mut all.outbound,
            };
            list.push(Connection::of(connection));
        }
        for list in [&mut all.inbound, &mut all.outbound] {
            list.sort_unstable_by_key(|connection| (connection.src, connection.actual_dst));
        }
        all
    }
}

impl Connection {
    /// Toward a pod, the target is an application's port, and what was dialled may be
    /// known by its name. Away from it, what was dialled is reached through a peer.
    fn of(open: &OpenConnection) -> Self {
        let service = open.service.as_ref().map(|service| service.hostname().to_owned());
        let (original_dst, actual_dst) = match open.direction {
            Direction::Inbound => (service, open.dst),
            Direction::Outbound => {
                (Some(open.dialled.to_string()), open.hbone_addr.unwrap_or(open.dst))
            }
        };
        let protocol = match open.security {
            Security::MutualTls => "HBONE",
            Security::Plain => "TCP",
        };
        Self { src: open.src, original_dst, actual_dst, protocol }
    }
}
