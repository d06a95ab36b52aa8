//! Who calls: the pod behind a service-account token, its node, and what that entitles to.
//!
//! ```text
//! authorization: Bearer ──TokenReview──► Reviewed ──place(world)──► Caller ──may_have──► Identity
//! ```

use std::sync::Arc;

use mesh::{Identity, IdentityError};
use tokio::sync::watch;
use tonic::Status;
use tonic::metadata::MetadataMap;

use crate::facts::Account;
use crate::kube::{Reviewer, TokenProblem};
use crate::sparse::Sparse;
use crate::world::World;

/// What the Kubernetes API vouches for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reviewed {
    pub(crate) account: Account,
    /// Name of the pod that the token is bound to.
    pub(crate) pod: String,
    /// Its UID.
    pub(crate) pod_uid: String,
}

/// A pod that calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) account: Account,
    pub(crate) pod: String,
    pub(crate) node: String,
}

/// Why a call is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error(
        "no token: send the header \"authorization: Bearer <service-account token of audience \
         istio-ca>\""
    )]
    NoToken,
    #[error("{0}")]
    Token(#[from] TokenProblem),
    #[error("the cluster's pods are not listed yet: try again")]
    NotListed,
    #[error(
        "the token of {account} is bound to pod {pod}, which is not known to run on a node: try \
         again if it has just been scheduled"
    )]
    NoPod { account: Account, pod: String },
    #[error(
        "the token of {account} is bound to an earlier pod of the name {pod} (uid {uid}): use \
         the token of the present one"
    )]
    OtherPod { account: Account, pod: String, uid: String },
    #[error("the identity asked for is malformed: {0}")]
    Identity(#[from] IdentityError),
    #[error(
        "{identity} is not of trust domain {trust_domain}: set the same TRUST_DOMAIN in the \
         node proxy and here"
    )]
    TrustDomain { identity: Identity, trust_domain: String },
    #[error(
        "{account} may only have its own identity, not {identity}: node proxies that ask for \
         others must be listed in TRUSTED_NODE_ACCOUNTS"
    )]
    NotTrusted { account: Account, identity: Identity },
    #[error(
        "{identity} is not signed for node {node}: no pod of that service account is known to \
         run there; try again if one has just been scheduled"
    )]
    NotOnNode { identity: Identity, node: String },
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let text = refusal.to_string();
        match refusal {
            Refusal::NoToken | Refusal::OtherPod { .. } => Self::unauthenticated(text),
            Refusal::Token(TokenProblem::Refused { .. }) => Self::unauthenticated(text),
            Refusal::Token(TokenProblem::NotBound { .. } | TokenProblem::NoAccount { .. }) => {
                Self::permission_denied(text)
            }
            Refusal::Token(_) | Refusal::NotListed | Refusal::NoPod { .. } => {
                Self::unavailable(text)
            }
            Refusal::Identity(_) => Self::invalid_argument(text),
            Refusal::TrustDomain { .. }
            | Refusal::NotTrusted { .. }
            | Refusal::NotOnNode { .. } => Self::permission_denied(text),
        }
    }
}

/// Admits callers to both services.
#[derive(Debug)]
pub(crate) struct Gate {
    reviewer: Reviewer,
    worlds: watch::Receiver<Option<Arc<World>>>,
    /// Of both services: strangers can have themselves refused as often as they like.
    pub(crate) refusals: Sparse,
}

impl Gate {
    pub(crate) fn new(reviewer: Reviewer, worlds: watch::Receiver<Option<Arc<World>>>) -> Self {
        Self { reviewer, worlds, refusals: Sparse::default() }
    }

    /// The present world.
    pub(crate) fn world(&self) -> Result<Arc<World>, Refusal> {
        self.worlds.borrow().clone().ok_or(Refusal::NotListed)
    }

    /// Finds out who calls.
    pub(crate) async fn admit(&self, metadata: &MetadataMap) -> Result<Caller, Refusal> {
        let token = bearer(metadata).ok_or(Refusal::NoToken)?;
        let reviewed = self.reviewer.review(token).await?;
        place(reviewed, &*self.world()?)
    }
}

