//! Service-account tokens: minted by TokenRequest, judged by TokenReview. No clock of its own.
//!
//! A token looks like a JWT, because clients read its expiry, but it is opaque: its last part
//! is random and a token is known only by being in the book as a whole.

use std::collections::HashMap;

use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

use super::action::Place;
use super::kinds::token_reviews;
use super::meta;
use super::status::{Cause, Reason, Refusal};
use super::store::{Key, Store};
use super::token_request::{API_AUDIENCE, Wanted, bind, texts, written};
use super::writes::{Writer, existing};

/// How many live tokens there may be.
const TOKENS: usize = 65_536;

/// The tokens that were minted and have not expired.
#[derive(Debug, Default)]
pub(crate) struct TokenBook {
    grants: HashMap<String, Grant>,
}

/// What one token stands for.
#[derive(Debug)]
pub(crate) struct Grant {
    pub(crate) account: Key,
    pub(crate) account_uid: String,
    pub(crate) pod: Option<BoundPod>,
    pub(crate) audiences: Vec<String>,
    pub(crate) expires: OffsetDateTime,
}

/// The pod whose end ends the token; its node as name and uid.
#[derive(Debug)]
pub(crate) struct BoundPod {
    pub(crate) key: Key,
    pub(crate) uid: String,
    pub(crate) node: Option<(String, Option<String>)>,
}

impl TokenBook {
    /// Answers a TokenRequest for the service account at `place`.
    pub(crate) fn mint(
        &mut self,
        store: &Store,
        writer: Writer,
        place: &Place,
        request: &Value,
    ) -> Result<Value, Refusal> {
        let account = existing(store, place)?;
        let name = meta::name(account);
        of_kind(request, "TokenRequest")?;
        let wanted = Wanted::read(request)
            .map_err(|cause| Refusal::invalid(place.resource, name, vec![cause]))?;
        let pod = wanted.pod.map(|pod| bind(store, place, name, &pod)).transpose()?;
        self.grants.retain(|_, grant| grant.expires > writer.now);
        if self.grants.len() >= TOKENS {
            let why = format!("{TOKENS} tokens are alive, more are not minted");
            return Err(Refusal::new(Reason::TooManyRequests, why));
        }
        let grant = Grant {
            account: place.key(name),
            account_uid: meta::uid(account).to_owned(),
            pod,
            audiences: wanted.audiences,
            expires: writer.now + Duration::seconds(wanted.seconds),
        };
        let token = written(&grant, writer)?;
        let answer = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "metadata": { "name": name, "namespace": meta::namespace(account) },
            "spec": {
                "audiences": grant.audiences, "expirationSeconds": wanted.seconds,
                "boundObjectRef": request["spec"]["boundObjectRef"],
            },
            "status": {
                "token": token, "expirationTimestamp": meta::timestamp(grant.expires),
            },
        });
        self.grants.insert(token, grant);
        Ok(answer)
    }

    /// Answers a TokenReview.
    pub(crate) fn review(
        &self,
        store: &Store,
        now: OffsetDateTime,
        request: &Value,
    ) -> Result<Value, Refusal> {
        of_kind(request, "TokenReview")?;
        let token = meta::text(request, "/spec/token");
        if token.is_empty() {
            return Err(Refusal::bad_request("a TokenReview needs spec.token"));
        }
        let asked = texts(&request["spec"]["audiences"]).ok_or_else(|| {
            let cause = Cause::invalid("spec.audiences", "must be a list of strings");
            Refusal::invalid(&token_reviews::TOKEN_REVIEWS, "", vec![cause])
        })?;
        let asked = if asked.is_empty() { vec![API_AUDIENCE.to_owned()] } else { asked };
        let status = match self.judge(store, now, token, &asked) {
            Ok(status) => status,
            Err(why) => json!({ "authenticated": false, "user": {}, "error": why }),
        };
        Ok(json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
            "metadata": {}, "spec": request["spec"], "status": status,
        }))
    }

    fn judge(
        &self,
        store: &Store,
        now: OffsetDateTime,
        token: &str,
        asked: &[String],
    ) -> Result<Value, String> {
        let grant = self.grants.get(token).ok_or("the token is not one of this API")?;
        if grant.expires <= now {
            return Err(format!("the token expired at {}", meta::timestamp(grant.expires)));
        }
        let (namespace, name) = (&grant.account.namespace, &grant.account.name);
        if store.get(&grant.account).is_none_or(|now| meta::uid(now) != grant.account_uid) {
            return Err(format!("service account {namespace}/{name} is gone"));
        }
        if let Some(pod) = &grant.pod
            && store.get(&pod.key).is_none_or(|now| meta::uid(now) != pod.uid)
        {
            return Err(format!(
                "pod {namespace}/{}, to which the token is bound, is gone",
                pod.key.name
            ));
        }
        let audiences: Vec<&String> =
            asked.iter().filter(|audience| grant.audiences.contains(audience)).collect();
        if audiences.is_empty() {
            return Err(format!("the token is for {:?}, not for {asked:?}", grant.audiences));
        }
        Ok(json!({
            "authenticated": true, "audiences": audiences,
            "user": {
                "username": format!("system:serviceaccount:{namespace}:{name}"),
                "uid": grant.account_uid,
                "groups": [
                    "system:serviceaccounts",
                    format!("system:serviceaccounts:{namespace}"),
                    "system:authenticated",
                ],
                "extra": extra(grant.pod.as_ref()),
            },
        }))
    }
}

