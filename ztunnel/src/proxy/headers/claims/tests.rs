use proptest::prelude::*;

use super::*;

fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(name, HeaderValue::from_str(value).unwrap());
    }
    headers
}

fn identity() -> Identity {
    Identity::new("", "shop", "web").unwrap()
}

const ALL: &str = "k8s.cluster.name=c2,k8s.namespace.name=shop,k8s.deployment.name=web,\
    service.name=web,service.version=v2,cloud.region=r1,cloud.availability_zone=z1";

#[test]
fn a_client_behind_a_gateway_is_who_it_says() {
    let headers = headers(&[
        (NETWORK, "far"),
        (BAGGAGE, ALL),
        (FORWARDED, "for=\"[fd00::1]:4000\";host=cart.shop.svc.cluster.local"),
    ]);
    let claims = claims(&headers, &"near".into(), &identity()).unwrap().unwrap();
    assert_eq!(claims.client, Some("[fd00::1]:4000".parse().unwrap()));
    let workload = claims.workload;
    let names = [&workload.owner, &workload.cluster, &workload.canonical_revision];
    assert_eq!(names.map(|name| &**name), ["web", "c2", "v2"]);
    assert_eq!(*workload.network, *"far");
    assert_eq!([&*workload.locality.region, &workload.locality.zone], ["r1", "z1"]);
    assert_eq!(workload.identity, identity(), "that one is proved");
}

#[test]
fn nobody_else_is_asked() {
    let own: Network = "near".into();
    assert_eq!(claims(&headers(&[(BAGGAGE, ALL)]), &own, &identity()), Ok(None));
    let same = headers(&[(BAGGAGE, ALL), (NETWORK, "near")]);
    assert_eq!(claims(&same, &own, &identity()), Ok(None));
}

/// Found by the fuzz target `headers`: a network of one tab went into logs and labels.
#[test]
fn the_network_of_a_stranger_is_a_plain_name() {
    for name in ["\t", "a b", "a,b", "a\"b", "a;b"] {
        let headers = headers(&[(NETWORK, name)]);
        let refused = Err(ClaimError::Bytes(NETWORK));
        assert_eq!(claims(&headers, &"near".into(), &identity()), refused, "{name:?}");
    }
}

#[test]
fn a_stranger_cannot_speak_for_another_namespace() {
    let headers = headers(&[(NETWORK, "far"), (BAGGAGE, "k8s.namespace.name=bank")]);
    assert_eq!(claims(&headers, &"".into(), &identity()), Err(ClaimError::Namespace));
}

#[test]
fn what_is_malformed_is_not_believed() {
    let long = "x".repeat(254);
    let value = format!("service.name={long}");
    let padded = format!("a={}", "x".repeat(5000));
    let many = "a=b,".repeat(65);
    for (name, text) in [
        (BAGGAGE, "service.name"),
        (BAGGAGE, "service.name=a b"),
        (BAGGAGE, "service.name=\"a\""),
        (BAGGAGE, "service.name=a\\b"),
        (BAGGAGE, "service.name=a,service.name=b"),
        (BAGGAGE, "k8s.pod.name=a,k8s.job.name=b"),
        (BAGGAGE, &value),
        (BAGGAGE, &padded),
        (BAGGAGE, &many),
        (FORWARDED, "10.0.0.1:80"),
        (FORWARDED, "for=10.0.0.1"),
        (FORWARDED, "for=\"10.0.0.1:80"),
        (FORWARDED, "for=\"[fe80::1%1]:80\""),
        (FORWARDED, "for=10.0.0.1:80,for=10.0.0.2:80"),
        (FORWARDED, "for=10.0.0.1:80;for=10.0.0.2:80"),
        (FORWARDED, "host=a"),
        (NETWORK, &long),
    ] {
        let mut all = vec![(name.clone(), text)];
        if name != NETWORK {
            all.push((NETWORK, "far"));
        }
        let found = claims(&headers(&all), &"near".into(), &identity());
        assert!(found.is_err(), "{name}: {text} gave {found:?}");
    }
    let unnamed = headers(&[(NETWORK, "")]);
    let found = claims(&unnamed, &"near".into(), &identity()).unwrap().unwrap();
    assert_eq!(&*found.workload.network, "", "a network may have no name");
    let twice = headers(&[(NETWORK, "far"), (NETWORK, "farther")]);
    let found = claims(&twice, &"near".into(), &identity());
    assert_eq!(found, Err(ClaimError::Twice(NETWORK)));
}

#[test]
fn what_is_harmless_is_read() {
    let of = |text: &str| baggage(&headers(&[(BAGGAGE, text)]));
    let service = |name: &str| Baggage { service: Some(name.to_owned()), ..Baggage::default() };
    assert_eq!(of(""), Ok(Baggage::default()));
    assert_eq!(of("service.name=,other=1"), Ok(Baggage::default()));
    assert_eq!(of(" service.name = a ; secure , , x=y"), Ok(service("a")));
    assert_eq!(of("service.name=a=b"), Ok(service("a=b")));
}

proptest! {
    #[test]
    fn any_headers_are_read_or_refused(
        values in prop::collection::vec((0..3_usize, prop::collection::vec(any::<u8>(), 0..200)), 0..6)
    ) {
        let names = [NETWORK, BAGGAGE, FORWARDED];
        let mut headers = HeaderMap::new();
        for (name, value) in values {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                headers.append(&names[name], value);
            }
        }
        let _ = claims(&headers, &"near".into(), &identity());
    }

    #[test]
    fn likely_headers_are_read_or_refused(
        text in "(k8s\\.(pod|job|cluster|namespace)\\.name|service\\.name|x)?[=,; \"a-z]{0,40}",
        client in "(for|FOR|host)?[=;,\"\\[\\]:.0-9a-f%]{0,40}"
    ) {
        let headers = headers(&[(NETWORK, "far"), (BAGGAGE, &text), (FORWARDED, &client)]);
        if let Ok(Some(claims)) = claims(&headers, &"near".into(), &identity()) {
            prop_assert!(claims.workload.name().len() <= LONGEST_VALUE);
            prop_assert_eq!(&*claims.workload.namespace, "shop");
        }
    }
}

#[test]
fn the_service_that_was_dialled_is_named_beside_the_client() {
    for (text, expected) in [
        ("for=\"10.0.0.1:80\";host=cart.shop.svc", Some("cart.shop.svc")),
        ("for=\"10.0.0.1:80\"", None),
        ("host=a b", None),
        ("host", None),
    ] {
        assert_eq!(service_named(&headers(&[(FORWARDED, text)])), expected, "{text}");
    }
}
