use std::net::{Ipv4Addr, SocketAddr};

use flate2::read::GzDecoder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::reload::Layer;

use super::*;
use crate::admin::{Part, Settings, bind};
use crate::identity::{CaClient, CaSettings, Certificates, ControlChannel, Token};
use crate::source::{self, ViewWriter};
use crate::telemetry::log::Levels;
use crate::telemetry::{Telemetry, register_process};
use crate::tls::{ControlSettings, RootSource};

const LIMIT: Duration = Duration::from_secs(10);

struct Running {
    admin: SocketAddr,
    metrics: SocketAddr,
    ready: SocketAddr,
    readiness: Readiness,
    writer: ViewWriter,
    quit: CancellationToken,
    stop: CancellationToken,
    task: JoinHandle<()>,
    /// Levels can be changed as long as it lives.
    _filter: Layer<EnvFilter, tracing_subscriber::Registry>,
}

/// Administration of a ztunnel that knows nothing yet.
fn start() -> Running {
    let any = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
    let servers = bind(&Settings { admin: any, admin_v6: None, metrics: any, ready: any }).unwrap();
    let [admin, metrics, ready] = [&servers.admin, &servers.metrics, &servers.ready]
        .map(|listener| listener.local_addr().unwrap());
    let (writer, view) = source::channel();
    let mut registry = Registry::default();
    let telemetry = Telemetry::new(&mut registry);
    register_process(&mut registry, Vec::new());
    let (filter, levels) = Levels::new(EnvFilter::new("info"));
    let (quit, stop) = (CancellationToken::new(), CancellationToken::new());
    let readiness = Readiness::default();
    let dump = Dump {
        view,
        certificates: certificates(),
        workloads: crate::workloads::Handle::ended(),
        telemetry: telemetry.clone(),
        config: serde_json::json!({ "nodeName": "n1" }),
    };
    let quitting = quit.clone();
    let shared = Admin { readiness: readiness.clone(), registry, dump, levels, quit: quitting };
    let task = tokio::spawn(servers.run(Arc::new(shared), stop.clone()));
    let _filter = filter;
    Running { admin, metrics, ready, readiness, writer, quit, stop, task, _filter }
}

fn certificates() -> Certificates {
    let channel = ControlChannel::new(ControlSettings {
        address: http::Uri::from_static("https://127.0.0.1:1"),
        root: RootSource::File("/nonexistent".into()),
        alt_hostname: None,
    })
    .unwrap();
    let settings = CaSettings { cluster: "c".to_owned(), ttl: Duration::from_secs(3600) };
    Certificates::new(CaClient::new(&channel, Token::from_setting(Some("secret")), settings))
}

/// What is answered to these bytes.
async fn exchange(addr: SocketAddr, request: &str) -> (String, Vec<u8>) {
    let talk = async {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        answer
    };
    let answer = timeout(LIMIT, talk).await.expect("an answer in time");
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    (head, answer[end + 4..].to_vec())
}

/// Status and body.
async fn ask(addr: SocketAddr, method: &str, path: &str) -> (u16, String) {
    let request = format!("{method} {path} HTTP/1.1\r\nhost: x\r\n\r\n");
    let (head, body) = exchange(addr, &request).await;
    (head.split(' ').nth(1).unwrap().parse().unwrap(), String::from_utf8(body).unwrap())
}

#[tokio::test]
async fn readiness_names_what_is_waited_for() {
    let running = start();
    running.readiness.report(Part::Agent, vec!["pod shop/a: port taken".to_owned()]);
    running.readiness.report(Part::ControlPlane, vec!["workloads".to_owned()]);
    let (status, body) = ask(running.ready, "GET", "/healthz/ready").await;
    assert_eq!(status, 500);
    assert_eq!(body, "waiting for workloads\nwaiting for pod shop/a: port taken\n");
    running.readiness.report(Part::Agent, Vec::new());
    running.readiness.report(Part::ControlPlane, Vec::new());
    assert_eq!(ask(running.ready, "GET", "/healthz/ready").await, (200, "ready\n".to_owned()));
}