fn of_kind(request: &Value, kind: &str) -> Result<(), Refusal> {
    let own = request.get("kind").and_then(Value::as_str).unwrap_or(kind);
    if request.is_object() && own == kind {
        return Ok(());
    }
    Err(Refusal::bad_request(format!("the body is not an object of kind {kind}")))
}

fn extra(pod: Option<&BoundPod>) -> Value {
    let mut extra = json!({});
    let Some(pod) = pod else { return extra };
    let mut say = |what: &str, value: &str| {
        extra[format!("authentication.kubernetes.io/{what}")] = json!([value]);
    };
    say("pod-name", &pod.key.name);
    say("pod-uid", &pod.uid);
    if let Some((name, uid)) = &pod.node {
        say("node-name", name);
        if let Some(uid) = uid {
            say("node-uid", uid);
        }
    }
    extra
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube_api::entropy::Entropy;
    use crate::kube_api::kinds::namespaces::NAMESPACES;
    use crate::kube_api::kinds::service_accounts::SERVICE_ACCOUNTS;
    use crate::kube_api::writes::create;

    #[test]
    fn a_token_ends_at_its_time() {
        let (entropy, mut store) = (Entropy::open().unwrap(), Store::new(10));
        let now = meta::parse_timestamp("2026-01-01T00:00:00Z").unwrap();
        let writer = Writer { entropy: &entropy, now, manager: "test" };
        let namespaces = Place { resource: &NAMESPACES, namespace: None, name: None };
        create(&mut store, writer, &namespaces, &json!({ "metadata": { "name": "n" } })).unwrap();
        let account = Place {
            resource: &SERVICE_ACCOUNTS,
            namespace: Some("n".to_owned()),
            name: Some("default".to_owned()),
        };
        let mut book = TokenBook::default();
        let request = json!({ "spec": { "audiences": ["a"], "expirationSeconds": 600 } });
        let token = book.mint(&store, writer, &account, &request).unwrap();
        assert_eq!(token["status"]["expirationTimestamp"], "2026-01-01T00:10:00Z");
        let review = json!({"spec": {"token": token["status"]["token"], "audiences": ["a"]}});
        let judged = |after: i64| {
            let then = now + Duration::seconds(after);
            book.review(&store, then, &review).unwrap()["status"].clone()
        };
        assert_eq!(judged(599)["authenticated"], true);
        assert_eq!(judged(600)["authenticated"], false);
        assert!(judged(600)["error"].as_str().unwrap().contains("expired"));
    }
}
