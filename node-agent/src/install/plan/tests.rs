use super::super::entry::WhenAgentAbsent;
use super::*;

mod called;
mod unread;
mod walks;

const OWN: &str = "00-sluice.conflist";
const CALICO: &str = r#"{"name":"k8s-pod-network","cniVersion":"0.3.1","plugins":[{"type":"calico","mtu":1e3},{"type":"portmap"}]}"#;
const BRIDGE: &str = r#"{"name":"podman","cniVersion":"0.4.0","plugins":[{"type":"bridge"}]}"#;
const SINGLE: &str = r#"{"name":"mynet","cniVersion":"0.3.1","type":"weave-net"}"#;
const MULTUS: &str = r#"{"name":"multus-cni-network","cniVersion":"0.3.1","type":"multus-shim"}"#;
const START: Duration = Duration::from_secs(1000);

fn settings(mode: Mode) -> Settings {
    let entry = Entry {
        agent_socket: "/run/a.sock".into(),
        exclude_namespaces: ["kube-system".to_owned()].into(),
        timeout_seconds: 5,
        when_agent_absent: WhenAgentAbsent::Closed,
        log_file: None,
        log_max_bytes: None,
    };
    Settings { mode, own: OWN.into(), entry }
}

/// A folder, what is done to it, and what is remembered meanwhile.
struct Story {
    settings: Settings,
    view: View,
    past: Past,
    now: Duration,
    reports: BTreeSet<Report>,
}

impl Story {
    fn new(mode: Mode, files: &[(&str, &str)]) -> Self {
        let (view, past) = (View::default(), Past::default());
        let reports = BTreeSet::new();
        let mut story = Self { settings: settings(mode), view, past, now: START, reports };
        files.iter().for_each(|(name, text)| story.put(name, text));
        story
    }

    fn put(&mut self, name: &str, text: &str) {
        self.view.files.insert(name.into(), Found::Text(text.into()));
    }

    fn remove(&mut self, name: &str) {
        self.view.files.remove(name).expect("it is there");
    }

    /// One look; what was changed, as `+name` and `-name`.
    fn look(&mut self) -> Vec<String> {
        let plan = plan(&self.view, &self.settings, &self.past, self.now);
        (self.past, self.reports) = (plan.past, plan.reports);
        plan.changes.into_iter().map(|change| self.apply(change)).collect()
    }

    fn apply(&mut self, change: Change) -> String {
        match change {
            Change::Write { name, text, of } => {
                let now = self.view.files.get(&name);
                assert!(of.is_none_or(|of| now == Some(&Found::Text(of))), "{name}");
                self.put(&name, &text);
                format!("+{name}")
            }
            Change::Remove { name, .. } => {
                self.remove(&name);
                format!("-{name}")
            }
        }
    }

    fn text(&self, name: &str) -> &str {
        match self.view.files.get(name) {
            Some(Found::Text(text)) => text,
            other => panic!("{name}: {other:?}"),
        }
    }

    /// Types in the list that a runtime takes, which is the first file's.
    fn chosen(&self) -> Vec<String> {
        let (name, _) = self.view.files.first_key_value().unwrap();
        let list = List::parse(Shape::of(name).unwrap(), self.text(name)).unwrap();
        list.kinds().map(str::to_owned).collect()
    }

    fn later(&mut self, time: Duration) -> &mut Self {
        self.now += time;
        self
    }

    fn told(&self) -> String {
        self.reports.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }
}

#[test]
fn our_list_is_the_primarys_and_our_plugin_and_sorts_first() {
    let mut story = Story::new(Mode::Own, &[("10-calico.conflist", CALICO)]);
    assert_eq!(story.look(), ["+00-sluice.conflist"]);
    assert_eq!(story.chosen(), ["calico", "portmap", "sluice-cni"]);
    let own = story.text(OWN);
    assert!(own.starts_with(
        r#"{"name":"k8s-pod-network","cniVersion":"0.3.1","plugins":[{"type":"calico","mtu":1e3}"#
    ));
    assert!(own.contains("calico-system"), "the primary's own pods start: {own}");
    assert_eq!(story.text("10-calico.conflist"), CALICO, "which stays as it is");
    assert_eq!(story.look(), [""; 0], "a second look finds nothing to do");
    assert_eq!(story.told(), "");
}

