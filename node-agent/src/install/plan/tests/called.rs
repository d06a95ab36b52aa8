//! Multus with a daemon ("thick") writes into its configuration which file of the folder it calls:
//! by the path at which its own container sees it.

use super::*;
use crate::install::PLUGIN;

/// Its configuration while it calls this file.
fn multus(file: &str) -> String {
    let call = format!("\"clusterNetwork\":\"/host/etc/cni/net.d/{file}\",\"type\"");
    MULTUS.replace("\"type\"", &call)
}

#[test]
fn multus_that_calls_our_list_by_its_path_is_as_it_should_be() {
    let files = [("00-multus.conf", multus(OWN)), ("10-calico.conflist", CALICO.to_owned())];
    let files = files.each_ref().map(|(name, text)| (*name, text.as_str()));
    for mode in [Mode::Own, Mode::Append] {
        let mut story = Story::new(mode, &files);
        assert_eq!(story.look(), ["+00-sluice.conflist"], "{mode:?}: no pod could start without");
        assert!(story.told().contains("00-multus.conf calls ours by itself"), "{}", story.told());
        assert!(!story.reports.iter().any(Report::is_trouble), "{}", story.told());
        assert_eq!(story.look(), [""; 0]);
        story.put("10-calico.conflist", &CALICO.replace("1e3", "1450"));
        assert_eq!(story.look(), ["+00-sluice.conflist"], "{mode:?}: it follows");
    }
}

#[test]
fn what_multus_calls_by_its_path_gets_our_entry_until_it_calls_ours() {
    let before = multus("10-calico.conflist");
    let files = [("00-multus.conf", before.as_str()), ("10-calico.conflist", CALICO)];
    let mut story = Story::new(Mode::Own, &files);
    assert_eq!(story.look(), ["+00-sluice.conflist", "+10-calico.conflist"]);
    assert!(story.text("10-calico.conflist").contains(PLUGIN));
    assert!(
        story.told().contains("Multus in 00-multus.conf calls network configuration 10-calico")
    );
    assert!(!story.reports.iter().any(Report::is_trouble), "{}", story.told());
    assert_eq!(story.look(), [""; 0]);
    assert_eq!(story.text(OWN).matches(PLUGIN).count(), 1, "ours is made of what has our entry");
    // It is restarted, and finds ours first.
    story.put("00-multus.conf", &multus(OWN));
    assert_eq!(story.look(), ["+10-calico.conflist"]);
    assert_eq!(story.text("10-calico.conflist"), CALICO, "byte for byte");
}

#[test]
fn multus_that_calls_what_is_not_there_is_told() {
    for file in ["10-gone.conflist", "10-weave.conf", ""] {
        let text = multus(file);
        let files = [("00-multus.conf", text.as_str()), ("10-weave.conf", SINGLE)];
        let mut story = Story::new(Mode::Own, &files);
        story.look();
        assert!(story.told().contains("does not call our plugin"), "{file}: {}", story.told());
    }
}

#[test]
fn a_list_of_ours_that_multus_calls_stays_when_ours_gets_another_name() {
    let mut story = Story::new(Mode::Own, &[("10-calico.conflist", CALICO)]);
    story.look();
    story.put("00-multus.conf", &multus(OWN));
    story.settings.own = "00-sluice-2.conflist".into();
    story.past = Past::default();
    story.look();
    assert!(story.view.files.contains_key(OWN), "no pod could start");
    story.put("00-multus.conf", &multus("00-sluice-2.conflist"));
    assert_eq!(story.look(), ["-00-sluice.conflist"]);
}

#[test]
fn no_list_of_ours_calls_multus_that_calls_it() {
    let nested = MULTUS
        .replace("\"type\"", "\"delegates\":[{\"plugins\":[{\"type\":\"sluice-cni\"}]}],\"type\"");
    for calls_ours in [multus(OWN), nested] {
        let files = [("01-multus.conf", calls_ours.as_str()), ("10-calico.conflist", CALICO)];
        let mut story = Story::new(Mode::Own, &files);
        story.look();
        story.later(GRACE).look();
        assert_eq!(story.chosen(), ["calico", "portmap", "sluice-cni"], "no circle");
        assert!(story.told().contains("01-multus.conf cannot be used"), "{}", story.told());
    }
}
