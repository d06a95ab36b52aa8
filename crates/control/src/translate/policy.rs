//! An AuthorizationPolicy becomes an Authorization, if it is for the transport layer.

use std::collections::BTreeMap;

use mesh::proto::security as proto;
use serde::Deserialize;

use super::Names;
use super::rule::{Lowered, lower};
use super::spec::{Rule, Spec, WorkloadSelector};
use crate::facts::PolicyFacts;

/// What becomes of a policy that is well formed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Translated {
    /// It is sent.
    Sent(SentPolicy),
    /// It is not for us.
    NotSent(NotSent),
}

/// A policy that is sent.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SentPolicy {
    pub(crate) message: proto::Authorization,
    /// Which workloads list it; `None`: it applies without being listed.
    pub(crate) selector: Option<Selector>,
    /// Numbers of rules, from 0, whose HTTP parts were left out.
    pub(crate) narrowed: Vec<usize>,
    /// Numbers of rules, from 0, that have no effect because they ask for HTTP.
    pub(crate) dropped: Vec<usize>,
}

/// Labels that a workload must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Selector(BTreeMap<String, String>);

impl Selector {
    /// Does it ask for nothing?
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|(key, value)| labels.get(key) == Some(value))
    }
}

impl From<WorkloadSelector> for Selector {
    fn from(selector: WorkloadSelector) -> Self {
        Self(selector.match_labels.unwrap_or_default())
    }
}

/// Why a well formed policy is not sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotSent {
    #[error("action {0} is not supported: ALLOW and DENY are")]
    Action(String),
    #[error("it has targetRefs, so it is a waypoint's to enforce")]
    TargetRefs,
}

/// What is wrong with a policy.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PolicyProblem {
    #[error("its spec cannot be read: {0}")]
    Spec(#[source] serde_json::Error),
    #[error("action {0:?} is none of ALLOW, DENY, AUDIT, CUSTOM")]
    Action(String),
    #[error("annotation istio.io/dry-run is {0:?}, neither true nor false")]
    DryRun(String),
    #[error("rules[{number}]: {problem}")]
    Rule { number: usize, problem: RuleProblem },
    #[error("the translation is not accepted: {0}")]
    Message(#[source] mesh::PolicyError),
}

/// What is wrong with one rule.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RuleProblem {
    #[error("it cannot be read: {0}")]
    Form(#[source] serde_json::Error),
    #[error("{0:?} is neither an IP address nor a range of them")]
    Range(String),
    #[error("{0:?} is not a port from 1 to 65535")]
    Port(String),
    #[error("service account {0:?} is neither namespace/name nor a name")]
    ServiceAccount(String),
    #[error("condition {0:?} has neither values nor notValues")]
    NoValues(String),
}

/// Translates one policy.
pub(crate) fn policy(names: &Names, facts: &PolicyFacts) -> Result<Translated, PolicyProblem> {
    // A policy without a spec is one with an empty spec.
    let spec = match &facts.spec {
        serde_json::Value::Null => Spec::default(),
        spec => Spec::deserialize(spec).map_err(PolicyProblem::Spec)?,
    };
    let action = match spec.action.as_deref() {
        None | Some("" | "ALLOW") => proto::Action::Allow,
        Some("DENY") => proto::Action::Deny,
        Some(other @ ("AUDIT" | "CUSTOM")) => {
            return Ok(Translated::NotSent(NotSent::Action(other.to_owned())));
        }
        Some(other) => return Err(PolicyProblem::Action(other.to_owned())),
    };
    if spec.target_ref.is_some() || spec.target_refs.as_ref().is_some_and(|it| !it.is_empty()) {
        return Ok(Translated::NotSent(NotSent::TargetRefs));
    }
    let namespace = facts.key.namespace();
    let selector = spec.selector.map(Selector::from);
    let rules = Rules::lower(action, namespace, spec.rules.unwrap_or_default())?;
    let message = proto::Authorization {
        name: facts.key.name().to_owned(),
        namespace: namespace.to_owned(),
        scope: scope(names, namespace, selector.as_ref()) as i32,
        action: action as i32,
        rules: rules.sent,
        dry_run: dry_run(facts)?,
        extensions: Vec::new(),
    };
    // What our own proxies would reject is a mistake in the policy too.
    mesh::Policy::try_from(message.clone()).map_err(PolicyProblem::Message)?;
    let (narrowed, dropped) = (rules.narrowed, rules.dropped);
    Ok(Translated::Sent(SentPolicy { message, selector, narrowed, dropped }))
}

/// Whom a policy is about that has this selector, or none.
pub(super) fn scope(names: &Names, namespace: &str, selector: Option<&Selector>) -> proto::Scope {
    match selector {
        Some(_) => proto::Scope::WorkloadSelector,
        None if namespace == names.root_namespace => proto::Scope::Global,
        None => proto::Scope::Namespace,
    }
}

#[derive(Default)]
struct Rules {
    sent: Vec<proto::Rule>,
    narrowed: Vec<usize>,
    dropped: Vec<usize>,
}

impl Rules {
    fn lower(
        action: proto::Action,
        namespace: &str,
        rules: Vec<serde_json::Value>,
    ) -> Result<Self, PolicyProblem> {
        let mut lowered = Self::default();
        for (number, value) in rules.into_iter().enumerate() {
            let named = |problem| PolicyProblem::Rule { number, problem };
            let rule = Rule::deserialize(value).map_err(|error| named(RuleProblem::Form(error)))?;
            match lower(action, namespace, rule).map_err(named)? {
                Lowered::Whole(rule) => lowered.sent.push(rule),
                Lowered::Partly(rule) => {
                    lowered.sent.push(rule);
                    lowered.narrowed.push(number);
                }
                Lowered::Dropped => lowered.dropped.push(number),
            }
        }
        Ok(lowered)
    }
}

fn dry_run(facts: &PolicyFacts) -> Result<bool, PolicyProblem> {
    match facts.dry_run.as_deref() {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(other) => Err(PolicyProblem::DryRun(other.to_owned())),
    }
}

#[cfg(test)]
mod tests;