#[test]
fn our_list_follows_the_primarys() {
    let mut story = Story::new(Mode::Own, &[("10-calico.conflist", CALICO)]);
    story.look();
    story.put("10-calico.conflist", &CALICO.replace("1e3", "1450"));
    assert_eq!(story.look(), ["+00-sluice.conflist"]);
    assert!(story.text(OWN).contains("\"mtu\":1450"));
}

#[test]
fn pods_wait_for_the_first_primary() {
    let mut story = Story::new(Mode::Own, &[]);
    assert_eq!(story.look(), ["+00-sluice.conflist"]);
    assert_eq!(story.chosen(), ["sluice-cni"], "nothing starts in that, and nothing escapes");
    assert!(story.told().contains("pods wait"));
    story.put("10-flannel.conflist", BRIDGE);
    assert_eq!(story.look(), ["+00-sluice.conflist"]);
    assert_eq!(story.chosen(), ["bridge", "sluice-cni"]);
}

#[test]
fn a_torn_file_is_no_reason_to_take_another_network() {
    let files = [("10-calico.conflist", CALICO), ("87-podman.conflist", BRIDGE)];
    let mut story = Story::new(Mode::Own, &files);
    story.look();
    assert!(story.told().contains("10-calico.conflist sorts first and is used, not 87-podman"));
    for torn in ["", "{", &CALICO[..40]] {
        story.put("10-calico.conflist", torn);
        assert_eq!(story.look(), [""; 0], "{torn}");
        assert!(story.told().contains("stays as it was"), "{}", story.told());
    }
    story.remove("10-calico.conflist");
    assert_eq!(story.later(Duration::from_secs(4)).look(), [""; 0]);
    assert_eq!(story.chosen()[0], "calico");
    story.put("10-calico.conflist", CALICO);
    assert_eq!(story.look(), [""; 0]);
    assert_eq!(story.past.doubt, None);
}

#[test]
fn a_primary_that_stays_away_is_followed_by_the_next_one() {
    let files = [("10-calico.conflist", CALICO), ("87-podman.conflist", BRIDGE)];
    let mut story = Story::new(Mode::Own, &files);
    story.look();
    story.remove("10-calico.conflist");
    story.look();
    assert_eq!(story.later(GRACE).look(), ["+00-sluice.conflist"]);
    assert_eq!(story.chosen(), ["bridge", "sluice-cni"]);
}

#[test]
fn a_primary_that_goes_for_good_takes_its_list_with_it() {
    let mut story = Story::new(Mode::Own, &[("10-calico.conflist", CALICO)]);
    story.look();
    story.remove("10-calico.conflist");
    assert_eq!(story.look(), [""; 0]);
    assert_eq!(story.chosen()[0], "calico", "it may be written anew right now");
    assert_eq!(story.later(GRACE).look(), ["+00-sluice.conflist"]);
    assert_eq!(story.chosen(), ["sluice-cni"]);
    story.put("10-calico.conflist", CALICO);
    assert_eq!(story.look(), ["+00-sluice.conflist"]);
    assert_eq!(story.chosen(), ["calico", "portmap", "sluice-cni"]);
}

#[test]
fn a_primary_that_stays_broken_keeps_the_last_list_when_there_is_no_other() {
    let mut story = Story::new(Mode::Own, &[("10-calico.conflist", CALICO)]);
    story.look();
    story.put("10-calico.conflist", "{");
    story.look();
    assert_eq!(story.later(GRACE * 100).look(), [""; 0]);
    assert_eq!(story.chosen(), ["calico", "portmap", "sluice-cni"]);
}

#[test]
fn a_restart_remembers_of_which_file_the_list_was_made() {
    let files = [("10-calico.conflist", CALICO), ("87-podman.conflist", BRIDGE)];
    let mut story = Story::new(Mode::Own, &files);
    story.look();
    story.remove("10-calico.conflist");
    story.past = Past::inherited(&story.view, &story.settings);
    assert_eq!(story.look(), [""; 0], "it may come back");
    assert_eq!(story.later(GRACE).look(), ["+00-sluice.conflist"]);
    assert_eq!(story.chosen(), ["bridge", "sluice-cni"]);
}

#[test]
fn a_file_renamed_from_conf_to_conflist_is_the_same_primary() {
    let mut story = Story::new(Mode::Own, &[("10-weave.conf", SINGLE), ("87-p.conflist", BRIDGE)]);
    story.look();
    assert_eq!(story.chosen(), ["weave-net", "sluice-cni"]);
    story.remove("10-weave.conf");
    assert_eq!(story.look(), [""; 0]);
    story.put("10-weave.conflist", CALICO);
    assert_eq!(story.look(), ["+00-sluice.conflist"]);
    assert_eq!(story.chosen()[0], "calico");
}

