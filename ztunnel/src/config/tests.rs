use std::path::Path;

use super::*;
use crate::telemetry::log::Layout;

const NODE: (&str, &str) = ("NODE_NAME", "n1");

fn parse(pairs: &[(&str, &str)]) -> Result<Config, Mistakes> {
    Config::parse(&Raw::from_pairs(pairs.iter().copied()))
}

/// The settings with NODE_NAME given.
fn with(pairs: &[(&str, &str)]) -> Config {
    let pairs: Vec<_> = pairs.iter().copied().chain([NODE]).collect();
    parse(&pairs).unwrap()
}

#[test]
fn the_node_name_is_all_that_must_be_set() {
    let config = with(&[]);
    assert_eq!(config.node.node, "n1");
    assert_eq!(config.node.cluster, "Kubernetes");
    assert_eq!(config.source.xds.as_ref().unwrap().address.to_string(), "https://localhost:15012/");
    assert_eq!(config.mode.socket(), Some(Path::new(zds::DEFAULT_SOCKET)));
    assert_eq!(config.proxy.trust_domain, None);
    assert_eq!(config.proxy.packet_mark, Some(0x539));
    assert_eq!(config.certificate_ttl, Duration::from_secs(86_400));
    assert_eq!(config.termination_deadline, Duration::from_secs(5));
    assert_eq!(config.admin.ready.to_string(), "[::]:15021");
    assert_eq!(config.admin.admin.to_string(), "127.0.0.1:15000");
    assert!(config.worker_threads >= 1);
    assert!(config.warnings.is_empty());

    let mistakes = parse(&[]).unwrap_err();
    assert_eq!(mistakes.each().len(), 1);
    assert!(mistakes.to_string().contains("NODE_NAME is not set"), "{mistakes}");
}

#[test]
fn settings_of_a_lab_node_are_understood() {
    let config = with(&[
        ("INPOD_UDS", "/run/n1/ztunnel.sock"),
        ("XDS_ADDRESS", "https://172.30.0.1:15012"),
        ("CA_ADDRESS", "172.30.0.1:15012"),
        ("XDS_ROOT_CA", "/run/root.pem"),
        ("CA_ROOT_CA", "-----BEGIN CERTIFICATE-----"),
        ("ALT_XDS_HOSTNAME", "istiod.istio-system.svc"),
        ("CLUSTER_ID", "c2"),
        ("TRUST_DOMAIN", "example.org"),
        ("IPV6_ENABLED", "false"),
        ("ADMIN_ADDR", "127.0.0.1:16000"),
        ("LOG_FORMAT", "json"),
        ("RUST_LOG", "info,ztunnel=debug"),
        ("ZTUNNEL_WORKER_THREADS", "3"),
        ("CONNECTION_TERMINATION_DEADLINE", "1m30s"),
        ("HTTP2_FRAME_SIZE", "65536"),
        ("POOL_UNUSED_RELEASE_TIMEOUT", "500ms"),
    ]);
    assert_eq!(config.source.xds.as_ref().unwrap().address.host(), Some("172.30.0.1"));
    assert_eq!(config.ca.address.scheme_str(), Some("https"));
    assert_eq!(config.source.xds.as_ref().unwrap().root, RootSource::File("/run/root.pem".into()));
    assert_eq!(config.ca.root, RootSource::Pem("-----BEGIN CERTIFICATE-----".into()));
    assert_eq!(
        config.source.xds.as_ref().unwrap().alt_hostname.as_deref(),
        Some("istiod.istio-system.svc")
    );
    assert_eq!(config.node.cluster, "c2");
    assert_eq!((&*config.proxy.home.cluster, &*config.proxy.home.node), ("c2", "n1"));
    assert_eq!(config.proxy.trust_domain.as_deref(), Some("example.org"));
    assert_eq!(config.proxy.ipv6, crate::proxy::Ipv6::Disabled);
    assert_eq!(config.admin.metrics.to_string(), "0.0.0.0:15020");
    assert_eq!(config.admin.admin.to_string(), "127.0.0.1:16000");
    assert_eq!(config.log.layout, Layout::Json);
    assert_eq!(config.worker_threads, 3);
    assert_eq!(config.termination_deadline, Duration::from_secs(90));
    assert_eq!(config.proxy.hbone.frame_size, 65_536);
    assert_eq!(config.proxy.hbone.idle_release, Duration::from_millis(500));
}

