//! What discovery responses do to the view: pure.

mod held;
mod hold;
mod reject;
mod resource;
mod update;

use std::sync::Arc;
use std::time::Instant;

use mesh::View;
use mesh::proto::envoy::config::core::v3::Node;
use mesh::proto::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use mesh::proto::google::rpc::Status;
use mesh::proto::{ADDRESS_TYPE, AUTHORIZATION_TYPE};

use super::wire::Envelope;
use held::{Held, Opening};
pub use hold::MassRemoval;
pub use resource::Unusable;

/// `INVALID_ARGUMENT` of google.rpc.Code.
const INVALID_ARGUMENT: i32 = 3;

/// Rejected resources that a reply names; the rest is counted.
const NAMED_REJECTIONS: usize = 20;

/// Bytes of names and versions that a request may hold for a control plane that refused a
/// larger one: many read 4 MiB at most. What is more is not claimed at all, and everything
/// is sent again.
const FEW_CLAIMS: usize = 3 << 20;

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
    /// Bytes of names and versions that a request may hold.
    claims: usize,
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
        let (addresses, policies) = (Held::default(), Held::default());
        Self { rules, view, addresses, policies, claims: usize::MAX }
    }

    /// A request was too large for the control plane: the next ones are smaller.
    pub fn claim_less(&mut self) {
        self.claims = FEW_CLAIMS;
    }

    /// The requests that open a stream: everything, except what we hold already.
    /// `demanded` are the names asked for on demand.
    pub fn opening(&mut self, node: Node, demanded: &[Arc<str>]) -> Vec<DeltaDiscoveryRequest> {
        let mut node = Some(node);
        let mut requests = Vec::new();
        for url in TYPES {
            // On demand the first answer is no complete state: then claiming is a must.
            let limit = if self.on_demand(url) { usize::MAX } else { self.claims };
            let claims = self.held_mut(url).and_then(|held| held.open(limit));
            requests.push(DeltaDiscoveryRequest {
                node: node.take(),
                type_url: url.to_owned(),
                initial_resource_versions: claims.unwrap_or_default(),
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
            self.remove(&type_url, removed, &resources, now, &mut outcome);
            self.upsert(&type_url, resources, &mut outcome);
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
        let asked = [&self.addresses, &self.policies]
            .into_iter()
            .filter(|held| held.opening == Opening::Over);
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
mod tests;
