//! PURE. Network policies of three engines in one form, and whether the mesh's port passes.
//!
//! What leaves and enters a captured pod is TCP to port 15008, whatever port the application
//! has. A policy that admits the application's port alone cuts it off.

use serde_json::Value;

use super::facts::MeshPod;
use crate::enrollment::Labels;

/// Under which label Cilium shows a pod's namespace.
const CILIUM_NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// Lookups, which stay as they are.
const DNS: u16 = 53;

/// A policy.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Kind, and namespace and name.
    pub name: String,
    /// Where it counts; `None`: everywhere.
    pub namespace: Option<String>,
    /// Which pods.
    pub selector: Selector,
    /// What is let in; `None`: says nothing of it.
    pub ingress: Option<Vec<Rule>>,
    /// What is let out; `None`: says nothing of it.
    pub egress: Option<Vec<Rule>>,
}

/// Which pods.
#[derive(Clone, Debug, PartialEq)]
pub enum Selector {
    /// Kubernetes' and Cilium's `matchLabels` and `matchExpressions`.
    Labels(Value),
    /// Calico's expression.
    Expression(String),
}

/// One thing that is let through.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rule {
    /// From or to whom; empty: everybody.
    pub peers: Vec<Value>,
    /// At which ports; `None`: all.
    pub ports: Option<Vec<Ports>>,
    /// It looks into the payload.
    pub looks_inside: bool,
}

/// Ports of one protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ports {
    /// TCP is among the protocols.
    pub tcp: bool,
    /// First and last; `None`: all, or a name.
    pub range: Option<(u16, u16)>,
    /// A port's name in the pod.
    pub name: Option<String>,
}

/// Toward or away from the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Toward.
    Ingress,
    /// Away.
    Egress,
}

impl Policy {
    /// Its rules in one direction.
    #[must_use]
    pub fn rules(&self, direction: Direction) -> Option<&[Rule]> {
        match direction {
            Direction::Ingress => self.ingress.as_deref(),
            Direction::Egress => self.egress.as_deref(),
        }
    }

    /// Whether it counts for the pod; `None`: its selector is not understood here.
    #[must_use]
    pub fn selects(&self, pod: &MeshPod) -> Option<bool> {
        if self.namespace.as_ref().is_some_and(|namespace| *namespace != pod.name.namespace) {
            return Some(false);
        }
        let mut labels = pod.labels.clone();
        labels.insert(CILIUM_NAMESPACE.to_owned(), pod.name.namespace.clone());
        match &self.selector {
            Selector::Labels(selector) => Some(by_labels(selector, &labels)),
            Selector::Expression(text) => by_expression(text, &labels),
        }
    }
}

impl Rule {
    /// Whether it lets this TCP port of the pod through.
    fn admits(&self, port: u16, pod: Option<&MeshPod>) -> bool {
        let Some(ports) = &self.ports else { return true };
        ports.iter().filter(|it| it.tcp).any(|it| match (&it.range, &it.name) {
            (Some((first, last)), _) => (*first..=*last).contains(&port),
            (None, Some(name)) => pod.is_some_and(|pod| {
                pod.ports.iter().any(|(it, number)| it.as_ref() == Some(name) && *number == port)
            }),
            (None, None) => true,
        })
    }

    /// Whether it is about connections that the mesh may carry.
    fn concerns_mesh(&self, direction: Direction) -> bool {
        let Some(ports) = &self.ports else { return true };
        let lookups = |it: &&Ports| it.range != Some((DNS, DNS));
        let outside = |peer: &Value| peer.get("ipBlock").is_some() || peer.get("outside").is_some();
        let external = !self.peers.is_empty() && self.peers.iter().all(outside);
        ports.iter().filter(|it| it.tcp).any(|it| direction == Direction::Ingress || lookups(&it))
            && !(external && direction == Direction::Egress)
    }
}

/// The policies that cut this pod off from the mesh in one direction: they admit something at
/// other ports, and nothing admits the same peers at `port`.
pub fn cutting<'a>(
    policies: &[&'a Policy],
    pod: &MeshPod,
    direction: Direction,
    port: u16,
) -> Vec<&'a Policy> {
    let own: Vec<&Policy> =
        policies.iter().copied().filter(|it| it.selects(pod) == Some(true)).collect();
    let target = (direction == Direction::Ingress).then_some(pod);
    let open: Vec<&Rule> = own
        .iter()
        .flat_map(|policy| policy.rules(direction).unwrap_or_default())
        .filter(|rule| rule.admits(port, target))
        .collect();
    let covered =
        |rule: &Rule| open.iter().any(|other| other.peers.is_empty() || other.peers == rule.peers);
    let cuts = |policy: &&&Policy| {
        let mut rules = policy.rules(direction).unwrap_or_default().iter();
        rules.any(|rule| {
            rule.concerns_mesh(direction) && !rule.admits(port, target) && !covered(rule)
        })
    };
    own.iter().filter(cuts).copied().collect()
}

/// Kubernetes' and Cilium's selectors. Cilium writes where a label comes from before its key.
fn by_labels(selector: &Value, labels: &Labels) -> bool {
    let plain = |key: &str| {
        let key = key.strip_prefix("k8s:").or_else(|| key.strip_prefix("any:")).unwrap_or(key);
        key.to_owned()
    };
    let label = |key: &str| labels.get(&plain(key)).map(String::as_str);
    let mut wanted = selector["matchLabels"].as_object().into_iter().flatten();
    let expressions = selector["matchExpressions"].as_array().into_iter().flatten();
    let holds = |expression: &Value| {
        let has = expression["key"].as_str().and_then(label);
        let listed = |text: &str| {
            expression["values"].as_array().into_iter().flatten().any(|value| value == text)
        };
        match expression["operator"].as_str() {
            Some("In") => has.is_some_and(listed),
            Some("NotIn") => !has.is_some_and(listed),
            Some("Exists") => has.is_some(),
            Some("DoesNotExist") => has.is_none(),
            _ => false,
        }
    };
    wanted.all(|(key, value)| label(key) == value.as_str()) && expressions.into_iter().all(holds)
}

/// As much of Calico's expressions as policies mostly have: comparisons joined by `&&`.
fn by_expression(text: &str, labels: &Labels) -> Option<bool> {
    let quoted = |text: &str| {
        let inner = text.trim();
        let bare = inner.strip_prefix(['\'', '"'])?.strip_suffix(['\'', '"'])?;
        (!bare.contains(['\'', '"'])).then(|| bare.to_owned())
    };
    let term = |term: &str| {
        let term = term.trim();
        if term == "all()" || term.is_empty() {
            return Some(true);
        }
        let key = |text: &str| text.strip_prefix("has(")?.strip_suffix(')').map(str::to_owned);
        if let Some(key) = key(term) {
            return Some(labels.contains_key(key.trim()));
        }
        if let Some(key) = term.strip_prefix('!').and_then(|rest| key(rest.trim())) {
            return Some(!labels.contains_key(key.trim()));
        }
        if let Some((key, value)) = term.split_once("!=") {
            return Some(labels.get(key.trim()) != Some(&quoted(value)?));
        }
        let (key, value) = term.split_once("==")?;
        Some(labels.get(key.trim()) == Some(&quoted(value)?))
    };
    if text.contains("||") {
        return None;
    }
    text.split("&&").map(term).try_fold(true, |all, one| Some(all && one?))
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