#[test]
fn defaults_follow_kubernetes() {
    let config = with(&[("KUBERNETES_SERVICE_HOST", "10.0.0.1")]);
    assert_eq!(config.ca.address.to_string(), "https://istiod.istio-system.svc:15012/");
    for (grace, deadline) in [("30", 25), ("11", 6), ("10", 9), ("1", 1), ("0", 1)] {
        let config = with(&[("TERMINATION_GRACE_PERIOD_SECONDS", grace)]);
        assert_eq!(config.termination_deadline.as_secs(), deadline, "grace {grace}");
    }
    let config = with(&[("ISTIO_META_CLUSTER_ID", "meta")]);
    assert_eq!(config.node.cluster, "meta");
}

#[test]
fn every_mistake_names_its_setting() {
    for (name, value) in [
        ("XDS_ADDRESS", ""),
        ("XDS_ADDRESS", "http://plain:15010"),
        ("XDS_ADDRESS", "https://"),
        ("CA_ADDRESS", "https://a b"),
        ("SECRET_TTL", "0s"),
        ("SECRET_TTL", "24"),
        ("SECRET_TTL", "soon"),
        ("SECRET_TTL", "99999999999999999999h"),
        ("TRUST_DOMAIN", "a/b"),
        ("PACKET_MARK", "1"),
        ("PACKET_MARK", "many"),
        ("PROXY_MODE", "sidecar"),
        ("PROXY_WORKLOAD_INFO", "shop/vm/vm"),
        ("PROXY_WORKLOAD_INFO", "shop/vm"),
        ("IPV6_ENABLED", "maybe"),
        ("INPOD_PORT_REUSE", "maybe"),
        ("READINESS_ADDR", "15021"),
        ("INPOD_LISTENERS", "mine"),
        ("LOG_FORMAT", "xml"),
        ("RUST_LOG", "ztunnel=loud"),
        ("ZTUNNEL_WORKER_THREADS", "-1"),
        ("ZTUNNEL_WORKER_THREADS", "0%"),
        ("ZTUNNEL_WORKER_THREADS", "5000"),
        ("ZTUNNEL_WORKER_THREADS", "101%"),
        ("ZTUNNEL_CPU_LIMIT", "much"),
        ("ZTUNNEL_RESOURCE_CPU_LIMIT", "1 CPU"),
        ("ZTUNNEL_RESOURCE_CPU_REQUEST", "-1"),
        ("AUTHZ_POLICY_INFO_LOGGING", "some"),
        ("METRICS_MAX_LABEL_SETS", "0"),
        ("ADMIN_ADDR", "0.0.0.0:15000"),
        ("READINESS_ADDR", "15021"),
        ("METRICS_IDLE_LABEL_SETS", "0s"),
        ("CONNECTION_TERMINATION_DEADLINE", "5"),
        ("TERMINATION_GRACE_PERIOD_SECONDS", "30s"),
        ("HTTP2_STREAM_WINDOW_SIZE", "1"),
        ("HTTP2_CONNECTION_WINDOW_SIZE", "70000"),
        ("HTTP2_FRAME_SIZE", "99999999"),
        ("POOL_MAX_STREAMS_PER_CONNECTION", "0"),
        ("POOL_UNUSED_RELEASE_TIMEOUT", "0ms"),
    ] {
        let mistakes = parse(&[NODE, (name, value)]).expect_err(&format!("{name}={value}"));
        let [mistake] = mistakes.each() else { panic!("{name}={value}: {mistakes}") };
        assert!(mistake.starts_with(name), "{mistake}");
    }
}

#[test]
fn all_mistakes_are_told_at_once() {
    let mistakes =
        parse(&[("LOG_FORMAT", "xml"), ("SECRET_TTL", "x"), ("FAKE_CA", "true")]).unwrap_err();
    assert_eq!(mistakes.each().len(), 4, "{mistakes}");
}

#[test]
fn what_is_missing_in_this_version_is_an_error_and_not_ignored() {
    for (name, value) in [("UNSTABLE_ENABLE_SOCKS5", "true"), ("FAKE_CA", "true")] {
        let mistakes = parse(&[NODE, (name, value)]).expect_err(name);
        let [mistake] = mistakes.each() else { panic!("{name}: {mistakes}") };
        assert!(mistake.starts_with(name), "{mistake}");
        assert!(mistake.ends_with("is not supported by this version"), "{mistake}");
    }
    with(&[("PROXY_MODE", "shared"), ("XDS_ON_DEMAND", "FALSE"), ("LOCAL_XDS", "")]);
}

