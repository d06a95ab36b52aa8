//! Where the API server keeps things. PURE.

/// The collection of all namespaces.
pub const NAMESPACES: &str = "/api/v1/namespaces";
/// The collection of all nodes.
pub const NODES: &str = "/api/v1/nodes";

/// A namespace.
#[must_use]
pub fn namespace(name: &str) -> String {
    format!("{NAMESPACES}/{name}")
}

/// A collection of the core API in a namespace, for example `pods` or `services`.
#[must_use]
pub fn core(namespace: &str, plural: &str) -> String {
    format!("{NAMESPACES}/{namespace}/{plural}")
}

/// A pod.
#[must_use]
pub fn pod(namespace: &str, name: &str) -> String {
    format!("{NAMESPACES}/{namespace}/pods/{name}")
}

/// A collection of a named group in a namespace, for example `apps/v1`, `daemonsets`.
#[must_use]
pub fn group(group_version: &str, namespace: &str, plural: &str) -> String {
    format!("/apis/{group_version}/namespaces/{namespace}/{plural}")
}

/// The network policies of a namespace.
#[must_use]
pub fn network_policies(namespace: &str) -> String {
    group("networking.k8s.io/v1", namespace, "networkpolicies")
}

/// The authorization policies of a namespace.
#[must_use]
pub fn authorization_policies(namespace: &str) -> String {
    group("security.istio.io/v1", namespace, "authorizationpolicies")
}

/// The peer authentications of a namespace.
#[must_use]
pub fn peer_authentications(namespace: &str) -> String {
    group("security.istio.io/v1", namespace, "peerauthentications")
}

/// Adds a query; `pairs` are encoded.
#[must_use]
pub fn with_query(path: &str, pairs: &[(&str, &str)]) -> String {
    let encoded: Vec<String> =
        pairs.iter().map(|(key, value)| format!("{}={}", encode(key), encode(value))).collect();
    format!("{path}?{}", encoded.join("&"))
}

/// RFC 3986: all but the unreserved characters.
fn encode(text: &str) -> String {
    let keep = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| if keep(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_encoded() {
        let path = with_query(NODES, &[("labelSelector", "app in (a,b)"), ("limit", "1")]);
        assert_eq!(path, "/api/v1/nodes?labelSelector=app%20in%20%28a%2Cb%29&limit=1");
    }
}
