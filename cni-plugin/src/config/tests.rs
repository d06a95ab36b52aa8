use std::time::Duration;

use super::*;

fn document(rest: &str) -> Result<Document, ConfigError> {
    let config = format!(r#"{{"cniVersion":"1.0.0","name":"net","type":"sluice-cni"{rest}}}"#);
    Document::parse(config.as_bytes())
}

fn ips(prev_result: &str) -> Vec<String> {
    let document = document(&format!(r#","prevResult":{prev_result}"#)).unwrap();
    document.prev_result().unwrap().ips.iter().map(ToString::to_string).collect()
}

#[test]
fn inputs_that_are_no_configuration_have_their_codes() {
    for (input, code, named) in [
        ("", 5, "standard input"),
        (" \n", 5, "standard input"),
        ("{", 6, "JSON"),
        ("[]", 6, "JSON"),
        ("7", 6, "JSON"),
        ("{} {}", 6, "JSON"),
        (r#"{"cniVersion":"1.0.0","type":"t"}"#, 7, "name"),
        (r#"{"cniVersion":"1.0.0","name":"","type":"t"}"#, 7, "name"),
        (r#"{"cniVersion":"1.0.0","name":"../../x","type":"t"}"#, 7, "name"),
        (r#"{"cniVersion":"1.0.0","name":7,"type":"t"}"#, 7, "name"),
        (r#"{"cniVersion":"1.0.0","name":"n"}"#, 7, "type"),
        (r#"{"cniVersion":"1.0.0","name":"n","type":""}"#, 7, "type"),
        (r#"{"cniVersion":"1.0.0","name":"n","type":[]}"#, 7, "type"),
        (r#"{"cniVersion":1,"name":"n","type":"t"}"#, 7, "cniVersion"),
        (r#"{"cniVersion":"9.9.9","name":"n","type":"t"}"#, 1, "9.9.9"),
        (r#"{"cniVersion":"0.2.0","name":"n","type":"t"}"#, 1, "0.2.0"),
        (r#"{"name":"n","type":"t"}"#, 1, "0.1.0"),
    ] {
        let error = Document::parse(input.as_bytes()).unwrap_err();
        assert_eq!(error.code(), code, "{input}: {error}");
        assert!(error.to_string().contains(named), "{input}: {error}");
    }
    assert_eq!(Document::parse(b"\xff\xfe").unwrap_err().code(), 6);
}

#[test]
fn settings_have_defaults_and_tolerate_strangers() {
    let plain = document(r#","capabilities":{"portMappings":true},"agentSocket":null,"new":1"#);
    assert_eq!(plain.unwrap().settings().unwrap(), Settings::default());
    let own = document(
        r#","agentSocket":"/run/x.sock","excludeNamespaces":["a","b"],"timeoutSeconds":60,
            "whenAgentAbsent":"allow-known","logFile":"/x/y.log","logMaxBytes":65536"#,
    );
    assert_eq!(
        own.unwrap().settings().unwrap(),
        Settings {
            agent_socket: "/run/x.sock".into(),
            exclude_namespaces: vec!["a".into(), "b".into()],
            timeout: Duration::from_secs(60),
            when_agent_absent: WhenAgentAbsent::AllowKnown,
            log_file: Some(LogFile { path: "/x/y.log".into(), max_bytes: 65536 }),
        }
    );
}

#[test]
fn settings_of_the_wrong_kind_are_named_with_their_value() {
    let long = format!(r#""/{}""#, "x".repeat(107));
    for (key, value) in [
        ("agentSocket", "7"),
        ("agentSocket", r#""relative.sock""#),
        ("agentSocket", long.as_str()),
        ("excludeNamespaces", r#""kube-system""#),
        ("excludeNamespaces", r#"["a",7]"#),
        ("timeoutSeconds", r#""5""#),
        ("timeoutSeconds", "0"),
        ("timeoutSeconds", "61"),
        ("timeoutSeconds", "2.5"),
        ("timeoutSeconds", "-1"),
        ("whenAgentAbsent", r#""open""#),
        ("whenAgentAbsent", "true"),
        ("logFile", r#""y.log""#),
        ("logFile", r#""/""#),
        ("logFile", "7"),
        ("logMaxBytes", "65535"),
        ("logMaxBytes", r#""1M""#),
    ] {
        let error = document(&format!(r#","{key}":{value}"#)).unwrap().settings().unwrap_err();
        assert_eq!(error.code(), 7, "{error}");
        assert!(error.to_string().starts_with(&format!("{key} is {value}: ")), "{error}");
    }
}

#[test]
fn the_addresses_are_those_of_the_container() {
    for (prev_result, expected) in [
        ("{}", vec![]),
        (r#"{"ips":null,"interfaces":null}"#, vec![]),
        (r#"{"ips":[{"version":"4","address":"10.0.0.7/24"}]}"#, vec!["10.0.0.7"]),
        (r#"{"ips":[{"address":"fd00::7/64","interface":9}]}"#, vec!["fd00::7"]),
        (
            r#"{"interfaces":[{"name":"br0"},{"name":"eth0","sandbox":"/n"},{"sandbox":""}],
                "ips":[{"address":"10.0.0.1/24","interface":0},
                       {"address":"10.0.0.7/24","interface":1},
                       {"address":"10.0.0.8/24","interface":2},
                       {"address":"fd00::7/64","interface":1}]}"#,
            vec!["10.0.0.7", "fd00::7"],
        ),
    ] {
        assert_eq!(ips(prev_result), expected, "{prev_result}");
    }
}

#[test]
fn a_result_that_cannot_be_read_is_refused() {
    for value in [
        "null",
        "[null,null]",
        r#""text""#,
        r#"{"ips":{}}"#,
        r#"{"ips":[{}]}"#,
        r#"{"ips":[{"address":"nowhere"}]}"#,
        r#"{"cniVersion":"0.2.0","ip4":{"ip":"10.0.0.7/24"}}"#,
        r#"{"cniVersion":2}"#,
    ] {
        let document = document(&format!(r#","prevResult":{value}"#)).unwrap();
        let error = document.prev_result().unwrap_err();
        assert_eq!(error.code(), 7, "{value}: {error}");
        assert!(error.to_string().contains("prevResult"), "{error}");
    }
    assert_eq!(document("").unwrap().prev_result().unwrap_err().code(), 7);
}

#[test]
fn the_result_keeps_its_text() {
    let text = r#"{ "cniVersion" : "1.0.0", "b":1.50, "a":123456789012345678901234567890,"é":"\u00e9", "b":2e400 }"#;
    let document = document(&format!(r#","prevResult":{text}"#)).unwrap();
    assert_eq!(document.prev_result().unwrap().raw.get(), text);
}

#[test]
fn versions_for_answers() {
    assert_eq!(asked_version(b"").unwrap(), "1.1.0");
    assert_eq!(asked_version(br#"{"cniVersion":"9.9.9"}"#).unwrap(), "9.9.9");
    assert_eq!(asked_version(b"{").unwrap_err().code(), 6);
    for (input, expected) in
        [("{", "1.1.0"), (r#"{"cniVersion":"0.4.0"}"#, "0.4.0"), (r#"{"cniVersion":7}"#, "1.1.0")]
    {
        assert_eq!(version_for_errors(input.as_bytes()).name(), expected);
    }
}
