//! What is wrong with the call itself, and VERSION.

use plugin_api::Outcome as Answered;
use serde_json::{Value, json};

use crate::agent::Agent;
use crate::runtime::{Outcome, Pod};

/// Those about one container.
const VERBS: [&str; 3] = ["ADD", "DEL", "CHECK"];
const ALL_VERBS: [&str; 5] = ["ADD", "DEL", "CHECK", "STATUS", "GC"];

#[test]
fn a_closed_standard_input_is_an_empty_one() {
    for verb in ALL_VERBS {
        Pod::new().call_without_stdin(verb).assert_error(5, &["standard input"]);
    }
    assert!(Pod::new().call_without_stdin("VERSION").success);
}

#[test]
fn an_unknown_command_is_named() {
    Pod::new().call("FOO").assert_error(4, &["CNI_COMMAND", "FOO"]);
    Pod::new().call("add").assert_error(4, &["CNI_COMMAND", "add"]);
}

#[test]
fn without_a_command_its_variable_is_named() {
    Pod::new().call("").assert_error(4, &["CNI_COMMAND"]);
}

#[test]
fn a_missing_variable_is_named() {
    for verb in VERBS {
        for variable in ["CNI_CONTAINERID", "CNI_IFNAME"] {
            Pod::new().with(variable, "").call(verb).assert_error(4, &[variable]);
        }
    }
    for verb in ["ADD", "CHECK"] {
        Pod::new().with("CNI_NETNS", "").call(verb).assert_error(4, &["CNI_NETNS"]);
    }
}

#[test]
fn a_bad_container_id_or_interface_name_is_refused() {
    for verb in VERBS {
        for (variable, value) in [("CNI_CONTAINERID", "../x"), ("CNI_IFNAME", "a234567890123456")] {
            Pod::new().with(variable, value).call(verb).assert_error(4, &[variable, value]);
        }
    }
}

#[test]
fn odd_arguments_are_refused_and_never_a_panic() {
    for args in ["K8S_POD_NAME", "K8S_POD_NAME=../x;K8S_POD_NAMESPACE=default", "=;=;;;K8S_POD_"] {
        let outcome = Pod::new().with("CNI_ARGS", args).call("ADD");
        outcome.assert_error(4, &["CNI_ARGS"]);
        assert!(!outcome.stderr.contains("panicked"), "{}", outcome.stderr);
    }
}

#[test]
fn empty_and_broken_input_have_their_codes() {
    for verb in ALL_VERBS {
        Pod::new().call_with(verb, b"").assert_error(5, &["standard input"]);
        Pod::new().call_with(verb, b"{").assert_error(6, &["JSON"]);
        Pod::new().call_with(verb, b"\xff\xfe\x00").assert_error(6, &["JSON"]);
    }
}

#[test]
fn input_beyond_every_bound_is_refused() {
    let huge = format!(r#"{{"x":"{}"}}"#, "x".repeat(5 * 1024 * 1024));
    Pod::new().call_with("ADD", huge.as_bytes()).assert_error(5, &["standard input"]);
}

#[test]
fn a_configuration_without_name_or_type_is_refused() {
    for verb in ALL_VERBS {
        for (key, value) in [
            ("name", Value::Null),
            ("name", json!("../../x")),
            ("name", json!(7)),
            ("type", Value::Null),
        ] {
            Pod::new().with_key(key, value).call(verb).assert_error(7, &[key]);
        }
    }
}

#[test]
fn an_unsupported_version_is_refused_in_one_we_speak() {
    for verb in ALL_VERBS {
        for version in ["9.9.9", "0.2.0", "1.2.0", "one"] {
            let outcome = Pod::new().with_key("cniVersion", json!(version)).call(verb);
            outcome.assert_error(1, &[version]);
            assert_eq!(outcome.error()["cniVersion"], "1.1.0");
        }
    }
}

#[test]
fn errors_are_written_in_the_version_of_the_configuration() {
    for version in ["0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let pod = Pod::new().with_key("cniVersion", json!(version)).with_key("name", json!("?"));
        assert_eq!(pod.call("ADD").error()["cniVersion"], version);
    }
}

#[test]
fn keys_of_others_are_no_error_for_any_verb() {
    for (verb, outcome) in [
        ("STATUS", Answered::Ready { note: String::new() }),
        ("GC", Answered::Collected { attachments: 0 }),
        ("DEL", Answered::Done),
        ("CHECK", Answered::Captured),
        ("ADD", Answered::Captured),
    ] {
        let pod = Pod::new()
            .with_key("cniVersion", json!("1.1.0"))
            .with_key("cni.dev/valid-attachments", json!([]))
            .with_key("capabilities", json!({"portMappings": true}))
            .with_key("runtimeConfig", json!({"portMappings": [{"hostPort": 80}]}))
            .with_key("futureKey", json!(7));
        let agent = Agent::answering(&pod.socket(), outcome);
        let outcome = pod.call(verb);
        assert!(outcome.success, "{verb}: {}", outcome.stdout);
        agent.asked();
    }
}

#[test]
fn own_keys_of_the_wrong_kind_are_named_with_their_value() {
    for (key, value) in [
        ("agentSocket", json!(7)),
        ("excludeNamespaces", json!("kube-system")),
        ("timeoutSeconds", json!(61)),
        ("timeoutSeconds", json!("5")),
        ("whenAgentAbsent", json!("open")),
        ("logFile", json!("here.log")),
    ] {
        let shown = value.to_string();
        Pod::new().with_key(key, value).call("ADD").assert_error(7, &[key, &shown]);
    }
}

#[test]
fn status_and_gc_came_with_the_last_version() {
    for verb in ["STATUS", "GC"] {
        for version in ["0.3.1", "0.4.0", "1.0.0"] {
            let old = Pod::new().with_key("cniVersion", json!(version)).call(verb);
            old.assert_error(1, &[verb, version, "1.1.0"]);
        }
    }
}

#[test]
fn version_repeats_the_question_and_lists_what_is_spoken() {
    let spoken = json!(["0.3.1", "0.4.0", "1.0.0", "1.1.0"]);
    let answer = |outcome: &Outcome| -> Value {
        assert!(outcome.success);
        serde_json::from_str(&outcome.stdout).unwrap()
    };
    let bare = ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS", "CNI_PATH"]
        .into_iter()
        .fold(Pod::new(), |pod, variable| pod.with(variable, ""));
    for (stdin, echoed) in [
        (r#"{"cniVersion":"0.4.0"}"#, "0.4.0"),
        (r#"{"cniVersion":"9.9.9"}"#, "9.9.9"),
        ("{}", "1.1.0"),
        ("", "1.1.0"),
    ] {
        let answer = answer(&bare.call_with("VERSION", stdin.as_bytes()));
        assert_eq!(answer, json!({"cniVersion": echoed, "supportedVersions": spoken}));
    }
}
