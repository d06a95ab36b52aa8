#![no_main]
//! Somebody's network configuration: our entry is put into its text and cut out of it again, and
//! every other byte stays. Whatever stands in the folder, what is done to it comes to rest, and an
//! uninstall leaves nothing of us.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use arbitrary::Arbitrary;
use fuzz::Edits;
use libfuzzer_sys::fuzz_target;
use node_agent::install::{
    Change, Entry, Found, List, Mode, PLUGIN, Past, Settings, Shape, View, WhenAgentAbsent, plan,
    undo,
};

const OWN: &str = "00-sluice.conflist";
const NAMES: [&str; 6] = [
    OWN,
    "00-multus.conf",
    "10-a.conflist",
    "10-a.conf",
    "00-a-sluice.conflist",
    "90-last.json",
];
const TEXTS: [&str; 7] = [
    r#"{"cniVersion":"1.0.0","name":"net","plugins":[{"type":"a","mtu":1e3},{"type":"b"}]}"#,
    "{\n  \"name\": \"net\",\n  \"plugins\": [\n    {\"type\": \"a\"}\n  ],\n  \"x\": 1.50\n}\n",
    r#"{"cniVersion":"0.3.1","name":"net","plugins":[{"type":"a"},{"type":"sluice-cni"}]}"#,
    r#"{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"a"},{"type":"sluice-cni","listOf":"10-a.conflist"}]}"#,
    r#"{"cniVersion":"0.3.1","name":"m","type":"multus-shim","clusterNetwork":"/host/x/00-sluice.conflist"}"#,
    r#"{"cniVersion":"0.3.1","name":"m","type":"multus","delegates":[{"name":"n","plugins":[{"type":"a"},{"type":"sluice-cni"}]}]}"#,
    r#"{"cniVersion":"0.4.0","name":"single","type":"bridge"}"#,
];

#[derive(Debug, Arbitrary)]
enum Content {
    Seed(u8, Edits),
    Text(String),
    Unusable,
    Unread,
}

impl Content {
    fn found(self) -> Found {
        match self {
            Self::Seed(which, edits) => {
                let text = TEXTS[usize::from(which) % TEXTS.len()];
                Found::Text(String::from_utf8_lossy(&edits.apply(text.as_bytes())).into_owned())
            }
            Self::Text(text) => Found::Text(text),
            Self::Unusable => Found::Unusable("x".into()),
            Self::Unread => Found::Unread("x".into()),
        }
    }
}

fn settings(mode: Mode) -> Settings {
    let entry = Entry {
        agent_socket: "/run/a.sock".into(),
        exclude_namespaces: BTreeSet::new(),
        timeout_seconds: 5,
        when_agent_absent: WhenAgentAbsent::Closed,
        log_file: None,
        log_max_bytes: None,
    };
    Settings { mode, own: OWN.into(), entry }
}

fn apply(view: &mut View, change: Change) {
    match change {
        Change::Write { name, text, of } => {
            if let Some(of) = of {
                assert_eq!(view.files.get(&name), Some(&Found::Text(of)), "made of what is there");
            }
            view.files.insert(name, Found::Text(text));
        }
        Change::Remove { name, .. } => drop(view.files.remove(&name)),
    }
}

/// The editor alone.
fn edit(name: &str, text: &str, entry: &str) {
    let Some(shape) = Shape::of(name) else { return };
    let Ok(list) = List::parse(shape, text) else { return };
    if !list.has_others() {
        return;
    }
    let with = list.with(entry);
    let ours = List::parse(Shape::List, &with).expect("a list");
    let others: Vec<_> = list.kinds().filter(|kind| *kind != PLUGIN).collect();
    let kinds: Vec<_> = ours.kinds().collect();
    assert_eq!(kinds.split_last(), Some((&PLUGIN, &others[..])));
    let left = ours.without();
    let kept = List::parse(Shape::List, &left).expect("a list");
    assert_eq!(kept.kinds().collect::<Vec<_>>(), others);
    if shape == Shape::List && !list.has_ours() {
        assert_eq!(left, text, "byte for byte");
    }
}

fuzz_target!(|input: (BTreeMap<u8, Content>, bool)| {
    let (files, append) = input;
    let settings = settings(if append { Mode::Append } else { Mode::Own });
    let named = |(which, content): (u8, Content)| {
        (NAMES[usize::from(which) % NAMES.len()].to_owned(), content.found())
    };
    let files: BTreeMap<_, _> = files.into_iter().map(named).collect();
    let mut view = View { files, others: BTreeSet::new() };
    let entry = settings.entry.text(std::iter::empty(), None);
    for (name, found) in &view.files {
        if let Found::Text(text) = found {
            edit(name, text, &entry);
        }
    }
    let mut past = Past::inherited(&view, &settings);
    let mut now = Duration::ZERO;
    // A file that is waited for, one that loses its entry, one that is ours no more.
    for round in 0.. {
        let made = plan(&view, &settings, &past, now);
        past = made.past;
        let rests = made.changes.is_empty();
        made.changes.into_iter().for_each(|change| apply(&mut view, change));
        if rests && round > 2 {
            break;
        }
        assert!(round < 8, "it never comes to rest: {view:?}");
        now += Duration::from_secs(60);
    }
    for change in undo(&view, OWN).changes {
        apply(&mut view, change);
    }
    let again = undo(&view, OWN);
    assert!(again.changes.is_empty(), "{again:?} in {view:?}");
});
