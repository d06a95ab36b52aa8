//! The table of duties in the documentation names tests that exist.

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
    let shown = table.lines().take_while(|line| line.is_empty() || line.starts_with('|'));
    let shown: String = shown.filter_map(|line| line.rsplit(" | ").next()).collect();
    // Between back quotes stands every second piece.
    let names: Vec<_> =
        shown.split('`').skip(1).step_by(2).filter(|n| *n != "cni-plugin").collect();
    assert!(names.len() > 60, "{names:?}");
    for name in names {
        let is_test = sources.contains(&format!("fn {name}("));
        let is_scenario = sources.contains(&format!("            \"{name}\",\n"));
        assert!(is_test || is_scenario, "{name} is in the table only");
    }
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let below = folders.iter().flat_map(|folder| sources(folder));
    files.into_iter().filter(|f| f.extension().is_some_and(|e| e == "rs")).chain(below).collect()
}
