#![no_main]
//! What a peer says about a client behind a gateway is short and of its own namespace.

use arbitrary::Arbitrary;
use fuzz::tls_world::identity;
use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;
use mesh::Network;
use ztunnel::proxy::fuzzing::claims;

#[derive(Debug, Arbitrary)]
enum Header {
    Baggage(Vec<Member>),
    Text(u8, Vec<u8>),
    Forwarded(std::net::SocketAddr, bool),
    Network(u8),
}

#[derive(Debug, Arbitrary)]
struct Member(u8, Vec<u8>);

const KEYS: [&str; 12] = [
    "k8s.cluster.name",
    "k8s.namespace.name",
    "k8s.deployment.name",
    "k8s.cronjob.name",
    "k8s.pod.name",
    "k8s.job.name",
    "service.name",
    "service.version",
    "cloud.region",
    "cloud.availability_zone",
    "other",
    " k8s.pod.name ",
];

impl Header {
    fn pair(&self) -> (&'static str, Vec<u8>) {
        match self {
            Self::Baggage(members) => {
                let member = |Member(key, value): &Member| {
                    let key = KEYS[usize::from(*key) % KEYS.len()].as_bytes();
                    [key, b"=", value].concat()
                };
                let members: Vec<_> = members.iter().map(member).collect();
                ("baggage", members.join(&b','))
            }
            Self::Text(name, value) => {
                (["baggage", "forwarded", "x-forwarded-network"][usize::from(name % 3)], value.clone())
            }
            Self::Forwarded(addr, true) => ("forwarded", format!("for=\"{addr}\";x=y").into()),
            Self::Forwarded(addr, false) => ("forwarded", format!("for={addr}").into()),
            Self::Network(one) => ("x-forwarded-network", format!("network{}", one % 3).into()),
        }
    }
}

fuzz_target!(|input: Vec<Header>| {
    let mut headers = HeaderMap::new();
    for header in input.iter().take(64) {
        let (name, value) = header.pair();
        let Ok(value) = HeaderValue::from_bytes(&value) else { continue };
        headers.append(HeaderName::from_static(name), value);
    }
    let (own, identity) = (Network::from("network1"), identity());
    let Ok(Some((_, workload))) = claims(&headers, &own, &identity) else { return };
    assert_ne!(workload.network, own);
    assert_eq!((&*workload.namespace, &workload.identity), (identity.namespace(), &identity));
    let texts = [
        &workload.network,
        &workload.cluster,
        &workload.canonical_name,
        &workload.canonical_revision,
        &workload.owner,
        &workload.locality.region,
        &workload.locality.zone,
    ];
    for text in texts {
        assert!(text.len() <= 253 && !text.chars().any(char::is_control), "{text:?}");
    }
});
