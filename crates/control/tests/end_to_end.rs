//! The control plane in one process with a Kubernetes API in memory: real HTTP on one
//! side, real TLS and gRPC on the other.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic")]

#[path = "end_to_end/leave.rs"]
mod leave;
#[path = "end_to_end/root_kept.rs"]
mod root_kept;
mod support;

use std::collections::BTreeMap;

use control::{Control, KubeApi as Where, Settings};
use mesh::proto::ca::IstioCertificateRequest;
use mesh::proto::workload::{Address, TunnelProtocol, Workload, address};
use mesh::proto::{ADDRESS_TYPE, AUTHORIZATION_TYPE};
use prost::Message;
use rcgen::{CertificateParams, KeyPair, SanType};
use serde_json::{Value, json};
use support::client::{Client, Discovery, delta};
use support::kube_api::{KubeApi, NODES, PEERS, PODS, POLICIES, SERVICES, SLICES};
use support::soon;
use tonic::{Code, Status};

const TOKEN: &str = "token-of-ztunnel-1";

fn pod(namespace: &str, name: &str, account: &str, node: &str, ip: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "namespace": namespace, "name": name, "uid": format!("uid-of-{name}"),
            "labels": { "app": account },
        },
        "spec": { "nodeName": node, "serviceAccountName": account },
        "status": {
            "phase": "Running", "podIP": ip, "podIPs": [{ "ip": ip }],
            "conditions": [{ "type": "Ready", "status": "True" }],
        },
    })
}

fn ztunnel() -> Value {
    pod("sluice-system", "ztunnel-1", "ztunnel", "n1", "10.0.0.100")
}

fn cart() -> Value {
    pod("shop", "cart-1", "cart", "n1", "10.0.0.2")
}

fn deny_cart() -> Value {
    json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": { "namespace": "shop", "name": "deny" },
        "spec": {
            "selector": { "matchLabels": { "app": "cart" } }, "action": "DENY",
            "rules": [{ "from": [{ "source": { "namespaces": ["front"] } }] }],
        },
    })
}

/// A cluster with ztunnel and cart on n1, and web on n2.
async fn cluster() -> KubeApi {
    let api = KubeApi::start().await;
    api.put(PODS, &ztunnel());
    api.put(PODS, &cart());
    api.put(PODS, &pod("shop", "web-1", "web", "n2", "10.0.1.2"));
    api.admit(TOKEN, "sluice-system:ztunnel", &ztunnel());
    api
}

async fn control(api: &KubeApi) -> Control {
    // The Kubernetes client asks for the process's provider; a second test finds it set.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    Control::start(Settings::new(Where::Url(api.url())), listener).await.unwrap()
}

/// A cluster, its control plane with the first lists complete, and a client.
async fn synced() -> (KubeApi, Control, Client) {
    let api = cluster().await;
    let control = control(&api).await;
    soon("the first lists", control.synced()).await;
    let client = Client::connect(&control, Some(TOKEN)).await;
    (api, control, client)
}

async fn subscribed(client: &mut Client) -> Discovery {
    let stream = client.discover().await.unwrap();
    stream.subscribe(ADDRESS_TYPE, BTreeMap::new()).await;
    stream.subscribe(AUTHORIZATION_TYPE, BTreeMap::new()).await;
    stream
}

fn uid(pod: &str) -> String {
    format!("Kubernetes//Pod/{pod}")
}

fn workload(stream: &Discovery, pod: &str) -> Workload {
    let resource = stream.held[ADDRESS_TYPE][&uid(pod)].resource.as_ref().unwrap();
    assert_eq!(resource.type_url, ADDRESS_TYPE);
    match Address::decode(&*resource.value).unwrap().r#type {
        Some(address::Type::Workload(workload)) => workload,
        other => panic!("a workload, not {other:?}"),
    }
}

const CART: &str = "Kubernetes//Pod/shop/cart-1";
const WEB: &str = "Kubernetes//Pod/shop/web-1";
const ZTUNNEL: &str = "Kubernetes//Pod/sluice-system/ztunnel-1";

