use std::io::{self, Write};
use std::sync::Mutex;

use mesh::{Identity, Locality, Protocol, Service, ServiceKey};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;

use super::log::Layout;
use super::*;

/// Collects what the log writes.
#[derive(Clone, Default)]
struct Capture(Arc<Mutex<Vec<u8>>>);

impl Capture {
    fn lines(&self) -> Vec<String> {
        let bytes = self.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect()
    }
}

impl Write for Capture {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Capture {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// What is logged at `info` and above while `act` runs.
pub(super) fn logged(layout: Layout, act: impl FnOnce()) -> Vec<String> {
    let capture = Capture::default();
    let lines = tracing_subscriber::fmt::layer().event_format(layout).with_writer(capture.clone());
    let info = tracing_subscriber::EnvFilter::new("info");
    let subscriber = tracing_subscriber::registry().with(info).with(lines);
    tracing::subscriber::with_default(subscriber, act);
    capture.lines()
}

pub(super) fn workload(name: &str, account: &str) -> Arc<Workload> {
    let uid = format!("Kubernetes//Pod/shop/{name}");
    Arc::new(Workload::new(&uid, "shop", name, Identity::new("", "shop", account).unwrap()).with(
        |it| {
            it.protocol = Protocol::Hbone;
            it.node = "n1".into();
            it.canonical_name = account.into();
            it.canonical_revision = "v1".into();
            it.locality = Arc::new(Locality {
                region: "r1".into(),
                zone: "z1".into(),
                ..Locality::default()
            });
            it.owner = account.into();
        },
    ))
}

pub(super) fn endpoint(addr: &str, workload: Arc<Workload>) -> Endpoint {
    let identity = Some(workload.identity.clone());
    Endpoint { addr: addr.parse().unwrap(), workload: Some(workload), identity }
}

pub(super) fn outbound() -> ConnectionOpen {
    ConnectionOpen {
        reporter: Reporter::Source,
        direction: Direction::Outbound,
        src: endpoint("10.0.0.1:40000", workload("web-1", "web")),
        dst: endpoint("10.0.0.2:8080", workload("cart-1", "cart")),
        service: None,
        dialled: "10.0.1.2:80".parse().unwrap(),
        hop: Some(Hop { peer: "10.0.0.2:15008".parse().unwrap(), target: "10.0.0.2:8080".into() }),
        security: Security::MutualTls,
    }
}

/// Splits the time off and checks that it is one.
fn untimed(line: &str) -> &str {
    let (time, rest) = line.split_once('\t').unwrap();
    assert_eq!(time.len(), "2026-01-01T00:00:00.000000Z".len(), "{time}");
    assert!(time.ends_with('Z') && time.contains('T'), "{time}");
    rest
}

/// The only value that differs from run to run.
fn without_duration(line: &str) -> String {
    let (head, tail) = line.split_once("duration=\"").expect("a duration");
    let (value, rest) = tail.split_once('"').unwrap();
    assert!(value.ends_with("ms"), "{value}");
    format!("{head}duration=\"Nms\"{rest}")
}

#[test]
fn a_completed_connection_is_one_golden_line() {
    let telemetry = Telemetry::new(&mut Registry::default());
    let lines = logged(Layout::Plain, || {
        let guard = telemetry.open(ConnectionOpen { service: Some(service()), ..outbound() });
        guard.add_received(80);
        guard.add_sent(175);
        guard.close(Ok(()));
    });
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert_eq!(
        without_duration(untimed(&lines[0])),
        "info\taccess\tconnection complete\t\
         src.addr=10.0.0.1:40000 src.workload=\"web-1\" src.namespace=\"shop\" \
         src.identity=\"spiffe://cluster.local/ns/shop/sa/web\" src.cluster=\"Kubernetes\" \
         dst.addr=10.0.0.2:15008 dst.hbone_addr=10.0.0.2:8080 \
         dst.service=\"cart.shop.svc.cluster.local\" dst.workload=\"cart-1\" \
         dst.namespace=\"shop\" dst.identity=\"spiffe://cluster.local/ns/shop/sa/cart\" \
         dst.cluster=\"Kubernetes\" direction=\"outbound\" bytes_sent=80 bytes_recv=175 \
         duration=\"Nms\""
    );
}

#[test]
fn the_destination_end_logs_the_same_bytes_the_other_way_round() {
    let telemetry = Telemetry::new(&mut Registry::default());
    let lines = logged(Layout::Plain, || {
        let guard = telemetry.open(ConnectionOpen {
            reporter: Reporter::Destination,
            direction: Direction::Inbound,
            ..outbound()
        });
        guard.add_received(80);
        guard.add_sent(175);
        guard.close(Ok(()));
    });
    assert!(lines[0].contains("bytes_sent=175 bytes_recv=80"), "{}", lines[0]);
}

#[test]
fn a_failure_is_an_error_line_and_stays_one_line() {
    let telemetry = Telemetry::new(&mut Registry::default());
    let lines = logged(Layout::Plain, || {
        let text = "peer said: a\nb\tc".to_owned();
        telemetry.open(outbound()).close(Err(Failure { flags: ResponseFlags::Connect, text }));
    });
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(untimed(&lines[0]).starts_with("error\taccess\tconnection complete\t"));
    assert!(lines[0].ends_with(r#"error="peer said: a\nb\tc""#), "{}", lines[0]);
}

#[test]
fn a_dropped_guard_reports_itself() {
    let mut registry = Registry::default();
    let telemetry = Telemetry::new(&mut registry);
    let lines = logged(Layout::Plain, || drop(telemetry.open(outbound())));
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(lines[0].ends_with("error=\"dropped\""), "{}", lines[0]);
    let text = text(&registry);
    assert_eq!(series(&text, "istio_tcp_sockets_open", &["source"]), "0");
    assert_eq!(series(&text, "sluice_connections_open", &["outbound", "mutual_tls"]), "0");
}

#[test]
fn json_lines_parse_and_keep_numbers() {
    let telemetry = Telemetry::new(&mut Registry::default());
    let lines = logged(Layout::Json, || {
        let guard = telemetry.open(outbound());
        guard.add_received(80);
        guard.close(Ok(()));
        tracing::info!("no fields");
    });
    let access: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
    assert_eq!(access["scope"], "access");
    assert_eq!(access["level"], "info");
    assert_eq!(access["message"], "connection complete");
    assert_eq!(access["src.workload"], "web-1");
    assert_eq!(access["dst.hbone_addr"], "10.0.0.2:8080");
    assert_eq!(access["bytes_sent"], 80);
    let plain: serde_json::Value = serde_json::from_str(&lines[1]).unwrap();
    assert_eq!(plain["message"], "no fields");
}

pub(super) fn text(registry: &Registry) -> String {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
    text
}

/// The service by which the cart was dialled.
fn service() -> Arc<Service> {
    let key = ServiceKey::new("shop", "cart.shop.svc.cluster.local").unwrap();
    Arc::new(Service { name: "cart".into(), ..Service::new(key) })
}

/// The value of the one series of `name` whose labels include all of `labels`.
fn series(text: &str, name: &str, labels: &[&str]) -> String {
    let found: Vec<_> = text
        .lines()
        .filter(|line| line.starts_with(&format!("{name}{{")))
        .filter(|line| labels.iter().all(|label| line.contains(label)))
        .collect();
    assert_eq!(found.len(), 1, "{name} {labels:?} in\n{text}");
    found[0].rsplit_once(' ').unwrap().1.to_owned()
}

#[test]
fn metrics_have_istios_names_and_labels() {
    let mut registry = Registry::default();
    let telemetry = Telemetry::new(&mut registry);
    let guard = telemetry.open(ConnectionOpen { service: Some(service()), ..outbound() });
    guard.add_received(80);
    guard.add_sent(175);
    guard.close(Ok(()));
    let text = text(&registry);
    let labels = "reporter=\"source\",source_workload=\"web\",source_canonical_service=\"web\",\
        source_canonical_revision=\"v1\",source_workload_namespace=\"shop\",\
        source_principal=\"spiffe://cluster.local/ns/shop/sa/web\",source_app=\"web\",\
        source_version=\"v1\",source_cluster=\"Kubernetes\",\
        destination_service=\"cart.shop.svc.cluster.local\",\
        destination_service_namespace=\"shop\",destination_service_name=\"cart\",\
        destination_workload=\"cart\",destination_canonical_service=\"cart\",\
        destination_canonical_revision=\"v1\",destination_workload_namespace=\"shop\",\
        destination_principal=\"spiffe://cluster.local/ns/shop/sa/cart\",\
        destination_app=\"cart\",destination_version=\"v1\",\
        destination_cluster=\"Kubernetes\",request_protocol=\"tcp\",response_flags=\"-\",\
        connection_security_policy=\"mutual_tls\",source_region=\"r1\",\
        source_zone=\"z1\",destination_region=\"r1\",destination_zone=\"z1\"";
    for (name, value) in [
        ("istio_tcp_connections_opened_total", 1),
        ("istio_tcp_connections_closed_total", 1),
        ("istio_tcp_received_bytes_total", 80),
        ("istio_tcp_sent_bytes_total", 175),
    ] {
        let line = format!("{name}{{{labels}}} {value}");
        assert!(text.contains(&line), "missing {line} in\n{text}");
    }
}

#[test]
fn bytes_of_an_open_connection_are_counted_once() {
    let mut registry = Registry::default();
    let telemetry = Telemetry::new(&mut registry);
    let guard = telemetry.open(outbound());
    let sent = || series(&text(&registry), "istio_tcp_sent_bytes_total", &[]);
    guard.add_sent(100);
    assert_eq!(sent(), "100", "at the first scrape");
    assert_eq!(sent(), "100", "and not again at the second");
    guard.add_sent(1);
    guard.close(Ok(()));
    assert_eq!(sent(), "101");
}

#[test]
fn open_connections_are_counted_and_listed_by_pod() {
    let mut registry = Registry::default();
    let telemetry = Telemetry::new(&mut registry);
    let guard = telemetry.open(ConnectionOpen { service: Some(service()), ..outbound() });
    let text = text(&registry);
    assert_eq!(series(&text, "istio_tcp_sockets_open", &["source"]), "1");
    assert_eq!(series(&text, "istio_tcp_sockets_open", &["destination"]), "0");
    assert_eq!(series(&text, "sluice_connections_open", &["outbound", "mutual_tls"]), "1");
    let open = telemetry.open_connections();
    let pod = ("shop".into(), "web-1".into());
    let [connection] = &open[&pod][..] else { panic!("{open:?}") };
    assert_eq!(connection.src, "10.0.0.1:40000".parse().unwrap());
    assert_eq!(connection.hbone_addr, Some("10.0.0.2:15008".parse().unwrap()));
    let named = |name, most| telemetry.open_connections_of("shop", name, most);
    let text = named("web-1", 1)[0].to_string();
    assert!(text.starts_with("outbound 10.0.0.1:40000 -> 10.0.0.2:"), "{text}");
    assert!(named("web-1", 0).is_empty() && named("web-2", 1).is_empty());
    guard.close(Ok(()));
    assert!(telemetry.open_connections().is_empty());
}

#[test]
fn what_a_peer_sent_is_escaped_and_capped() {
    let telemetry = Telemetry::new(&mut Registry::default());
    for layout in [Layout::Plain, Layout::Json] {
        let lines = logged(layout, || {
            let text = format!("\u{1b}[31m\u{202e}{}", "ä".repeat(100_000));
            let failure = Failure { flags: ResponseFlags::None, text };
            telemetry.open(outbound()).close(Err(failure));
            tracing::info!(value = %"x\ny".repeat(10_000), other = ?"z".repeat(10_000), "long");
        });
        assert_eq!(lines.len(), 2, "each is one line");
        for line in lines {
            assert!(line.len() < 4096, "{} bytes", line.len());
            assert!(!line.contains('\u{1b}'), "{line}");
        }
    }
}

#[test]
fn times_are_in_histograms_of_seconds() {
    let mut registry = Registry::default();
    let telemetry = Telemetry::new(&mut registry);
    telemetry.took(Step::ConnectPeer, Duration::from_millis(3));
    telemetry.took(Step::HandshakeServer, Duration::from_secs(60));
    let text = text(&registry);
    let bucket = |le: &str| series(&text, "sluice_connect_seconds_bucket", &["peer", le]);
    assert_eq!(bucket("le=\"0.001\""), "0");
    assert_eq!(bucket("le=\"0.005\""), "1");
    assert_eq!(series(&text, "sluice_handshake_seconds_count", &["server"]), "1");
    assert_eq!(series(&text, "sluice_handshake_seconds_bucket", &["server", "+Inf"]), "1");
    assert_eq!(series(&text, "sluice_handshake_seconds_bucket", &["server", "10.0"]), "0");
}

#[test]
fn a_refusal_is_logged_and_counted_by_reason() {
    let mut registry = Registry::default();
    let telemetry = Telemetry::new(&mut registry);
    let lines = logged(Layout::Plain, || {
        telemetry.refused(&Refusal {
            connection: outbound(),
            reason: "view_incomplete",
            failure: Failure {
                flags: ResponseFlags::Deny,
                text: "the mesh view is not complete yet".to_owned(),
            },
        });
    });
    assert!(untimed(&lines[0]).starts_with("warn\taccess\tconnection failed\t"), "{}", lines[0]);
    let text = text(&registry);
    let refused = "sluice_connections_refused_total";
    assert_eq!(series(&text, refused, &["outbound", "view_incomplete"]), "1");
    assert_eq!(
        series(&text, "istio_tcp_connections_failed_total", &["response_flags=\"DENY\""]),
        "1"
    );
}
