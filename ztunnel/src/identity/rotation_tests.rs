//! Renewal, rotation of roots, and the order in which the CA is asked.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use mesh::Identity;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use proptest::prelude::*;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::certified::{CertifiedIdentity, KeyRequest, Surroundings};
use super::queue::{Queue, Urgency};
use super::root_watch::follow_root_within;
use super::store::{Certificates, Issuer};
use super::{IdentityError, Lease};
use crate::tls::test_ca::TestCa;
use crate::tls::{Terms, accept, connect};

const PATIENCE: Duration = Duration::from_secs(20);

fn identity(name: &str) -> Identity {
    Identity::new("", "shop", name).unwrap()
}

fn store(ca: &TestCa) -> Certificates {
    Certificates::with_issuer(Issuer::Local(ca.clone()))
}

async fn certificate(lease: &Lease) -> Arc<CertifiedIdentity> {
    timeout(PATIENCE, lease.certificate()).await.unwrap().unwrap()
}

/// Renews what a store has, and waits for it.
async fn renew(store: &Certificates, lease: &Lease) {
    let generation = lease.generation();
    store.renew_all(Duration::ZERO);
    timeout(PATIENCE, lease.renewed(generation)).await.unwrap();
}

/// One handshake; both ends must believe each other.
async fn meet(client: &Lease, server: &Lease, step: &str) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let near = TcpStream::connect(address).await.unwrap();
    let far = listener.accept().await.unwrap().0;
    let (ours, theirs) = (certificate(client).await, certificate(server).await);
    let accepted = [server.identity().clone()];
    let dial = connect(ours.credentials(), &accepted, near, address.ip(), PATIENCE);
    let (dialled, served) = tokio::join!(dial, accept(theirs.credentials(), far, PATIENCE));
    assert!(served.is_ok() && dialled.is_ok(), "{step}: {dialled:?} {served:?}");
}

/// Two nodes, each with its own store, that renew one after the other at every step.
#[tokio::test]
async fn no_step_of_a_rotation_of_the_root_refuses_a_connection() {
    let (old, new) = (TestCa::new(), TestCa::new());
    let (old_pem, new_pem) = (old.root_pem(), new.root_pem());
    let ca = TestCa::new();
    ca.turn_into(&old);
    let (first, second) = (store(&ca), store(&ca));
    let (cart, db) = (first.lease(&identity("cart")), second.lease(&identity("db")));
    meet(&cart, &db, "before").await;
    let step_of = async |what: &str| {
        for (store, lease) in [(&first, &cart), (&second, &db)] {
            renew(store, lease).await;
            meet(&cart, &db, what).await;
            meet(&db, &cart, what).await;
        }
    };
    ca.answer_also(&new_pem);
    step_of("the new root is made known").await;
    ca.turn_into(&new);
    ca.answer_also(&old_pem);
    step_of("the new root signs").await;
    ca.answer_also("");
    step_of("the CA forgets the old root").await;
    assert_eq!(cart.generation(), 4);
    old.answer_also(&new_pem);
    let late = store(&old).lease(&identity("late"));
    meet(&late, &db, "a node that renewed last when the old root signed").await;
    meet(&db, &late, "a node that renewed last when the old root signed").await;
}