#[tokio::test]
async fn metrics_come_as_they_are_asked_for() {
    let running = start();
    for path in ["/metrics", "/stats/prometheus"] {
        let (status, body) = ask(running.metrics, "GET", path).await;
        assert_eq!(status, 200);
        assert!(body.contains("istio_build{component=\"ztunnel\""), "{body}");
        assert!(body.contains("# TYPE istio_tcp_connections_opened_total counter\n"), "{body}");
        assert!(!body.contains("# EOF"), "{body}");
    }
    let request = "GET /metrics HTTP/1.1\r\nhost: x\r\naccept: \
        application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.3\r\n\
        accept-encoding: gzip\r\n\r\n";
    let (head, body) = exchange(running.metrics, request).await;
    assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0"), "{head}");
    assert!(head.contains("content-encoding: gzip"), "{head}");
    let mut text = String::new();
    std::io::Read::read_to_string(&mut GzDecoder::new(&body[..]), &mut text).unwrap();
    assert!(text.contains("# TYPE istio_tcp_connections_opened counter\n"), "{text}");
    assert!(text.ends_with("# EOF\n"), "{text}");
}

#[tokio::test]
async fn levels_are_shown_by_a_get_and_changed_by_a_post() {
    let running = start();
    let logging = async |method: &str, query: &str| {
        ask(running.admin, method, &format!("/logging{query}")).await
    };
    let at = |levels: &str| (200, format!("current log level is {levels}\n"));
    assert_eq!(logging("GET", "").await, at("info"));
    assert_eq!(logging("GET", "?level=debug").await.0, 405);
    assert_eq!(logging("GET", "?reset").await.0, 405);
    assert_eq!(logging("GET", "").await, at("info"), "nothing changed");
    assert_eq!(logging("POST", "?level=warn").await, at("warn"));
    assert_eq!(logging("POST", "?level=access:trace").await, at("access=trace,warn"));
    assert_eq!(logging("POST", "?level=loud").await.0, 400);
    assert_eq!(logging("POST", "?volume=loud").await.0, 400);
    assert_eq!(logging("POST", "?level=reset").await, at("info"));
}

#[tokio::test]
async fn the_dashboard_leads_on_and_profiles_say_why_not() {
    let running = start();
    let (status, page) = ask(running.admin, "GET", "/").await;
    assert_eq!(status, 200);
    assert!(page.contains("href=\"config_dump\""), "{page}");
    for path in ["/debug/pprof/profile?seconds=1", "/debug/pprof/heap"] {
        let (status, reason) = ask(running.admin, "GET", path).await;
        assert_eq!(status, 501);
        assert!(reason.contains("no "), "{reason}");
    }
    assert_eq!(ask(running.admin, "GET", "/nothing").await.0, 404);
    assert_eq!(ask(running.admin, "POST", "/config_dump").await.0, 405);
}

#[tokio::test]
async fn a_request_of_any_size_is_cut_short() {
    let running = start();
    let request = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(100_000));
    let (head, _) = exchange(running.ready, &request).await;
    assert!(head.starts_with("HTTP/1.1 431"), "{head}");
    // A body that never comes is not waited for.
    let request = "POST /logging HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n";
    let (head, _) = exchange(running.admin, request).await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
}

#[tokio::test]
async fn the_dump_shows_the_view_and_no_secret() {
    let running = start();
    let (_, before) = ask(running.admin, "GET", "/config_dump").await;
    let before: serde_json::Value = serde_json::from_str(&before).unwrap();
    assert_eq!(before["viewComplete"], false);

    let mut view = mesh::View::default();
    let message = mesh::proto::workload::Workload {
        uid: "c//Pod/shop/a".to_owned(),
        name: "a".to_owned(),
        namespace: "shop".to_owned(),
        addresses: vec![vec![10, 0, 0, 1]],
        tunnel_protocol: mesh::proto::workload::TunnelProtocol::Hbone as i32,
        ..Default::default()
    };
    view.insert_workload(message.try_into().unwrap());
    running.writer.publish(view);
    let (status, body) = ask(running.admin, "GET", "/config_dump").await;
    assert_eq!(status, 200);
    assert!(!body.contains("secret"), "{body}");
    let dump: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(dump["workloads"][0]["workloadIps"][0], "10.0.0.1");
    assert_eq!(dump["workloads"][0]["protocol"], "HBONE");
    assert_eq!(dump["config"]["nodeName"], "n1");
    assert_eq!(dump["viewComplete"], true);
}

