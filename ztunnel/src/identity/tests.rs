//! The store against an authority in this process, and the client against a service.

use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use mesh::Identity;
use rcgen::{BasicConstraints, IsCa};
use tokio::time::timeout;

use super::certified::{KeyRequest, Surroundings};
use super::store::{Certificates, Issuer};
use super::{IdentityError, Lease, Token};
use crate::tls::Terms;
use crate::tls::test_ca::TestCa;

const PATIENCE: Duration = Duration::from_secs(20);

fn cart() -> Identity {
    Identity::new("", "shop", "cart").unwrap()
}

fn store(ca: &TestCa) -> Certificates {
    Certificates::with_issuer(Issuer::Local(ca.clone()))
}

async fn not_after(lease: &Lease) -> SystemTime {
    timeout(PATIENCE, lease.certificate()).await.unwrap().unwrap().not_after()
}

#[tokio::test]
async fn an_identity_is_certified_once_for_all_who_ask() {
    let ca = TestCa::new();
    let store = store(&ca);
    let leases: Vec<_> = (0..20).map(|_| store.lease(&cart())).collect();
    let all = join_all(leases.iter().map(Lease::certificate)).await;
    assert!(all.iter().all(|result| *result.as_ref().unwrap().identity() == cart()));
    assert_eq!(ca.asked(), 1);
}

#[tokio::test]
async fn a_certificate_is_forgotten_with_its_last_lease() {
    let ca = TestCa::new();
    let store = store(&ca);
    let (first, second) = (store.lease(&cart()), store.lease(&cart()));
    first.certificate().await.unwrap();
    drop(first);
    second.certificate().await.unwrap();
    assert_eq!(store.summary()[0].state, "Available");
    drop(second);
    assert!(store.summary().is_empty());
    store.lease(&cart()).certificate().await.unwrap();
    assert_eq!(ca.asked(), 2);
}

#[tokio::test]
async fn a_failure_is_told_to_those_who_wait_and_tried_again() {
    let ca = TestCa::new();
    ca.refuse(1);
    let store = store(&ca);
    let lease = store.lease(&cart());
    let error = timeout(PATIENCE, lease.certificate()).await.unwrap().unwrap_err();
    assert!(matches!(*error, IdentityError::Rejected { .. }), "{error}");
    assert!(store.summary()[0].state.starts_with("Unavailable"));
    not_after(&lease).await;
    assert_eq!(ca.asked(), 2);
}

