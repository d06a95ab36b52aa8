//! A story of a repair that is not done when the rules are back.

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::rules::Programs;
use crate::testing::programs;

/// `conntrack`, which fails as long as there is a file `broken` in `folder`.
fn breakable(folder: &Path) -> Programs {
    let (conntrack, broken) = (folder.join("conntrack"), folder.join("broken"));
    let (real, broken) = (programs().conntrack, broken.display().to_string());
    let script = format!("#!/bin/sh\n[ ! -e {broken} ] && exec {} \"$@\"\n", real.display());
    std::fs::write(&conntrack, script).unwrap();
    std::fs::set_permissions(&conntrack, std::fs::Permissions::from_mode(0o700)).unwrap();
    Programs { conntrack, ..programs() }
}

#[tokio::test(flavor = "multi_thread")]
async fn lookups_that_could_not_be_forgotten_are_owed_until_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let (api, pod) = (FakeApi::new(), ScratchPod::new());
    api.add_pod("web", Some("10.9.0.5"));
    api.label("web", Some("ambient"));
    let programs = breakable(folder.path());
    let node = Node::start_with(folder.path(), &api, DEAF, programs).await;
    let _ztunnel = node.taking_ztunnel(Arc::default()).await;
    assert_eq!(node.call(Verb::Add, "web", &pod).await, Outcome::Captured);
    let _far = pod.far_end();
    pod.inside(|| {
        // The kernel must not forget it by itself.
        let timeout = "/proc/sys/net/netfilter/nf_conntrack_udp_timeout";
        std::fs::write(timeout, "600").unwrap();
        let socket = std::net::UdpSocket::bind("10.9.1.1:5353").unwrap();
        socket.send_to(b"?", "10.9.1.2:53").unwrap();
    });
    let known = || !pod.run("conntrack -L -p udp --orig-port-dst 53").is_empty();
    assert!(known(), "a lookup of before");

    std::fs::write(folder.path().join("broken"), "").unwrap();
    pod.run("nft flush ruleset");
    let failures = "sluice_agent_reconcile_failures_total{type=\"verify\"}";
    eventually("it fails", || async { node.metric_value(failures) >= 1.0 }).await;
    assert!(is_whole(&pod) && known());
    std::fs::remove_file(folder.path().join("broken")).unwrap();
    eventually("it is forgotten", || async { !known() }).await;
    let owes = || node.reconciler.table().pods().any(|(_, pod)| pod.lookups_owed);
    eventually("nothing is owed", || async { !owes() }).await;
    node.stop().await;
}