#[test]
fn a_new_file_that_sorts_before_the_primarys_is_the_primary() {
    let mut story = Story::new(Mode::Own, &[("10-calico.conflist", CALICO)]);
    story.look();
    story.put("05-other.conflist", BRIDGE);
    assert_eq!(story.look(), ["+00-sluice.conflist"]);
    assert_eq!(story.chosen(), ["bridge", "sluice-cni"]);
}

#[test]
fn a_broken_file_before_the_others_is_waited_for_and_then_passed_over() {
    let mut story = Story::new(Mode::Own, &[("05-x.conflist", "{"), ("10-c.conflist", CALICO)]);
    assert_eq!(story.look(), ["+00-sluice.conflist"]);
    assert_eq!(story.chosen(), ["sluice-cni"], "it may be written right now");
    assert!(story.told().contains("05-x.conflist cannot be used"));
    assert_eq!(story.later(GRACE).look(), ["+00-sluice.conflist"]);
    assert_eq!(story.chosen(), ["calico", "portmap", "sluice-cni"]);
}

#[test]
fn files_that_cannot_be_read_are_told_with_the_reason() {
    let mut story = Story::new(Mode::Own, &[]);
    story.view.files.insert("10-a.conf".into(), Found::Unusable("Permission denied".into()));
    story.look();
    assert!(story.told().contains("10-a.conf cannot be used: Permission denied"));
}

#[test]
fn what_sorts_before_our_list_gets_our_entry() {
    let mut story = Story::new(Mode::Own, &[("00-a.conflist", BRIDGE), ("10-c.conflist", CALICO)]);
    assert_eq!(story.look(), ["+00-a.conflist", "+00-sluice.conflist"]);
    assert_eq!(story.chosen(), ["bridge", "sluice-cni"]);
    assert!(story.told().contains("00-a.conflist sorts before our own list"));
    assert_eq!(story.look(), [""; 0]);
    story.remove("00-a.conflist");
    assert_eq!(story.chosen(), ["calico", "portmap", "sluice-cni"], "ours is there already");
}

#[test]
fn a_single_plugin_that_sorts_first_gets_a_list_right_before_it() {
    for mode in [Mode::Own, Mode::Append] {
        let files = [("00-a.conf", SINGLE), ("10-calico.conflist", CALICO)];
        let mut story = Story::new(mode, &files);
        assert!(story.look().contains(&"+00-a-sluice.conflist".to_owned()), "{mode:?}");
        assert_eq!(story.chosen(), ["weave-net", "sluice-cni"]);
        assert_eq!(story.look(), [""; 0], "{mode:?}");
        assert_eq!(story.view.files.contains_key(OWN), mode == Mode::Own);
        story.put("00-a.conf", &SINGLE.replace("0.3.1", "1.0.0"));
        assert_eq!(story.look(), ["+00-a-sluice.conflist"], "it follows");
    }
}

#[test]
fn multus_is_given_no_list_that_it_would_delegate_to_in_a_circle() {
    let files = [("00-multus.conf", MULTUS), ("10-calico.conflist", CALICO)];
    let mut story = Story::new(Mode::Own, &files);
    assert_eq!(story.look(), ["+00-sluice.conflist"], "which it may take, and will");
    assert!(story.text(OWN).contains("calico") && !story.text(OWN).contains("multus"));
    assert!(story.told().contains("does not call our plugin"), "{}", story.told());
    let delegates = format!("\"delegates\":[{}],\"type\"", story.text(OWN));
    story.put("00-multus.conf", &MULTUS.replace("\"type\"", &delegates));
    assert_eq!(story.look(), [""; 0]);
    assert!(story.told().contains("00-multus.conf calls ours by itself"), "{}", story.told());
}

#[test]
fn multus_that_delegates_to_the_list_in_which_pods_wait_is_not_taken_for_ours() {
    let mut story = Story::new(Mode::Own, &[]);
    story.look();
    let delegates = format!("\"delegates\":[{}],\"type\"", story.text(OWN));
    story.put("00-multus.conf", &MULTUS.replace("\"type\"", &delegates));
    assert_eq!(story.look(), [""; 0]);
    story.put("10-calico.conflist", CALICO);
    assert_eq!(story.look(), ["+00-sluice.conflist"], "which Multus follows");
}