#[test]
fn a_name_that_is_almost_ours_is_warned_about() {
    let config = with(&[("XDS_ADRESS", "https://x"), ("TRUST_DOMAINS", "y"), ("HOME", "/")]);
    assert_eq!(config.warnings.len(), 2, "{:?}", config.warnings);
    assert!(config.warnings.iter().any(|warning| warning.contains("was XDS_ADDRESS meant?")));
}

#[test]
fn yaml_stands_behind_the_environment() {
    let yaml = "{discoveryAddress: 'istiod.two:15012', proxyAdminPort: 15999, concurrency: 3}";
    let mesh = "defaultConfig: {statsPort: 15888, discoveryAddress: 'istiod.one:15012'}";
    let of = |pairs: &[(&str, &str)]| {
        let pairs = pairs.iter().copied().chain([NODE, ("PROXY_CONFIG", yaml)]);
        Config::parse(&Raw::from_pairs(pairs).with_mesh(mesh)).unwrap()
    };
    let config = of(&[]);
    assert_eq!(
        config.source.xds.as_ref().unwrap().address.to_string(),
        "https://istiod.two:15012/"
    );
    assert_eq!(config.ca.address.host(), Some("localhost"), "it is about discovery only");
    assert_eq!(config.admin.admin.to_string(), "127.0.0.1:15999");
    assert_eq!(config.admin.admin_v6.unwrap().to_string(), "[::1]:15999");
    assert_eq!(config.admin.metrics.to_string(), "[::]:15888");
    assert_eq!(config.worker_threads, 3);
    let config = of(&[("XDS_ADDRESS", "istiod.env:15012"), ("ZTUNNEL_WORKER_THREADS", "5")]);
    assert_eq!(config.source.xds.as_ref().unwrap().address.host(), Some("istiod.env"));
    assert_eq!(config.worker_threads, 5);
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
}

#[test]
fn a_mistake_in_yaml_names_its_origin() {
    let mistakes = parse(&[NODE, ("PROXY_CONFIG", "discoveryAddress: 'http://plain:15010'")]);
    let mistakes = mistakes.unwrap_err();
    let [mistake] = mistakes.each() else { panic!("{mistakes}") };
    assert!(mistake.starts_with("XDS_ADDRESS=\"http://plain:15010\" (of PROXY_CONFIG): "));
    let mistakes = parse(&[NODE, ("PROXY_CONFIG", "statsPort: 0")]).unwrap_err();
    assert!(mistakes.each()[0].starts_with("statsPort=\"0\" (of PROXY_CONFIG)"), "{mistakes}");
    let mistakes = parse(&[("PROXY_CONFIG", "[")]).unwrap_err();
    assert_eq!(mistakes.each().len(), 2, "{mistakes}");
}

#[test]
fn metadata_is_read_like_the_environment() {
    let yaml = "proxyMetadata: {CLUSTER_ID: yaml, ISTIO_META_OTHER: x}";
    let config = with(&[("PROXY_CONFIG", yaml), ("CLUSTER_ID", "plain")]);
    assert_eq!(config.node.cluster, "yaml");
    let config = with(&[("PROXY_CONFIG", yaml), ("ISTIO_META_CLUSTER_ID", "env")]);
    assert_eq!(config.node.cluster, "env");
}

#[test]
fn what_operators_see_can_be_set() {
    let config = with(&[
        ("AUTHZ_POLICY_INFO_LOGGING", "true"),
        ("METRICS_MAX_LABEL_SETS", "7"),
        ("METRICS_IDLE_LABEL_SETS", "1h30m"),
        ("ENABLE_RESPONSE_BAGGAGE", "false"),
        ("ADMIN_ADDR", "127.0.0.1:16000"),
        ("STATS_ADDR", "127.0.0.1:16020"),
        ("READINESS_ADDR", "[::1]:16021"),
    ]);
    assert_eq!(config.telemetry.policy_log, telemetry::PolicyLog::Info);
    assert_eq!(config.telemetry.series.most, 7);
    assert_eq!(config.telemetry.series.idle, Duration::from_secs(5400));
    assert_eq!(config.proxy.response_baggage, crate::proxy::ResponseBaggage::Withheld);
    let admin = config.admin;
    assert_eq!(admin.admin.to_string(), "127.0.0.1:16000");
    assert_eq!(admin.admin_v6, None);
    assert_eq!(admin.metrics.to_string(), "127.0.0.1:16020");
    assert_eq!(admin.ready.to_string(), "[::1]:16021");
}

