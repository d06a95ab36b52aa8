use super::*;

fn rules(exemptions: &[(&str, u16)]) -> HostRules {
    let exemptions = exemptions.iter().map(|(addr, port)| (addr.parse().unwrap(), *port)).collect();
    HostRules {
        v4: "169.254.7.127".parse().unwrap(),
        v6: "fd16:9254:7127:1337:ffff:ffff:ffff:ffff".parse().unwrap(),
        exemptions,
    }
}

#[test]
fn a_change_names_only_what_differs() {
    let before = rules(&[("10.0.0.1", 80), ("10.0.0.2", 80)]);
    let after = rules(&[("10.0.0.2", 80), ("fd00::3", 8080)]);
    assert_eq!(before.change(&before.exemptions), None);
    let change = after.change(&before.exemptions).unwrap();
    for wanted in [r#""delete":{"element""#, "10.0.0.1", r#""add":{"element""#, "fd00::3"] {
        assert!(change.contains(wanted), "{wanted} in {change}");
    }
    assert!(!change.contains("10.0.0.2"), "what stays is not touched: {change}");
}

#[test]
fn a_host_without_our_tables_has_no_exemptions() {
    assert!(HostListing::default().exemptions().is_empty());
    let missing = HostListing::parse(Some(r#"{"nftables": []}"#), None).unwrap();
    assert_eq!(missing, HostListing::default());
}

#[test]
fn exemptions_are_read_back() {
    let json = r#"{"nftables": [
        {"table": {"family": "inet", "name": "sluice_host"}},
        {"set": {"family": "inet", "table": "sluice_host", "name": "probe4",
                 "elem": [{"concat": ["10.1.2.3", 8080]}, "odd"]}},
        {"set": {"family": "inet", "table": "other", "name": "probe4",
                 "elem": [{"concat": ["10.9.9.9", 1]}]}}]}"#;
    let listing = HostListing::parse(Some(json), None).unwrap();
    assert_eq!(listing.exemptions(), rules(&[("10.1.2.3", 8080)]).exemptions);
}
