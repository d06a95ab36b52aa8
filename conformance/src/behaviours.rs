//! The behaviours that a mesh must have, by number. PURE.
//!
//! They are independent of any implementation. A scenario names those that it covers; one
//! behaviour may need several scenarios, and scenarios at several levels.

use crate::report::Level;

/// A behaviour.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Behaviour {
    /// From 1.
    pub number: u8,
    /// What it is about.
    pub group: &'static str,
    /// In one line.
    pub title: &'static str,
    /// The level at which it must at least be shown.
    pub level: Level,
}

const fn lab(number: u8, group: &'static str, title: &'static str) -> Behaviour {
    Behaviour { number, group, title, level: Level::Namespaces }
}

const fn cluster(number: u8, group: &'static str, title: &'static str) -> Behaviour {
    Behaviour { number, group, title, level: Level::Cluster }
}

const CAPTURE: &str = "Capture";
const DNS: &str = "DNS";
const PROBES: &str = "Probes";
const ENROLMENT: &str = "Enrolment";
const FAILURE_OF_PARTS: &str = "Failure of parts";
const DOOR_RACES: &str = "Door races";
const DRIFT: &str = "Drift";
const CNI_PROTOCOL: &str = "CNI protocol";
const ISOLATION: &str = "Isolation";
const OPERATIONS: &str = "Operations";

/// All of them, in order.
#[rustfmt::skip]
pub(crate) const BEHAVIOURS: &[Behaviour] = &[
    cluster(1, CAPTURE, "an init container's first connection is captured"),
    cluster(2, CAPTURE, "the first packet to a new pod is captured"),
    lab(3, CAPTURE, "TCP to pods, services and the outside is captured, with its destination"),
    lab(4, CAPTURE, "what arrives on any port is captured; the app sees the client's address"),
    lab(5, CAPTURE, "loopback is untouched"),
    lab(6, CAPTURE, "a pod reaches itself, by address and by service"),
    lab(7, CAPTURE, "the proxy's own ports lead nowhere from outside"),
    lab(8, CAPTURE, "UDP, ICMP and others do as declared, never by halves"),
    lab(9, CAPTURE, "IPv6 and dual stack are captured or blocked, never direct"),
    lab(10, CAPTURE, "pods without IPv6 work"),
    cluster(11, CAPTURE, "service addresses reach the proxy unchanged, or the check says why not"),
    lab(12, CAPTURE, "excluded ports and networks are direct, and nothing else"),
    lab(13, CAPTURE, "server-first, half-close, bursts, resets and stalls survive"),
    cluster(14, CAPTURE, "hostPort, NodePort and LoadBalancer arrive captured, with the right source"),
    lab(15, DNS, "lookups are captured when on, untouched when off, a pod's word wins"),
    lab(16, DNS, "a thousand lookups at once, none lost or swapped"),
    lab(17, DNS, "node-local servers, pods that are servers, and SRV names work"),
    cluster(18, PROBES, "all kinds of probes and hooks pass under strict policy"),
    cluster(19, PROBES, "the same with a default-deny network policy and the documented exception"),
    cluster(20, PROBES, "other pods are not exempt at the probe port; the node's own processes are"),
    cluster(21, PROBES, "the node's processes are not exempt at other ports"),
    lab(22, PROBES, "a pod that forges the probes' source gets nowhere"),
    cluster(23, PROBES, "probes pass after restarts, firewall flushes and address reuse"),
    cluster(24, ENROLMENT, "labelling a running pod under load fails no request"),
    cluster(25, ENROLMENT, "older connections do as declared"),
    cluster(26, ENROLMENT, "un-labelling under load fails no new connection"),
    cluster(27, ENROLMENT, "fifty label flips converge and leave nothing"),
    cluster(28, ENROLMENT, "namespace label, pod label and opt-out: the precedence holds"),
    cluster(29, ENROLMENT, "an option changed on a running pod counts within seconds"),
    cluster(30, ENROLMENT, "host-network, sidecar, finished and own pods are never touched"),
    cluster(31, ENROLMENT, "jobs complete and clean up; their addresses can be used again"),
    cluster(32, ENROLMENT, "a pod created again under its name is captured anew"),
    cluster(33, ENROLMENT, "a killed sandbox is captured again before the app runs"),
    lab(34, FAILURE_OF_PARTS, "without an agent pods wait, excluded namespaces do not"),
    lab(35, FAILURE_OF_PARTS, "an agent that hangs is as one that is absent"),
    lab(36, FAILURE_OF_PARTS, "without a proxy labelled pods wait, and heal"),
    cluster(37, FAILURE_OF_PARTS, "without the API running pods go on, and nothing escapes"),
    cluster(38, FAILURE_OF_PARTS, "an agent killed at any step leaves no mess"),
    cluster(39, FAILURE_OF_PARTS, "an agent's restart loses no packet"),
    cluster(40, FAILURE_OF_PARTS, "a proxy's rolling update fails no new connection"),
    cluster(41, FAILURE_OF_PARTS, "a proxy's crash never lets clear text out, and is over in seconds"),
    cluster(42, FAILURE_OF_PARTS, "a pod that cannot be set up hurts no other"),
    cluster(43, FAILURE_OF_PARTS, "a proxy that dies before it is ready leaves no pod without one"),
    cluster(44, FAILURE_OF_PARTS, "late control messages acknowledge no wrong pod"),
    cluster(45, DOOR_RACES, "a reboot without drain lets nothing out"),
    cluster(46, DOOR_RACES, "a primary CNI that rewrites its file lets nothing out"),
    cluster(47, DOOR_RACES, "files renamed, unreadable, late or twice: the chain is right"),
    cluster(48, DOOR_RACES, "a fresh node with waiting pods lets nothing out"),
    cluster(49, DOOR_RACES, "what was deleted by hand is restored; escaped pods are dealt with"),
    lab(50, DOOR_RACES, "expired credentials and a wiped run folder: ADD decides right"),
    lab(51, DOOR_RACES, "the mesh's own pods always start"),
    cluster(52, DRIFT, "in-pod state removed by hand is repaired within seconds, and reported"),
    cluster(53, DRIFT, "host state removed by hand is repaired within seconds"),
    lab(54, DRIFT, "applying the same again changes nothing"),
    lab(55, DRIFT, "others' rules are left alone"),
    cluster(56, DRIFT, "an upgrade of the rules under load loses nothing"),
    lab(57, CNI_PROTOCOL, "ADD passes the previous result on, byte by byte"),
    lab(58, CNI_PROTOCOL, "DEL succeeds always and leaves nothing"),
    lab(59, CNI_PROTOCOL, "CHECK, STATUS and GC tell the truth"),
    lab(60, CNI_PROTOCOL, "ADD twice, and a hundred at once"),
    lab(61, CNI_PROTOCOL, "without Kubernetes it passes through"),
    lab(62, CNI_PROTOCOL, "user namespaces and second interfaces do as declared"),
    lab(63, ISOLATION, "a pod that sets the proxy's mark does not escape"),
    lab(64, ISOLATION, "a pod that binds the proxy's ports harms only itself"),
    lab(65, ISOLATION, "nothing is ever written in another namespace"),
    lab(66, ISOLATION, "unprivileged users reach no socket; rubbish crashes nobody"),
    cluster(67, ISOLATION, "the identity is the service account's, whatever restarts"),
    cluster(68, ISOLATION, "a hundred pods leave no descriptor, namespace or mount"),
    cluster(69, OPERATIONS, "uninstalling releases running pods and leaves nothing"),
    cluster(70, OPERATIONS, "nodes outside of the rollout are untouched"),
    cluster(71, OPERATIONS, "status, events and metrics agree with the packets"),
    cluster(72, OPERATIONS, "sixty pods on a node enrol and survive restarts in time"),
];

