use serde_json::{Value, json};

use super::*;

const ACCEPT: &str = "accept";
const DROP: &str = "drop";

fn table(objects: Vec<Value>) -> Listing {
    let mut all = vec![
        json!({"metainfo": {"version": "1.0.6"}}),
        json!({"table": {"family": "inet", "name": TABLE_NAME, "handle": 2}}),
    ];
    all.extend(objects);
    Listing::parse(&json!({ "nftables": all }).to_string()).unwrap()
}

const TABLE_NAME: &str = crate::TABLE;

fn chain(name: &str, prio: i32) -> Value {
    json!({"chain": {"family": "inet", "table": TABLE_NAME, "name": name, "handle": 1,
        "type": "nat", "hook": "output", "prio": prio, "policy": "accept"}})
}

fn rule(comment: &str, verdict: &str) -> Value {
    json!({"rule": {"family": "inet", "table": TABLE_NAME, "chain": "c", "handle": 7,
        "comment": comment, "expr": [{"counter": {"packets": 0, "bytes": 0}}, {verdict: null}]}})
}

fn set(name: &str, elements: &[u16]) -> Value {
    json!({"set": {"family": "inet", "table": TABLE_NAME, "name": name, "handle": 9,
        "type": "inet_service", "elem": elements}})
}

fn check(reference: Vec<Value>, observed: Vec<Value>, expected: &[&str]) {
    let drifts = compare(&table(reference), &table(observed));
    let texts: Vec<_> = drifts.iter().map(ToString::to_string).collect();
    assert_eq!(texts, expected);
}

#[test]
fn the_table_as_a_whole() {
    let (here, gone) = (table(vec![]), Listing::default());
    assert_eq!(compare(&here, &here), []);
    assert_eq!(compare(&gone, &gone), []);
    assert_eq!(compare(&here, &gone)[0].to_string(), "table sluice is missing");
    assert_eq!(compare(&gone, &here)[0].to_string(), "table sluice does not belong there");
    let dormant = r#"{"nftables": [{"table":
        {"family": "inet", "name": "sluice", "handle": 3, "flags": "ipv4_addr"}}]}"#;
    let drifts = compare(&here, &Listing::parse(dormant).unwrap());
    assert_eq!(drifts[0].place, Place::Table);
}

#[test]
fn handles_counters_and_set_order_do_not_matter() {
    let mut counted = rule("a", ACCEPT);
    counted["rule"]["handle"] = json!(99);
    counted["rule"]["expr"][0] = json!({"counter": {"packets": 7, "bytes": 420}});
    let reference = vec![set("s", &[1, 2]), chain("c", 0), rule("a", ACCEPT)];
    check(reference, vec![chain("c", 0), set("s", &[2, 1]), counted], &[]);
}

#[test]
fn anonymous_sets_have_no_order() {
    let with = |ports: [u16; 2]| {
        let mut rule = rule("a", ACCEPT);
        rule["rule"]["expr"][0] = json!({"match": {"op": "==", "right": {"set": ports}}});
        vec![chain("c", 0), rule]
    };
    check(with([1, 2]), with([2, 1]), &[]);
    assert_eq!(compare(&table(with([1, 2])), &table(with([1, 3]))).len(), 1);
}

#[test]
fn one_rule_less_or_more_is_one_drift() {
    let full = || vec![chain("c", 0), rule("a", ACCEPT), rule("b", DROP), rule("d", ACCEPT)];
    let less = || vec![chain("c", 0), rule("a", ACCEPT), rule("d", ACCEPT)];
    check(full(), less(), &["rule 2 of chain c (b) is missing"]);
    check(less(), full(), &["rule 2 of chain c (b) does not belong there"]);
}

#[test]
fn an_edited_rule_shows_both_versions() {
    let with = |verdict| vec![chain("c", 0), rule("a", ACCEPT), rule("b", verdict)];
    check(
        with(DROP),
        with(ACCEPT),
        &[concat!(
            r#"rule 2 of chain c (b) was changed: [{"counter":null},{"drop":null}] expected, "#,
            r#"[{"counter":null},{"accept":null}] found"#
        )],
    );
}

#[test]
fn order_within_a_chain_matters() {
    let reference = vec![chain("c", 0), rule("a", ACCEPT), rule("b", DROP)];
    let swapped = vec![chain("c", 0), rule("b", DROP), rule("a", ACCEPT)];
    check(reference, swapped, &["rule 2 of chain c (b) is out of order"]);
}

#[test]
fn chains_and_their_hooks() {
    check(vec![chain("c", 0)], vec![], &["chain c is missing"]);
    check(vec![], vec![chain("c", 0)], &["chain c does not belong there"]);
    let drifts = compare(&table(vec![chain("c", -105)]), &table(vec![chain("c", -95)]));
    assert!(matches!(&drifts[..], [Drift { place: Place::Chain(name), .. }] if name == "c"));
}

#[test]
fn sets_and_their_elements() {
    check(vec![set("s", &[])], vec![], &["set s is missing"]);
    check(
        vec![set("s", &[1, 2])],
        vec![set("s", &[2, 3])],
        &["element 1 of set s is missing", "element 3 of set s does not belong there"],
    );
}

#[test]
fn objects_of_kinds_that_we_never_make() {
    let counter = json!({"counter": {"family": "inet", "table": "sluice", "name": "x",
        "packets": 0, "bytes": 0}});
    check(vec![], vec![counter], &["counter x does not belong there"]);
}

#[test]
fn tables_of_others_are_not_our_business() {
    let others = json!({"nftables": [
        {"table": {"family": "ip", "name": "sluice", "handle": 1}},
        {"table": {"family": "inet", "name": "filter", "handle": 2}},
        {"chain": {"family": "inet", "table": "filter", "name": "c", "handle": 1}},
    ]});
    assert_eq!(Listing::parse(&others.to_string()).unwrap(), Listing::default());
}

#[test]
fn what_is_no_listing_says_so() {
    let refused = |text: &str| Listing::parse(text).unwrap_err().to_string();
    assert!(refused("").starts_with("nft listing is no JSON"));
    assert!(refused("Error: No such file or directory").starts_with("nft listing is no JSON"));
    assert!(refused("{}").contains("nftables array"));
    assert!(refused(r#"{"nftables": 1}"#).contains("nftables array"));
    assert!(refused(r#"{"nftables": [1]}"#).contains("object"));
    let nameless = r#"{"nftables": [{"chain": {"family": "inet", "table": "sluice"}}]}"#;
    assert!(refused(nameless).contains("name"));
    let empty = r#"{"nftables": [{"rule": {"family": "inet", "table": "sluice", "chain": "c"}}]}"#;
    assert!(refused(empty).contains("rule expression"));
}