#[test]
fn multus_in_a_list_gets_our_entry_once() {
    let list = format!(r#"{{"name":"m","cniVersion":"1.0.0","plugins":[{MULTUS}]}}"#);
    let files = [("00-multus.conflist", list.as_str()), ("10-calico.conflist", CALICO)];
    let mut story = Story::new(Mode::Append, &files);
    assert_eq!(story.look(), ["+00-multus.conflist"]);
    assert_eq!(story.chosen(), ["multus-shim", "sluice-cni"]);
    assert_eq!(story.look(), [""; 0]);
}

#[test]
fn append_mode_writes_the_primarys_file_once() {
    let mut story = Story::new(Mode::Append, &[("10-calico.conflist", CALICO)]);
    assert_eq!(story.look(), ["+10-calico.conflist"]);
    assert_eq!(story.chosen(), ["calico", "portmap", "sluice-cni"]);
    assert_eq!(story.look(), [""; 0]);
    story.put("10-calico.conflist", CALICO);
    assert_eq!(story.look(), ["+10-calico.conflist"], "its owner has written it");
    assert_eq!(story.told(), "");
}

#[test]
fn append_mode_touches_no_other_network_while_the_first_one_is_torn() {
    let files = [("10-calico.conflist", CALICO), ("87-podman.conflist", BRIDGE)];
    let mut story = Story::new(Mode::Append, &files);
    story.look();
    story.put("10-calico.conflist", "");
    assert_eq!(story.look(), [""; 0]);
    assert_eq!(story.later(GRACE).look(), ["+87-podman.conflist"]);
}

#[test]
fn append_mode_has_nothing_to_do_without_a_primary() {
    let mut story = Story::new(Mode::Append, &[]);
    assert_eq!(story.look(), [""; 0]);
    assert!(story.told().contains("no primary plugin"));
}

#[test]
fn the_mode_can_be_changed_and_the_runtime_always_finds_our_plugin() {
    let mut story = Story::new(Mode::Own, &[("10-calico.conflist", CALICO)]);
    story.look();
    story.settings.mode = Mode::Append;
    assert_eq!(story.look(), ["+10-calico.conflist", "-00-sluice.conflist"], "in this order");
    story.settings.mode = Mode::Own;
    assert_eq!(story.look(), ["+00-sluice.conflist", "+10-calico.conflist"], "in this order");
    assert_eq!(story.text("10-calico.conflist"), CALICO, "byte for byte");
    assert_eq!(story.look(), [""; 0]);
}

#[test]
fn an_entry_put_there_by_hand_moves_into_our_list() {
    let by_hand = CALICO.replace("\"portmap\"}", "\"portmap\"},{\"type\":\"sluice-cni\"}");
    let mut story = Story::new(Mode::Own, &[("10-calico.conflist", &by_hand)]);
    assert_eq!(story.look(), ["+00-sluice.conflist", "+10-calico.conflist"]);
    assert_eq!(story.text("10-calico.conflist"), CALICO);
    assert_eq!(story.chosen(), ["calico", "portmap", "sluice-cni"]);
}

#[test]
fn a_network_in_a_version_that_we_do_not_speak_is_left_alone() {
    let old = CALICO.replace("0.3.1", "0.2.0");
    for mode in [Mode::Own, Mode::Append] {
        let mut story = Story::new(mode, &[("10-calico.conflist", &old)]);
        assert_eq!(story.look(), [""; 0], "or no pod could start");
        assert!(story.told().contains("pods start outside the mesh"));
    }
}

#[test]
fn our_list_changed_by_somebody_is_made_again() {
    let mut story = Story::new(Mode::Own, &[("10-calico.conflist", CALICO)]);
    story.look();
    let ours = story.text(OWN).to_owned();
    for other in ["", "{", CALICO] {
        story.put(OWN, other);
        assert_eq!(story.look(), ["+00-sluice.conflist"]);
        assert_eq!(story.text(OWN), ours);
    }
    story.remove(OWN);
    assert_eq!(story.look(), ["+00-sluice.conflist"]);
}

#[test]
fn other_settings_are_another_entry() {
    let mut story = Story::new(Mode::Own, &[("10-calico.conflist", CALICO)]);
    story.look();
    story.settings.entry.timeout_seconds = 7;
    assert_eq!(story.look(), ["+00-sluice.conflist"]);
    assert!(story.text(OWN).contains("\"timeoutSeconds\":7"));
}
