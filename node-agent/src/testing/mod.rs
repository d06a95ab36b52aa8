//! What tests share: facts out of thin air, pods made of scratch namespaces, a ztunnel
//! and an API that do as they are told.

mod fake_api;
mod fake_runtime;
mod fake_ztunnel;
mod node;
mod plugin_call;
mod scratch_pod;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use capture::Options;

pub use fake_api::FakeApi;
pub use fake_runtime::{FakeRuntime, Manner};
pub use fake_ztunnel::{FakeZtunnel, Told};
pub use node::{Node, PACE};
pub use plugin_call::{send_fd, send_frame};
pub use scratch_pod::ScratchPod;

use crate::facts::{Annotations, Network, Phase, PodFacts, PodName, PodUid};
use crate::rules::{Programs, contract_options};

/// How long a test waits for something that must happen.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Rules as every captured pod has them.
pub fn options() -> Options {
    contract_options()
}

/// A pod of namespace `shop`, alive, with an address, without a label.
pub fn pod(name: &str) -> PodFacts {
    PodFacts {
        uid: PodUid(format!("uid-{name}")),
        name: PodName { namespace: "shop".into(), name: name.into() },
        service_account: "clerk".into(),
        dataplane_mode: None,
        sidecar: false,
        labels: BTreeMap::new(),
        options: BTreeMap::new(),
        network: Network::Own,
        phase: Phase::Alive,
        terminating: false,
        ips: vec!["10.9.0.5".parse().expect("an address")],
        probe_ports: BTreeSet::new(),
        annotations: Annotations::default(),
    }
}

/// The programs of this machine.
pub fn programs() -> Programs {
    let find = |program: &str| {
        let folders = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
        let found = folders.iter().map(|f| PathBuf::from(f).join(program)).find(|p| p.is_file());
        found.unwrap_or_else(|| panic!("{program} is not installed"))
    };
    Programs { nft: find("nft"), conntrack: find("conntrack"), ss: find("ss") }
}

/// Waits for something observable.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut look: impl FnMut() -> F) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !look().await {
        assert!(tokio::time::Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
