//! PeerAuthentications become denials of callers without an identity.
//!
//! The narrowest one that says something holds: that of the workload before that of the
//! namespace before that of the mesh, and of several of one width the oldest. Ports that a
//! workload's own one names may differ from the rest. A denial is all that can be sent, so
//! PERMISSIVE and DISABLE are the same here: nothing is denied.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use mesh::PolicyKey;
use mesh::proto::security as proto;
use mesh::proto::security::string_match::MatchType;
use serde::Deserialize;
use serde_json::Value;

use super::policy::Selector;
use super::spec::WorkloadSelector;
use crate::facts::PeerFacts;

/// Name, in the root namespace, of the denial that holds for all ports. Like those of the
/// others it cannot be an object's name, because of its underscores.
pub(crate) const STATIC_STRICT: &str = "istio_converted_static_strict";
const CONVERTED: &str = "converted_peer_authentication_";

/// What is asked of callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// An identity.
    Strict,
    /// Nothing.
    Permissive,
}

/// One PeerAuthentication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) key: PolicyKey,
    created: String,
    /// `None`: it is about a namespace, or the mesh.
    pub(crate) selector: Option<Selector>,
    /// `None`: what the wider one says.
    mode: Option<Mode>,
    ports: BTreeMap<u16, Mode>,
}

/// What is wrong with one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PeerProblem {
    #[error("its spec cannot be read: {0}")]
    Spec(#[source] serde_json::Error),
    #[error("mode {0:?} is none of UNSET, DISABLE, PERMISSIVE, STRICT")]
    Mode(String),
    #[error("{0:?} is not a port from 1 to 65535")]
    Port(String),
    #[error("ports are for workloads: portLevelMtls needs a selector")]
    PortsWithoutSelector,
}

/// Fields that are not known are errors: a misspelt STRICT that is passed over would let
/// everybody in.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Spec {
    selector: Option<WorkloadSelector>,
    mtls: Option<Mtls>,
    port_level_mtls: Option<BTreeMap<String, Mtls>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Mtls {
    mode: Option<String>,
}

/// Reads one.
pub(crate) fn peer(facts: &PeerFacts) -> Result<Peer, PeerProblem> {
    let spec = match &facts.spec {
        Value::Null => Spec::default(),
        spec => Spec::deserialize(spec).map_err(PeerProblem::Spec)?,
    };
    let mut ports = BTreeMap::new();
    for (text, mtls) in spec.port_level_mtls.unwrap_or_default() {
        let port = text.parse::<u16>().ok().filter(|port| *port != 0);
        let port = port.ok_or(PeerProblem::Port(text))?;
        if let Some(mode) = mode(&mtls)? {
            ports.insert(port, mode);
        }
    }
    let selector = spec.selector.map(Selector::from).filter(|it| !it.is_empty());
    if selector.is_none() && !ports.is_empty() {
        return Err(PeerProblem::PortsWithoutSelector);
    }
    let mode = spec.mtls.as_ref().map(mode).transpose()?.flatten();
    Ok(Peer { key: facts.key.clone(), created: facts.created.clone(), selector, mode, ports })
}

/// What holds in place of one that cannot be read: STRICT for those that it selects, or
/// for everybody whom it might.
pub(crate) fn strict_in_place_of(facts: &PeerFacts) -> Peer {
    let selector = Option::<WorkloadSelector>::deserialize(&facts.spec["selector"]);
    Peer {
        key: facts.key.clone(),
        created: facts.created.clone(),
        selector: selector.ok().flatten().map(Selector::from).filter(|it| !it.is_empty()),
        mode: Some(Mode::Strict),
        ports: BTreeMap::new(),
    }
}

fn mode(mtls: &Mtls) -> Result<Option<Mode>, PeerProblem> {
    match mtls.mode.as_deref() {
        None | Some("" | "UNSET") => Ok(None),
        Some("STRICT") => Ok(Some(Mode::Strict)),
        Some("PERMISSIVE" | "DISABLE") => Ok(Some(Mode::Permissive)),
        Some(other) => Err(PeerProblem::Mode(other.to_owned())),
    }
}