/// Which scenarios cover a behaviour, by level.
pub(crate) struct Coverage {
    pub behaviour: &'static Behaviour,
    pub namespaces: Vec<&'static str>,
    pub cluster: Vec<&'static str>,
}

/// Which behaviours are covered, given every scenario's id and numbers.
pub(crate) fn coverage(
    namespaces: &[(&'static str, &'static [u8])],
    cluster: &[(&'static str, &'static [u8])],
) -> Vec<Coverage> {
    let covering = |scenarios: &[(&'static str, &'static [u8])], number: u8| {
        let about = scenarios.iter().filter(|(_, numbers)| numbers.contains(&number));
        about.map(|(id, _)| *id).collect()
    };
    let cover = |behaviour: &'static Behaviour| Coverage {
        behaviour,
        namespaces: covering(namespaces, behaviour.number),
        cluster: covering(cluster, behaviour.number),
    };
    BEHAVIOURS.iter().map(cover).collect()
}

impl Coverage {
    /// Whether it is shown at the level that it needs.
    pub(crate) fn is_enough(&self) -> bool {
        match self.behaviour.level {
            // A cluster shows more than namespaces do.
            Level::Namespaces => !self.namespaces.is_empty() || !self.cluster.is_empty(),
            Level::Cluster => !self.cluster.is_empty(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behaviours_are_numbered_without_gaps() {
        let numbers: Vec<_> = BEHAVIOURS.iter().map(|behaviour| behaviour.number).collect();
        assert_eq!(numbers, (1..=72).collect::<Vec<_>>());
    }

    #[test]
    fn a_behaviour_of_clusters_is_not_shown_by_namespaces() {
        let all = coverage(&[("a", &[1, 3])], &[("b", &[3])]);
        assert_eq!(all[0].namespaces, ["a"]);
        assert!(!all[0].is_enough());
        assert!(all[2].is_enough());
        assert_eq!(all[2].cluster, ["b"]);
    }
}
