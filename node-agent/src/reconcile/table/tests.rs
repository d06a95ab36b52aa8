use std::collections::BTreeSet;

use super::watched::GONE;
use super::*;
use crate::enrollment::Older;
use crate::reconcile::captured_annotations;
use crate::testing::{options, pod};

fn settings() -> Settings {
    Settings {
        excluded_namespaces: BTreeSet::new(),
        options: options(),
        selectors: None,
        older: Older::Keep,
    }
}

fn namespace(mode: Option<&str>) -> NamespaceFacts {
    let dataplane_mode = mode.map(str::to_owned);
    NamespaceFacts { name: "shop".into(), dataplane_mode, labels: BTreeMap::new() }
}

fn attachment(container: &str) -> Attachment {
    Attachment { container_id: container.into(), ips: vec!["10.9.0.5".parse().unwrap()] }
}

/// All orders of these.
fn orders<T: Clone>(all: &[T]) -> Vec<Vec<T>> {
    if all.is_empty() {
        return vec![Vec::new()];
    }
    let begin_with = |at: usize| {
        let rest: Vec<T> = [&all[..at], &all[at + 1..]].concat();
        orders(&rest).into_iter().map(move |rest| [vec![all[at].clone()], rest].concat())
    };
    (0..all.len()).flat_map(begin_with).collect()
}

