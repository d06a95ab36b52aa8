//! What discovery responses do to the view: pure.

mod reject;

use std::collections::{BTreeMap, HashMap};

use mesh::proto::envoy::config::core::v3::Node;
use mesh::proto::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource,
};
use mesh::proto::google::rpc::Status;
use mesh::proto::security::Authorization;
use mesh::proto::workload::{Address, address};
use mesh::proto::{ADDRESS_TYPE, AUTHORIZATION_TYPE};
use mesh::{Policy, PolicyError, PolicyKey, Uid, View, Workload, WorkloadError};
use prost::Message;
use prost_types::Any;

/// `INVALID_ARGUMENT` of google.rpc.Code.
const INVALID_ARGUMENT: i32 = 3;

/// Rejected resources that a reply names; the rest is counted.
const NAMED_REJECTIONS: usize = 20;

/// The types that we ask for, in the order of asking.
const TYPES: [&str; 2] = [ADDRESS_TYPE, AUTHORIZATION_TYPE];

/// Everything received so far, over all streams of this process: an outage changes
/// nothing of it.
///
/// Per type: `asked ──first response──► answered`. The view is complete when both types
/// are answered. A response with some bad resources answers its type too: else a single
/// bad object would keep the whole node from working. The view keeps of a bad resource
/// what it takes to refuse rather than to pass in clear text or unjudged.
#[derive(Debug, Default)]
pub(super) struct State {
    view: View,
    addresses: Held,
    policies: Held,
}

/// The resources of one type by their names.
#[derive(Debug, Default)]
struct Held {
    resources: HashMap<String, Entry>,
    answered: bool,
}

#[derive(Debug)]
struct Entry {
    /// Empty after a bad version: at the next stream this asks for the resource again,
    /// or to be told that it is gone.
    version: String,
    content: Content,
}

/// What the view holds for a name, be it good or rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Content {
    Workload(Uid),
    Policy(PolicyKey),
    /// Services play no part in routing yet; the name is kept so that it is not sent
    /// again and again.
    Service,
}

/// What came of one response.
#[derive(Debug)]
pub(super) struct Outcome {
    /// The acknowledgement, or the refusal of some resources.
    pub(super) reply: DeltaDiscoveryRequest,
    /// The view is another one now, or has just become complete.
    pub(super) changed: bool,
    /// Resources that were not usable, each with the reason.
    pub(super) rejected: Vec<(String, Unusable)>,
    /// Services that were passed over.
    pub(super) skipped: usize,
}