#[test]
fn our_own_pod_needs_three_names() {
    let names =
        [("POD_NAME", "z-1"), ("POD_NAMESPACE", "istio-system"), ("SERVICE_ACCOUNT", "ztunnel")];
    let config = with(&[names[0], names[1], names[2], ("TRUST_DOMAIN", "td")]);
    let own = config.own_pod.unwrap();
    assert_eq!(own.identity.to_string(), "spiffe://td/ns/istio-system/sa/ztunnel");
    assert_eq!(own.name, "z-1");
    assert_eq!(with(&names[..2]).own_pod, None);
    let mistakes = parse(&[NODE, names[0], names[1], ("SERVICE_ACCOUNT", "a/b")]).unwrap_err();
    assert!(mistakes.each()[0].starts_with("SERVICE_ACCOUNT=\"a/b\""), "{mistakes}");
}

#[test]
fn the_summary_does_not_show_the_token() {
    let config = with(&[("AUTH_TOKEN", "eyJhbGciOi.secret.token")]);
    let summary = config.summary().to_string();
    assert!(!summary.contains("secret.token"), "{summary}");
    assert!(summary.contains("given literally"), "{summary}");
}

#[test]
fn what_is_set_reaches_its_room() {
    let config = with(&[
        ("NETWORK", "near"),
        ("ALT_CA_HOSTNAME", "ca.example"),
        ("CA_ROOT_CA", "/run/ca.pem"),
        ("PREFERED_SERVICE_NAMESPACE", "shared"),
        ("LOCALHOST_APP_TUNNEL", "false"),
        ("INPOD_PORT_REUSE", "false"),
        ("INPOD_LISTENERS", "own"),
        ("INSTANCE_IP", "10.9.9.9"),
        ("POOL_MAX_STREAMS_PER_CONNECTION", "7"),
        ("HTTP2_STREAM_WINDOW_SIZE", "100000"),
        ("HTTP2_CONNECTION_WINDOW_SIZE", "200000"),
    ]);
    assert_eq!(&*config.proxy.network, "near");
    assert_eq!(config.ca.alt_hostname.as_deref(), Some("ca.example"));
    assert_eq!(config.ca.root, RootSource::File("/run/ca.pem".into()));
    assert_eq!(config.source.xds.as_ref().unwrap().alt_hostname, None, "it is about the CA only");
    assert_eq!(config.proxy.dns.preferred_namespace.as_deref(), Some("shared"));
    assert_eq!(config.proxy.app_tunnel, crate::proxy::AppTunnel::PodAddress);
    assert_eq!(config.proxy.port_use, netns::PortUse::Alone);
    assert_eq!(workloads(&config).handover, crate::workloads::Handover::Own);
    assert_eq!(config.node.instance_ip, "10.9.9.9");
    assert_eq!(config.proxy.hbone.streams_per_connection, 7);
    assert_eq!(config.proxy.hbone.stream_window, 100_000);
    assert_eq!(config.proxy.hbone.connection_window, 200_000);
}

fn workloads(config: &Config) -> &crate::workloads::Settings {
    let Mode::Shared(settings) = &config.mode else { panic!("{:?}", config.mode) };
    settings
}

/// Istio's times, of which agents and their users know.
#[test]
fn what_cannot_be_set_is_as_in_istio() {
    let config = with(&[]);
    let workloads = workloads(&config);
    assert_eq!(workloads.retry_every, Duration::from_secs(5));
    assert!(workloads.start_deadline < Duration::from_secs(5), "agents wait so long");
    assert_eq!(config.proxy.hbone.ping_interval, Duration::from_secs(10));
    assert_eq!(config.proxy.hbone.ping_deadline, Duration::from_secs(20));
    assert_eq!(config.proxy.hbone.streams_per_connection, 100);
    assert_eq!(config.proxy.hbone.idle_release, Duration::from_secs(300));
    assert_eq!(config.proxy.tcp.keepalive.unwrap().time, Duration::from_secs(180));
}