#[tokio::test]
async fn quitting_needs_a_post() {
    let running = start();
    assert_eq!(ask(running.admin, "GET", "/quitquitquit").await.0, 405);
    assert!(!running.quit.is_cancelled());
    assert_eq!(ask(running.admin, "POST", "/quitquitquit").await.0, 200);
    assert!(running.quit.is_cancelled());
}

#[tokio::test]
async fn strangers_get_an_answer_and_an_ended_server_none() {
    let running = start();
    assert_eq!(ask(running.ready, "GET", "/").await.0, 404);
    assert_eq!(ask(running.ready, "POST", "/healthz/ready").await.0, 405);
    assert_eq!(ask(running.metrics, "GET", "/config_dump").await.0, 404);
    running.stop.cancel();
    timeout(LIMIT, running.task).await.unwrap().unwrap();
    assert!(TcpStream::connect(running.ready).await.is_err());
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let running = start();
    let any = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
    let settings = Settings { admin: any, admin_v6: None, metrics: any, ready: running.ready };
    let text = bind(&settings).expect_err("the port is taken").to_string();
    assert!(text.contains(&running.ready.to_string()) && text.contains("readiness"), "{text}");
    assert!(text.contains("ss -ltnp"), "{text}");
}

/// Whoever reaches the port can ask, and need not read.
#[tokio::test]
async fn metrics_that_nobody_reads_are_not_piled_up() {
    let mut registry = Registry::default();
    let (filter, levels) = Levels::new(EnvFilter::new("info"));
    let dump = Dump {
        view: source::channel().1,
        certificates: certificates(),
        workloads: crate::workloads::Handle::ended(),
        telemetry: Telemetry::new(&mut registry),
        config: serde_json::Value::Null,
    };
    let (readiness, quit) = (Readiness::default(), CancellationToken::new());
    let routes = Arc::new(Routes::new(Arc::new(Admin { readiness, registry, dump, levels, quit })));
    // An asker who has read the beginning of an answer and stops there.
    let ask = async || {
        let (mut near, far) = tokio::io::duplex(64);
        let routes = Arc::clone(&routes);
        let serving = tokio::spawn(async move { serve(far, Port::Metrics, &routes).await });
        near.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        (near, serving)
    };
    let mut lazy = Vec::new();
    while routes.large.available_permits() > 0 {
        let (mut near, serving) = ask().await;
        timeout(LIMIT, near.read_u8()).await.unwrap().unwrap();
        lazy.push((near, serving));
        assert!(lazy.len() <= 32, "all of them are kept in memory");
    }
    let (mut next, _serving) = ask().await;
    let waits = timeout(Duration::from_millis(100), next.read_u8()).await;
    assert!(waits.is_err(), "one more is made when there is room for it");
    lazy.pop();
    timeout(LIMIT, next.read_u8()).await.expect("room again").unwrap();
    drop(filter);
}

#[tokio::test]
async fn who_holds_connections_open_does_not_keep_others_out() {
    let running = start();
    let from = |last: u8| async move {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from(([127, 0, 0, last], 0))).unwrap();
        socket
    };
    let mut held = Vec::new();
    for _ in 0..2 * CONCURRENT {
        held.push(from(2).await.connect(running.ready).await.unwrap());
    }
    let mut kubelet = from(3).await.connect(running.ready).await.unwrap();
    kubelet.write_all(b"GET /healthz/ready HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    // Sooner than those who say nothing are given up.
    let answer = timeout(REQUEST_TIME / 2, kubelet.read_u8()).await;
    answer.expect("an answer beside those who say nothing").unwrap();
}
