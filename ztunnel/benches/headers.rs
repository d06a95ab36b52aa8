//! What it costs to read what a peer says at the beginning of a stream.

use std::net::IpAddr;

use divan::{Bencher, black_box};
use http::{HeaderMap, HeaderValue};
use mesh::{Identity, Network};
use ztunnel::proxy::fuzzing::{claims, target};

/// As a ztunnel of Istio sends it.
const BAGGAGE: &str = "k8s.cluster.name=Kubernetes,k8s.namespace.name=shop,\
    k8s.deployment.name=cart,service.name=cart,service.version=v1,\
    cloud.region=north,cloud.availability_zone=north-1";

fn main() {
    divan::main();
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let value = |text: &str| HeaderValue::from_str(text).expect("it has plain bytes only");
    pairs.iter().map(|(name, text)| (http::HeaderName::from_static(name), value(text))).collect()
}

fn read(bencher: Bencher<'_, '_>, headers: &HeaderMap, expected: Result<bool, ()>) {
    let own = Network::from("near");
    let identity = Identity::new("", "shop", "cart").expect("a good name");
    let found = claims(headers, &own, &identity).map(|client| client.is_some());
    assert_eq!(found.map_err(drop), expected);
    bencher.bench(|| claims(black_box(headers), &own, &identity).is_ok());
}

/// Nearly every stream: nothing is read of who asks.
#[divan::bench]
fn of_the_own_network(bencher: Bencher<'_, '_>) {
    let headers = headers(&[("baggage", BAGGAGE), ("forwarded", "for=\"10.0.0.1:40000\"")]);
    read(bencher, &headers, Ok(false));
}

#[divan::bench]
fn from_behind_a_gateway(bencher: Bencher<'_, '_>) {
    let headers = headers(&[
        ("baggage", BAGGAGE),
        ("forwarded", "for=\"10.0.0.1:40000\";host=cart.shop.svc.cluster.local"),
        ("x-forwarded-network", "far"),
    ]);
    read(bencher, &headers, Ok(true));
}

/// The longest that is looked at, by somebody who means harm.
#[divan::bench]
fn with_too_many_members(bencher: Bencher<'_, '_>) {
    let many = "a=b,".repeat(1000);
    let headers = headers(&[("baggage", &many), ("x-forwarded-network", "far")]);
    read(bencher, &headers, Err(()));
}

#[divan::bench(args = ["10.0.0.2:8080", "[fd00::2]:8080"])]
fn authority(bencher: Bencher<'_, '_>, text: &str) {
    let local: IpAddr =
        if text.starts_with('[') { "fd00::2" } else { "10.0.0.2" }.parse().expect("an address");
    assert!(target(Some(text), local).is_ok());
    bencher.bench(|| target(black_box(Some(text)), local));
}
