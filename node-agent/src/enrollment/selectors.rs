//! PURE. Which pods belong to the mesh, where the operator says it by selectors: the shape
//! of Istio's `AMBIENT_ENABLEMENT_SELECTOR`, a YAML list.
//!
//! ```yaml
//! - podSelector: {matchLabels: {mesh: "yes"}}
//! - podSelector: {matchExpressions: [{key: mesh, operator: NotIn, values: ["no"]}]}
//!   namespaceSelector: {matchLabels: {mesh: "yes"}}
//! ```
//!
//! A pod belongs to the mesh if one item matches the pod and its namespace.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

/// Labels by key.
pub type Labels = BTreeMap<String, String>;

/// What the operator selects; one match is enough.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Selectors(Vec<Selector>);

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct Selector {
    pod_selector: LabelSelector,
    namespace_selector: LabelSelector,
}

/// As in Kubernetes: all must hold, and nothing selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct LabelSelector {
    match_labels: Labels,
    match_expressions: Vec<Expression>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expression {
    key: String,
    operator: Operator,
    #[serde(default)]
    values: BTreeSet<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

/// Whether selectors match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selected {
    /// One of them does.
    Yes,
    /// None does.
    No,
    /// That depends on the namespace, which is not in view.
    Unknown,
}

impl Selectors {
    /// Reads the setting.
    ///
    /// # Errors
    /// What is wrong with it, in words for the operator.
    pub fn parse(yaml: &str) -> Result<Self, String> {
        let selectors: Self = serde_yaml_ng::from_str(yaml).map_err(|error| error.to_string())?;
        for expression in selectors.label_selectors().flat_map(|s| &s.match_expressions) {
            let Expression { key, operator, values } = expression;
            let wants_values = matches!(operator, Operator::In | Operator::NotIn);
            if wants_values == values.is_empty() {
                let rule = if wants_values { "needs" } else { "takes no" };
                return Err(format!("operator {operator:?} of key {key} {rule} values"));
            }
        }
        if selectors.0.is_empty() {
            return Err("the list is empty: it would select nothing".to_owned());
        }
        Ok(selectors)
    }

    /// Keys of labels that matter.
    #[must_use]
    pub fn keys(&self) -> BTreeSet<String> {
        let of = |selector: &LabelSelector| {
            let expressions = selector.match_expressions.iter().map(|e| e.key.clone());
            selector.match_labels.keys().cloned().chain(expressions).collect::<Vec<_>>()
        };
        self.label_selectors().flat_map(of).collect()
    }

    /// Whether a pod belongs to the mesh; `namespace` is `None` while it is not in view.
    #[must_use]
    pub fn select(&self, pod: &Labels, namespace: Option<&Labels>) -> Selected {
        let candidates = || self.0.iter().filter(|selector| selector.pod_selector.matches(pod));
        let anywhere = LabelSelector::default();
        let selected = |selector: &Selector| match namespace {
            Some(labels) => selector.namespace_selector.matches(labels),
            None => selector.namespace_selector == anywhere,
        };
        if candidates().any(selected) {
            Selected::Yes
        } else if namespace.is_none() && candidates().next().is_some() {
            Selected::Unknown
        } else {
            Selected::No
        }
    }

    fn label_selectors(&self) -> impl Iterator<Item = &LabelSelector> {
        self.0.iter().flat_map(|selector| [&selector.pod_selector, &selector.namespace_selector])
    }
}

impl LabelSelector {
    fn matches(&self, labels: &Labels) -> bool {
        let equal = |(key, value)| labels.get(key) == Some(value);
        self.match_labels.iter().all(equal)
            && self.match_expressions.iter().all(|expression| expression.holds(labels))
    }
}

impl Expression {
    fn holds(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        match self.operator {
            Operator::In => value.is_some_and(|value| self.values.contains(value)),
            Operator::NotIn => value.is_none_or(|value| !self.values.contains(value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Istio's chart sets by default.
    const ISTIO: &str = r"
- podSelector:
    matchLabels:
      istio.io/dataplane-mode: ambient
- podSelector:
    matchExpressions:
    - {key: istio.io/dataplane-mode, operator: NotIn, values: [none]}
  namespaceSelector:
    matchLabels:
      istio.io/dataplane-mode: ambient
";

    fn labels(labels: &[(&str, &str)]) -> Labels {
        labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn check(yaml: &str, pod: &[(&str, &str)], namespace: Option<&[(&str, &str)]>, then: Selected) {
        let selectors = Selectors::parse(yaml).unwrap();
        let namespace = namespace.map(labels);
        assert_eq!(
            selectors.select(&labels(pod), namespace.as_ref()),
            then,
            "{pod:?} {namespace:?}"
        );
    }

    #[test]
    fn istios_default() {
        use Selected::{No, Unknown, Yes};
        let (ambient, none) = (
            &[("istio.io/dataplane-mode", "ambient")][..],
            &[("istio.io/dataplane-mode", "none")][..],
        );
        for (pod, namespace, then) in [
            (&[][..], Some(&[][..]), No),
            (ambient, Some(&[]), Yes),
            (ambient, Some(none), Yes),
            (&[], Some(ambient), Yes),
            (none, Some(ambient), No),
            (none, Some(&[]), No),
            (&[], Some(none), No),
            (ambient, None, Yes),
            (&[], None, Unknown),
            (none, None, No),
        ] {
            check(ISTIO, pod, namespace, then);
        }
    }

    #[test]
    fn all_operators() {
        let yaml = "[{podSelector: {matchExpressions: [
            {key: a, operator: In, values: [x, y]}, {key: b, operator: NotIn, values: [x]},
            {key: c, operator: Exists}, {key: d, operator: DoesNotExist}]}}]";
        let fits = [("a", "y"), ("c", "")];
        check(yaml, &fits, Some(&[]), Selected::Yes);
        check(yaml, &[fits[0], fits[1], ("b", "y")], Some(&[]), Selected::Yes);
        for wrong in [("a", "z"), ("b", "x"), ("d", "")] {
            check(yaml, &[fits[0], fits[1], wrong], Some(&[]), Selected::No);
        }
        check(yaml, &[fits[0]], Some(&[]), Selected::No);
        check(yaml, &[fits[1]], Some(&[]), Selected::No);
        let keys = Selectors::parse(yaml).unwrap().keys();
        assert_eq!(keys, ["a", "b", "c", "d"].map(String::from).into());
    }

    #[test]
    fn an_empty_selector_selects_everything() {
        check("[{}]", &[], Some(&[]), Selected::Yes);
        check("[{}]", &[], None, Selected::Yes);
    }

    #[test]
    fn mistakes() {
        for yaml in [
            "",
            "[]",
            "{}",
            "[{podSelectors: {}}]",
            "[{podSelector: {matchLabel: {a: b}}}]",
            "[{podSelector: {matchExpressions: [{key: a, operator: in, values: [x]}]}}]",
            "[{podSelector: {matchExpressions: [{key: a, operator: In}]}}]",
            "[{podSelector: {matchExpressions: [{key: a, operator: Exists, values: [x]}]}}]",
            "[{podSelector: {matchExpressions: [{operator: Exists}]}}]",
            "][",
        ] {
            assert!(Selectors::parse(yaml).is_err(), "{yaml}");
        }
    }
}
