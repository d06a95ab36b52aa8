//! Has tokens reviewed by the Kubernetes API.
//!
//! A good answer is remembered for [`REMEMBERED`], and never beyond the token's own
//! expiry: so long a token that was revoked meanwhile (its pod deleted, say) may still be
//! accepted here. The pod is looked up anew on each call. A refusal is not remembered.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use k8s_openapi::api::authentication::v1::{
    TokenReview, TokenReviewSpec, TokenReviewStatus, UserInfo,
};
use kube::api::PostParams;
use kube::{Api, Client};
use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::callers::Reviewed;
use crate::facts::Account;

/// Who the tokens are for; Istio's own name, so that its proxies can call too.
const AUDIENCE: &str = "istio-ca";
/// How long an answer is believed.
const REMEMBERED: Duration = Duration::from_secs(30);
/// How many answers are remembered.
const CAPACITY: usize = 1024;
/// How long the API may take, waiting for a turn included.
const DEADLINE: Duration = Duration::from_secs(5);
/// How many questions are asked at once, so that strangers cannot flood the API.
const AT_ONCE: usize = 16;
/// Longer ones are not tokens.
const MAX_TOKEN: usize = 16 * 1024;

const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

/// Why a token is worth nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenProblem {
    #[error("the Kubernetes API does not accept the token for audience istio-ca: {reason}")]
    Refused { reason: String },
    #[error("the token is of {username:?}, which is no service account")]
    NoAccount { username: String },
    #[error(
        "the token of {account} is not bound to a pod: use a projected token of the pod itself"
    )]
    NotBound { account: Account },
    #[error("the Kubernetes API cannot review the token, try again: {0}")]
    Api(#[source] Box<kube::Error>),
    #[error("the Kubernetes API did not review the token within 5 s, try again")]
    Deadline,
}

/// Asks, and remembers answers.
pub(crate) struct Reviewer {
    api: Api<TokenReview>,
    turns: Semaphore,
    remembered: Mutex<HashMap<String, Remembered>>,
}

impl std::fmt::Debug for Reviewer {
    /// Without the tokens.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reviewer").finish_non_exhaustive()
    }
}

#[derive(Clone)]
struct Remembered {
    reviewed: Reviewed,
    until: Instant,
}

impl Reviewer {
    pub(crate) fn new(client: Client) -> Self {
        Self { api: Api::all(client), turns: Semaphore::new(AT_ONCE), remembered: Mutex::default() }
    }

    /// Whose token is it?
    pub(crate) async fn review(&self, token: &str) -> Result<Reviewed, TokenProblem> {
        if token.len() > MAX_TOKEN {
            return Err(TokenProblem::Refused { reason: "it is too long to be one".into() });
        }
        if let Some(reviewed) = self.recall(token) {
            return Ok(reviewed);
        }
        let status =
            timeout(DEADLINE, self.ask(token)).await.map_err(|_| TokenProblem::Deadline)??;
        let reviewed = read(status)?;
        self.remember(token, &reviewed);
        Ok(reviewed)
    }

    async fn ask(&self, token: &str) -> Result<TokenReviewStatus, TokenProblem> {
        let _turn = self.turns.acquire().await.expect("the semaphore is never closed");
        let spec =
            TokenReviewSpec { audiences: Some(vec![AUDIENCE.to_owned()]), token: token.to_owned() };
        let question = TokenReview { spec, ..TokenReview::default() };
        let answer = self.api.create(&PostParams::default(), &question).await;
        Ok(answer.map_err(|error| TokenProblem::Api(Box::new(error)))?.status.unwrap_or_default())
    }

    fn recall(&self, token: &str) -> Option<Reviewed> {
        let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        let found = remembered.get(token)?;
        (found.until > Instant::now()).then(|| found.reviewed.clone())
    }

    fn remember(&self, token: &str, reviewed: &Reviewed) {
        let Some(left) = left_of(token, SystemTime::now()) else {
            return;
        };
        let now = Instant::now();
        let until = now + left.min(REMEMBERED);
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= CAPACITY {
            remembered.retain(|_, entry| entry.until > now);
        }
        // Full of answers that are still good: the next call asks again.
        if remembered.len() < CAPACITY {
            let reviewed = reviewed.clone();
            remembered.insert(token.to_owned(), Remembered { reviewed, until });
        }
    }
}

