use std::time::Duration;

use super::super::{Config, Mistakes, Raw};
use super::*;
use crate::source::Scope;

const DEDICATED: (&str, &str) = ("PROXY_MODE", "dedicated");
const MACHINE: (&str, &str) = ("PROXY_WORKLOAD_INFO", "shop/vm-1/seller");

fn parse(pairs: &[(&str, &str)]) -> Result<Config, Mistakes> {
    Config::parse(&Raw::from_pairs(pairs.iter().copied()))
}

#[test]
fn a_machine_needs_its_names_and_nothing_of_kubernetes() {
    let config = parse(&[DEDICATED, MACHINE, ("TRUST_DOMAIN", "td")]).unwrap();
    let info = config.mode.machine().unwrap();
    assert_eq!((&*info.namespace, &*info.name, &*info.service_account), ("shop", "vm-1", "seller"));
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    assert_eq!(config.node.node, "");
    assert_eq!((&*config.node.pod_name, &*config.node.pod_namespace), ("vm-1", "shop"));
    assert_eq!(config.mode.subject(), Subject::Bearer);
    assert_eq!(config.source.rules.scope, Scope::Everything);
    assert_eq!(config.termination_deadline, Duration::from_secs(5));
    let summary = config.summary();
    assert_eq!(summary["proxyMode"], "Dedicated");
    assert_eq!(summary["proxyWorkloadInformation"]["serviceAccount"], "seller");
    assert!(summary["inpodUds"].is_null(), "{summary}");
}

#[test]
fn a_machine_asks_for_no_privilege_unless_told_to() {
    let config = parse(&[DEDICATED, MACHINE]).unwrap();
    assert_eq!(config.proxy.packet_mark, None);
    assert_eq!(config.proxy.source_address, SourceAddress::Pod);
    assert_eq!(config.proxy.port_use, PortUse::Alone);
    assert_eq!(config.control_mark(), None);
    let told = [DEDICATED, MACHINE, ("PACKET_MARK", "77"), ("ENABLE_ORIG_SRC", "true")];
    let config = parse(&told).unwrap();
    assert_eq!((config.proxy.packet_mark, config.control_mark()), (Some(77), Some(77)));
    assert_eq!(config.proxy.source_address, SourceAddress::Client);
    let shared = parse(&[("NODE_NAME", "n1")]).unwrap();
    assert_eq!((shared.proxy.packet_mark, shared.control_mark()), (Some(1337), None));
    assert_eq!(shared.mode.subject(), Subject::Pods);
}

#[test]
fn a_form_that_is_wrong_is_told_with_the_right_one() {
    for value in [
        "shop",
        "shop/vm-1",
        "shop/vm-1/a/b",
        "//",
        "shop//seller",
        "shop/vm-1/",
        "Shop/vm-1/seller",
        "shop/vm_1/seller",
        "shop/-vm/seller",
        "shop/vm 1/seller",
    ] {
        let mistakes = parse(&[DEDICATED, (MACHINE.0, value)]).expect_err(value);
        let [mistake] = mistakes.each() else { panic!("{value}: {mistakes}") };
        assert!(mistake.starts_with(&format!("PROXY_WORKLOAD_INFO={value:?}: ")), "{mistake}");
        assert!(mistake.contains("namespace/name/service-account expected"), "{mistake}");
    }
    let mistakes = parse(&[DEDICATED]).unwrap_err();
    let [mistake] = mistakes.each() else { panic!("{mistakes}") };
    assert!(mistake.starts_with("PROXY_WORKLOAD_INFO is not set: "), "{mistake}");
    assert!(mistake.ends_with("namespace/name/service-account"), "{mistake}");
}

#[test]
fn mistakes_in_the_mode_and_in_the_names_are_told_at_once() {
    let pairs = [("PROXY_MODE", "sidecar"), ("PROXY_WORKLOAD_INFO", "shop"), ("PACKET_MARK", "0")];
    let mistakes = parse(&pairs).unwrap_err();
    let told: Vec<_> = mistakes.each().iter().map(|text| text.split('=').next().unwrap()).collect();
    assert_eq!(told, ["PROXY_WORKLOAD_INFO", "PROXY_MODE", "PACKET_MARK"], "{mistakes}");
    assert!(mistakes.to_string().contains("shared or dedicated expected"), "{mistakes}");
}

#[test]
fn what_belongs_to_the_other_mode_is_not_passed_over() {
    let mistakes = parse(&[("NODE_NAME", "n1"), MACHINE]).unwrap_err();
    assert!(mistakes.each()[0].contains("set PROXY_MODE=dedicated with it"), "{mistakes}");
    let config = parse(&[DEDICATED, MACHINE, ("INPOD_UDS", "/x"), ("INPOD_PORT_REUSE", "true")]);
    let warnings = config.unwrap().warnings;
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].starts_with("INPOD_UDS has no effect"), "{warnings:?}");
}

#[test]
fn names_of_the_process_stand_before_those_of_the_machine_and_are_compared() {
    let pairs = [
        DEDICATED,
        MACHINE,
        ("POD_NAME", "vm"),
        ("POD_NAMESPACE", "other"),
        ("SERVICE_ACCOUNT", "seller"),
    ];
    let config = parse(&pairs).unwrap();
    assert_eq!(config.own_pod, None, "port 15008 is the machine's");
    assert_eq!((&*config.node.pod_name, &*config.node.pod_namespace), ("vm", "other"));
    let [warning] = &config.warnings[..] else { panic!("{:?}", config.warnings) };
    assert!(warning.starts_with("POD_NAMESPACE is not the one of PROXY_WORKLOAD_INFO, shop"));
}

#[test]
fn a_name_server_alone_takes_no_listeners_and_must_have_names_to_serve() {
    let off = ("ENABLE_PROXY", "false");
    let config = parse(&[("NODE_NAME", "n1"), off]).unwrap();
    assert_eq!(config.proxy.role, Role::NameServer);
    assert_eq!(config.summary()["proxy"], false);
    let Mode::Shared(settings) = config.mode else { panic!("{:?}", config.mode) };
    assert_eq!(settings.handover, workloads::Handover::Own);
    let agent = parse(&[("NODE_NAME", "n1"), off, ("INPOD_LISTENERS", "agent")]).unwrap_err();
    assert!(agent.each()[0].starts_with("INPOD_LISTENERS=\"agent\": "), "{agent}");
    let nothing = parse(&[("NODE_NAME", "n1"), off, ("ISTIO_META_DNS_CAPTURE", "false")]);
    let nothing = nothing.unwrap_err();
    let [mistake] = nothing.each() else { panic!("{nothing}") };
    assert!(mistake.starts_with("ENABLE_PROXY=\"false\": "), "{mistake}");
}