impl Peer {
    /// Of several of one width the one with the largest of these counts.
    pub(crate) fn precedence(&self) -> impl Ord + use<> {
        Reverse((self.created.clone(), self.key.clone()))
    }
}

/// The ones that are about a workload, the widest first.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Widths<'a> {
    pub(crate) mesh: Option<&'a Peer>,
    pub(crate) namespace: Option<&'a Peer>,
    pub(crate) workload: Option<&'a Peer>,
}

/// The denial that a workload lists: nothing, a name, or one of its own.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Demand {
    Nothing,
    /// [`STATIC_STRICT`].
    Strict,
    /// Ports differ.
    Own(proto::Authorization),
}

/// What they ask together.
pub(crate) fn demand(widths: Widths<'_>) -> Demand {
    let Widths { mesh, namespace, workload } = widths;
    let modes = [workload, namespace, mesh].into_iter().flatten().filter_map(|peer| peer.mode);
    let mode = modes.into_iter().next().unwrap_or(Mode::Permissive);
    let exceptions: Vec<u32> = workload
        .into_iter()
        .flat_map(|peer| &peer.ports)
        .filter(|(_, port_mode)| **port_mode != mode)
        .map(|(port, _)| (*port).into())
        .collect();
    match (workload, mode) {
        (Some(peer), _) if !exceptions.is_empty() => Demand::Own(own(peer, mode, exceptions)),
        (_, Mode::Strict) => Demand::Strict,
        (_, Mode::Permissive) => Demand::Nothing,
    }
}

fn own(peer: &Peer, mode: Mode, exceptions: Vec<u32>) -> proto::Authorization {
    let one = match mode {
        Mode::Strict => proto::Match { not_destination_ports: exceptions, ..no_identity() },
        Mode::Permissive => proto::Match { destination_ports: exceptions, ..no_identity() },
    };
    let name = format!("{CONVERTED}{}", peer.key.name());
    denial(peer.key.namespace(), name, one)
}

/// The denial of all callers without identity.
pub(crate) fn static_strict(root_namespace: &str) -> proto::Authorization {
    denial(root_namespace, STATIC_STRICT.to_owned(), no_identity())
}

fn no_identity() -> proto::Match {
    let present = MatchType::Presence(proto::Empty {});
    let not_principals = vec![proto::StringMatch { match_type: Some(present) }];
    proto::Match { not_principals, ..proto::Match::default() }
}

