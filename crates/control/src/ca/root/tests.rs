use rustls::pki_types::UnixTime;
use rustls::server::WebPkiClientVerifier;
use std::sync::Arc;
use x509_parser::extensions::GeneralName;

use super::*;

fn now() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
}

fn identity() -> Identity {
    "spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap()
}

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

/// Would a TLS server that trusts this root accept the certificate at that time?
fn accepted(root: &Root, leaf: &str, at: OffsetDateTime) -> bool {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(der(root.certificate())).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build().unwrap();
    let seconds = at.unix_timestamp().try_into().unwrap();
    let at = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
    verifier.verify_client_cert(&der(leaf), &[], at).is_ok()
}

#[test]
fn a_workloads_certificate_says_who_and_how_long() {
    let root = Root::generate("cluster.local", now()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = root.sign_workload(&identity(), &key, Duration::hours(1), now()).unwrap();
    assert!(accepted(&root, &leaf, now()));
    assert!(accepted(&root, &leaf, now() + Duration::minutes(59)));
    assert!(!accepted(&root, &leaf, now() + Duration::minutes(61)));
    assert!(!accepted(&root, &leaf, now() - Duration::minutes(3)));
    let der = der(&leaf);
    let (_, parsed) = X509Certificate::from_der(&der).unwrap();
    let names = &parsed.subject_alternative_name().unwrap().unwrap().value.general_names;
    let uri = identity().to_string();
    assert_eq!(names[..], [GeneralName::URI(&uri)]);
    assert!(!parsed.is_ca());
    let uses = parsed.extended_key_usage().unwrap().unwrap().value;
    assert!(uses.client_auth && uses.server_auth && !uses.any);
}

#[test]
fn nothing_lives_longer_than_a_day_or_than_the_root() {
    let root = Root::generate("cluster.local", now()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = root.sign_workload(&identity(), &key, Duration::days(30), now()).unwrap();
    assert!(!accepted(&root, &leaf, now() + Duration::hours(25)));
    let late = now() + ROOT_LIFE - Duration::hours(1);
    let leaf = root.sign_workload(&identity(), &key, Duration::days(1), late).unwrap();
    let der = der(&leaf);
    let (_, parsed) = X509Certificate::from_der(&der).unwrap();
    assert_eq!(parsed.validity().not_after.to_datetime(), now() + ROOT_LIFE);
}

#[test]
fn another_root_does_not_vouch() {
    let root = Root::generate("cluster.local", now()).unwrap();
    let other = Root::generate("cluster.local", now()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = other.sign_workload(&identity(), &key, Duration::hours(1), now()).unwrap();
    assert!(!accepted(&root, &leaf, now()));
}

#[test]
fn two_certificates_of_one_key_have_two_serials() {
    let root = Root::generate("cluster.local", now()).unwrap();
    let key = KeyPair::generate().unwrap();
    let sign = || root.sign_workload(&identity(), &key, Duration::hours(1), now()).unwrap();
    let (a, b) = (der(&sign()), der(&sign()));
    let serial = |der| X509Certificate::from_der(der).unwrap().1.raw_serial().to_vec();
    assert_ne!(serial(&a), serial(&b));
}

#[test]
fn a_stored_root_signs_what_the_first_one_did() {
    let root = Root::generate("cluster.local", now()).unwrap();
    let stored = root.to_pem();
    let again = Root::from_pem(&stored, now()).unwrap();
    assert_eq!(again.certificate(), root.certificate());
    assert!(!again.certificate().contains("PRIVATE"));
    let key = KeyPair::generate().unwrap();
    let leaf = again.sign_workload(&identity(), &key, Duration::hours(1), now()).unwrap();
    assert!(accepted(&root, &leaf, now()));
}

#[test]
fn a_stored_root_that_is_none_is_refused() {
    let root = Root::generate("cluster.local", now()).unwrap();
    let other = Root::generate("cluster.local", now()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = root.sign_workload(&identity(), &key, Duration::hours(1), now()).unwrap();
    let refused = |text: &str, at| Root::from_pem(text, at).unwrap_err();
    assert!(matches!(refused("", now()), RootError::Missing("PRIVATE KEY")));
    assert!(matches!(
        refused(&root.issuer.key().serialize_pem(), now()),
        RootError::Missing("CERTIFICATE")
    ));
    let mixed = format!("{}{}", other.issuer.key().serialize_pem(), root.certificate());
    assert!(matches!(refused(&mixed, now()), RootError::OtherKey));
    let no_ca = format!("{}{leaf}", key.serialize_pem());
    assert!(matches!(refused(&no_ca, now()), RootError::NotCa));
    let late = now() + ROOT_LIFE + Duration::SECOND;
    assert!(matches!(refused(&root.to_pem(), late), RootError::NotNow { .. }));
}
