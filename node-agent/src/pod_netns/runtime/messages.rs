//! The few messages of the Container Runtime Interface (`runtime.v1`) that we exchange, with
//! the few fields of them that we read. Numbers and types are the interface's; fields that
//! are not named here are skipped when they arrive.

use std::collections::HashMap;

/// Which sandboxes to list.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ListPodSandboxRequest {
    /// Nothing lists all.
    #[prost(message, optional, tag = "1")]
    pub filter: Option<PodSandboxFilter>,
}

/// All that is given must fit.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PodSandboxFilter {
    /// Labels with their values.
    #[prost(map = "string, string", tag = "3")]
    pub label_selector: HashMap<String, String>,
}

/// The sandboxes that were asked for.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ListPodSandboxResponse {
    /// In no order.
    #[prost(message, repeated, tag = "1")]
    pub items: Vec<PodSandbox>,
}

/// One sandbox of one pod. A pod has another one after its sandbox died.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PodSandbox {
    /// What CNI calls the container id.
    #[prost(string, tag = "1")]
    pub id: String,
    /// [`READY`] or not.
    #[prost(int32, tag = "3")]
    pub state: i32,
    /// Nanoseconds since 1970.
    #[prost(int64, tag = "4")]
    pub created_at: i64,
    /// Those that the kubelet has put on it.
    #[prost(map = "string, string", tag = "5")]
    pub labels: HashMap<String, String>,
}

/// A sandbox that runs.
pub const READY: i32 = 0;

/// What about this sandbox?
#[derive(Clone, PartialEq, prost::Message)]
pub struct PodSandboxStatusRequest {
    /// Which one.
    #[prost(string, tag = "1")]
    pub pod_sandbox_id: String,
    /// With what only this runtime knows.
    #[prost(bool, tag = "2")]
    pub verbose: bool,
}

/// What is known of a sandbox.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PodSandboxStatusResponse {
    /// What only this runtime knows, as JSON of a shape of its own.
    #[prost(map = "string, string", tag = "2")]
    pub info: HashMap<String, String>,
}
