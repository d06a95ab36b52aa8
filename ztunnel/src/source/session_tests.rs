use std::net::SocketAddr;

use mesh::View;
use mesh::proto::envoy::service::discovery::v3::Resource;
use mesh::proto::workload::{Address, Workload, address};
use mesh::proto::{ADDRESS_TYPE, AUTHORIZATION_TYPE};
use prometheus_client::registry::Registry;
use prost_types::Any;
use tonic::transport::Endpoint;

use super::*;
use crate::admin::Readiness;
use crate::source::test_control::{Call, LIMIT, fake_control};
use crate::source::{Audience, MassRemoval, Rules, Scope, ViewWriter, channel, channel_on_demand};

async fn connect(addr: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{addr}")).unwrap().connect().await.unwrap()
}

const RULES: Rules =
    Rules { scope: Scope::Everything, mass_removal: MassRemoval::Hold(Duration::from_secs(3600)) };

fn session() -> (Session, ViewHandle, Readiness) {
    session_with(RULES, channel())
}

fn session_with(rules: Rules, ends: (ViewWriter, ViewHandle)) -> (Session, ViewHandle, Readiness) {
    session_counted(rules, ends, &mut Registry::default())
}

fn session_counted(
    rules: Rules,
    (writer, view): (ViewWriter, ViewHandle),
    registry: &mut Registry,
) -> (Session, ViewHandle, Readiness) {
    let node = NodeInfo {
        node: "n1".to_owned(),
        cluster: "Kubernetes".to_owned(),
        pod_name: "ztunnel-x".to_owned(),
        pod_namespace: "sluice-system".to_owned(),
        instance_ip: "10.9.9.9".to_owned(),
        metadata: [("REGION".to_owned(), "north".into())].into(),
    };
    let readiness = Readiness::default();
    let metrics = Metrics::register(registry);
    let token = Token::from_setting(Some("secret"));
    let headers = vec![("x-tenant".to_owned(), "blue".to_owned())];
    let caller = Caller { node, token, headers };
    let audience = Audience { writer, metrics, readiness: readiness.clone() };
    let session = Session::new(caller, audience, rules, View::default()).unwrap();
    (session, view, readiness)
}

/// One stream of a session, and the session again when it has ended.
type Running = tokio::task::JoinHandle<(Session, StreamError)>;

fn start(mut session: Session, addr: SocketAddr) -> Running {
    tokio::spawn(async move {
        let end = session.stream(connect(addr).await, "fake").await;
        (session, end)
    })
}

async fn ended(running: Running) -> (Session, StreamError) {
    timeout(LIMIT, running).await.expect("an end in time").unwrap()
}

async fn accept(calls: &mut mpsc::Receiver<Call>) -> Call {
    timeout(LIMIT, calls.recv()).await.expect("a stream in time").unwrap()
}

fn workload(name: &str) -> Resource {
    resource(name, vec![])
}

fn workload_at(name: &str, ip: [u8; 4]) -> Resource {
    resource(name, vec![ip.to_vec()])
}

fn resource(name: &str, addresses: Vec<Vec<u8>>) -> Resource {
    let workload = Workload {
        addresses,
        uid: name.to_owned(),
        name: name.to_owned(),
        namespace: "shop".to_owned(),
        ..Default::default()
    };
    packed(name.to_owned(), address::Type::Workload(workload))
}

