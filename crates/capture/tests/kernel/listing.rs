//! Loading, listing, comparing and removing.

use capture::{Listing, Options, Ruleset, compare, removal, replace};

use crate::support::{golden, plain, ports};
use crate::world::{World, succeed};

fn captured() -> (World, Listing) {
    let world = World::new();
    let ruleset = Ruleset::capture(&Options { in_skip: ports(&[22, 80]), ..plain() });
    world.apply(&ruleset);
    let reference = world.listing();
    (world, reference)
}

#[test]
fn both_renderings_of_every_ruleset_load_and_are_equal() {
    for (name, ruleset) in golden() {
        let (json, text) = (World::new(), World::new());
        json.apply(&ruleset);
        succeed(&text.nft(&ruleset.to_string()));
        assert_eq!(text.drift(&json.listing()), [""; 0], "{name}");
    }
}

#[test]
fn loading_twice_changes_nothing() {
    for (name, ruleset) in golden() {
        let world = World::new();
        world.apply(&ruleset);
        let (first, printed) = (world.listing(), world.whole_ruleset());
        world.apply(&ruleset);
        assert_eq!(world.drift(&first), [""; 0], "{name}");
        assert_eq!(world.whole_ruleset(), printed, "{name}");
    }
}

#[test]
fn different_rulesets_are_not_equal() {
    let worlds: Vec<_> = golden()
        .into_iter()
        .map(|(name, ruleset)| {
            let world = World::new();
            world.apply(&ruleset);
            (name, world.listing())
        })
        .collect();
    for (a, one) in &worlds {
        for (b, other) in &worlds {
            assert_eq!(compare(one, other).is_empty(), a == b, "{a} and {b}");
        }
    }
}

#[test]
fn tables_of_others_are_no_drift() {
    let (world, reference) = captured();
    succeed(
        &world.nft("add table ip nat\nadd chain ip nat c { type nat hook output priority -100; }"),
    );
    assert_eq!(world.drift(&reference), [""; 0]);
}

fn check_drift(damage: &str, expected_start: &str) {
    let (world, reference) = captured();
    succeed(&world.nft(damage));
    let drift = world.drift(&reference);
    assert!(drift.len() == 1 && drift[0].starts_with(expected_start), "{damage}: {drift:#?}");
    world.apply(&Ruleset::capture(&Options { in_skip: ports(&[22, 80]), ..plain() }));
    assert_eq!(world.drift(&reference), [""; 0], "repaired after {damage}");
}

#[test]
fn an_added_rule_is_named() {
    check_drift(
        "insert rule inet sluice nat_out tcp dport 443 accept",
        "rule 1 of chain nat_out does not belong there",
    );
}

#[test]
fn an_edited_rule_is_named() {
    let (world, reference) = captured();
    let handle = handle_of(&world, "tunnels are for the proxy already");
    succeed(&world.nft(&format!(
        "replace rule inet sluice in_exempt handle {handle} \
         tcp dport 1-65535 accept comment \"tunnels are for the proxy already\""
    )));
    let drift = world.drift(&reference);
    let start = "rule 1 of chain in_exempt (tunnels are for the proxy already) was changed";
    assert!(drift.len() == 1 && drift[0].starts_with(start), "{drift:#?}");
}

#[test]
fn a_removed_rule_is_named() {
    let (world, reference) = captured();
    let handle = handle_of(&world, "capture what the pod opens");
    succeed(&world.nft(&format!("delete rule inet sluice nat_out handle {handle}")));
    let drift = world.drift(&reference);
    let expected = "rule 6 of chain nat_out (capture what the pod opens) is missing";
    assert_eq!(drift, [expected]);
}

fn handle_of(world: &World, reason: &str) -> String {
    let command = ["nft", "-a", "list", "table", "inet", capture::TABLE];
    let listing = succeed(&crate::world::run(&world.fence, &world.pod, &command, ""));
    let line = listing.lines().find(|line| line.contains(reason)).unwrap();
    line.rsplit_once("# handle ").unwrap().1.to_owned()
}

#[test]
fn a_missing_set_is_named() {
    let (world, reference) = captured();
    // A set in use cannot be deleted, so the rule that uses it goes with it.
    let handle = handle_of(&world, "excluded inbound ports");
    succeed(&world.nft(&format!(
        "delete rule inet sluice in_exempt handle {handle}\ndelete set inet sluice in_skip"
    )));
    let drift = world.drift(&reference);
    assert_eq!(
        drift,
        ["set in_skip is missing", "rule 4 of chain in_exempt (excluded inbound ports) is missing"]
    );
}

#[test]
fn a_changed_element_is_named() {
    check_drift(
        "delete element inet sluice in_skip { 80 }",
        "element 80 of set in_skip is missing",
    );
    check_drift("add element inet sluice out_skip { 443 }", "element 443 of set out_skip does not");
    check_drift(
        "add element inet sluice out_skip4 { 0.0.0.0/0 }",
        "element {\"prefix\":{\"addr\":\"0.0.0.0\",\"len\":0}} of set out_skip4 does not",
    );
}

#[test]
fn an_emptied_chain_is_named() {
    let (world, reference) = captured();
    succeed(&world.nft("flush chain inet sluice guard_out"));
    assert_eq!(
        world.drift(&reference),
        ["rule 1 of chain guard_out (only opens are guarded) is missing"]
    );
}

#[test]
fn an_added_chain_is_named() {
    check_drift(
        "add chain inet sluice x { type nat hook output priority -110; }",
        "chain x does not belong there",
    );
}

#[test]
fn a_table_put_to_sleep_is_named() {
    check_drift("add table inet sluice { flags dormant; }", "table sluice was changed");
}

#[test]
fn removal_leaves_nothing_and_may_be_repeated() {
    let (world, _) = captured();
    for _ in 0..2 {
        succeed(&world.load_json(&removal()));
        assert_eq!(world.whole_ruleset(), "");
    }
}

#[test]
fn removal_leaves_the_tables_of_others() {
    let (world, _) = captured();
    succeed(&world.nft("add table ip sluice\nadd chain ip sluice c"));
    succeed(&world.load_json(&removal()));
    assert!(world.whole_ruleset().starts_with("table ip sluice"));
}

#[test]
fn a_refused_batch_changes_nothing() {
    let (world, reference) = captured();
    let good = replace(&Ruleset::drain(&plain()));
    let broken = [
        good.replace(r#"{"target":"guard_in_syn"}"#, r#"{"target":"nowhere"}"#),
        good.replace(r#"{"accept":null}"#, r#"{"agree":null}"#),
    ];
    for batch in broken {
        assert_ne!(batch, good, "the damage was done");
        assert!(!world.load_json(&batch).status.success(), "{batch}");
        assert_eq!(world.drift(&reference), [""; 0]);
    }
}

/// nft 1.0.6 even reports success, which is why a load is believed only after a listing.
#[test]
fn a_batch_that_was_cut_off_changes_nothing() {
    let (world, reference) = captured();
    let good = replace(&Ruleset::drain(&plain()));
    for length in [good.len() / 2, good.len() - 1] {
        world.load_json(&good[..length]);
        assert_eq!(world.drift(&reference), [""; 0]);
    }
}
