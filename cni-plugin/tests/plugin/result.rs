//! The result of ADD: that of the plugins before, in the version of the configuration.

use std::collections::BTreeMap;

use plugin_api::Outcome;
use serde_json::json;
use serde_json::value::RawValue;

use crate::agent::Agent;
use crate::runtime::Pod;

/// Keys, numbers and spacing that no decoder of ours would keep.
#[test]
fn prev_result_passes_through_byte_for_byte_in_every_version() {
    let results = [
        ("0.3.1", r#"{"cniVersion":"0.3.1","ips":[{"version":"4","address":"10.0.0.7/24"}]}"#),
        (
            "0.4.0",
            r#"{ "cniVersion" : "0.4.0", "interfaces":[{"name":"br0"},{"name":"eth0","mac":"aa",
                "sandbox":"/n"}], "ips":[{"version":"6","address":"fd00::7/64","interface":1}] }"#,
        ),
        (
            "1.0.0",
            r#"{"z":1.50,"a":123456789012345678901234567890,"b":2e400,"t":"\u00e9é",
                "dns":{"nameservers":["10.0.0.1"]},"cniVersion":"1.0.0","ips":null}"#,
        ),
        (
            "1.1.0",
            r#"{"cniVersion":"1.1.0","interfaces":[{"name":"e","mtu":9000,"socketPath":"/s",
                "pciID":"0:1"}],"routes":[{"dst":"0.0.0.0/0","gw":"10.0.0.1","mtu":1400,
                "advmss":1,"priority":7,"table":5,"scope":0}],"unknown":{"deep":[{}]}}"#,
        ),
    ];
    for (version, result) in results {
        let pod = Pod::new();
        let agent = Agent::answering(&pod.socket(), Outcome::Captured);
        let config = format!(
            r#"{{"cniVersion":"{version}","name":"n","type":"sluice-cni","agentSocket":{:?},
                "prevResult": {result} }}"#,
            pod.socket(),
        );
        let outcome = pod.call_with("ADD", config.as_bytes());
        assert!(outcome.success, "{}", outcome.stdout);
        assert_eq!(outcome.stdout, result);
        agent.asked();
    }
}

/// A primary plugin that does not follow the configuration's version, or names none.
#[test]
fn the_result_is_of_the_configurations_version() {
    const ODD: &str = r#""n":123456789012345678901234567890.10,"later":{"b":2e400,"a":[{}]}"#;
    let result = |version: &str, ips: &str| {
        let version = match version {
            "" => String::new(),
            version => format!(r#""cniVersion":"{version}","#),
        };
        format!(r#"{{{version}"interfaces":[{{"name":"e","mtu":9000}}],"ips":{ips},{ODD}}}"#)
    };
    let plain = r#"[{"address":"10.0.0.7/24","gateway":"10.0.0.1"},{"address":"fd00::7/64"}]"#;
    let telling = r#"[{"address":"10.0.0.7/24","gateway":"10.0.0.1","version":"4"},{"address":"fd00::7/64","version":"6"}]"#;
    for (found, ips, wanted, expected) in [
        ("", plain, "1.0.0", plain),
        ("", plain, "0.4.0", telling),
        ("0.3.1", telling, "0.4.0", telling),
        ("0.4.0", telling, "1.0.0", plain),
        ("0.3.1", telling, "1.1.0", plain),
        ("1.1.0", plain, "0.3.1", telling),
        ("1.1.0", plain, "1.0.0", plain),
        ("1.0.0", "null", "1.1.0", "null"),
    ] {
        let pod = Pod::new();
        let agent = Agent::answering(&pod.socket(), Outcome::Captured);
        let config = format!(
            r#"{{"cniVersion":"{wanted}","name":"n","type":"sluice-cni","agentSocket":{:?},
                "prevResult":{}}}"#,
            pod.socket(),
            result(found, ips),
        );
        let outcome = pod.call_with("ADD", config.as_bytes());
        assert!(outcome.success, "{}", outcome.stdout);
        let keys =
            |text: &str| -> BTreeMap<String, Box<RawValue>> { serde_json::from_str(text).unwrap() };
        let (printed, expected) = (keys(&outcome.stdout), keys(&result(wanted, expected)));
        let text = |(key, value): (String, Box<RawValue>)| (key, value.get().to_owned());
        let [printed, expected] =
            [printed, expected].map(|keys| keys.into_iter().map(text).collect::<BTreeMap<_, _>>());
        assert_eq!(printed, expected, "from {found:?} to {wanted}");
        agent.asked();
    }
}

#[test]
fn a_result_of_an_unknown_version_is_refused() {
    let result = json!({"cniVersion": "0.2.0", "ip4": {"ip": "10.0.0.7/24"}});
    let pod = Pod::new().with_key("prevResult", result);
    let agent = Agent::answering(&pod.socket(), Outcome::Captured);
    pod.call("ADD").assert_error(7, &["prevResult", "0.2.0", "not supported"]);
    agent.assert_not_asked();
}