/// Waits for the certificate to change.
async fn renewed(lease: &Lease, old: SystemTime) -> SystemTime {
    timeout(PATIENCE, async {
        loop {
            let new = not_after(lease).await;
            if new != old {
                return new;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn a_certificate_is_renewed_at_half_of_its_life() {
    let ca = TestCa::new().with_life(time::Duration::seconds(3));
    let lease = store(&ca).lease(&cart());
    let first = not_after(&lease).await;
    let second = renewed(&lease, first).await;
    assert!(second > first);
    assert!(SystemTime::now() < first, "it was renewed only after its end");
}

#[tokio::test]
async fn the_old_certificate_stays_while_the_new_one_is_refused() {
    let ca = TestCa::new().with_life(time::Duration::seconds(6));
    let lease = store(&ca).lease(&cart());
    let first = not_after(&lease).await;
    ca.refuse(1);
    let asked = async {
        while ca.asked() < 2 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, asked).await.unwrap();
    assert_eq!(not_after(&lease).await, first, "a refusal took the certificate away");
    assert!(renewed(&lease, first).await > first);
}

/// Joins a key with what a CA answered.
fn certify(
    request: KeyRequest<'_>,
    chain: &[String],
) -> Result<super::CertifiedIdentity, IdentityError> {
    request.certify(chain, &Surroundings { terms: &Terms::default(), earlier_roots: &[] })
}

/// What becomes of a returned chain.
fn verdict(chain: &[String]) -> String {
    match certify(KeyRequest::new(&cart()).unwrap(), chain) {
        Ok(_) => "accepted".to_owned(),
        Err(IdentityError::Rejected { reason, .. }) => reason,
        Err(other) => other.to_string(),
    }
}

#[test]
fn only_what_was_asked_for_is_accepted() {
    let (ca, other) = (TestCa::new(), TestCa::new());
    let id = cart().to_string();
    let identity = cart();
    let request = KeyRequest::new(&identity).unwrap();
    let good = ca.answer(request.csr()).unwrap();
    assert!(certify(request, &good).is_ok());

    let (_, for_other_key) = ca.leaf(&[&id], |_| ());
    let (_, for_other_name) = ca.leaf(&["spiffe://cluster.local/ns/shop/sa/db"], |_| ());
    let (_, two_names) = ca.leaf(&[&id, &id], |_| ());
    let (_, authority) = ca.leaf(&[&id], |params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    });
    let (_, expired) = ca.leaf(&[&id], |params| {
        params.not_after = params.not_before + time::Duration::seconds(1);
    });
    let (_, nameless) = ca.leaf(&[], |_| ());
    let (_, early) = ca.leaf(&[&id], |params| {
        params.not_before = time::OffsetDateTime::now_utc() + time::Duration::minutes(10);
    });
    let root = ca.root_pem();
    let cases: [(Vec<String>, &str); 11] = [
        (vec![nameless.pem(), root.clone()], "0 URI names"),
        (vec![early.pem(), root.clone()], "not valid yet"),
        (vec![], "empty"),
        (vec![for_other_key.pem()], "no root"),
        (vec![for_other_key.pem(), root.clone()], "not for the key"),
        (vec![for_other_name.pem(), root.clone()], "it is for spiffe://"),
        (vec![two_names.pem(), root.clone()], "2 URI names"),
        (vec![authority.pem(), root.clone()], "CA certificate"),
        (vec![expired.pem(), root.clone()], "xpired"),
        (vec![for_other_key.pem(), other.root_pem()], "BadSignature"),
        (vec!["rubbish".to_owned(), root], "no root"),
    ];
    for (chain, expected) in cases {
        let found = verdict(&chain);
        assert!(found.contains(expected), "{found:?} does not tell of {expected:?}");
    }
}

#[test]
fn keys_stay_out_of_debug_text() {
    let ca = TestCa::new();
    let identity = cart();
    let request = KeyRequest::new(&identity).unwrap();
    let chain = ca.answer(request.csr()).unwrap();
    let text = format!("{:?}", certify(request, &chain).unwrap());
    assert!(text.contains("spiffe://cluster.local/ns/shop/sa/cart"), "{text}");
    assert!(!text.to_lowercase().contains("key"), "{text}");
}

#[test]
fn a_token_is_a_file_that_is_read_again_or_the_text_itself() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    std::fs::write(&path, "first\n").unwrap();
    let token = Token::from_setting(path.to_str());
    assert_eq!(token.bearer().unwrap().unwrap(), "Bearer first");
    std::fs::write(&path, "second\n").unwrap();
    assert_eq!(token.bearer().unwrap().unwrap(), "Bearer second");
    std::fs::remove_file(&path).unwrap();
    assert!(token.bearer().is_err());
    let early = Token::from_setting(path.to_str());
    assert!(early.bearer().is_err(), "a path is not sent as a token");
    std::fs::write(&path, "third\n").unwrap();
    assert_eq!(early.bearer().unwrap().unwrap(), "Bearer third");

    let literal = Token::from_setting(Some("abc"));
    assert_eq!(literal.bearer().unwrap().unwrap(), "Bearer abc");
    assert!(!format!("{literal:?} {:?}", literal.bearer()).contains("abc"));
    assert!(Token::from_setting(None).bearer().unwrap().is_none());
    assert!(Token::from_setting(Some("a\u{1}b")).bearer().is_err());
}