fn bearer(metadata: &MetadataMap) -> Option<&str> {
    let (scheme, token) = metadata.get("authorization")?.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// Finds the pod that a token is bound to. The name is not enough: it may have been given
/// to another pod since, on another node.
fn place(reviewed: Reviewed, world: &World) -> Result<Caller, Refusal> {
    let Reviewed { account, pod, pod_uid } = reviewed;
    match world.placement(&account.namespace, &pod) {
        None => Err(Refusal::NoPod { account, pod }),
        Some(found) if found.uid != pod_uid || found.account != account => {
            Err(Refusal::OtherPod { account, pod, uid: pod_uid })
        }
        Some(found) => Ok(Caller { account, pod, node: found.node.clone() }),
    }
}

/// Which identity a caller gets a certificate for: its own, or, if it is a node proxy,
/// that of a pod on its own node. Nobody is given an identity of another node, so that a
/// node that was broken into is worth no more than the pods that run there.
pub(crate) fn may_have(
    caller: &Caller,
    asked: Option<&str>,
    rules: &IssueRules,
    world: &World,
) -> Result<Identity, Refusal> {
    let Account { namespace, name } = &caller.account;
    let own = Identity::new(&rules.trust_domain, namespace, name)?;
    let identity = match asked {
        None => own.clone(),
        Some(text) => text.parse::<Identity>()?,
    };
    if identity == own {
        return Ok(own);
    }
    if identity.trust_domain() != rules.trust_domain {
        let trust_domain = rules.trust_domain.clone();
        return Err(Refusal::TrustDomain { identity, trust_domain });
    }
    if !rules.trusted_node_accounts.contains(&caller.account) {
        return Err(Refusal::NotTrusted { account: caller.account.clone(), identity });
    }
    let account = Account {
        namespace: identity.namespace().to_owned(),
        name: identity.service_account().to_owned(),
    };
    if world.runs_on(&caller.node, &account) {
        Ok(identity)
    } else {
        Err(Refusal::NotOnNode { identity, node: caller.node.clone() })
    }
}

/// What the certificate service goes by.
#[derive(Clone, Debug)]
pub(crate) struct IssueRules {
    pub(crate) trust_domain: String,
    /// Who may ask for other identities than its own.
    pub(crate) trusted_node_accounts: Vec<Account>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{Life, PodFacts};
    use crate::testing::pod;
    use tonic::Code;

    fn account(text: &str) -> Account {
        Account::parse(text).unwrap()
    }

    fn proxy(name: &str, node: &str) -> PodFacts {
        let service_account = "ztunnel".into();
        PodFacts { service_account, node: node.into(), ..pod("sluice-system", name) }
    }

    fn world() -> World {
        let mut world = World::default();
        world.place(&proxy("ztunnel-1", "n1"));
        world.place(&proxy("ztunnel-2", "n2"));
        world.place(&pod("shop", "cart-1"));
        let web =
            PodFacts { service_account: "web".into(), node: "n2".into(), ..pod("shop", "web-1") };
        world.place(&web);
        world
    }

    fn rules() -> IssueRules {
        IssueRules {
            trust_domain: "cluster.local".into(),
            trusted_node_accounts: vec![account("sluice-system/ztunnel")],
        }
    }

    fn token(account_text: &str, pod: &str, uid: &str) -> Reviewed {
        Reviewed { account: account(account_text), pod: pod.into(), pod_uid: uid.into() }
    }

    fn ztunnel() -> Caller {
        place(token("sluice-system/ztunnel", "ztunnel-1", "uid-of-ztunnel-1"), &world()).unwrap()
    }

    const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";
    const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";

    #[test]
    fn the_node_is_that_of_the_pod_that_the_token_is_bound_to() {
        assert_eq!(ztunnel().node, "n1");
        for (reviewed, code) in [
            (token("sluice-system/ztunnel", "ztunnel-9", "uid"), Code::Unavailable),
            (token("sluice-system/ztunnel", "ztunnel-1", "older"), Code::Unauthenticated),
            (token("sluice-system/other", "ztunnel-1", "uid-of-ztunnel-1"), Code::Unauthenticated),
            (token("shop/ztunnel", "ztunnel-1", "uid-of-ztunnel-1"), Code::Unavailable),
        ] {
            let refusal = place(reviewed.clone(), &world()).unwrap_err();
            assert_eq!(Status::from(refusal).code(), code, "{reviewed:?}");
        }
        let mut world = world();
        world.place(&PodFacts { life: Life::Ended, ..proxy("ztunnel-1", "n1") });
        let reviewed = token("sluice-system/ztunnel", "ztunnel-1", "uid-of-ztunnel-1");
        assert!(place(reviewed, &world).is_err(), "a pod that has ended calls nobody");
    }

    #[test]
    fn a_node_proxy_gets_what_runs_on_its_node_and_nothing_else() {
        let own = "spiffe://cluster.local/ns/sluice-system/sa/ztunnel";
        for (asked, expected) in [
            (None, Ok(own)),
            (Some(own), Ok(own)),
            (Some(CART), Ok(CART)),
            (Some(WEB), Err(Code::PermissionDenied)),
            (Some("spiffe://cluster.local/ns/shop/sa/none"), Err(Code::PermissionDenied)),
            (Some("spiffe://other/ns/shop/sa/cart"), Err(Code::PermissionDenied)),
            (Some("spiffe://cluster.local/ns/shop/sa/cart/"), Err(Code::InvalidArgument)),
            (Some(""), Err(Code::InvalidArgument)),
        ] {
            let got = may_have(&ztunnel(), asked, &rules(), &world());
            let got = got.map(|it| it.to_string()).map_err(|it| Status::from(it).code());
            assert_eq!(got, expected.map(str::to_owned), "{asked:?}");
        }
    }

    #[test]
    fn a_refusal_names_identity_and_node() {
        let refusal = may_have(&ztunnel(), Some(WEB), &rules(), &world()).unwrap_err();
        let text = refusal.to_string();
        assert!(text.contains(WEB) && text.contains("node n1"), "{text}");
    }

    #[test]
    fn any_other_pod_gets_its_own_identity_only() {
        // It has a valid token, and the one it asks for runs beside it.
        let mut world = world();
        world.place(&PodFacts { service_account: "web".into(), ..pod("shop", "web-2") });
        let cart = place(token("shop/cart", "cart-1", "uid-of-cart-1"), &world).unwrap();
        assert_eq!(may_have(&cart, None, &rules(), &world).unwrap().to_string(), CART);
        let refusal = may_have(&cart, Some(WEB), &rules(), &world).unwrap_err();
        assert!(matches!(refusal, Refusal::NotTrusted { .. }), "{refusal:?}");
    }

    #[test]
    fn a_bearer_token_is_taken_from_the_header() {
        let with = |value: &str| {
            let mut metadata = MetadataMap::new();
            metadata.insert("authorization", value.parse().unwrap());
            bearer(&metadata).map(str::to_owned)
        };
        assert_eq!(with("Bearer abc").as_deref(), Some("abc"));
        assert_eq!(with("bearer abc ").as_deref(), Some("abc"));
        for value in ["", "Bearer", "Bearer ", "Basic abc", "abc"] {
            assert_eq!(with(value), None, "{value:?}");
        }
        assert_eq!(bearer(&MetadataMap::new()), None);
    }
}
