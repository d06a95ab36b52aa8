//! Files that the runtime can read, and we cannot.

use super::*;

fn unread(story: &mut Story, name: &str) {
    let why = Found::Unread("Permission denied".into());
    story.view.files.insert(name.into(), why);
}

#[test]
fn nothing_is_put_before_a_network_that_only_we_cannot_read() {
    for others in [&[][..], &[("87-podman.conflist", BRIDGE)]] {
        for mode in [Mode::Own, Mode::Append] {
            let mut story = Story::new(mode, others);
            unread(&mut story, "10-calico.conflist");
            assert_eq!(story.look(), [""; 0], "{mode:?}: pods start as without us");
            assert_eq!(story.later(GRACE * 100).look(), [""; 0], "{mode:?}");
            assert!(story.told().contains("takes network configuration 10-calico"), "{mode:?}");
            assert!(story.reports.iter().any(Report::is_trouble));
            story.put("10-calico.conflist", CALICO);
            assert_eq!(story.look().len(), 1, "{mode:?}: it can be read now");
        }
    }
}

#[test]
fn a_network_that_cannot_be_read_any_more_keeps_its_list() {
    let mut story = Story::new(Mode::Own, &[("10-calico.conflist", CALICO)]);
    story.look();
    unread(&mut story, "10-calico.conflist");
    assert_eq!(story.look(), [""; 0]);
    assert_eq!(story.later(GRACE * 100).look(), [""; 0]);
    assert_eq!(story.chosen(), ["calico", "portmap", "sluice-cni"]);
}

#[test]
fn a_network_in_the_place_of_ours_that_cannot_be_read_comes_first_after_a_while() {
    let mut story = Story::new(Mode::Own, &[("10-calico.conflist", CALICO)]);
    story.look();
    story.remove("10-calico.conflist");
    unread(&mut story, "20-other.conflist");
    assert_eq!(story.look(), [""; 0], "it may be written anew right now");
    assert_eq!(
        story.later(GRACE).look(),
        ["-00-sluice.conflist"],
        "nobody makes calico's any more"
    );
}

#[test]
fn one_that_runtimes_do_not_take_is_only_told() {
    let mut story = Story::new(Mode::Own, &[("10-calico.conflist", CALICO)]);
    unread(&mut story, "87-other.conflist");
    assert_eq!(story.look(), ["+00-sluice.conflist"]);
    assert!(story.told().contains("87-other.conflist cannot be used"));
    assert!(!story.reports.iter().any(Report::is_trouble));
}
