use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::install::Folder;

const OWN: &str = "00-own.conflist";

fn text(becomes: Option<Without>) -> String {
    match becomes {
        Some(Without::Text(text)) => text,
        other => panic!("no text: {other:?}"),
    }
}

#[test]
fn only_our_entry_is_cut_out() {
    let ours = r#"{"type":"sluice-cni","agentSocket":"/x","list":[1,{"a":"]}"}]}"#;
    for (with, left) in [
        (r#"{"plugins": [{"type":"a"}, OURS]}"#, r#"{"plugins": [{"type":"a"}]}"#),
        (r#"{"plugins":[OURS , {"type":"a"}]}"#, r#"{"plugins":[{"type":"a"}]}"#),
        (
            r#"{"plugins":[{"type":"a"},OURS,{"type":"b"}],"n":1e400,"plugin":2}"#,
            r#"{"plugins":[{"type":"a"},{"type":"b"}],"n":1e400,"plugin":2}"#,
        ),
        (
            "{\"plugins\":[OURS,OURS,\n{\"type\":\"a\"},OURS,OURS]}\n",
            "{\"plugins\":[{\"type\":\"a\"}]}\n",
        ),
        (
            r#"{"type":"multus","delegates":[{"name":"n","plugins":[{"type":"a"},OURS]}],"z":0.10}"#,
            r#"{"type":"multus","delegates":[{"name":"n","plugins":[{"type":"a"}]}],"z":0.10}"#,
        ),
        (r#"{"delegates":[{"plugins":[OURS]}]}"#, r#"{"delegates":[{"plugins":[]}]}"#),
    ] {
        assert_eq!(text(without(&with.replace("OURS", ours)).unwrap()), left, "{with}");
    }
}

#[test]
fn what_only_speaks_of_us_is_left_alone() {
    for text in [
        r#"{"plugins":[{"type":"a","note":"before sluice-cni"}]}"#,
        r#"{"plugins":[{"type":"sluice-cni-else"}]}"#,
        r#"{"type":"sluice-cni"}"#,
        r#"{"plugins":{"type":"sluice-cni"}}"#,
        r#"["sluice-cni"]"#,
    ] {
        assert_eq!(without(text).unwrap(), None, "{text}");
    }
}

#[test]
fn a_list_that_is_ours_goes_as_a_whole() {
    for text in [
        r#"{"name":"n","plugins":[{"type":"sluice-cni"}]}"#,
        r#"{"plugins":[{"type":"a"},{"type":"sluice-cni","listOf":"10-a.conflist"}]}"#,
    ] {
        assert_eq!(without(text).unwrap(), Some(Without::Nothing), "{text}");
    }
    let copied = r#"{"delegates":[{"plugins":[{"type":"a"},{"type":"sluice-cni","listOf":"x"}]}]}"#;
    assert_eq!(text(without(copied).unwrap()), r#"{"delegates":[{"plugins":[{"type":"a"}]}]}"#);
}

#[test]
fn a_folder_is_freed_of_us_and_keeps_modes_links_and_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let mode = |name: &str| std::fs::metadata(at(name)).unwrap().permissions().mode() & 0o7777;
    let ours = r#"{"plugins":[{"type":"a"},{"type":"sluice-cni"}]}"#;
    std::fs::write(at(OWN), "whatever").unwrap();
    std::fs::write(at("10-a.conflist"), ours).unwrap();
    std::fs::set_permissions(at("10-a.conflist"), PermissionsExt::from_mode(0o640)).unwrap();
    std::fs::create_dir(at("elsewhere")).unwrap();
    std::fs::write(at("elsewhere/b"), ours).unwrap();
    std::os::unix::fs::symlink(at("elsewhere/b"), at("20-b.conflist")).unwrap();
    std::fs::write(at("30-c.conflist"), r#"{"plugins":[{"type":"a"}]}"#).unwrap();
    std::fs::write(at("40-broken.conf"), r#"{"plugins":[{"type":"sluice-cni"}"#).unwrap();
    std::fs::write(at("50-broken.conf"), "{").unwrap();
    std::fs::write(at(".10-a.conflist.sluice-new"), "{").unwrap();
    std::fs::write(at("notes.txt"), ours).unwrap();

    let conf = Folder::new(std::path::Path::new("/"), folder.path());
    let found = undo(&conf.read().unwrap(), OWN);
    assert_eq!(found.changes.len(), 4, "{found:?}");
    assert_eq!(found.troubles.len(), 1, "{found:?}");
    assert!(found.troubles[0].contains("40-broken.conf"), "{found:?}");
    for change in &found.changes {
        conf.apply(change).unwrap();
    }
    let left = r#"{"plugins":[{"type":"a"}]}"#;
    assert!(!at(OWN).exists() && !at(".10-a.conflist.sluice-new").exists());
    assert_eq!(std::fs::read_to_string(at("10-a.conflist")).unwrap(), left);
    assert_eq!(mode("10-a.conflist"), 0o640);
    assert!(at("20-b.conflist").is_symlink());
    assert_eq!(std::fs::read_to_string(at("elsewhere/b")).unwrap(), left);
    assert_eq!(std::fs::read_to_string(at("notes.txt")).unwrap(), ours, "no runtime reads it");
    assert_eq!(undo(&conf.read().unwrap(), OWN).changes, []);
}

/// A folder of these files.
fn view(files: &[(&str, &str)]) -> View {
    let file = |(name, text): &(&str, &str)| ((*name).to_owned(), Found::Text((*text).to_owned()));
    View { files: files.iter().map(file).collect(), ..View::default() }
}

const MULTUS: &str = r#"{"name":"m","cniVersion":"0.3.1","readinessindicatorfile":"/host/net.d/00-own.conflist","clusterNetwork":"\/host/net.d/00-own.conflist","type":"multus-shim","n":1.0}"#;
const OURS: &str = r#"{"name":"n","cniVersion":"1.0.0","plugins":[{"type":"a"},{"type":"sluice-cni","listOf":"10-a.conflist"}]}"#;
const THEIRS: &str = r#"{"name":"n","cniVersion":"1.0.0","plugins":[{"type":"a"}]}"#;

#[test]
fn multus_that_calls_our_list_by_its_path_calls_the_primarys_before_ours_goes() {
    let files = [(OWN, OURS), ("10-a.conflist", THEIRS), ("70-multus.conf", MULTUS)];
    let found = undo(&view(&files), OWN);
    let paths = MULTUS.replace("\\/host", "/host").replace(OWN, "10-a.conflist");
    let calls = Change::Write {
        name: "70-multus.conf".into(),
        text: paths.clone(),
        of: Some(MULTUS.into()),
    };
    assert_eq!(found.changes, [calls, Change::Remove { name: OWN.into(), of: None }]);
    assert_eq!(found.called[OWN], "70-multus.conf", "until that is written");
    let found = undo(&view(&[files[0], files[1], ("70-multus.conf", &paths)]), OWN);
    assert!(found.called.is_empty(), "{found:?}");
    assert_eq!(found.changes, [Change::Remove { name: OWN.into(), of: None }]);
}

#[test]
fn our_list_stays_without_us_where_multus_has_no_other_to_call() {
    for gone in [&[][..], &[("10-a.conflist", "{")]] {
        let files = [&[(OWN, OURS), ("70-multus.conf", MULTUS)], gone].concat();
        let found = undo(&view(&files), OWN);
        let (text, of) = (THEIRS.to_owned(), Some(OURS.to_owned()));
        assert_eq!(found.changes, [Change::Write { name: OWN.into(), text, of }]);
        assert!(found.notes[0].contains("00-own.conflist stays, without our plugin: Multus in 70"));
        let files = [&[(OWN, THEIRS), ("70-multus.conf", MULTUS)], gone].concat();
        let found = undo(&view(&files), OWN);
        assert!(found.changes.is_empty() && found.notes.len() == 1, "a second look: {found:?}");
    }
    let waiting = OURS.replace(r#"{"type":"a"},"#, "");
    let found = undo(&view(&[(OWN, &waiting), ("70-multus.conf", MULTUS)]), OWN);
    assert_eq!(found.changes, [Change::Remove { name: OWN.into(), of: None }], "it led nowhere");
}
