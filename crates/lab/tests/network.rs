//! Two nodes, pods and a wire, without a mesh. Needs root.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::time::Duration;

use lab::{AppErrorKind, End, Family, Lab, Options, Pod, PodSpec};

const MARKER: &str = "marker-7f3a";

async fn lab(family: Family) -> Lab {
    Lab::start(Options { family, ..Options::default() }).await.unwrap()
}

async fn two_pods(lab: &Lab) -> (Pod, Pod) {
    let client = lab.create_pod(PodSpec::new("default", "client", 1)).await.unwrap();
    let server = lab.create_pod(PodSpec::new("default", "server", 2)).await.unwrap();
    (client, server)
}

async fn end(lab: Lab) {
    let leftovers = lab.teardown().await;
    assert!(leftovers.is_clean(), "left behind: {leftovers}");
}

/// A marker goes there and comes back, and a sniffer sees both.
async fn talk_over_the_wire(family: Family, addresses: usize) {
    let lab = lab(family).await;
    let (client, server) = two_pods(&lab).await;
    assert_eq!(server.ips().len(), addresses);
    let app = server.serve(8080).await.unwrap();
    let sniffer = lab.sniff_wire(1).await.unwrap();
    for (index, ip) in server.ips().iter().enumerate() {
        let window = sniffer.window().await.unwrap();
        let reply = client.exchange((*ip, app.port()).into(), MARKER).await.unwrap();
        let seen = window.close().await.unwrap();
        assert_eq!(reply.line, MARKER);
        assert_eq!(reply.peer.ip(), client.ips()[index]);
        assert_eq!(seen.marker(MARKER.as_bytes()), 2, "once there and once back");
        let between = seen.between(client.ips(), server.ips());
        // Handshake, line, answer.
        assert!(between.tcp_with_port(8080) >= 5, "{:?}", between.ports());
        assert_eq!(between.tcp_without_port(8080), 0);
        assert_eq!(seen.between(&[[10, 9, 9, 9].into()], server.ips()).tcp(), 0);
    }
    assert_eq!(app.connections(), addresses);
    assert_eq!(app.peers().iter().map(|peer| peer.ip()).collect::<Vec<_>>(), client.ips());
    end(lab).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_talk_over_ipv4() {
    talk_over_the_wire(Family::V4, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_talk_over_ipv6() {
    talk_over_the_wire(Family::V6, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dual_stack_pods_talk_over_both_at_the_same_time_as_another_lab() {
    let other = lab(Family::V4).await;
    talk_over_the_wire(Family::Dual, 2).await;
    let (client, server) = two_pods(&other).await;
    let app = server.serve(8080).await.unwrap();
    client.exchange(server.addr(app.port()), MARKER).await.unwrap();
    end(other).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn conversations_tell_how_they_end() {
    // What is to time out here shall do so soon.
    let patience = Duration::from_secs(3);
    let lab = Lab::start(Options { patience, ..Options::default() }).await.unwrap();
    let (client, server) = two_pods(&lab).await;
    let refused = client.connect(server.addr(9)).await.unwrap_err();
    assert_eq!(refused.kind, AppErrorKind::Refused, "{refused}");

    let app = server.serve(8080).await.unwrap();
    let mut talk = client.connect(server.addr(8080)).await.unwrap();
    assert_eq!(talk.send_line("one").await.unwrap().number, 1);
    assert_eq!(talk.send_line("two").await.unwrap().number, 2);
    talk.half_close().await.unwrap();
    assert_eq!(talk.end().await.unwrap(), End::Closed);

    let mut talk = client.connect(server.addr(8080)).await.unwrap();
    talk.send_line("one").await.unwrap();
    drop(app);
    assert_eq!(talk.end().await.unwrap(), End::Closed);

    let rules =
        "add table inet t; add chain inet t c { type filter hook input priority 0; policy drop; }";
    let ran = server.run(&["nft", rules]).await.unwrap();
    assert!(ran.ok(), "{}", ran.stderr);
    let silent = client.connect(server.addr(8080)).await.unwrap_err();
    assert_eq!(silent.kind, AppErrorKind::Timeout, "{silent}");
    end(lab).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_and_pods_can_be_looked_into() {
    let lab = lab(Family::Dual).await;
    let (client, _server) = two_pods(&lab).await;
    let addresses = client.run(&["ip", "-o", "addr", "show", "dev", "eth0"]).await.unwrap();
    assert!(addresses.ok(), "{}", addresses.stderr);
    for ip in client.ips() {
        assert!(addresses.stdout.contains(&ip.to_string()), "{}", addresses.stdout);
    }
    let routes = lab.node(1).run(&["ip", "-6", "route"]).await.unwrap();
    assert!(routes.stdout.contains("fd00:20:2::/64 via fd00:30::12"), "{}", routes.stdout);
    assert!(!routes.stdout.contains("tentative"));
    let missing = lab.node(1).run(&["no-such-program"]).await.unwrap_err();
    assert!(missing.to_string().contains("no-such-program"), "{missing}");
    client.check().await.unwrap();
    end(lab).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_conflist_is_named_and_leaves_nothing() {
    let lab = lab(Family::V4).await;
    let conflist = lab.node(1).conflist().to_owned();
    let sound = std::fs::read(&conflist).unwrap();
    std::fs::write(&conflist, r#"{"name":"lab","cniVersion":"1.0.0","plugins":"none"}"#).unwrap();
    let error = lab.create_pod(PodSpec::new("default", "client", 1)).await.unwrap_err().to_string();
    assert!(error.contains("default/client"), "{error}");
    assert!(
        error.contains("10-lab.conflist") && error.contains("plugins is not a list"),
        "{error}"
    );
    assert!(!lab.folder().join("netns/pod-default-client").exists());
    // Nothing of it stands in the way of the next attempt.
    std::fs::write(&conflist, sound).unwrap();
    lab.create_pod(PodSpec::new("default", "client", 1)).await.unwrap();
    end(lab).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_plugin_is_named_and_leaves_nothing() {
    let lab = lab(Family::V4).await;
    let node = lab.node(1);
    let text = std::fs::read_to_string(node.conflist()).unwrap();
    let mut list: serde_json::Value = serde_json::from_str(&text).unwrap();
    // tuning refuses a setting that does not exist, after bridge has made the link.
    let wrong = serde_json::json!({"type": "tuning", "sysctl": {"net.no.such": "1"}});
    list["plugins"].as_array_mut().unwrap().push(wrong);
    std::fs::write(node.conflist(), list.to_string()).unwrap();
    let error = lab.create_pod(PodSpec::new("default", "client", 1)).await.unwrap_err();
    assert!(error.to_string().contains("plugin tuning failed ADD"), "{error}");
    assert!(error.cni_code().is_some());
    assert!(!lab.folder().join("netns/pod-default-client").exists());
    let ipam = format!("{}/ipam", node.folder().display());
    let leases = node.run(&["find", &ipam, "-name", "10.20.*"]).await.unwrap();
    assert_eq!(leases.stdout, "", "the address was given back");
    let links = node.run(&["ip", "-o", "link", "show", "type", "veth"]).await.unwrap();
    assert!(!links.stdout.contains("cni0"), "{}", links.stdout);
    end(lab).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_a_pod_frees_its_address_and_namespace() {
    let lab = lab(Family::V4).await;
    let pod = lab.create_pod(PodSpec::new("default", "client", 1)).await.unwrap();
    let file = pod.path().to_owned();
    assert!(file.exists());
    lab.delete_pod(pod).await.unwrap();
    assert!(!file.exists());
    let leases = std::fs::read_dir(lab.node(1).folder().join("ipam/lab")).unwrap();
    let names: Vec<_> = leases.map(|entry| entry.unwrap().file_name()).collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().starts_with("10.")), "{names:?}");
    end(lab).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sniffer_on_any_interface_and_only_on_that() {
    let lab = lab(Family::V4).await;
    let (client, server) = two_pods(&lab).await;
    let _app = server.serve(8080).await.unwrap();
    let in_pod = lab.sniff(server.place(), "eth0").await.unwrap();
    let elsewhere = lab.sniff(server.place(), "lo").await.unwrap();
    let windows = (in_pod.window().await.unwrap(), elsewhere.window().await.unwrap());
    client.exchange(server.addr(8080), MARKER).await.unwrap();
    assert_eq!(windows.0.close().await.unwrap().marker(MARKER.as_bytes()), 2);
    assert_eq!(windows.1.close().await.unwrap().packets().len(), 0);
    assert!(lab.sniff(server.place(), "eth7").await.is_err());
    end(lab).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lab_that_is_dropped_or_never_came_up_leaves_nothing() {
    let lab = lab(Family::V4).await;
    let folder = lab.folder().to_owned();
    drop(two_pods(&lab).await);
    drop(lab);
    assert!(!folder.exists());
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(folder.to_str().unwrap()));
    assert!(Lab::start(Options { nodes: 0, ..Options::default() }).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn patience_has_an_end() {
    let never =
        lab::eventually("the impossible", Duration::from_millis(50), || async { None::<()> });
    assert!(never.await.unwrap_err().to_string().contains("the impossible"));
}

/// Nobody answers at a service's address in a cluster without a mesh; what is sent there
/// must be seen, so that nothing leaks there without a trace.
async fn what_is_sent_to_a_service_is_seen(family: Family) {
    let lab = lab(family).await;
    let (client, server) = two_pods(&lab).await;
    let service = serde_json::json!({
        "metadata": { "name": "shop" },
        "spec": { "ports": [{ "port": 80 }], "selector": { "app": "shop" } },
    });
    let created = lab.kube().create("/api/v1/namespaces/default/services", &service).await.unwrap();
    let address: std::net::IpAddr = created["spec"]["clusterIP"].as_str().unwrap().parse().unwrap();
    assert_eq!(address.is_ipv4(), server.ip().is_ipv4());
    let sniffer = lab.sniff_wire(1).await.unwrap();
    let window = sniffer.window().await.unwrap();
    let refused = client.exchange((address, 80).into(), MARKER).await;
    let seen = window.close().await.unwrap();
    assert!(refused.is_err(), "{refused:?}");
    assert!(seen.between(client.ips(), &[address]).tcp_with_port(80) > 0, "it left the pod");
    let nodes = lab.kube().list("/api/v1/nodes").await.unwrap();
    assert_eq!(nodes[1]["metadata"]["labels"]["topology.kubernetes.io/zone"], "zone2");
    end(lab).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_to_an_ipv4_service_is_seen() {
    what_is_sent_to_a_service_is_seen(Family::V4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_to_an_ipv6_service_is_seen() {
    what_is_sent_to_a_service_is_seen(Family::V6).await;
}
