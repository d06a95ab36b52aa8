use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

use super::*;
use crate::admin::{Part, Settings, bind};
use crate::identity::{CaClient, CaSettings, Certificates, ControlChannel, Token};
use crate::source::{self, ViewWriter};
use crate::telemetry::Telemetry;
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
}

fn start() -> Running {
    let any = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
    let servers = bind(&Settings { admin: any, metrics: any, ready: any }).unwrap();
    let [admin, metrics, ready] = [&servers.admin, &servers.metrics, &servers.ready]
        .map(|listener| listener.local_addr().unwrap());
    let (writer, view) = source::channel();
    let mut registry = Registry::default();
    let _telemetry = Telemetry::new(&mut registry);
    let (quit, stop) = (CancellationToken::new(), CancellationToken::new());
    let readiness = Readiness::default();
    let dump = Dump {
        view,
        certificates: certificates(),
        workloads: crate::workloads::Handle::ended(),
        config: serde_json::json!({ "nodeName": "n1" }),
    };
    let shared = Admin { readiness: readiness.clone(), registry, dump, quit: quit.clone() };
    let task = tokio::spawn(servers.run(Arc::new(shared), stop.clone()));
    Running { admin, metrics, ready, readiness, writer, quit, stop, task }
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

/// Status and body.
async fn ask(addr: SocketAddr, method: &str, path: &str) -> (u16, String) {
    let talk = async {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        let request = format!("{method} {path} HTTP/1.1\r\nhost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let answer = timeout(LIMIT, talk).await.expect("an answer in time");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
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
async fn metrics_are_openmetrics_text() {
    let running = start();
    for path in ["/metrics", "/stats/prometheus"] {
        let (status, body) = ask(running.metrics, "GET", path).await;
        assert_eq!(status, 200);
        assert!(body.contains("istio_build{component=\"ztunnel\""), "{body}");
        assert!(body.ends_with("# EOF\n"), "{body}");
    }
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
    let settings = Settings { admin: any, metrics: any, ready: running.ready };
    let text = bind(&settings).expect_err("the port is taken").to_string();
    assert!(text.contains(&running.ready.to_string()) && text.contains("readiness"), "{text}");
    assert!(text.contains("ss -ltnp"), "{text}");
}