#[tokio::test]
async fn a_changed_root_file_renews_certificates() {
    let ca = TestCa::new();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("root-cert.pem");
    fs::write(&file, ca.root_pem()).unwrap();
    let store = store(&ca);
    let lease = store.lease(&identity("cart"));
    certificate(&lease).await;
    let stop = CancellationToken::new();
    let following = tokio::spawn(follow_root_within(
        store.clone(),
        file.clone(),
        Duration::from_millis(10),
        stop.clone(),
    ));
    // Until the watch is there, a change may go unnoticed for a minute.
    let mut roots = ca.root_pem();
    let renewed = lease.renewed(1);
    tokio::pin!(renewed);
    for _ in 0..100 {
        fs::write(&file, &roots).unwrap();
        roots += &TestCa::new().root_pem();
        if timeout(Duration::from_millis(200), &mut renewed).await.is_ok() {
            break;
        }
    }
    assert!(lease.generation() >= 2, "a changed root renewed nothing");
    assert_eq!(store.generation(&identity("cart")), Some(lease.generation()));
    stop.cancel();
    timeout(PATIENCE, following).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_expired_certificate_is_told_from_one_that_never_was() {
    let ca = TestCa::new().with_life(time::Duration::seconds(2));
    let store = store(&ca);
    let mut registry = Registry::default();
    store.register(&mut registry);
    let lease = store.lease(&identity("cart"));
    certificate(&lease).await;
    ca.refuse(usize::MAX);
    let error = timeout(PATIENCE, async {
        loop {
            match lease.certificate().await {
                Ok(_) => tokio::task::yield_now().await,
                Err(error) if matches!(*error, IdentityError::Expired { .. }) => return error,
                Err(_) => {}
            }
        }
    });
    let error = error.await.unwrap().to_string();
    assert!(error.contains("has expired") && error.contains("told to refuse"), "{error}");
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    assert!(text.contains("sluice_certificates_missing 1"), "{text}");
    ca.refuse(0);
    certificate(&lease).await;
}

#[tokio::test]
async fn a_connection_is_served_before_pods_that_only_start_and_eight_at_a_time() {
    let ca = TestCa::new();
    ca.hold();
    let store = store(&ca);
    let leases: Vec<_> = (0..20).map(|n| store.lease(&identity(&format!("n{n}")))).collect();
    let waiting = async |expected| {
        while store.waiting() != expected {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, waiting(12)).await.unwrap();
    let connection = certificate(&leases[19]);
    tokio::pin!(connection);
    let answered = async {
        // Until the connection has moved to the front of the queue.
        while !store.is_urgent() {
            tokio::task::yield_now().await;
        }
        ca.let_through(9);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        _ = &mut connection => {}
        () = answered => {}
    }
    let signed = ca.signed();
    assert_eq!(signed.len(), 9, "{signed:?}");
    assert_eq!(signed[8], identity("n19").to_string(), "{signed:?}");
    ca.let_through(11);
    for lease in &leases {
        certificate(lease).await;
    }
}

#[tokio::test]
async fn the_urgent_are_served_first_and_those_who_gave_up_not_at_all() {
    let queue = Queue::new(1);
    let held = queue.permit(Urgency::Refresh).await;
    let (order, mut served) = tokio::sync::mpsc::unbounded_channel();
    let wait = |urgency, name: &'static str| {
        let (queue, order) = (queue.clone(), order.clone());
        tokio::spawn(async move {
            let _permit = queue.permit(urgency).await;
            order.send(name).unwrap();
        })
    };
    let arrived = async |count| {
        while queue.waiting() < count {
            tokio::task::yield_now().await;
        }
    };
    let _tasks = [wait(Urgency::Refresh, "refresh")];
    arrived(1).await;
    let _more = [wait(Urgency::Start, "start")];
    arrived(2).await;
    let gone = wait(Urgency::Connection, "gone");
    arrived(3).await;
    gone.abort();
    let _ = gone.await;
    let _last = [wait(Urgency::Connection, "connection")];
    arrived(3).await;
    drop(held);
    for expected in ["connection", "start", "refresh"] {
        assert_eq!(timeout(PATIENCE, served.recv()).await.unwrap(), Some(expected));
    }
    timeout(PATIENCE, queue.permit(Urgency::Refresh)).await.unwrap();
}

#[test]
fn a_rest_is_planned_so_that_wrong_clocks_make_no_haste() {
    let ca = TestCa::new().with_life(time::Duration::hours(24));
    let owner = identity("cart");
    let request = KeyRequest::new(&owner).unwrap();
    let chain = ca.answer(request.csr()).unwrap();
    let surroundings = Surroundings { terms: &Terms::default(), earlier_roots: &[] };
    let certified = request.certify(&chain, &surroundings).unwrap();
    let now = SystemTime::now();
    let hours = |rest: Duration| rest.as_secs_f64() / 3600.0;
    let rest = |now| hours(certified.refresh_in(now));
    let hour = Duration::from_secs(3600);
    assert!((11.9..12.1).contains(&rest(now)), "{}", rest(now));
    // Ours is behind: no longer than half of a life.
    assert!((11.9..12.1).contains(&rest(now - 5 * hour)));
    // Ours is ahead: a tenth of a life at least, while there is so much.
    assert!((2.3..2.5).contains(&rest(now + 13 * hour)));
    // Half of what is left, when that is less.
    assert!((0.45..0.55).contains(&rest(now + 23 * hour)), "{}", rest(now + 23 * hour));
    assert_eq!(rest(now + 25 * hour), 0.0);
}

#[tokio::test]
async fn the_dump_has_certificates_in_istioctls_shape_and_no_keys() {
    let ca = TestCa::new();
    let store = store(&ca);
    let lease = store.lease(&identity("cart"));
    let certified = certificate(&lease).await;
    let dump = serde_json::to_value(store.summary()).unwrap();
    let entry = &dump[0];
    assert_eq!(entry["identity"], "spiffe://cluster.local/ns/shop/sa/cart");
    assert_eq!(entry["state"], "Available");
    let leaf = &entry["certChain"][0];
    for field in ["serialNumber", "validFrom", "expirationTime"] {
        assert!(leaf[field].as_str().is_some_and(|text| !text.is_empty()), "{leaf}");
    }
    let pem = BASE64_STANDARD.decode(leaf["pem"].as_str().unwrap()).unwrap();
    let der = CertificateDer::from_pem_slice(&pem).unwrap();
    assert_eq!(der, certified.certificates().0[0]);
    assert_eq!(entry["rootCerts"].as_array().unwrap().len(), 1);
    let debug = format!("{store:?} {lease:?} {certified:?} {:?}", certified.credentials());
    for text in [dump.to_string(), debug] {
        assert!(!text.contains("PRIVATE") && !text.contains("key:"), "{text}");
    }
}

proptest! {
    #[test]
    fn no_answer_of_a_ca_makes_us_panic(answer in prop::collection::vec("\\PC{0,60}", 0..4)) {
        let owner = identity("cart");
        let request = KeyRequest::new(&owner).unwrap();
        let surroundings = Surroundings { terms: &Terms::default(), earlier_roots: &[] };
        prop_assert!(request.certify(&answer, &surroundings).is_err());
    }
}