/// Something that happens to a table, with the pod as it is then.
type Step = (&'static str, fn(&mut Table, PodFacts));

#[test]
fn facts_that_come_in_any_order_lead_to_the_same_plan() {
    let (uid, unseen) = (pod("web").uid, PodFacts { ips: Vec::new(), ..pod("web") });
    let steps: [Step; 5] = [
        ("no namespaces", |table, _| drop(table.observe(Fact::Namespaces(Vec::new())))),
        ("no pods", |table, _| drop(table.observe(Fact::Pods(Vec::new())))),
        ("the namespace", |table, _| {
            table.observe(Fact::Namespace(namespace(Some("ambient"))));
        }),
        ("the pod, without an address", |table, unseen| {
            table.observe(Fact::Pod(unseen));
        }),
        ("its sandbox", |table, unseen| {
            table.attach(&unseen.uid.clone(), unseen, attachment("c1"));
        }),
    ];
    for order in orders(&steps) {
        let mut table = Table::default();
        let names: Vec<_> = order.iter().map(|(name, _)| *name).collect();
        order.iter().for_each(|(_, step)| step(&mut table, unseen.clone()));
        // Lists that came late have not seen what was told before: the watch tells it again.
        table.observe(Fact::Namespace(namespace(Some("ambient"))));
        if table.get(&uid).is_none_or(|pod| pod.ending) {
            assert!(place(&names, "no pods") > place(&names, "the pod, without an address"));
            continue;
        }
        let plan = table.plan(&uid, &settings(), &Ack::Unknown);
        assert!(matches!(plan, Action::Capture(_)), "{plan:?} after {names:?}");
    }
}

fn place(names: &[&str], name: &str) -> usize {
    names.iter().position(|found| *found == name).unwrap()
}

#[test]
fn a_del_that_comes_late_does_not_end_the_next_sandbox() {
    let mut table = listed(&["web"]);
    let uid = pod("web").uid;
    table.attach(&uid, pod("web"), attachment("c1"));
    table.attach(&uid, pod("web"), attachment("c2"));
    table.end(&uid, "c1");
    assert!(!table.get(&uid).unwrap().ending);
    table.end(&uid, "c2");
    assert!(table.get(&uid).unwrap().ending);
}

#[test]
fn a_pod_that_is_gone_is_not_let_in_again() {
    let mut table = listed(&["web"]);
    let uid = pod("web").uid;
    table.observe(Fact::PodGone(uid.clone()));
    assert_eq!(table.attach(&uid, pod("web"), attachment("c1")), Entered::Gone);
    table.forgotten(&uid);
    assert_eq!(table.attach(&uid, pod("web"), attachment("c1")), Entered::Gone);
    assert!(table.get(&uid).is_none());
    table.observe(Fact::Pod(pod("web")));
    let shown = table.attach(&uid, pod("web"), attachment("c1"));
    assert_eq!(shown, Entered::Known, "a list from a server that lags behind lacked it");
    for other in 0..GONE {
        table.observe(Fact::PodGone(PodUid(format!("other-{other}"))));
    }
    assert_eq!(table.gone.len(), GONE, "bounded");
}

fn names(uids: Vec<PodUid>) -> Vec<String> {
    uids.into_iter().map(|uid| uid.0).collect()
}

/// A table that has seen its first lists, with these pods.
fn listed(pods: &[&str]) -> Table {
    let mut table = Table::default();
    table.observe(Fact::Namespaces(vec![namespace(None)]));
    table.observe(Fact::Pods(pods.iter().map(|name| pod(name)).collect()));
    assert!(table.synced());
    table
}

#[test]
fn only_changes_wake_a_pod() {
    let mut table = listed(&["a", "b"]);
    assert!(table.observe(Fact::Pod(pod("a"))).is_empty());
    let mut changed = pod("a");
    changed.dataplane_mode = Some("ambient".into());
    assert_eq!(names(table.observe(Fact::Pod(changed))), ["uid-a"]);
    assert!(table.observe(Fact::Namespace(namespace(None))).is_empty());
    let labelled = Fact::Namespace(namespace(Some("ambient")));
    assert_eq!(names(table.observe(labelled)), ["uid-a", "uid-b"]);
}

#[test]
fn a_pod_that_a_later_list_lacks_is_gone() {
    let mut table = listed(&["a", "b"]);
    let woken = names(table.observe(Fact::Pods(vec![pod("b")])));
    assert_eq!(woken, ["uid-a"]);
    assert!(table.get(&pod("a").uid).unwrap().ending);
    assert!(!table.get(&pod("b").uid).unwrap().ending);
}

#[test]
fn a_pod_that_the_watch_has_not_shown_yet_is_not_gone() {
    let mut table = listed(&[]);
    table.attach(&pod("new").uid, pod("new"), attachment("c1"));
    assert!(table.observe(Fact::Pods(vec![])).is_empty());
    assert!(!table.get(&pod("new").uid).unwrap().ending);
}

#[test]
fn what_an_earlier_life_knew_is_in_the_first_list_or_gone() {
    let mut table = Table::default();
    for name in ["a", "b"] {
        table.restore(&pod(name).uid, attachment("c1"));
    }
    assert_eq!(table.plan(&pod("a").uid, &settings(), &Ack::Unknown), Action::Look);
    let woken = names(table.observe(Fact::Pods(vec![pod("a")])));
    assert_eq!(woken.len(), 2);
    assert!(table.get(&pod("b").uid).unwrap().ending);
    assert!(!table.get(&pod("a").uid).unwrap().ending);
}

#[test]
fn what_is_restored_after_the_first_list_is_in_it_or_gone() {
    let mut table = listed(&["a"]);
    for name in ["a", "b"] {
        table.restore(&pod(name).uid, attachment("c1"));
    }
    assert!(!table.get(&pod("a").uid).unwrap().ending);
    assert!(table.get(&pod("b").uid).unwrap().ending);
}

#[test]
fn addresses_of_the_plugin_stand_until_the_api_tells_them() {
    let mut table = listed(&[]);
    let mut young = pod("a");
    young.dataplane_mode = Some("ambient".into());
    young.ips.clear();
    table.observe(Fact::Pod(young.clone()));
    let wanted = table.wanted(&young.uid, &settings());
    assert_eq!(wanted, Some(Enrollment::Skip(Reason::NoAddress)));
    table.attach(&young.uid, young.clone(), attachment("c1"));
    let wanted = table.wanted(&young.uid, &settings());
    assert_eq!(wanted, Some(Enrollment::Capture(options())));
}

#[test]
fn a_new_sandbox_starts_outside_and_the_same_one_stays_where_it_is() {
    let mut table = listed(&["a"]);
    let uid = pod("a").uid;
    table.attach(&uid, pod("a"), attachment("c1"));
    table.get_mut(&uid).unwrap().state = State::Captured;
    table.attach(&uid, pod("a"), attachment("c1"));
    assert_eq!(table.get(&uid).unwrap().state, State::Captured);
    table.end(&uid, "c1");
    table.attach(&uid, pod("a"), attachment("c2"));
    let pod = table.get(&uid).unwrap();
    assert_eq!((pod.state, pod.ending), (State::Outside, false));
}

#[test]
fn a_forgotten_pod_stays_while_the_api_shows_it() {
    let mut table = listed(&["a"]);
    let uid = pod("a").uid;
    table.attach(&uid, pod("a"), attachment("c1"));
    table.end(&uid, "c1");
    table.forgotten(&uid);
    let left = table.get(&uid).unwrap();
    assert!(left.attachment.is_none() && !left.ending && left.facts.is_some());

    table.observe(Fact::PodGone(uid.clone()));
    table.forgotten(&uid);
    assert!(table.get(&uid).is_none());
}

#[test]
fn a_namespace_that_is_gone_decides_nothing_for_its_captured_pods() {
    let mut table = listed(&["a"]);
    let uid = pod("a").uid;
    table.observe(Fact::Namespace(namespace(Some("ambient"))));
    table.attach(&uid, pod("a"), attachment("c1"));
    let captured = table.get_mut(&uid).unwrap();
    captured.state = State::Captured;
    captured.applied = Some(options());
    captured.facts.as_mut().unwrap().annotations = captured_annotations();
    captured.due = false;
    table.observe(Fact::NamespaceGone("shop".into()));
    assert_eq!(table.plan(&uid, &settings(), &Ack::Serving), Action::Idle);
}

#[test]
fn selectors_decide_and_only_their_labels_are_kept() {
    let selectors = "[{podSelector: {matchLabels: {mesh: a}}}, \
        {namespaceSelector: {matchLabels: {tier: b}}}]";
    let selectors = crate::enrollment::Selectors::parse(selectors).unwrap();
    let settings = Settings { selectors: Some(selectors), ..settings() };
    let mut table = Table::recalling(BTreeMap::new(), settings.label_keys());
    let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let mut facts = pod("web");
    facts.labels = [label("mesh", "a"), label("app", "web")].into();
    let uid = facts.uid.clone();
    table.observe(Fact::Pod(facts.clone()));
    let kept = &table.get(&uid).unwrap().facts.as_ref().unwrap().labels;
    assert_eq!(*kept, [label("mesh", "a")].into());
    let wanted = |table: &Table| table.wanted(&uid, &settings).unwrap();
    assert!(matches!(wanted(&table), Enrollment::Capture(_)), "whatever its namespace");

    facts.labels.clear();
    table.observe(Fact::Pod(facts.clone()));
    assert_eq!(wanted(&table), Enrollment::Skip(Reason::NamespaceUnknown));
    for (tier, expected) in [("c", Some(Reason::NotSelected)), ("b", None)] {
        let labels = [label("tier", tier), label("team", "x")].into();
        let namespace = NamespaceFacts { labels, ..namespace(None) };
        table.observe(Fact::Namespaces(vec![namespace]));
        assert_eq!(table.namespace("shop").unwrap().labels.len(), 1);
        match expected {
            Some(reason) => assert_eq!(wanted(&table), Enrollment::Skip(reason)),
            None => assert!(matches!(wanted(&table), Enrollment::Capture(_))),
        }
    }
    facts.dataplane_mode = Some("none".into());
    table.observe(Fact::Pod(facts));
    assert_eq!(wanted(&table), Enrollment::Skip(Reason::OptedOut));
}