fn packed(name: String, content: address::Type) -> Resource {
    let address = Address { r#type: Some(content) };
    Resource {
        name,
        version: "v1".to_owned(),
        resource: Some(Any { type_url: ADDRESS_TYPE.to_owned(), value: address.encode_to_vec() }),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_session_subscribes_acknowledges_and_survives_an_outage() {
    let (addr, mut calls) = fake_control().await;
    let (session, view, readiness) = session();
    assert_eq!(readiness.waiting().len(), 2, "{:?}", readiness.waiting());

    let first = start(session, addr);
    let mut call = accept(&mut calls).await;
    assert_eq!(call.headers.get("authorization").unwrap(), "Bearer secret");
    assert_eq!(call.headers.get("clusterid").unwrap(), "Kubernetes");
    assert_eq!(call.headers.get("x-tenant").unwrap(), "blue");
    let opening = call.request().await;
    let node = opening.node.expect("the first request says who asks");
    assert_eq!(node.id, "ztunnel~10.9.9.9~ztunnel-x.sluice-system~sluice-system.svc.cluster.local");
    assert!(node.metadata.unwrap().fields.contains_key("REGION"));
    assert_eq!(opening.type_url, ADDRESS_TYPE);
    assert_eq!(call.request().await.type_url, AUTHORIZATION_TYPE);

    call.respond(ADDRESS_TYPE, "1", vec![workload("a")]).await;
    let ack = call.request().await;
    assert_eq!((ack.response_nonce.as_str(), ack.error_detail), ("1", None));
    assert!(view.current().is_none(), "policies are still missing");
    call.respond(AUTHORIZATION_TYPE, "2", vec![]).await;
    assert_eq!(call.request().await.response_nonce, "2");
    assert_eq!(view.current().unwrap().workloads().count(), 1);
    assert!(readiness.waiting().is_empty());

    // The control plane goes away in the middle of the stream.
    call.end(Status::unavailable("shutting down")).await;
    let (session, end) = ended(first).await;
    assert!(!end.benign(), "{end}");
    assert!(end.to_string().contains("shutting down"), "{end}");
    assert_eq!(view.current().unwrap().workloads().count(), 1, "the last good state stays");
    assert!(readiness.waiting().is_empty(), "an outage of the control plane is not ours");

    let second = start(session, addr);
    let mut call = accept(&mut calls).await;
    let opening = call.request().await;
    assert_eq!(opening.initial_resource_versions["a"], "v1");
    drop(call);
    let (_, end) = ended(second).await;
    assert!(matches!(end, StreamError::Complete), "{end}");
}

#[tokio::test]
async fn a_refused_token_is_told_to_the_operator() {
    let (addr, calls) = fake_control().await;
    drop(calls);
    let (mut session, ..) = session();
    let end = timeout(LIMIT, session.stream(connect(addr).await, "fake")).await.unwrap();
    assert!(matches!(end, StreamError::Refused { .. }), "{end}");

    let status = Status::unauthenticated("token review failed");
    let text = refused("open the stream")(status).to_string();
    assert!(text.contains("token review failed") && text.contains("AUTH_TOKEN"), "{text}");
}

/// A session whose two types are answered, with these workloads.
async fn settled(session: Session, names: &[&str]) -> (Running, Call, mpsc::Receiver<Call>) {
    let (addr, mut calls) = fake_control().await;
    let running = start(session, addr);
    let mut call = accept(&mut calls).await;
    call.request_of(AUTHORIZATION_TYPE).await;
    call.respond(ADDRESS_TYPE, "1", names.iter().map(|name| workload(name)).collect()).await;
    call.respond(AUTHORIZATION_TYPE, "2", vec![]).await;
    for nonce in ["1", "2"] {
        assert_eq!(call.request().await.response_nonce, nonce, "acknowledged in order");
    }
    (running, call, calls)
}

fn names(view: &ViewHandle) -> Vec<String> {
    let mut names: Vec<_> =
        view.current().unwrap().workloads().map(|workload| workload.uid().to_string()).collect();
    names.sort_unstable();
    names
}

#[tokio::test]
async fn what_is_received_held_and_refused_is_counted() {
    let mut registry = Registry::default();
    let (session, _, _) = session_counted(RULES, channel(), &mut registry);
    let (running, mut call, _calls) = settled(session, &["a", "b"]).await;
    let bad = Resource { resource: None, ..workload("a") };
    call.respond(ADDRESS_TYPE, "3", vec![bad]).await;
    assert!(call.request().await.error_detail.is_some());
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    let labels = format!("{{url=\"{ADDRESS_TYPE}\"}}");
    for line in [
        format!("istio_xds_message_total{labels} 2"),
        format!("sluice_xds_resources_held{labels} 2"),
        format!("sluice_xds_resources_unusable{labels} 1"),
        format!("sluice_xds_removals_held_back{labels} 0"),
        format!("sluice_xds_resources_rejected_total{labels} 1"),
        "sluice_xds_connected 1".to_owned(),
    ] {
        assert!(text.contains(&line), "{line} is not in {text}");
    }
    assert!(text.contains(&format!("istio_xds_message_bytes_total{labels} ")), "{text}");
    drop(call);
    ended(running).await;
}

#[tokio::test]
async fn a_corrupt_response_ends_the_stream_and_takes_nothing_away() {
    let (session, view, _) = session();
    let (running, call, _calls) = settled(session, &["a"]).await;
    call.send_bytes(vec![0xff; 40]).await;
    let (_, end) = ended(running).await;
    assert!(matches!(end, StreamError::Corrupt(_)), "{end}");
    assert!(!end.benign(), "no attempt at once");
    assert_eq!(names(&view), ["a"]);
}

#[tokio::test]
async fn an_oversize_response_ends_the_stream_and_takes_nothing_away() {
    let (mut session, view, _) = session();
    session.max_message = 10_000;
    let (running, call, _calls) = settled(session, &["a"]).await;
    call.send_bytes(vec![0; 10_001]).await;
    let (_, end) = ended(running).await;
    let StreamError::Refused { status, .. } = &end else { panic!("{end}") };
    assert_eq!(status.code(), tonic::Code::OutOfRange, "{end}");
    assert!(!end.benign());
    assert_eq!(names(&view), ["a"]);
}

#[tokio::test]
async fn a_bad_resource_and_an_unknown_type_are_refused_by_name_and_the_stream_goes_on() {
    let (session, view, _) = session();
    let (running, mut call, _calls) = settled(session, &["a"]).await;
    // Neither a workload nor a service, but something of a later version.
    let unknown = Any { type_url: ADDRESS_TYPE.to_owned(), value: vec![0x7a, 0] };
    let bad = Resource { name: "later".to_owned(), resource: Some(unknown), ..Default::default() };
    call.respond(ADDRESS_TYPE, "3", vec![bad, workload("b")]).await;
    let nack = call.request().await;
    assert_eq!((nack.type_url.as_str(), nack.response_nonce.as_str()), (ADDRESS_TYPE, "3"));
    let detail = nack.error_detail.expect("a refusal").message;
    assert_eq!(detail, "later: neither a workload nor a service");
    call.respond("type.googleapis.com/other", "4", vec![workload("c")]).await;
    let nack = call.request().await;
    assert_eq!(
        (nack.type_url.as_str(), nack.response_nonce.as_str()),
        ("type.googleapis.com/other", "4")
    );
    assert!(nack.error_detail.expect("a refusal").message.contains("never subscribed"));
    call.respond(ADDRESS_TYPE, "5", vec![workload("d")]).await;
    let ack = call.request().await;
    assert_eq!((ack.response_nonce.as_str(), ack.error_detail), ("5", None));
    assert_eq!(names(&view), ["a", "b", "d"]);
    drop(call);
    assert!(matches!(ended(running).await.1, StreamError::Complete));
}

#[tokio::test]
async fn a_flapping_control_plane_is_resumed_each_time_and_never_asked_for_everything() {
    let (session, view, readiness) = session();
    let (mut running, call, mut calls) = settled(session, &["a", "b"]).await;
    let (addr, mut next) = fake_control().await;
    call.end(Status::unavailable("flap")).await;
    for round in 0..5 {
        let (session, _) = ended(running).await;
        running = start(session, addr);
        let mut call = accept(&mut next).await;
        let opening = call.request_of(ADDRESS_TYPE).await;
        assert_eq!(opening.initial_resource_versions.len(), 2, "round {round}");
        assert!(opening.resource_names_subscribe.is_empty());
        assert_eq!(names(&view), ["a", "b"]);
        assert!(readiness.waiting().is_empty());
        call.end(Status::unavailable("flap")).await;
    }
    let (session, _) = ended(running).await;
    // What was removed during the outage is removed with the first response.
    running = start(session, addr);
    let mut call = accept(&mut next).await;
    call.request_of(ADDRESS_TYPE).await;
    call.remove(ADDRESS_TYPE, "1", &["a"]).await;
    call.request_of(ADDRESS_TYPE).await;
    assert_eq!(names(&view), ["b"]);
    drop(call);
    ended(running).await;
    calls.close();
}

#[tokio::test]
async fn a_control_plane_that_refuses_a_large_request_gets_a_smaller_one() {
    let (session, view, _) = session();
    let names: Vec<String> = (0..110).map(|i| format!("{}{i}", "x".repeat(30_000))).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (running, call, _calls) = settled(session, &names).await;
    drop(call);
    let (addr, mut calls) = fake_control().await;
    let mut session = ended(running).await.0;
    for expected in [110, 0] {
        let running = start(session, addr);
        let mut call = accept(&mut calls).await;
        let opening = call.request_of(ADDRESS_TYPE).await;
        assert_eq!(opening.initial_resource_versions.len(), expected);
        call.end(Status::resource_exhausted("message larger than max")).await;
        session = ended(running).await.0;
    }
    assert_eq!(view.current().unwrap().workloads().count(), 110);
}

#[tokio::test]
async fn a_mass_removal_is_asked_about_once_more_and_then_believed() {
    let hold = Duration::from_millis(200);
    let rules = Rules { mass_removal: MassRemoval::Hold(hold), ..RULES };
    let (session, view, readiness) = session_with(rules, channel());
    let all: Vec<String> = (0..150).map(|i| format!("w{i}")).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let (running, mut call, mut calls) = settled(session, &all).await;
    call.remove(ADDRESS_TYPE, "3", &all).await;
    let nack = call.request().await;
    let detail = nack.error_detail.expect("it is told that it is not believed").message;
    assert!(detail.contains("150 resources"), "{detail}");
    assert_eq!(names(&view).len(), 150, "the last good state stays in use");
    assert!(readiness.waiting().is_empty(), "ztunnel goes on working");

    // We end the stream to ask again, and claim everything.
    let (session, end) = ended(running).await;
    assert!(matches!(end, StreamError::AskAgain) && end.benign(), "{end}");
    calls.close();
    let (addr, mut calls) = fake_control().await;
    let running = start(session, addr);
    let mut call = accept(&mut calls).await;
    let opening = call.request_of(ADDRESS_TYPE).await;
    assert_eq!(opening.initial_resource_versions.len(), 150);
    call.request_of(AUTHORIZATION_TYPE).await;
    call.remove(ADDRESS_TYPE, "1", &all).await;
    assert_eq!(call.request().await.error_detail, None);
    assert!(names(&view).is_empty(), "said twice, with time between");
    drop(call);
    ended(running).await;
}

#[tokio::test]
async fn on_demand_a_lookup_asks_once_and_waits_for_the_view() {
    let rules = Rules { scope: Scope::OnDemand, ..RULES };
    let (session, view, readiness) = session_with(rules, channel_on_demand("Kubernetes"));
    assert_eq!(readiness.waiting(), ["policies from the control plane"]);
    let (addr, mut calls) = fake_control().await;
    let running = start(session, addr);
    let mut call = accept(&mut calls).await;
    let opening = call.request_of(ADDRESS_TYPE).await;
    assert_eq!(opening.resource_names_subscribe, ["*"]);
    assert_eq!(opening.resource_names_unsubscribe, ["*"]);
    call.request_of(AUTHORIZATION_TYPE).await;
    call.respond(AUTHORIZATION_TYPE, "1", vec![]).await;
    call.request_of(AUTHORIZATION_TYPE).await;
    assert!(view.current().is_some(), "complete without any workload");

    let lookups: Vec<_> = (0..3)
        .map(|_| {
            let view = view.clone();
            tokio::spawn(async move {
                let ip = "10.0.0.1".parse().unwrap();
                view.lookup_address(&"".into(), ip).await.unwrap();
                view.current().unwrap().by_address(&"".into(), ip).map(|it| it.uid().to_string())
            })
        })
        .collect();
    let request = call.request().await;
    assert_eq!(request.resource_names_subscribe, ["/10.0.0.1"]);
    assert_eq!(request.response_nonce, "", "not an acknowledgement");
    call.respond(ADDRESS_TYPE, "2", vec![workload_at("a", [10, 0, 0, 1])]).await;
    for lookup in lookups {
        assert_eq!(lookup.await.unwrap().as_deref(), Some("a"));
    }
    assert_eq!(call.request().await.response_nonce, "2");

    let nothing = tokio::spawn({
        let view = view.clone();
        async move { view.lookup_address(&"".into(), "10.0.0.9".parse().unwrap()).await }
    });
    assert_eq!(call.request().await.resource_names_subscribe, ["/10.0.0.9"]);
    call.remove(ADDRESS_TYPE, "3", &["/10.0.0.9"]).await;
    assert_eq!(nothing.await.unwrap(), Ok(()), "nothing there is an answer too");

    assert_eq!(call.request().await.response_nonce, "3");

    drop(call);
    let (session, _) = ended(running).await;
    let running = start(session, addr);
    let mut call = accept(&mut calls).await;
    let opening = call.request_of(ADDRESS_TYPE).await;
    let versions = opening.initial_resource_versions;
    assert_eq!((versions["a"].as_str(), versions["/10.0.0.9"].as_str()), ("v1", ""));
    drop(call);
    ended(running).await;
}

#[tokio::test]
async fn on_demand_a_destination_is_prepared_with_the_waypoint_on_the_way() {
    let rules = Rules { scope: Scope::OnDemand, ..RULES };
    let (session, view, _) = session_with(rules, channel_on_demand("Kubernetes"));
    let (running, mut call, _calls) = settled(session, &[]).await;
    let preparing = tokio::spawn({
        let view = view.clone();
        async move { view.prepare("shop", &"".into(), "10.96.0.1".parse().unwrap()).await }
    });
    assert_eq!(call.request().await.resource_names_subscribe, ["/10.96.0.1"]);
    call.respond(ADDRESS_TYPE, "3", vec![service("cart", [10, 96, 0, 1], Some("way"))]).await;
    // The acknowledgement and the next question, in one order or the other.
    let (one, two) = (call.request().await, call.request().await);
    let question = if one.response_nonce.is_empty() { one } else { two };
    assert_eq!(question.resource_names_subscribe, ["shop/way"]);
    assert!(!preparing.is_finished(), "without its waypoint it must not be routed");
    call.respond(ADDRESS_TYPE, "4", vec![service("way", [10, 96, 0, 2], None)]).await;
    assert_eq!(timeout(LIMIT, preparing).await.unwrap().unwrap(), Ok(()));
    drop(call);
    ended(running).await;
}

/// What is at the destination may be known before the policies are.
#[tokio::test]
async fn on_demand_the_waypoint_is_asked_for_also_when_the_view_is_complete_later() {
    let rules = Rules { scope: Scope::OnDemand, ..RULES };
    let (session, view, _) = session_with(rules, channel_on_demand("Kubernetes"));
    let (addr, mut calls) = fake_control().await;
    let running = start(session, addr);
    let mut call = accept(&mut calls).await;
    call.request_of(AUTHORIZATION_TYPE).await;
    let preparing = tokio::spawn({
        let view = view.clone();
        async move { view.prepare("shop", &"".into(), "10.96.0.1".parse().unwrap()).await }
    });
    let question = call.request_of(ADDRESS_TYPE).await;
    assert_eq!(question.resource_names_subscribe, ["/10.96.0.1"]);
    call.respond(ADDRESS_TYPE, "1", vec![service("cart", [10, 96, 0, 1], Some("way"))]).await;
    assert_eq!(call.request_of(ADDRESS_TYPE).await.response_nonce, "1");
    assert!(view.current().is_none(), "nothing may be decided yet");

    call.respond(AUTHORIZATION_TYPE, "2", vec![]).await;
    let question = call.request_of(ADDRESS_TYPE).await;
    assert_eq!(question.resource_names_subscribe, ["shop/way"]);
    assert!(!preparing.is_finished(), "without its waypoint it must not be routed");
    call.respond(ADDRESS_TYPE, "3", vec![service("way", [10, 96, 0, 2], None)]).await;
    assert_eq!(timeout(LIMIT, preparing).await.unwrap().unwrap(), Ok(()));
    drop(call);
    ended(running).await;
}

fn service(hostname: &str, vip: [u8; 4], waypoint: Option<&str>) -> Resource {
    use mesh::proto::workload::{
        GatewayAddress, NamespacedHostname, NetworkAddress, Service, gateway_address,
    };
    let shop = || "shop".to_owned();
    let gateway = |hostname: &str| GatewayAddress {
        destination: Some(gateway_address::Destination::Hostname(NamespacedHostname {
            namespace: shop(),
            hostname: hostname.to_owned(),
        })),
        ..Default::default()
    };
    let service = Service {
        namespace: shop(),
        hostname: hostname.to_owned(),
        addresses: vec![NetworkAddress { address: vip.to_vec(), ..Default::default() }],
        waypoint: waypoint.map(gateway),
        ..Default::default()
    };
    packed(format!("shop/{hostname}"), address::Type::Service(service))
}

/// One thread carries the traffic of this test, and it goes on while twenty thousand
/// workloads are applied.
#[tokio::test]
async fn a_large_response_is_applied_off_the_runtime() {
    let (session, view, _) = session();
    let (running, mut call, _calls) = settled(session, &[]).await;
    let all: Vec<_> = (0..20_000).map(|i| workload(&format!("w{i}"))).collect();
    let response = mesh::proto::envoy::service::discovery::v3::DeltaDiscoveryResponse {
        type_url: ADDRESS_TYPE.to_owned(),
        nonce: "big".to_owned(),
        resources: all,
        ..Default::default()
    };
    let bytes = response.encode_to_vec();
    call.send_bytes(bytes).await;
    let mut steps = 0_u64;
    {
        let mut ack = std::pin::pin!(call.request());
        let ack = loop {
            tokio::select! {
                biased;
                ack = &mut ack => break ack,
                () = tokio::task::yield_now() => steps += 1,
            }
        };
        assert_eq!((ack.response_nonce.as_str(), ack.error_detail), ("big", None));
    }
    assert_eq!(view.current().unwrap().workloads().count(), 20_000);
    // Were it applied on this thread, there would be a handful of steps for the receiving.
    assert!(steps > 1000, "the runtime made {steps} steps only");
    drop(call);
    ended(running).await;
}