#[tokio::test]
async fn a_client_gets_everything_then_differences_then_resumes() {
    let (api, control, mut client) = synced().await;
    let mut stream = subscribed(&mut client).await;
    assert_eq!(stream.next(ADDRESS_TYPE).await, delta(&[CART, WEB, ZTUNNEL], &[]));
    assert_eq!(stream.next(AUTHORIZATION_TYPE).await, delta(&[], &[]), "complete, so sent");
    assert_eq!(workload(&stream, "shop/cart-1").tunnel_protocol(), TunnelProtocol::None);

    // The node agent has seen cart captured.
    let mut captured = cart();
    captured["metadata"]["annotations"] = json!({ "ambient.istio.io/redirection": "enabled" });
    api.put(PODS, &captured);
    assert_eq!(stream.next(ADDRESS_TYPE).await, delta(&[CART], &[]));
    assert_eq!(workload(&stream, "shop/cart-1").tunnel_protocol(), TunnelProtocol::Hbone);

    api.put(POLICIES, &deny_cart());
    assert_eq!(stream.next(AUTHORIZATION_TYPE).await, delta(&["shop/deny"], &[]));
    assert_eq!(stream.next(ADDRESS_TYPE).await, delta(&[CART], &[]));
    assert_eq!(workload(&stream, "shop/cart-1").authorization_policies, ["shop/deny"]);

    // The client goes away, misses something, and comes back with what it has.
    let (addresses, policies) =
        (stream.versions(ADDRESS_TYPE), stream.versions(AUTHORIZATION_TYPE));
    drop(stream);
    drop(client);
    let mut witness = Client::connect(&control, Some(TOKEN)).await;
    let mut witness = subscribed(&mut witness).await;
    assert_eq!(witness.next(ADDRESS_TYPE).await, delta(&[CART, WEB, ZTUNNEL], &[]));
    api.delete(PODS, &pod("shop", "web-1", "web", "n2", "10.0.1.2"));
    assert_eq!(witness.next(ADDRESS_TYPE).await, delta(&[], &[WEB]));
    let mut client = Client::connect(&control, Some(TOKEN)).await;
    let mut stream = client.discover().await.unwrap();
    stream.subscribe(ADDRESS_TYPE, addresses).await;
    stream.subscribe(AUTHORIZATION_TYPE, policies).await;
    assert_eq!(stream.next(ADDRESS_TYPE).await, delta(&[], &[WEB]));
    assert_eq!(stream.next(AUTHORIZATION_TYPE).await, delta(&[], &[]));
    control.shutdown().await;
}

#[tokio::test]
async fn a_malformed_policy_hurts_nobody() {
    let (api, _control, mut client) = synced().await;
    api.put(POLICIES, &deny_cart());
    let mut stream = subscribed(&mut client).await;
    stream.next(AUTHORIZATION_TYPE).await;
    while stream.versions(AUTHORIZATION_TYPE).is_empty() {
        stream.next(AUTHORIZATION_TYPE).await;
    }
    let mut bad = deny_cart();
    bad["spec"] = json!({ "rules": "all of them" });
    api.put(POLICIES, &bad);
    let mut other = deny_cart();
    other["metadata"]["name"] = json!("other");
    api.put(POLICIES, &other);
    // The later one arrives, and the malformed one has neither changed nor removed anything.
    assert_eq!(stream.next(AUTHORIZATION_TYPE).await, delta(&["shop/other"], &[]));
    api.delete(POLICIES, &bad);
    assert_eq!(stream.next(AUTHORIZATION_TYPE).await, delta(&[], &["shop/deny"]));
}

#[tokio::test]
async fn nothing_is_served_before_the_lists_are_complete() {
    let api = cluster().await;
    api.break_down(POLICIES, 500);
    let control = control(&api).await;
    let mut client = Client::connect(&control, Some(TOKEN)).await;
    let refused = client.discover().await.err().unwrap();
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    api.repair();
    soon("the first lists", control.synced()).await;
    let mut stream = subscribed(&mut client).await;
    assert_eq!(stream.next(ADDRESS_TYPE).await, delta(&[CART, WEB, ZTUNNEL], &[]));
}

#[tokio::test]
async fn a_cluster_without_policies_is_served() {
    let api = cluster().await;
    api.break_down(POLICIES, 404);
    let control = control(&api).await;
    soon("the first lists", control.synced()).await;
    let mut client = Client::connect(&control, Some(TOKEN)).await;
    let mut stream = subscribed(&mut client).await;
    assert_eq!(stream.next(AUTHORIZATION_TYPE).await, delta(&[], &[]));
    // The type is installed later.
    api.put(POLICIES, &deny_cart());
    api.repair();
    assert_eq!(stream.next(AUTHORIZATION_TYPE).await, delta(&["shop/deny"], &[]));
}

#[tokio::test]
async fn the_last_state_outlives_the_api() {
    let (api, _control, mut client) = synced().await;
    let mut stream = subscribed(&mut client).await;
    stream.next(ADDRESS_TYPE).await;
    api.break_down(PODS, 500);
    api.break_down(POLICIES, 500);
    api.delete(PODS, &cart());
    let mut late = subscribed(&mut client).await;
    assert_eq!(late.next(ADDRESS_TYPE).await, delta(&[CART, WEB, ZTUNNEL], &[]));
    api.repair();
    assert_eq!(stream.next(ADDRESS_TYPE).await, delta(&[], &[CART]));
}

