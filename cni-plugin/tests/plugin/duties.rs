//! The table of duties in the documentation names tests that exist.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

#[test]
fn every_test_that_the_table_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = std::fs::read_to_string(root.join("docs/cni.md")).unwrap();
    let (_, table) = page.split_once("| duty | shown by |").unwrap();
    let sources: String = ["cni-plugin", "node-agent/src", "crates/plugin-api", "conformance/src"]
        .iter()
        .flat_map(|folder| sources(&root.join(folder)))
        .map(|file| std::fs::read_to_string(file).unwrap())
        .collect();
    // The first two lines are what is left of the heading.
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let shown: Vec<_> = rows.filter_map(|line| line.rsplit(" | ").next()).collect();
    // Between back quotes stands every second piece.
    let names: BTreeSet<_> =
        shown.iter().flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
    // The first word of its row, in a line of its own or not.
    let is_scenario = |name: &str| {
        let (alone, first) = (format!("\"{name}\","), format!("scenario!(\"{name}\", "));
        sources.lines().any(|line| line.trim() == alone || line.contains(&first))
    };
    let (mut tests, mut scenarios) = (0, 0);
    for name in names {
        match name {
            "cni-plugin" => {}
            name if sources.contains(&format!("fn {name}(")) => tests += 1,
            name => {
                assert!(is_scenario(name), "{name} is in the table only");
                scenarios += 1;
            }
        }
    }
    let counted = format!("{} duties, {tests} tests, {scenarios} scenarios.", shown.len());
    assert!(page.contains(&counted), "the page does not say: {counted}");
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let below = folders.iter().flat_map(|folder| sources(folder));
    files.into_iter().filter(|f| f.extension().is_some_and(|e| e == "rs")).chain(below).collect()
}
