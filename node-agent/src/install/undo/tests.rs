use super::*;

const OWN: &str = "00-own.conflist";

fn text(becomes: Option<Becomes>) -> String {
    match becomes {
        Some(Becomes::Text(text)) => text,
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
        assert_eq!(without(text).unwrap(), Some(Becomes::Nothing), "{text}");
    }
    let copied = r#"{"delegates":[{"plugins":[{"type":"a"},{"type":"sluice-cni","listOf":"x"}]}]}"#;
    assert_eq!(text(without(copied).unwrap()), r#"{"delegates":[{"plugins":[{"type":"a"}]}]}"#);
}

#[test]
fn a_folder_is_freed_of_us_and_keeps_modes_links_and_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
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
    std::fs::write(at("notes.txt"), ours).unwrap();

    let (found, errors) = changes(folder.path(), OWN);
    let names: Vec<_> = found.iter().map(|it| it.path.file_name().unwrap().to_owned()).collect();
    assert_eq!(names, [OWN, "10-a.conflist", "20-b.conflist"]);
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].to_string().contains("40-broken.conf"), "{}", errors[0]);

    for change in &found {
        change.apply().unwrap();
    }
    let left = r#"{"plugins":[{"type":"a"}]}"#;
    assert!(!at(OWN).exists());
    assert_eq!(std::fs::read_to_string(at("10-a.conflist")).unwrap(), left);
    let mode = std::fs::metadata(at("10-a.conflist")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o640);
    assert!(at("20-b.conflist").is_symlink());
    assert_eq!(std::fs::read_to_string(at("elsewhere/b")).unwrap(), left);
    assert_eq!(std::fs::read_to_string(at("notes.txt")).unwrap(), ours, "no runtime reads it");
    assert_eq!(changes(folder.path(), OWN).0, []);
    let hidden = std::fs::read_dir(folder.path()).unwrap().flatten();
    assert_eq!(hidden.filter(|it| it.file_name().to_string_lossy().starts_with('.')).count(), 0);
}

#[test]
fn a_folder_that_is_not_there_needs_nothing() {
    let (changes, errors) = changes(Path::new("/nonexistent"), OWN);
    assert!(changes.is_empty() && errors.is_empty());
}
