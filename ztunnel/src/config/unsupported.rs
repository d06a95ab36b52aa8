//! Settings of Istio's ztunnel for what this version does not have.

use super::raw::Reader;

/// A setting, the value that asks for nothing we lack, and what it is about.
const SETTINGS: [(&str, &str, &str); 18] = [
    ("ENABLE_PROXY", "true", "a ztunnel that proxies nothing"),
    ("INPOD_ENABLED", "true", "working outside of pods' namespaces"),
    ("PROXY_MODE", "shared", "the dedicated mode, one proxy per workload,"),
    ("PROXY_WORKLOAD_INFO", "", "the dedicated mode, one proxy per workload,"),
    ("XDS_ON_DEMAND", "false", "asking for workloads on demand"),
    ("LOCAL_XDS", "", "a mesh view from a file"),
    ("LOCAL_XDS_PATH", "", "a mesh view from a file"),
    ("FAKE_CA", "false", "made-up certificates"),
    ("UNSTABLE_ENABLE_SOCKS5", "false", "the SOCKS listener"),
    ("CRL_PATH", "", "revocation lists"),
    ("TLS12_ENABLED", "false", "TLS 1.2"),
    ("COMPLIANCE_POLICY", "", "choosing cryptography by policy"),
    ("AUTHZ_POLICY_INFO_LOGGING", "false", "logging policies per connection"),
    ("PREFERED_SERVICE_NAMESPACE", "", "services"),
    ("ISTIO_META_DNS_CAPTURE", "false", "the DNS proxy"),
    ("ISTIO_META_DNS_PROXY_ADDR", "", "the DNS proxy"),
    ("PROXY_CONFIG", "", "settings as YAML"),
    ("ZTUNNEL_CPU_LIMIT", "", "deriving threads from a CPU limit"),
];

/// The same for families of names.
const PREFIXES: [(&str, &str); 3] = [
    ("XDS_HEADER_", "headers of one's own to the control plane"),
    ("CA_HEADER_", "headers of one's own to the certificate service"),
    ("ISTIO_METAJSON_", "metadata of one's own"),
];

pub(super) fn check(reader: &mut Reader<'_>) {
    for (name, harmless, about) in SETTINGS {
        if reader.text(name).is_some_and(|text| !text.eq_ignore_ascii_case(harmless)) {
            reader.mistake(name, &format!("{about} is not supported by this version"));
        }
    }
    for (prefix, about) in PREFIXES {
        for name in reader.with_prefix(prefix) {
            reader.mistake(&name, &format!("{about} is not supported by this version"));
        }
    }
}