#[tokio::test]
async fn the_end_is_told_to_clients() {
    let (_api, control, mut client) = synced().await;
    let mut stream = subscribed(&mut client).await;
    stream.next(ADDRESS_TYPE).await;
    let (end, ()) = tokio::join!(stream.end(), control.shutdown());
    assert_eq!(end.code(), Code::Unavailable, "{end:?}");
}

#[tokio::test]
async fn services_and_their_endpoints_follow_the_cluster() {
    const CART_SERVICE: &str = "shop/cart.shop.svc.cluster.local";
    const BANK: &str = "Kubernetes/discovery.k8s.io/EndpointSlice/shop/bank-1/192.0.2.7";
    let (api, _control, mut client) = synced().await;
    let mut stream = subscribed(&mut client).await;
    stream.next(ADDRESS_TYPE).await;
    let service = |name: &str, selector: Value| {
        json!({
            "metadata": { "namespace": "shop", "name": name },
            "spec": { "clusterIPs": ["10.96.0.1"], "selector": selector,
                      "ports": [{ "port": 80, "targetPort": 8080 }] },
        })
    };
    api.put(SERVICES, &service("cart", json!({ "app": "cart" })));
    assert_eq!(stream.next(ADDRESS_TYPE).await, delta(&[CART, CART_SERVICE], &[]));
    let ports = workload(&stream, "shop/cart-1").services[CART_SERVICE].ports.clone();
    assert_eq!((ports[0].service_port, ports[0].target_port), (80, 8080));
    let node = json!({ "metadata": { "name": "n2", "labels": {
        "topology.kubernetes.io/zone": "z" } } });
    api.put(NODES, &node);
    assert_eq!(stream.next(ADDRESS_TYPE).await, delta(&[WEB], &[]));
    // A service without a selector, and somebody who writes down its endpoints.
    api.put(SERVICES, &service("bank", json!({})));
    stream.next(ADDRESS_TYPE).await;
    let slice = json!({
        "metadata": { "namespace": "shop", "name": "bank-1",
                      "labels": { "kubernetes.io/service-name": "bank" } },
        "addressType": "IPv4", "ports": [{ "name": "", "port": 443 }],
        "endpoints": [{ "addresses": ["192.0.2.7"] }],
    });
    api.put(SLICES, &slice);
    assert_eq!(stream.next(ADDRESS_TYPE).await, delta(&[BANK], &[]));
    api.delete(SLICES, &slice);
    assert_eq!(stream.next(ADDRESS_TYPE).await, delta(&[], &[BANK]));
    api.delete(SERVICES, &service("cart", json!({})));
    assert_eq!(stream.next(ADDRESS_TYPE).await, delta(&[CART], &[CART_SERVICE]));
}

#[tokio::test]
async fn strict_peers_are_denials_that_workloads_list() {
    const STRICT: &str = "sluice-system/istio_converted_static_strict";
    let (api, _control, mut client) = synced().await;
    let mut stream = subscribed(&mut client).await;
    stream.next(ADDRESS_TYPE).await;
    stream.next(AUTHORIZATION_TYPE).await;
    let strict = json!({
        "metadata": { "namespace": "shop", "name": "strict",
                      "creationTimestamp": "2026-01-01T00:00:00Z" },
        "spec": { "mtls": { "mode": "STRICT" } },
    });
    api.put(PEERS, &strict);
    assert_eq!(stream.next(AUTHORIZATION_TYPE).await, delta(&[STRICT], &[]));
    assert_eq!(stream.next(ADDRESS_TYPE).await, delta(&[CART, WEB], &[]));
    assert_eq!(workload(&stream, "shop/cart-1").authorization_policies, [STRICT]);
    api.delete(PEERS, &strict);
    assert_eq!(stream.next(AUTHORIZATION_TYPE).await, delta(&[], &[STRICT]));
}

/// A request for this identity, with this name in the CSR.
fn certificate_request(asked: &str, name: &str) -> IstioCertificateRequest {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(name.try_into().unwrap())];
    let kind = Some(prost_types::value::Kind::StringValue(asked.to_owned()));
    let field = ("ImpersonatedIdentity".to_owned(), prost_types::Value { kind });
    IstioCertificateRequest {
        csr: params.serialize_request(&key).unwrap().pem().unwrap(),
        validity_duration: 3600,
        metadata: Some(prost_types::Struct { fields: [field].into() }),
    }
}

