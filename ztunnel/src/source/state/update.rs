//! The two halves of a response: what goes and what comes.

use std::collections::HashSet;
use std::time::Instant;

use bytes::Bytes;
use mesh::proto::ADDRESS_TYPE;
use prost::Message;

use super::held::{Name, Opening};
use super::{Outcome, Scope, State};
use crate::source::wire::Item;

impl State {
    /// What the response brings anew stays, whatever it says of removal.
    pub(super) fn remove(
        &mut self,
        url: &str,
        told: Vec<String>,
        resources: &[Bytes],
        now: Instant,
        outcome: &mut Outcome,
    ) {
        let rule = self.rules.mass_removal;
        let Some(held) = self.held_mut(url) else {
            return;
        };
        let told: HashSet<String> = told.into_iter().collect();
        let opening = std::mem::replace(&mut held.opening, Opening::Over);
        let going = match opening {
            // What we did not claim and what does not come either is gone. A resource whose
            // name cannot be read might be any of them.
            Opening::Unclaimed => {
                let (brought, unreadable) = names(resources);
                let going = held.names().filter(|name| !brought.contains(&***name));
                if unreadable > 0 { Vec::new() } else { going.cloned().collect() }
            }
            Opening::Claimed | Opening::Over if told.is_empty() => Vec::new(),
            Opening::Claimed | Opening::Over => {
                let (brought, _) = names(resources);
                let going = told.iter().filter(|name| !brought.contains(name.as_str()));
                going.filter_map(|name| held.name(name).cloned()).collect::<Vec<Name>>()
            }
        };
        if opening != Opening::Over {
            let again: HashSet<&str> = going.iter().map(|name| &**name).collect();
            held.withheld.retain(|name| again.contains(name));
        }
        let (asked, total) = (going.len(), held.len());
        let gone = held.withheld.judge(rule, going, total, now);
        outcome.withheld = asked - gone.len();
        outcome.changed |= !gone.is_empty();
        gone.iter().for_each(|name| self.forget(url, name));
        if self.on_demand(url) {
            for name in &told {
                outcome.changed |= self.nothing_at(name);
            }
            outcome.answered.extend(told);
        }
    }

    /// Resources are decoded one by one: all at once would double the mesh in memory.
    pub(super) fn upsert(&mut self, url: &str, resources: Vec<Bytes>, outcome: &mut Outcome) {
        for (number, bytes) in resources.into_iter().enumerate() {
            match Item::decode(bytes) {
                Ok(item) => self.upsert_one(url, item, outcome),
                Err(error) => {
                    let name = format!("resource number {number} of the response");
                    outcome.rejected.push((name, error.into()));
                }
            }
        }
    }

    fn upsert_one(&mut self, url: &str, item: Item, outcome: &mut Outcome) {
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
        if self.on_demand(url) {
            outcome.answered.extend(self.address_names(&name));
            outcome.answered.extend(aliases);
            outcome.answered.push(name);
        }
    }

    pub(super) fn on_demand(&self, url: &str) -> bool {
        self.rules.scope == Scope::OnDemand && url == ADDRESS_TYPE
    }
}

/// The names of the resources, and how many cannot be read.
fn names(resources: &[Bytes]) -> (HashSet<String>, usize) {
    let (mut names, mut unreadable) = (HashSet::with_capacity(resources.len()), 0);
    for bytes in resources {
        match Item::decode(bytes.clone()) {
            Ok(item) => {
                names.insert(item.name);
            }
            Err(_) => unreadable += 1,
        }
    }
    (names, unreadable)
}
