//! The ZDS messages (package `istio.workload.zds`), protobuf version 3.
//!
//! Field numbers from 1000 are Sluice's extension: listeners that are handed over. Peers
//! that do not know them ignore them, and nothing is sent that a peer has not asked for.

/// Bit of [`Hello::features`] and of [`WorkloadRequest::features`]: the sender takes
/// listeners, and gives them back when it is asked to.
pub const FEATURE_LISTENERS: u32 = 1;

/// Bit of [`Hello::features`] and of [`WorkloadRequest::features`]: the sender takes the
/// sockets of the pods' name servers too, and understands [`AddWorkload::lookups`]. It
/// means nothing without [`FEATURE_LISTENERS`].
pub const FEATURE_LOOKUPS: u32 = 2;

/// Protocol version that ztunnel announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum Version {
    /// Never sent by a correct peer.
    NotUsed = 0,
    /// The only version there is.
    V1 = 1,
}

/// The first packet of a session, from ztunnel.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Hello {
    /// A [`Version`].
    #[prost(enumeration = "Version", tag = "1")]
    pub version: i32,
    /// What this ztunnel can do beyond version 1, see [`FEATURE_LISTENERS`] and
    /// [`FEATURE_LOOKUPS`].
    #[prost(uint32, tag = "1000")]
    pub features: u32,
}

impl Hello {
    /// Whether listeners may be handed to this ztunnel.
    #[must_use]
    pub fn takes_listeners(&self) -> bool {
        self.features & FEATURE_LISTENERS != 0
    }

    /// Whether the sockets of the pods' name servers may be handed to it too.
    #[must_use]
    pub fn takes_lookups(&self) -> bool {
        self.takes_listeners() && self.features & FEATURE_LOOKUPS != 0
    }
}

/// From the agent: what to do about one workload, or the end of the snapshot.
#[derive(Clone, PartialEq, prost::Message)]
pub struct WorkloadRequest {
    /// What the agent takes back with the answer, see [`FEATURE_LISTENERS`] and
    /// [`FEATURE_LOOKUPS`]. An answer must not carry other descriptors: an agent of version 1
    /// could not read it.
    #[prost(uint32, tag = "1000")]
    pub features: u32,
    /// Exactly one of the four payloads.
    #[prost(oneof = "workload_request::Payload", tags = "1, 2, 3, 5")]
    pub payload: Option<workload_request::Payload>,
}

/// Payloads of [`WorkloadRequest`].
pub mod workload_request {
    /// The request proper.
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Payload {
        /// Serve this workload; the packet carries its network namespace.
        #[prost(message, tag = "1")]
        Add(super::AddWorkload),
        /// Stop serving this workload.
        #[prost(message, tag = "2")]
        Del(super::DelWorkload),
        /// Everything known has been sent; what was not named is gone.
        #[prost(message, tag = "3")]
        SnapshotSent(super::SnapshotSent),
        /// This workload still exists, but its namespace is not at hand.
        #[prost(message, tag = "5")]
        Keep(super::KeepWorkload),
    }
}

/// See [`workload_request::Payload::Add`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct AddWorkload {
    /// The pod's UID.
    #[prost(string, tag = "1")]
    pub uid: String,
    /// Who the workload is; a message without it is a protocol error.
    #[prost(message, optional, tag = "2")]
    pub workload_info: Option<WorkloadInfo>,
    /// The in-pod listeners whose descriptors follow that of the namespace, in this order.
    #[prost(message, repeated, tag = "1000")]
    pub listeners: Vec<ListenerEntry>,
    /// What becomes of the pod's name lookups, see [`Lookups`].
    #[prost(enumeration = "Lookups", tag = "1001")]
    pub lookups: i32,
}

/// What the agent does with a pod's name lookups. Only sent to a ztunnel that announces
/// [`FEATURE_LOOKUPS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum Lookups {
    /// It does not say: whether the pod has a name server is ztunnel's own setting.
    Unspecified = 0,
    /// They go where the pod sends them: it needs no name server.
    Direct = 1,
    /// They are redirected to ztunnel: the name server's sockets are among the listeners, or
    /// ztunnel opens them.
    Redirected = 2,
}

/// Which in-pod listener a descriptor is.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct ListenerEntry {
    /// Its port.
    #[prost(uint32, tag = "1")]
    pub port: u32,
    /// A [`ListenerKind`].
    #[prost(enumeration = "ListenerKind", tag = "2")]
    pub kind: i32,
}

/// Protocol and address of an in-pod listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum ListenerKind {
    /// TCP on every address of the pod.
    TcpAny = 0,
    /// TCP on 127.0.0.1.
    TcpLoopbackV4 = 1,
    /// TCP on `::1`.
    TcpLoopbackV6 = 2,
    /// UDP on 127.0.0.1.
    UdpLoopbackV4 = 3,
    /// UDP on `::1`.
    UdpLoopbackV6 = 4,
}

/// Who a workload is, in Kubernetes' terms.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct WorkloadInfo {
    /// Pod name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Namespace.
    #[prost(string, tag = "2")]
    pub namespace: String,
    /// Service account.
    #[prost(string, tag = "3")]
    pub service_account: String,
}

/// See [`workload_request::Payload::Keep`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct KeepWorkload {
    /// The pod's UID.
    #[prost(string, tag = "1")]
    pub uid: String,
}

/// See [`workload_request::Payload::Del`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct DelWorkload {
    /// The pod's UID (field 2, unlike the other messages).
    #[prost(string, tag = "2")]
    pub uid: String,
}

/// See [`workload_request::Payload::SnapshotSent`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct SnapshotSent {}

/// From ztunnel: the answer to one request. Answers correlate by order only.
#[derive(Clone, PartialEq, prost::Message)]
pub struct WorkloadResponse {
    /// Always an ack.
    #[prost(oneof = "workload_response::Payload", tags = "1")]
    pub payload: Option<workload_response::Payload>,
}

/// Payloads of [`WorkloadResponse`].
pub mod workload_response {
    /// The answer proper.
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Payload {
        /// The request was carried out, or why not.
        #[prost(message, tag = "1")]
        Ack(super::Ack),
    }
}

/// See [`workload_response::Payload::Ack`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct Ack {
    /// Empty on success.
    #[prost(string, tag = "1")]
    pub error: String,
    /// The in-pod listeners that are given back; their descriptors come in this order,
    /// after that of the namespace. Only in answers to requests that can take them.
    #[prost(message, repeated, tag = "1000")]
    pub listeners: Vec<ListenerEntry>,
    /// The first descriptor is the pod's network namespace.
    #[prost(bool, tag = "1001")]
    pub has_netns: bool,
}
