//! What goes along with a tunnel, for those who watch. Nothing in it is proved, and no
//! decision is made from it.

mod claims;

use std::fmt::Write as _;
use std::net::SocketAddr;

use http::header::{FORWARDED, HeaderName};
use http::{HeaderMap, HeaderValue};
use mesh::{Service, Workload, WorkloadKind};

use super::context::ResponseBaggage;
use crate::tls::random;

pub(super) use claims::{Claims, claims, service_named};

const BAGGAGE: HeaderName = HeaderName::from_static("baggage");
/// The network that a client is in, when there is a gateway between us.
const NETWORK: HeaderName = HeaderName::from_static("x-forwarded-network");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Headers of a request on behalf of `client` at `addr`, that dialled `service`.
pub(super) fn request(client: &Workload, addr: SocketAddr, service: Option<&Service>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    insert(&mut headers, BAGGAGE, &baggage(client));
    let host = service.map(|service| service.key.hostname());
    let host = host.filter(|host| host.bytes().all(claims::plain));
    let host = host.map(|host| format!(";host={host}")).unwrap_or_default();
    insert(&mut headers, FORWARDED, &format!("for=\"{addr}\"{host}"));
    if let Some(trace) = traceparent() {
        insert(&mut headers, TRACEPARENT, &trace);
    }
    headers
}

/// The same request, from the network `own` into the one behind a gateway. An empty name is
/// one too: that of a mesh whose first network never needed another.
pub(super) fn beyond_gateway(mut headers: HeaderMap, own: &str) -> HeaderMap {
    insert(&mut headers, NETWORK, own);
    headers
}

/// Headers of the answer on behalf of `server`.
pub(super) fn response(server: &Workload, wanted: ResponseBaggage) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if wanted == ResponseBaggage::Sent {
        insert(&mut headers, BAGGAGE, &baggage(server));
    }
    headers
}

/// A value that HTTP cannot carry is left out: it comes from the control plane, and a
/// connection must not fail for it.
fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

fn baggage(workload: &Workload) -> String {
    let owner = if workload.owner.is_empty() { workload.name() } else { &workload.owner };
    let kind = match workload.kind {
        WorkloadKind::Deployment => "k8s.deployment.name",
        WorkloadKind::CronJob => "k8s.cronjob.name",
        WorkloadKind::Job => "k8s.job.name",
        WorkloadKind::Pod => "k8s.pod.name",
    };
    let members: [(&str, &str); 7] = [
        ("k8s.cluster.name", &workload.cluster),
        ("k8s.namespace.name", &workload.namespace),
        (kind, owner),
        ("service.name", &workload.canonical_name),
        ("service.version", &workload.canonical_revision),
        ("cloud.region", &workload.locality.region),
        ("cloud.availability_zone", &workload.locality.zone),
    ];
    // A value with a comma in it would be two members to whoever reads it.
    let fine = |value: &str| !value.is_empty() && value.bytes().all(claims::plain);
    let known = members.iter().filter(|(_, value)| fine(value));
    known.map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

/// W3C trace context: not sampled, and the first of its trace.
fn traceparent() -> Option<String> {
    let bytes: [u8; 24] = random().ok()?;
    let mut text = String::from("00-");
    for (index, byte) in bytes.iter().enumerate() {
        if index == 16 {
            text.push('-');
        }
        let _ = write!(text, "{byte:02x}");
    }
    text.push_str("-00");
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh::{Identity, Locality, ServiceKey};

    fn cart() -> Workload {
        let identity = Identity::new("", "shop", "cart").unwrap();
        Workload::new("u", "shop", "cart-1", identity).with(|it| it.canonical_name = "cart".into())
    }

    #[test]
    fn a_request_says_whose_it_is() {
        let headers = request(&cart(), "[fd00::1]:4000".parse().unwrap(), None);
        assert_eq!(
            headers["baggage"],
            "k8s.cluster.name=Kubernetes,k8s.namespace.name=shop,k8s.deployment.name=cart-1,\
             service.name=cart"
        );
        assert_eq!(headers["forwarded"], "for=\"[fd00::1]:4000\"");
        let trace = headers["traceparent"].to_str().unwrap();
        let parts: Vec<usize> = trace.split('-').map(str::len).collect();
        assert_eq!(parts, [2, 32, 16, 2], "{trace}");
    }

    #[test]
    fn a_request_says_what_was_dialled() {
        let service = Service::new(ServiceKey::new("shop", "cart.shop.svc").unwrap());
        let headers = request(&cart(), "10.0.0.1:1".parse().unwrap(), Some(&service));
        assert_eq!(headers["forwarded"], "for=\"10.0.0.1:1\";host=cart.shop.svc");
    }

    #[test]
    fn an_answer_says_whose_it_is_where_that_is_wanted() {
        let locality = Locality { region: "r".into(), zone: "z".into(), ..Locality::default() };
        let server = cart().with(|it| {
            it.kind = WorkloadKind::CronJob;
            it.owner = "tidy".into();
            it.canonical_revision = "v1".into();
            it.locality = locality.into();
        });
        assert_eq!(
            response(&server, ResponseBaggage::Sent)["baggage"],
            "k8s.cluster.name=Kubernetes,k8s.namespace.name=shop,k8s.cronjob.name=tidy,\
             service.name=cart,service.version=v1,cloud.region=r,cloud.availability_zone=z"
        );
        assert!(response(&server, ResponseBaggage::Withheld).is_empty());
    }

    #[test]
    fn a_name_cannot_pass_for_another_member() {
        let odd = cart().with(|it| it.cluster = "a,k8s.pod.name=b".into());
        let baggage = &response(&odd, ResponseBaggage::Sent)["baggage"];
        assert_eq!(baggage, "k8s.namespace.name=shop,k8s.deployment.name=cart-1,service.name=cart");
    }
}