fn read(status: TokenReviewStatus) -> Result<Reviewed, TokenProblem> {
    if status.authenticated != Some(true) {
        let reason = status.error.unwrap_or_else(|| "it is unknown or has expired".into());
        return Err(TokenProblem::Refused { reason });
    }
    // An API server that knows nothing of audiences would accept a token for another one.
    if !status.audiences.unwrap_or_default().iter().any(|audience| audience == AUDIENCE) {
        return Err(TokenProblem::Refused { reason: "it is for another audience".into() });
    }
    let UserInfo { username, extra, .. } = status.user.unwrap_or_default();
    let username = username.unwrap_or_default();
    let Some(account) = Account::from_username(&username) else {
        return Err(TokenProblem::NoAccount { username });
    };
    let mut extra = extra.unwrap_or_default();
    let mut first = |key| extra.remove(key).unwrap_or_default().into_iter().next();
    match (first(POD_NAME), first(POD_UID)) {
        (Some(pod), Some(pod_uid)) => Ok(Reviewed { account, pod, pod_uid }),
        _ => Err(TokenProblem::NotBound { account }),
    }
}

/// How long a token that was just found good will last, as it says itself; `None`: it
/// does not say, so it must not be remembered.
fn left_of(token: &str, now: SystemTime) -> Option<Duration> {
    #[derive(Deserialize)]
    struct Claims {
        exp: u64,
    }
    let payload = token.split('.').nth(1)?;
    let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
    (UNIX_EPOCH.checked_add(Duration::from_secs(claims.exp))?).duration_since(now).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn good() -> TokenReviewStatus {
        let extra: BTreeMap<_, _> = [(POD_NAME, "ztunnel-1"), (POD_UID, "u1")]
            .map(|(key, value)| (key.to_owned(), vec![value.to_owned()]))
            .into();
        TokenReviewStatus {
            authenticated: Some(true),
            audiences: Some(vec![AUDIENCE.into()]),
            user: Some(UserInfo {
                username: Some("system:serviceaccount:sluice-system:ztunnel".into()),
                extra: Some(extra),
                ..UserInfo::default()
            }),
            error: None,
        }
    }

    fn user(change: impl FnOnce(&mut UserInfo)) -> TokenReviewStatus {
        let mut status = good();
        change(status.user.as_mut().unwrap());
        status
    }

    #[test]
    fn a_good_answer_names_account_and_pod() {
        let reviewed = read(good()).unwrap();
        assert_eq!(reviewed.account.to_string(), "sluice-system/ztunnel");
        assert_eq!((&*reviewed.pod, &*reviewed.pod_uid), ("ztunnel-1", "u1"));
    }

    #[test]
    fn any_other_answer_is_a_refusal() {
        use TokenProblem::{NoAccount, NotBound, Refused};
        let refused = |status| matches!(read(status), Err(Refused { .. }));
        assert!(refused(TokenReviewStatus::default()));
        assert!(refused(TokenReviewStatus { authenticated: Some(false), ..good() }));
        assert!(refused(TokenReviewStatus { audiences: None, ..good() }));
        assert!(refused(TokenReviewStatus { audiences: Some(vec!["api".into()]), ..good() }));
        let admin = user(|it| it.username = Some("admin".into()));
        assert!(matches!(read(admin), Err(NoAccount { .. })));
        let unbound = user(|it| it.extra = None);
        assert!(matches!(read(unbound), Err(NotBound { .. })));
        let half = user(|it| {
            it.extra.as_mut().unwrap().remove(POD_UID);
        });
        assert!(matches!(read(half), Err(NotBound { .. })));
    }

    #[test]
    fn an_answer_is_not_remembered_beyond_the_tokens_expiry() {
        let now = UNIX_EPOCH + Duration::from_secs(1000);
        let token = |claims: &str| format!("h.{}.s", URL_SAFE_NO_PAD.encode(claims));
        assert_eq!(left_of(&token(r#"{"exp":1010}"#), now), Some(Duration::from_secs(10)));
        assert_eq!(left_of(&token(r#"{"exp":999}"#), now), None);
        assert_eq!(left_of(&token(r#"{"exp":18446744073709551615}"#), now), None);
        for none in ["opaque", "a.b.c", &token("{}"), &token("x"), ""] {
            assert_eq!(left_of(none, now), None, "{none}");
        }
    }
}
