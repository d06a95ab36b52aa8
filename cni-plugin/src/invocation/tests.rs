use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use super::*;

const CONFIG: &str = r#"{"cniVersion":"1.0.0","name":"net","type":"sluice-cni",
    "prevResult":{"cniVersion":"1.0.0","ips":[{"address":"10.0.0.7/24"}]}}"#;

fn environment(overrides: &[(&str, &str)]) -> Environment {
    let mut variables: BTreeMap<String, OsString> = [
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", "c0ffee"),
        ("CNI_NETNS", "/run/netns/x"),
        ("CNI_IFNAME", "eth0"),
    ]
    .map(|(name, value)| (name.to_owned(), value.into()))
    .into();
    variables.extend(overrides.iter().map(|(name, value)| ((*name).to_owned(), value.into())));
    variables
}

fn parse(overrides: &[(&str, &str)]) -> Result<Invocation, InvocationError> {
    Invocation::parse(&environment(overrides), Ok(CONFIG.into()))
}

fn pod_of(args: &str) -> Result<Option<Pod>, InvocationError> {
    match parse(&[("CNI_ARGS", args)])? {
        Invocation::Add(attached) => Ok(attached.attachment.pod),
        other => panic!("not an ADD: {other:?}"),
    }
}

fn pod(namespace: &str, name: &str, uid: Option<&str>) -> Pod {
    Pod { namespace: namespace.into(), name: name.into(), uid: uid.map(str::to_owned) }
}

#[test]
fn all_missing_variables_are_named_at_once() {
    for (command, missing) in [
        ("ADD", "CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME"),
        ("CHECK", "CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME"),
        ("DEL", "CNI_CONTAINERID, CNI_IFNAME"),
    ] {
        let nothing = [("CNI_CONTAINERID", ""), ("CNI_NETNS", ""), ("CNI_IFNAME", "")];
        let error = parse(&[&[("CNI_COMMAND", command)][..], &nothing].concat()).unwrap_err();
        assert_eq!(error.code(), 4);
        assert!(error.to_string().ends_with(missing), "{command}: {error}");
    }
}

#[test]
fn names_outside_the_specification_are_refused() {
    for (variable, value) in [
        ("CNI_CONTAINERID", "../x"),
        ("CNI_CONTAINERID", "-x"),
        ("CNI_CONTAINERID", "a b"),
        ("CNI_CONTAINERID", "a/b"),
        ("CNI_IFNAME", "abcdefghijklmnop"),
        ("CNI_IFNAME", "."),
        ("CNI_IFNAME", ".."),
        ("CNI_IFNAME", "a/b"),
        ("CNI_IFNAME", "a:b"),
        ("CNI_IFNAME", "a b"),
    ] {
        let error = parse(&[(variable, value)]).unwrap_err();
        assert_eq!(error.code(), 4, "{variable}={value}");
        assert!(error.to_string().starts_with(variable), "{error}");
    }
    assert!(parse(&[("CNI_IFNAME", "abcdefghijklmno")]).is_ok());
}

#[test]
fn bytes_that_are_no_text_are_refused() {
    let mut variables = environment(&[]);
    variables.insert("CNI_NETNS".into(), OsString::from_vec(vec![b'/', 0xff]));
    let error = Invocation::parse(&variables, Ok(CONFIG.into())).unwrap_err();
    assert_eq!(error.code(), 4);
    assert!(error.to_string().contains("CNI_NETNS"), "{error}");
}

#[test]
fn the_pod_is_found_in_any_order_among_other_keys() {
    let web = pod("default", "web-0", None);
    let known = pod("default", "web-0", Some("0b1c-2d"));
    for (args, expected) in [
        ("", None),
        ("IgnoreUnknown=1", None),
        ("IgnoreUnknown=1;K8S_POD_INFRA_CONTAINER_ID=abc", None),
        ("K8S_POD_NAMESPACE=;K8S_POD_NAME=", None),
        ("K8S_POD_NAME=web-0;K8S_POD_NAMESPACE=default", Some(web.clone())),
        ("K8S_POD_NAME=web-0;;K8S_POD_NAMESPACE=default;", Some(web.clone())),
        ("IP=10.0.0.1;K8S_POD_NAME=web-0;MAC=a=b;K8S_POD_NAMESPACE=default", Some(web)),
        (
            "K8S_POD_UID=0b1c-2d;K8S_POD_NAME=web-0;IgnoreUnknown=1;\
             K8S_POD_INFRA_CONTAINER_ID=c0ffee;K8S_POD_NAMESPACE=default",
            Some(known),
        ),
    ] {
        assert_eq!(pod_of(args).unwrap(), expected, "{args}");
    }
}

#[test]
fn arguments_that_name_no_single_pod_are_refused() {
    for args in [
        "K8S_POD_NAME",
        "K8S_POD_NAME=web",
        "K8S_POD_NAMESPACE=default",
        "K8S_POD_UID=0b1c",
        "K8S_POD_NAME=a;K8S_POD_NAME=b;K8S_POD_NAMESPACE=default",
        "K8S_POD_NAME=../../etc;K8S_POD_NAMESPACE=default",
        "K8S_POD_NAME=web;K8S_POD_NAMESPACE=kube-system\n",
        "K8S_POD_NAME=web;K8S_POD_NAMESPACE=default;K8S_POD_UID={\"a\":1}",
        "K8S_POD_NAME=w\u{e9}b;K8S_POD_NAMESPACE=default",
        "K8S_POD_NAME=web;K8S_POD_NAMESPACE=default;\u{0}",
    ] {
        let error = pod_of(args).unwrap_err();
        assert_eq!(error.code(), 4, "{args}");
        assert!(error.to_string().starts_with("CNI_ARGS"), "{error}");
    }
}

#[test]
fn del_gets_through_where_add_does_not() {
    let config = r#"{"cniVersion":"1.0.0","name":"net","type":"t","timeoutSeconds":"x"}"#;
    let variables = environment(&[("CNI_COMMAND", "DEL"), ("CNI_NETNS", ""), ("CNI_ARGS", "?")]);
    match Invocation::parse(&variables, Ok(config.into())).unwrap() {
        Invocation::Del(Detached { attachment, netns, settings }) => {
            assert_eq!((attachment.pod, netns), (None, None));
            assert_eq!(settings, Settings::default());
        }
        other => panic!("not a DEL: {other:?}"),
    }
}

#[test]
fn verbs_need_a_version_that_has_them() {
    for (verb, version, code) in [
        ("CHECK", "0.3.1", 1),
        ("STATUS", "1.0.0", 1),
        ("GC", "1.0.0", 1),
        ("GC", "1.1.0", 7),
        ("FOO", "1.1.0", 4),
        ("add", "1.1.0", 4),
    ] {
        let config = CONFIG.replace("1.0.0", version);
        let variables = environment(&[("CNI_COMMAND", verb)]);
        let error = Invocation::parse(&variables, Ok(config.into())).unwrap_err();
        assert_eq!(error.code(), code, "{verb}: {error}");
        let named = if code == 7 { "cni.dev/valid-attachments" } else { verb };
        assert!(error.to_string().contains(named), "{error}");
    }
}