fn denial(namespace: &str, name: String, one: proto::Match) -> proto::Authorization {
    let clauses = vec![proto::Clause { matches: vec![one] }];
    proto::Authorization {
        name,
        namespace: namespace.to_owned(),
        scope: proto::Scope::WorkloadSelector as i32,
        action: proto::Action::Deny as i32,
        rules: vec![proto::Rule { clauses }],
        ..proto::Authorization::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn facts(spec: Value) -> PeerFacts {
        let key = PolicyKey::parse("shop/p").unwrap();
        PeerFacts { key, created: "2026-01-01T00:00:00Z".into(), spec }
    }

    fn read(spec: Value) -> Peer {
        peer(&facts(spec)).unwrap()
    }

    fn of(mode: &str) -> Peer {
        read(json!({ "mtls": { "mode": mode } }))
    }

    fn with_ports(mode: &str, ports: &[(&str, &str)]) -> Peer {
        let ports: serde_json::Map<_, _> =
            ports.iter().map(|(port, mode)| ((*port).into(), json!({ "mode": mode }))).collect();
        read(json!({
            "selector": { "matchLabels": { "app": "cart" } },
            "mtls": { "mode": mode }, "portLevelMtls": ports,
        }))
    }

    /// Ports that are excepted from the denial, ports that it is about.
    fn ports(demand: &Demand) -> (&[u32], &[u32]) {
        let Demand::Own(own) = demand else { panic!("one of its own, not {demand:?}") };
        mesh::Policy::try_from(own.clone()).unwrap();
        assert_eq!(own.name, "converted_peer_authentication_p");
        let one = &own.rules[0].clauses[0].matches[0];
        assert_eq!(one.not_principals.len(), 1);
        (&one.not_destination_ports, &one.destination_ports)
    }

    #[test]
    fn p19_the_narrowest_that_says_something_holds() {
        let (strict, permissive, unset) = (of("STRICT"), of("PERMISSIVE"), of("UNSET"));
        let disable = of("DISABLE");
        for (mesh, namespace, workload, wanted) in [
            (None, None, None, Demand::Nothing),
            (Some(&strict), None, None, Demand::Strict),
            (None, Some(&strict), None, Demand::Strict),
            (None, None, Some(&strict), Demand::Strict),
            (Some(&strict), Some(&unset), Some(&unset), Demand::Strict),
            (Some(&strict), Some(&permissive), None, Demand::Nothing),
            (Some(&strict), Some(&permissive), Some(&strict), Demand::Strict),
            (Some(&permissive), Some(&strict), Some(&disable), Demand::Nothing),
            (Some(&unset), None, None, Demand::Nothing),
        ] {
            assert_eq!(demand(Widths { mesh, namespace, workload }), wanted, "{workload:?}");
        }
    }

    #[test]
    fn p19_ports_differ_from_what_is_inherited() {
        let strict = of("STRICT");
        let one = |peer: &Peer| demand(Widths { workload: Some(peer), ..Widths::default() });
        let below_strict = |peer: &Peer| {
            demand(Widths { mesh: Some(&strict), namespace: None, workload: Some(peer) })
        };
        let open =
            with_ports("STRICT", &[("80", "PERMISSIVE"), ("81", "DISABLE"), ("82", "STRICT")]);
        assert_eq!(ports(&one(&open)), (&[80, 81][..], &[][..]));
        let closed = with_ports("PERMISSIVE", &[("80", "STRICT"), ("81", "PERMISSIVE")]);
        assert_eq!(ports(&one(&closed)), (&[][..], &[80][..]));
        let inherits =
            with_ports("UNSET", &[("80", "PERMISSIVE"), ("81", "STRICT"), ("82", "UNSET")]);
        assert_eq!(ports(&below_strict(&inherits)), (&[80][..], &[][..]));
        assert_eq!(ports(&one(&inherits)), (&[][..], &[81][..]));
        let same = with_ports("STRICT", &[("80", "STRICT")]);
        assert_eq!(one(&same), Demand::Strict);
        let neither = with_ports("DISABLE", &[("80", "PERMISSIVE")]);
        assert_eq!(below_strict(&neither), Demand::Nothing);
    }

    #[test]
    fn p19_the_oldest_of_one_width_counts() {
        let at = |created: &str| Peer { created: created.into(), ..of("STRICT") };
        let (old, new) = (at("2025-12-31T00:00:00Z"), at("2026-01-01T00:00:00Z"));
        assert!(old.precedence() > new.precedence());
    }

    #[test]
    fn what_cannot_be_read_is_named_and_strict() {
        for (spec, problem) in [
            (json!({ "mtls": { "mode": "STRICKT" } }), "STRICKT"),
            (json!({ "mlts": { "mode": "STRICT" } }), "mlts"),
            (json!({ "portLevelMtls": { "80": { "mode": "STRICT" } } }), "selector"),
            (json!({ "portLevelMtls": { "http": {} } }), "http"),
            (json!("strict"), "spec"),
        ] {
            let facts = facts(spec);
            let text = peer(&facts).unwrap_err().to_string();
            assert!(text.contains(problem), "{text:?} should name {problem}");
            let instead = strict_in_place_of(&facts);
            assert_eq!((instead.mode, instead.selector), (Some(Mode::Strict), None));
        }
        let selected = facts(json!({ "selector": { "matchLabels": { "a": "b" } }, "x": 1 }));
        assert!(strict_in_place_of(&selected).selector.is_some());
    }

    #[test]
    fn all_callers_without_identity_are_denied() {
        let policy = mesh::Policy::try_from(static_strict("root")).unwrap();
        assert_eq!(policy.key().to_string(), "root/istio_converted_static_strict");
    }
}
