//! What goes along with a tunnel, for those who watch. Nothing in it is proved, and
//! nothing here reads it.

use std::fmt::Write as _;
use std::net::SocketAddr;

use http::header::{FORWARDED, HeaderName};
use http::{HeaderMap, HeaderValue};
use mesh::Workload;

use crate::tls::random;

const BAGGAGE: HeaderName = HeaderName::from_static("baggage");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Headers of a request on behalf of `client` at `addr`.
pub(super) fn request(client: &Workload, addr: SocketAddr) -> HeaderMap {
    let mut headers = response(client);
    insert(&mut headers, FORWARDED, &format!("for=\"{addr}\""));
    if let Some(trace) = traceparent() {
        insert(&mut headers, TRACEPARENT, &trace);
    }
    headers
}

/// Headers of the answer on behalf of `server`.
pub(super) fn response(server: &Workload) -> HeaderMap {
    let mut headers = HeaderMap::new();
    insert(&mut headers, BAGGAGE, &baggage(server));
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
    let members: [(&str, &str); 5] = [
        ("k8s.cluster.name", &workload.cluster),
        ("k8s.namespace.name", &workload.namespace),
        ("k8s.pod.name", &workload.name),
        ("service.name", &workload.canonical_name),
        ("service.version", &workload.canonical_revision),
    ];
    let known = members.iter().filter(|(_, value)| !value.is_empty());
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
    use mesh::Identity;

    #[test]
    fn a_request_says_whose_it_is() {
        let workload = Workload {
            canonical_name: "cart".into(),
            ..Workload::new("u", "shop", "cart-1", Identity::new("", "shop", "cart").unwrap())
        };
        let headers = request(&workload, "[fd00::1]:4000".parse().unwrap());
        assert_eq!(
            headers["baggage"],
            "k8s.cluster.name=Kubernetes,k8s.namespace.name=shop,k8s.pod.name=cart-1,\
             service.name=cart"
        );
        assert_eq!(headers["forwarded"], "for=\"[fd00::1]:4000\"");
        let trace = headers["traceparent"].to_str().unwrap();
        let parts: Vec<usize> = trace.split('-').map(str::len).collect();
        assert_eq!(parts, [2, 32, 16, 2], "{trace}");
    }
}
