//! What discovery responses do to the view: pure.

mod held;
mod hold;
mod reject;
mod resource;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use mesh::View;
use mesh::proto::envoy::config::core::v3::Node;
use mesh::proto::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use mesh::proto::google::rpc::Status;
use mesh::proto::{ADDRESS_TYPE, AUTHORIZATION_TYPE};
use prost::Message;

use super::wire::{Envelope, Item};
use held::{Held, Name};
pub use hold::MassRemoval;
pub use resource::Unusable;

/// `INVALID_ARGUMENT` of google.rpc.Code.
const INVALID_ARGUMENT: i32 = 3;

/// Rejected resources that a reply names; the rest is counted.
const NAMED_REJECTIONS: usize = 20;

/// The types that we ask for, in the order of asking.
const TYPES: [&str; 2] = [ADDRESS_TYPE, AUTHORIZATION_TYPE];

/// Which workloads and services are asked for. Policies are always asked for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All of them.
    Everything,
    /// Those that connections need, when they need them.
    OnDemand,
}

/// How the state treats what it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// What is asked for.
    pub scope: Scope,
    /// What looks like a mistake.
    pub mass_removal: MassRemoval,
}

/// Everything received so far, over all streams of this process: an outage changes
/// nothing of it.
///
/// Per type: `asked ──first response──► answered`. The view is complete when every type
/// that is asked for as a whole is answered. A response with some bad resources answers
/// its type too: else a single bad object would keep the whole node from working. The
/// view keeps of a bad resource what it takes to refuse rather than to pass in clear text
/// or unjudged.
#[derive(Debug)]
pub struct State {
    rules: Rules,
    view: View,
    addresses: Held,
    policies: Held,
}

/// What came of one response.
#[derive(Debug)]
pub struct Outcome {
    /// The acknowledgement, or the refusal of some resources.
    pub reply: DeltaDiscoveryRequest,
    /// The view is another one now, or has just become complete.
    pub changed: bool,
    /// Resources that were not usable, each with the reason.
    pub rejected: Vec<(String, Unusable)>,
    /// How many removals of this response are not believed yet.
    pub withheld: usize,
    /// On demand only: names that the response says something about.
    pub answered: Vec<String>,
}

/// How much there is of a type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// Resources held, good or bad.
    pub held: usize,
    /// Those of which the latest version is unusable.
    pub rejected: usize,
    /// Those that are in use though the control plane removed them.
    pub withheld: usize,
}

impl State {
    /// Begins with a view that comes from elsewhere, or is empty.
    #[must_use]
    pub fn new(rules: Rules, view: View) -> Self {
        Self { rules, view, addresses: Held::default(), policies: Held::default() }
    }

    /// The requests that open a stream: everything, except what we hold already.
    /// `demanded` are the names asked for on demand.
    pub fn opening(&mut self, node: Node, demanded: &[Arc<str>]) -> Vec<DeltaDiscoveryRequest> {
        let mut node = Some(node);
        let mut requests = Vec::new();
        for url in TYPES {
            if let Some(held) = self.held_mut(url) {
                held.fresh = true;
            }
            requests.push(DeltaDiscoveryRequest {
                node: node.take(),
                type_url: url.to_owned(),
                initial_resource_versions: self.held(url).versions(),
                ..Default::default()
            });
        }
        if self.rules.scope == Scope::OnDemand {
            on_demand(&mut requests[0], demanded);
        }
        requests
    }

    /// Applies a response. `now` is when it came.
    pub fn on(&mut self, response: Envelope, now: Instant) -> Outcome {
        let Envelope { resources, type_url, nonce, removed } = response;
        let mut outcome = Outcome {
            reply: DeltaDiscoveryRequest {
                type_url: type_url.clone(),
                response_nonce: nonce,
                ..Default::default()
            },
            changed: false,
            rejected: Vec::new(),
            withheld: 0,
            answered: Vec::new(),
        };
        let was_complete = self.complete();
        if let Some(held) = self.held_mut(&type_url) {
            held.answered = true;
            let items = self.read(resources, &mut outcome);
            self.remove(&type_url, removed, &items, now, &mut outcome);
            self.upsert(&type_url, items, &mut outcome);
        } else {
            outcome.rejected.push((type_url, Unusable::NotSubscribed));
        }
        outcome.changed |= self.complete() && !was_complete;
        outcome.reply.error_detail = error_detail(&outcome);
        outcome
    }

    /// Was everything answered since this process started that is asked for as a whole?
    #[must_use]
    pub fn complete(&self) -> bool {
        self.missing().is_empty()
    }

