//! Settings of Istio's ztunnel for what this version does not have.

use super::raw::Reader;

/// A setting, the value that asks for nothing we lack, and what it is about.
const SETTINGS: &[(&str, &str, &str)] = &[
    ("INPOD_ENABLED", "true", "working outside of pods' namespaces"),
    ("FAKE_CA", "false", "made-up certificates"),
    ("UNSTABLE_ENABLE_SOCKS5", "false", "the SOCKS listener"),
    ("TRANSPARENT_NETWORK_POLICIES", "false", "dialling peers at the application's port"),
];

pub(super) fn check(reader: &mut Reader<'_>) {
    for (name, harmless, about) in SETTINGS {
        if reader.text(name).is_some_and(|text| !text.eq_ignore_ascii_case(harmless)) {
            reader.mistake(name, &format!("{about} is not supported by this version"));
        }
    }
}
