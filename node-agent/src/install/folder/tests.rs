use std::os::unix::fs::symlink;

use super::*;

fn write(name: &str, text: &str, of: Option<&str>) -> Change {
    Change::Write { name: name.into(), text: text.into(), of: of.map(str::to_owned) }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn what_its_owner_has_written_meanwhile_is_not_undone() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("10-calico.conflist");
    let conf = Folder::new(Path::new("/"), folder.path());
    std::fs::write(&file, "as it was read").unwrap();
    let ours = write("10-calico.conflist", "with our entry", Some("as it was read"));

    std::fs::write(&file, "its owner's new settings").unwrap();
    assert_eq!(conf.apply(&ours).unwrap(), Applied::Overtaken);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "its owner's new settings");
    let of = Some("as it was read".to_owned());
    let removal = Change::Remove { name: "10-calico.conflist".into(), of };
    assert_eq!(conf.apply(&removal).unwrap(), Applied::Overtaken);
    assert_eq!(names(folder.path()), ["10-calico.conflist"], "nor is anything left beside it");

    std::fs::remove_file(&file).unwrap();
    assert_eq!(conf.apply(&ours).unwrap(), Applied::Overtaken, "it was removed on purpose");
    assert!(!file.exists());

    std::fs::write(&file, "as it was read").unwrap();
    assert_eq!(conf.apply(&ours).unwrap(), Applied::Made);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "with our entry");
    let whole = write("10-calico.conflist", "ours, whatever is there", None);
    assert_eq!(conf.apply(&whole).unwrap(), Applied::Made);
}

#[test]
fn absolute_links_lead_within_the_nodes_root() {
    let root = tempfile::tempdir().unwrap();
    let at = |path: &str| root.path().join(path);
    std::fs::create_dir_all(at("etc/cni")).unwrap();
    std::fs::create_dir_all(at("var/lib/cni/net.d")).unwrap();
    std::fs::create_dir_all(at("usr/share")).unwrap();
    symlink("/var/lib/cni/net.d", at("etc/cni/net.d")).unwrap();
    std::fs::write(at("usr/share/calico"), "theirs").unwrap();
    symlink("/usr/share/calico", at("var/lib/cni/net.d/10-calico.conflist")).unwrap();
    symlink("/usr/share/none", at("var/lib/cni/net.d/20-none.conflist")).unwrap();

    let conf = Folder::new(root.path(), &at("etc/cni/net.d"));
    let view = conf.read().unwrap();
    assert_eq!(view.files["10-calico.conflist"], Found::Text("theirs".into()));
    let hidden = &view.files["20-none.conflist"];
    assert!(matches!(hidden, Found::Unread(_)), "we may see a part of the node only: {hidden:?}");
    conf.apply(&write("10-calico.conflist", "with ours", Some("theirs"))).unwrap();
    conf.apply(&write("00-sluice.conflist", "ours", None)).unwrap();
    assert_eq!(std::fs::read_to_string(at("usr/share/calico")).unwrap(), "with ours");
    assert!(at("var/lib/cni/net.d/10-calico.conflist").is_symlink());
    assert!(at("var/lib/cni/net.d/00-sluice.conflist").is_file());
}

#[test]
fn what_perhaps_only_we_cannot_read_is_told_from_what_nobody_can() {
    for (code, only_we) in [
        (Errno::EACCES, true),
        (Errno::EIO, true),
        (Errno::ESTALE, true),
        (Errno::ENOENT, false),
        (Errno::ELOOP, false),
    ] {
        let found = Folder::new(Path::new("/"), Path::new("/x")).flaw(&code.into());
        assert_eq!(matches!(found, Found::Unread(_)), only_we, "{code}: {found:?}");
    }
    let part = Folder::new(Path::new("/host"), Path::new("/host/x"));
    assert!(matches!(part.flaw(&Errno::ENOENT.into()), Found::Unread(_)));
    assert!(matches!(part.flaw(&Errno::ELOOP.into()), Found::Unusable(_)));
    assert!(part.may_be_hidden() && !Folder::new(Path::new("/"), Path::new("/x")).may_be_hidden());
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("10-long.conf"), " ".repeat(2 << 20)).unwrap();
    std::fs::write(folder.path().join("20-bytes.conf"), [0xff, 0xfe]).unwrap();
    let view = Folder::new(Path::new("/"), folder.path()).read().unwrap();
    assert!(matches!(view.files["10-long.conf"], Found::Unread(_)), "runtimes have no limit");
    assert!(matches!(view.files["20-bytes.conf"], Found::Unusable(_)));
}