    /// The view as of the last response; of use to others once complete.
    #[must_use]
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Short names of what is not answered yet.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        let all = self.rules.scope == Scope::Everything;
        let workloads = (all && !self.addresses.answered).then_some("workloads");
        let policies = (!self.policies.answered).then_some("policies");
        workloads.into_iter().chain(policies).collect()
    }

    /// How much there is of each type.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, Count)> {
        TYPES.into_iter().map(|url| {
            let held = self.held(url);
            let (rejected, withheld) = (held.rejected(), held.withheld.len());
            (url, Count { held: held.len(), rejected, withheld })
        })
    }

    /// When the control plane is to be asked once more about removals, by opening another
    /// stream. Whoever has not answered on this stream yet is not asked again.
    #[must_use]
    pub fn ask_again_at(&self) -> Option<Instant> {
        let asked = [&self.addresses, &self.policies].into_iter().filter(|held| !held.fresh);
        asked.filter_map(|held| held.withheld.due(self.rules.mass_removal)).min()
    }

    fn held_mut(&mut self, url: &str) -> Option<&mut Held> {
        match url {
            ADDRESS_TYPE => Some(&mut self.addresses),
            AUTHORIZATION_TYPE => Some(&mut self.policies),
            _ => None,
        }
    }

    fn held(&self, url: &str) -> &Held {
        if url == ADDRESS_TYPE { &self.addresses } else { &self.policies }
    }

    /// Decodes names and versions; the bodies stay as they are.
    fn read(&self, resources: Vec<bytes::Bytes>, outcome: &mut Outcome) -> Vec<Item> {
        let mut items = Vec::with_capacity(resources.len());
        for (number, bytes) in resources.into_iter().enumerate() {
            match Item::decode(bytes) {
                Ok(item) => items.push(item),
                Err(error) => {
                    let name = format!("resource number {number} of the response");
                    outcome.rejected.push((name, error.into()));
                }
            }
        }
        items
    }

    /// What the response brings anew stays, whatever it says of removal.
    fn remove(
        &mut self,
        url: &str,
        told: Vec<String>,
        items: &[Item],
        now: Instant,
        outcome: &mut Outcome,
    ) {
        let rule = self.rules.mass_removal;
        let Some(held) = self.held_mut(url) else {
            return;
        };
        let told: HashSet<String> = told.into_iter().collect();
        if std::mem::take(&mut held.fresh) {
            held.withheld.retain(|name| told.contains(name));
        }
        if told.is_empty() {
            return;
        }
        let brought: HashSet<&str> = items.iter().map(|item| item.name.as_str()).collect();
        let going: Vec<Name> = told
            .iter()
            .filter(|name| !brought.contains(name.as_str()))
            .filter_map(|name| held.name(name).cloned())
            .collect();
        let (asked, total) = (going.len(), held.len());
        let gone = held.withheld.judge(rule, going, total, now);
        outcome.withheld = asked - gone.len();
        outcome.changed |= !gone.is_empty();
        gone.iter().for_each(|name| self.forget(url, name));
        if self.rules.scope == Scope::OnDemand && url == ADDRESS_TYPE {
            for name in &told {
                outcome.changed |= self.nothing_at(name);
            }
            outcome.answered.extend(told);
        }
    }

    fn upsert(&mut self, url: &str, items: Vec<Item>, outcome: &mut Outcome) {
        for item in items {
            let Item { name, version, body, aliases } = item;
            match self.accept(url, &name, &version, body.as_ref()) {
                Ok(()) => outcome.changed = true,
                Err(reason) => {
                    outcome.changed |= self.reject(url, &name, body.as_ref());
                    outcome.rejected.push((name.clone(), reason));
                }
            }
            if let Some(held) = self.held_mut(url) {
                held.withheld.release(&name);
            }
            if self.rules.scope == Scope::OnDemand && url == ADDRESS_TYPE {
                outcome.answered.extend(self.address_names(&name));
                outcome.answered.extend(aliases);
                outcome.answered.push(name);
            }
        }
    }
}

/// Asks for these names and no others. An empty version says that nothing is held under
/// a name; control planes take it for a subscription as well.
fn on_demand(request: &mut DeltaDiscoveryRequest, demanded: &[Arc<str>]) {
    let everything = "*".to_owned();
    request.resource_names_unsubscribe = vec![everything.clone()];
    request.resource_names_subscribe = vec![everything];
    for name in demanded {
        request.resource_names_subscribe.push(name.to_string());
        request.initial_resource_versions.entry(name.to_string()).or_default();
    }
}

fn error_detail(outcome: &Outcome) -> Option<Status> {
    let Outcome { rejected, withheld, .. } = outcome;
    let named = rejected.iter().take(NAMED_REJECTIONS);
    let mut texts: Vec<_> = named.map(|(name, reason)| format!("{name}: {reason}")).collect();
    if rejected.len() > NAMED_REJECTIONS {
        texts.push(format!("and {} more", rejected.len() - NAMED_REJECTIONS));
    }
    if *withheld > 0 {
        texts.push(format!(
            "the removal of {withheld} resources is more than half of all: not believed until told again"
        ));
    }
    let message = texts.join("; ");
    (!message.is_empty()).then(|| Status { code: INVALID_ARGUMENT, message, details: Vec::new() })
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
