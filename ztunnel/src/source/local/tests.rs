use super::*;

fn inline(text: &str) -> Result<View, LocalError> {
    load(&Origin::Inline(text.to_owned()))
}

fn mistakes(text: &str) -> Vec<String> {
    match inline(text).unwrap_err() {
        LocalError::Entries { mistakes, .. } => mistakes.each().to_vec(),
        other => panic!("{other}"),
    }
}

#[test]
fn the_example_shows_every_key_and_is_understood() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/mesh.yaml");
    let view = load(&Origin::File(example.into())).unwrap();
    assert_eq!(view.workloads().count(), 3);
    let cart = view.by_address(&"".into(), "10.0.0.1".parse().unwrap()).unwrap();
    assert_eq!(&**cart.uid(), "Kubernetes//Pod/shop/cart");
    assert_eq!(cart.protocol, mesh::Protocol::Hbone);
    assert_eq!(cart.identity.to_string(), "spiffe://cluster.local/ns/shop/sa/cart");
    let [policy] = &view.policies().collect::<Vec<_>>()[..] else { panic!("one policy") };
    assert_eq!(policy.key().to_string(), "shop/only-till");

    let connection = |source: &str, account: &str, port: u16| mesh::Connection {
        source: source.parse().unwrap(),
        identity: Some(mesh::Identity::new("", "shop", account).unwrap()),
        destination: std::net::SocketAddr::new("10.0.0.1".parse().unwrap(), port),
    };
    let admits = |connection| view.authorize(cart, &connection) == mesh::Decision::Allow;
    assert!(admits(connection("10.0.0.2:1", "till", 8080)));
    assert!(!admits(connection("10.0.0.2:1", "cart", 8080)));
    assert!(!admits(connection("10.0.0.2:1", "till", 8081)));
    assert!(!admits(connection("192.0.2.2:1", "till", 8080)));
}

#[test]
fn an_empty_mesh_is_a_mesh() {
    for text in ["", "{}", "workloads: []", "# nothing"] {
        assert_eq!(inline(text).unwrap().workloads().count(), 0, "{text:?}");
    }
}

#[test]
fn all_mistakes_are_told_at_once_with_entry_and_key() {
    let found = mistakes(
        "
workloads:
  - {uid: a, name: a, namespace: shop, workloadIps: [10.0.0.1]}
  - {uid: b, name: b, namespace: shop, workloadIps: [10.0.0.300]}
  - {uid: c, name: c, namespace: shop, ip: 10.0.0.1}
  - {name: d, namespace: shop}
  - {uid: e, name: e, namespace: shop, protocol: QUIC}
  - {uid: a, name: f, namespace: shop}
  - {uid: g, name: g, namespace: shop, waypoint: {destination: nowhere}}
  - {uid: h, name: h, namespace: shop, authorizationPolicies: [nameless]}
services:
  - {name: s, namespace: shop, hostname: s, vips: [10.0.0.1]}
  - {name: t, namespace: shop, hostname: t, ports: {80000: 1}}
policies:
  - {name: p, namespace: shop, scope: Everywhere, action: Allow}
  - {name: q, namespace: shop, scope: Global, action: Deny, rules: [[[{sourceIps: [10.0.0.0/x]}]]]}
",
    );
    let expected = [
        ("workloads[1] b: ", "workloadIps"),
        ("workloads[2] c: ", "`ip`"),
        ("workloads[3] nameless: ", "`uid`"),
        ("workloads[4] e: ", "protocol: unknown variant `QUIC`"),
        ("workloads[5] a: ", "uid"),
        ("workloads[6] g: ", "waypoint.destination"),
        ("workloads[7] h: ", "nameless"),
        ("services[0] s: ", "vips"),
        ("services[1] t: ", "ports"),
        ("policies[0] p: ", "scope: unknown variant `Everywhere`"),
        ("policies[1] q: ", "sourceIps"),
    ];
    for (entry, word) in expected {
        let told = |mistake: &&String| mistake.starts_with(entry) && mistake.contains(word);
        assert!(found.iter().find(told).is_some(), "{entry}{word} is not in {found:#?}");
    }
    assert_eq!(found.len(), expected.len(), "{found:#?}");
}

#[test]
fn what_is_no_such_file_or_no_such_text_is_told_with_its_origin() {
    let path = "/nonexistent/mesh.yaml";
    let error = load(&Origin::File(path.into())).unwrap_err().to_string();
    assert!(error.contains(path), "{error}");
    for text in ["workload: []", "- a", "workloads: 7", "a: [b"] {
        let error = inline(text).unwrap_err().to_string();
        assert!(error.contains("in LOCAL_XDS"), "{error}");
    }
}
