//! One client's conversation, message by message. Pure.

use mesh::proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};

use super::subscription::{Answer, Asked, Kind, Subscription};
use crate::world::World;

/// What a client has subscribed to and been sent.
#[derive(Debug, Default)]
pub(super) struct Client {
    subscriptions: [Option<Subscription>; Kind::ALL.len()],
    nonces: u64,
}

/// What a request meant.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// It wants resources of this kind from now on.
    Subscribed(Kind),
    /// It took everything.
    Acked(Kind),
    /// It did not take some or all of a response.
    Rejected { kind: Kind, detail: String },
    /// It said nothing new.
    Nothing,
    /// A type that is not served: it is not answered, the others are.
    Unknown(String),
}

impl Client {
    /// Takes in a request. One may answer a response and ask for something at once.
    pub(super) fn on(&mut self, request: DeltaDiscoveryRequest) -> Heard {
        let Some(kind) = Kind::from_url(&request.type_url) else {
            return Heard::Unknown(request.type_url);
        };
        let asked = Asked {
            subscribe: request.resource_names_subscribe,
            unsubscribe: request.resource_names_unsubscribe,
        };
        let Some(subscription) = &mut self.subscriptions[kind as usize] else {
            let claimed = request.initial_resource_versions;
            self.subscriptions[kind as usize] = Some(Subscription::new(kind, asked, claimed));
            return Heard::Subscribed(kind);
        };
        subscription.ask(asked);
        match (subscription.answered(&request.response_nonce), request.error_detail) {
            (Answer::Stale, _) => Heard::Nothing,
            (Answer::Fits, None) => Heard::Acked(kind),
            (Answer::Fits, Some(status)) => Heard::Rejected { kind, detail: status.message },
        }
    }

    /// The response of this kind that is due, if any.
    pub(super) fn next(&mut self, kind: Kind, world: &World) -> Option<DeltaDiscoveryResponse> {
        let nonces = &mut self.nonces;
        let nonce = || {
            *nonces += 1;
            nonces.to_string()
        };
        self.subscriptions[kind as usize].as_mut()?.next(world, nonce)
    }

    /// Whether it asks for more names than anybody needs.
    pub(super) fn is_too_much(&self) -> bool {
        self.subscriptions.iter().flatten().any(Subscription::is_too_much)
    }

    /// Is an answer of this kind still to come?
    pub(super) fn awaiting(&self, kind: Kind) -> bool {
        self.subscriptions[kind as usize].as_ref().is_some_and(Subscription::awaiting)
    }
}

#[cfg(test)]
mod tests;
