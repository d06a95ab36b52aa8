use super::*;
use crate::testing::{options, pod};

/// The pod's label, the namespace's label, one change to the pod, what comes of it.
struct Case {
    name: &'static str,
    pod: Option<&'static str>,
    namespace: Option<&'static str>,
    change: fn(&mut PodFacts),
    expected: Option<Reason>,
}

fn same(_: &mut PodFacts) {}

fn case(
    name: &'static str,
    pod: Option<&'static str>,
    namespace: Option<&'static str>,
    change: fn(&mut PodFacts),
    expected: Option<Reason>,
) -> Case {
    Case { name, pod, namespace, change, expected }
}

fn bad(of: &'static str) -> Option<Reason> {
    Some(Reason::BadLabel { of, value: "ambiant".into() })
}

const AMBIENT: Option<&str> = Some("ambient");
const NONE: Option<&str> = Some("none");
const TYPO: Option<&str> = Some("ambiant");

fn labels() -> Vec<Case> {
    use Reason::{NotLabelled, OptedOut};
    vec![
        case("no label at all", None, None, same, Some(NotLabelled)),
        case("pod label", AMBIENT, None, same, None),
        case("namespace label", None, AMBIENT, same, None),
        case("both", AMBIENT, AMBIENT, same, None),
        case("pod beats namespace: in", AMBIENT, NONE, same, None),
        case("pod beats namespace: out", NONE, AMBIENT, same, Some(OptedOut)),
        case("opt-out without need", NONE, None, same, Some(OptedOut)),
        case("namespace says none", None, NONE, same, Some(NotLabelled)),
        case("empty pod label is silence", Some(""), AMBIENT, same, None),
        case("empty labels are silence", Some(""), Some(""), same, Some(NotLabelled)),
        case("pod label mistyped", TYPO, None, same, bad("pod")),
        case("pod label mistyped in the mesh", TYPO, AMBIENT, same, None),
        case("namespace label mistyped", None, TYPO, same, bad("namespace")),
        case("both mistyped: the nearer is named", TYPO, TYPO, same, bad("pod")),
        case("namespace mistyped, pod clear", AMBIENT, TYPO, same, None),
        case("labels are case sensitive", Some("Ambient"), None, same, {
            Some(Reason::BadLabel { of: "pod", value: "Ambient".into() })
        }),
    ]
}

fn obstacles() -> Vec<Case> {
    use Reason::{Ended, ExcludedNamespace, HostNetwork, NoAddress, Sidecar, Terminating};
    let both = |name, change, reason| case(name, AMBIENT, AMBIENT, change, Some(reason));
    vec![
        both("node's network", |p| p.network = Network::Host, HostNetwork),
        both("sidecar", |p| p.sidecar = true, Sidecar),
        both("ended", |p| p.phase = Phase::Ended, Ended),
        both("excluded", |p| p.name.namespace = "kube-system".into(), ExcludedNamespace),
        both("terminating", |p| p.terminating = true, Terminating),
        both("no address yet", |p| p.ips.clear(), NoAddress),
        case(
            "terminating, unwanted anyway",
            NONE,
            None,
            |p| p.terminating = true,
            Some(Reason::OptedOut),
        ),
        case(
            "no address, unwanted anyway",
            None,
            None,
            |p| p.ips.clear(),
            Some(Reason::NotLabelled),
        ),
        both("ended and without address", |p| (p.phase = Phase::Ended, p.ips.clear()).1, Ended),
        both("IPv6 only", |p| p.ips = vec!["fd00::5".parse().unwrap()], Reason::NotLabelled)
            .expecting(None),
    ]
}

impl Case {
    fn expecting(mut self, expected: Option<Reason>) -> Self {
        self.expected = expected;
        self
    }
}

#[test]
fn the_table() {
    let settings = Settings {
        excluded_namespaces: BTreeSet::from(["kube-system".to_owned()]),
        options: options(),
        selectors: None,
        older: Older::Keep,
    };
    for case in labels().into_iter().chain(obstacles()) {
        let mut facts = pod("web");
        facts.dataplane_mode = case.pod.map(str::to_owned);
        (case.change)(&mut facts);
        let namespace = NamespaceFacts {
            name: facts.name.namespace.clone(),
            dataplane_mode: case.namespace.map(str::to_owned),
            labels: Labels::new(),
        };
        let expected = match case.expected {
            None => Enrollment::Capture(options()),
            Some(reason) => Enrollment::Skip(reason),
        };
        assert_eq!(
            enrollment(&facts, &Wishes::default(), Some(&namespace), &settings),
            expected,
            "{}",
            case.name
        );
    }
}

#[test]
fn a_namespace_out_of_view_decides_nothing_that_the_pod_does_not_decide() {
    let settings = Settings {
        excluded_namespaces: BTreeSet::new(),
        options: options(),
        selectors: None,
        older: Older::Keep,
    };
    let decide = |label: Option<&str>| {
        let mut facts = pod("web");
        facts.dataplane_mode = label.map(str::to_owned);
        enrollment(&facts, &Wishes::default(), None, &settings)
    };
    assert_eq!(decide(None), Enrollment::Skip(Reason::NamespaceUnknown));
    assert_eq!(decide(TYPO), Enrollment::Skip(Reason::NamespaceUnknown));
    assert_eq!(decide(NONE), Enrollment::Skip(Reason::OptedOut));
    assert_eq!(decide(AMBIENT), Enrollment::Capture(options()));
}

#[test]
fn only_a_wish_releases() {
    let wishes = [
        Reason::NotLabelled,
        Reason::OptedOut,
        Reason::HostNetwork,
        Reason::Sidecar,
        Reason::ExcludedNamespace,
    ];
    let gaps = [
        Reason::Ended,
        Reason::Terminating,
        Reason::NoAddress,
        Reason::NamespaceUnknown,
        Reason::BadLabel { of: "pod", value: "x".into() },
    ];
    assert!(wishes.iter().all(Reason::releases));
    assert!(!gaps.iter().any(Reason::releases));
}