async fn ask(client: &mut Client, asked: &str, name: &str) -> Result<Vec<String>, Status> {
    let signed = soon("an answer", client.sign(certificate_request(asked, name))).await;
    signed.map(|response| response.cert_chain)
}

const CART_ID: &str = "spiffe://cluster.local/ns/shop/sa/cart";
const WEB_ID: &str = "spiffe://cluster.local/ns/shop/sa/web";

#[tokio::test]
async fn certificates_are_for_what_runs_on_the_callers_node() {
    let (api, control, mut client) = synced().await;
    let chain = ask(&mut client, CART_ID, CART_ID).await.unwrap();
    assert_eq!(chain.len(), 2);
    assert_eq!(chain[1], control.root_pem());

    let other_node = ask(&mut client, WEB_ID, WEB_ID).await.unwrap_err();
    assert_eq!(other_node.code(), Code::PermissionDenied);
    assert!(other_node.message().contains(WEB_ID), "{other_node:?}");
    assert!(other_node.message().contains("n1"), "{other_node:?}");
    let other_name = ask(&mut client, CART_ID, WEB_ID).await.unwrap_err();
    assert_eq!(other_name.code(), Code::InvalidArgument);

    // The pod goes; from then on its identity is not signed there any more.
    let mut stream = subscribed(&mut client).await;
    stream.next(ADDRESS_TYPE).await;
    api.delete(PODS, &cart());
    assert_eq!(stream.next(ADDRESS_TYPE).await, delta(&[], &[CART]));
    let gone = ask(&mut client, CART_ID, CART_ID).await.unwrap_err();
    assert_eq!(gone.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn callers_must_prove_who_they_are() {
    let (api, control, _) = synced().await;
    for token in [None, Some("expired")] {
        let mut client = Client::connect(&control, token).await;
        let refused = ask(&mut client, CART_ID, CART_ID).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated, "{token:?}: {refused:?}");
        let refused = client.discover().await.err().unwrap();
        assert_eq!(refused.code(), Code::Unauthenticated, "{token:?}: {refused:?}");
    }
    // A pod beside cart has a good token; that makes it nobody else.
    let evil = pod("shop", "evil-1", "evil", "n1", "10.0.0.66");
    api.put(PODS, &evil);
    api.admit("evil", "shop:evil", &evil);
    let mut client = Client::connect(&control, Some("evil")).await;
    let own = "spiffe://cluster.local/ns/shop/sa/evil";
    let signed = async {
        // The pod may not have been seen yet.
        while ask(&mut client, own, own).await.is_err_and(|it| it.code() == Code::Unavailable) {}
        ask(&mut client, CART_ID, CART_ID).await
    };
    let refused = soon("the pod to be known", signed).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");
    assert!(refused.message().contains("shop/evil"), "{refused:?}");
    // An earlier pod of the same name.
    let mut earlier = ztunnel();
    earlier["metadata"]["uid"] = json!("earlier");
    api.admit("earlier", "sluice-system:ztunnel", &earlier);
    let mut client = Client::connect(&control, Some("earlier")).await;
    let refused = ask(&mut client, CART_ID, CART_ID).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused:?}");
}

#[tokio::test]
async fn a_stranger_to_tls_does_not_disturb_others() {
    let (_api, control, mut client) = synced().await;
    use tokio::io::AsyncWriteExt;
    let mut strangers = Vec::new();
    for _ in 0..32 {
        let mut stranger = tokio::net::TcpStream::connect(control.local_addr()).await.unwrap();
        stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        strangers.push(stranger);
        // This one says nothing at all.
        strangers.push(tokio::net::TcpStream::connect(control.local_addr()).await.unwrap());
    }
    ask(&mut client, CART_ID, CART_ID).await.unwrap();
    let mut another = Client::connect(&control, Some(TOKEN)).await;
    ask(&mut another, CART_ID, CART_ID).await.unwrap();
}

#[tokio::test]
async fn bad_settings_are_named() {
    let start = async |change: fn(&mut Settings)| {
        let mut settings = Settings::new(Where::Url("http://127.0.0.1:1".into()));
        change(&mut settings);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        Control::start(settings, listener).await.unwrap_err().to_string()
    };
    for (text, name) in [
        (start(|it| it.trust_domain = "a/b".into()).await, "TRUST_DOMAIN"),
        (start(|it| it.server_names = vec!["a b".into()]).await, "SERVER_NAMES"),
        (start(|it| it.trusted_node_accounts = vec!["x".into()]).await, "TRUSTED_NODE_ACCOUNTS"),
        (start(|it| it.kube_api = Where::Url("http://[".into())).await, "http://["),
    ] {
        assert!(text.contains(name), "{text:?} should name {name}");
    }
}
