//! The rules as they were reviewed. After an intended change run with `UPDATE_GOLDEN=1`
//! and review the difference like code.
#![expect(clippy::unwrap_used, reason = "helpers of tests, outside test functions")]

mod support;

use std::path::PathBuf;

use capture::{removal, replace};

#[test]
fn rulesets_in_nft_words() {
    for (name, ruleset) in support::golden() {
        check(&format!("{name}.nft"), &ruleset.to_string());
    }
}

/// What nft really gets. One file is enough: kernel tests show that both renderings of
/// every ruleset are the same to the kernel.
#[test]
fn one_ruleset_as_json() {
    let (name, ruleset) = &support::golden()[0];
    check(&format!("{name}.json"), &one_line_each(&replace(ruleset)));
}

#[test]
fn removal_as_json() {
    check("removal.json", &one_line_each(&removal()));
}

/// Breaks between the objects of a batch, so that a rule is a line.
fn one_line_each(batch: &str) -> String {
    let mut lines = batch.replacen("[{", "[\n{", 1);
    for command in ["add", "delete"] {
        lines = lines.replace(&format!(",{{\"{command}\":"), &format!(",\n{{\"{command}\":"));
    }
    lines + "\n"
}

fn check(file: &str, actual: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file);
    if update() {
        std::fs::write(&path, actual).unwrap();
    }
    let reviewed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(reviewed == actual, "{file} differs from what was reviewed; now it is\n{actual}");
}

#[expect(clippy::disallowed_methods, reason = "a switch for whoever runs the test")]
fn update() -> bool {
    std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1")
}