/// Why a resource is of no use; it alone is rejected.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    #[error("no body")]
    NoBody,
    #[error("type {0:?} in a response of another type")]
    Type(String),
    #[error("undecodable: {0}")]
    Decode(#[from] prost::DecodeError),
    #[error("neither a workload nor a service")]
    Kind,
    #[error(transparent)]
    Workload(#[from] WorkloadError),
    #[error(transparent)]
    Policy(#[from] PolicyError),
    #[error("type was never subscribed")]
    NotSubscribed,
}

impl State {
    /// The requests that open a stream: everything, except what we hold already.
    pub(super) fn opening(&self, node: Node) -> Vec<DeltaDiscoveryRequest> {
        let mut node = Some(node);
        TYPES
            .iter()
            .map(|&url| DeltaDiscoveryRequest {
                node: node.take(),
                type_url: url.to_owned(),
                initial_resource_versions: self.versions(url),
                ..Default::default()
            })
            .collect()
    }

    /// Applies a response.
    pub(super) fn on(&mut self, response: DeltaDiscoveryResponse) -> Outcome {
        let DeltaDiscoveryResponse { resources, type_url, nonce, removed_resources, .. } = response;
        let mut outcome = Outcome {
            reply: DeltaDiscoveryRequest {
                type_url: type_url.clone(),
                response_nonce: nonce,
                ..Default::default()
            },
            changed: false,
            rejected: Vec::new(),
            skipped: 0,
        };
        let was_complete = self.complete();
        if let Some(held) = self.held_mut(&type_url) {
            held.answered = true;
            outcome.changed |= self.remove(&type_url, &removed_resources);
            outcome.changed |= self.upsert(&type_url, resources, &mut outcome);
        } else {
            outcome.rejected.push((type_url, Unusable::NotSubscribed));
        }
        outcome.changed |= self.complete() && !was_complete;
        outcome.reply.error_detail = error_detail(&outcome.rejected);
        outcome
    }

    /// Was every type answered since this process started?
    pub(super) fn complete(&self) -> bool {
        self.addresses.answered && self.policies.answered
    }

    /// The view as of the last response; of use to others once complete.
    pub(super) fn view(&self) -> &View {
        &self.view
    }

    /// Short names of what is not answered yet.
    pub(super) fn missing(&self) -> Vec<&'static str> {
        let workloads = (!self.addresses.answered).then_some("workloads");
        let policies = (!self.policies.answered).then_some("policies");
        workloads.into_iter().chain(policies).collect()
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

    fn versions(&self, url: &str) -> BTreeMap<String, String> {
        let held = self.held(url);
        held.resources.iter().map(|(name, entry)| (name.clone(), entry.version.clone())).collect()
    }

    fn remove(&mut self, url: &str, names: &[String]) -> bool {
        let mut changed = false;
        for name in names {
            let entry = self.held_mut(url).and_then(|held| held.resources.remove(name));
            if let Some(entry) = entry {
                changed = true;
                self.forget(&entry.content);
            }
        }
        changed
    }

    fn upsert(&mut self, url: &str, resources: Vec<Resource>, outcome: &mut Outcome) -> bool {
        let mut changed = false;
        for resource in resources {
            let Resource { name, version, resource: body, .. } = resource;
            match self.parse(url, body.as_ref()) {
                Ok(content) => {
                    outcome.skipped += usize::from(content == Content::Service);
                    changed = true;
                    self.hold(url, name, Entry { version, content });
                }
                Err(reason) => {
                    changed |= self.reject(url, &name, body.as_ref());
                    outcome.rejected.push((name, reason));
                }
            }
        }
        changed
    }

    /// Reads a body and puts it into the view.
    fn parse(&mut self, url: &str, body: Option<&Any>) -> Result<Content, Unusable> {
        let body = body.ok_or(Unusable::NoBody)?;
        if body.type_url != url {
            return Err(Unusable::Type(body.type_url.clone()));
        }
        if url == AUTHORIZATION_TYPE {
            let policy = Policy::try_from(Authorization::decode(&*body.value)?)?;
            let key = policy.key().clone();
            self.view.insert_policy(policy);
            return Ok(Content::Policy(key));
        }
        match Address::decode(&*body.value)?.r#type.ok_or(Unusable::Kind)? {
            address::Type::Workload(message) => {
                let workload = Workload::try_from(message)?;
                let uid = Uid::clone(&workload.uid);
                self.view.insert_workload(workload);
                Ok(Content::Workload(uid))
            }
            address::Type::Service(_) => Ok(Content::Service),
        }
    }

    fn hold(&mut self, url: &str, name: String, entry: Entry) {
        let Some(held) = self.held_mut(url) else {
            return;
        };
        let stale = match held.resources.get(&name) {
            Some(old) => old.content != entry.content,
            None => false,
        };
        let old = held.resources.insert(name, entry);
        if let Some(old) = old.filter(|_| stale) {
            self.forget(&old.content);
        }
    }

    fn forget(&mut self, content: &Content) {
        match content {
            Content::Workload(uid) => self.view.remove_workload(uid),
            Content::Policy(key) => self.view.remove_policy(key),
            Content::Service => {}
        }
    }
}

fn error_detail(rejected: &[(String, Unusable)]) -> Option<Status> {
    if rejected.is_empty() {
        return None;
    }
    let mut texts: Vec<_> = rejected
        .iter()
        .take(NAMED_REJECTIONS)
        .map(|(name, reason)| format!("{name}: {reason}"))
        .collect();
    if rejected.len() > NAMED_REJECTIONS {
        texts.push(format!("and {} more", rejected.len() - NAMED_REJECTIONS));
    }
    Some(Status { code: INVALID_ARGUMENT, message: texts.join("; "), details: Vec::new() })
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
