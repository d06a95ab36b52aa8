//! Revocation lists in files, and what they do to connections.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::LazyLock;

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use proptest::prelude::*;
use rcgen::SerialNumber;
use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::pem::PemObject;
use time::{Duration, OffsetDateTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::super::test_ca::TestCa;
use super::super::tests::{LOOPBACK, PATIENCE, identity, meet, pair};
use super::super::{Credentials, Settings, Terms, accept, connect};
use super::*;

fn next_week() -> OffsetDateTime {
    OffsetDateTime::now_utc() + Duration::days(7)
}

fn terms(file: &Path, registry: &mut Registry) -> Terms {
    let settings = Settings { revocation_lists: Some(file.to_owned()), ..Settings::default() };
    Terms::new(&settings, registry).unwrap()
}

/// Credentials whose certificate has this serial number.
fn numbered(ca: &TestCa, terms: &Terms, name: &str, serial: u64) -> Credentials {
    ca.credentials_under(terms, &[&identity(name).to_string()], |params| {
        params.serial_number = Some(SerialNumber::from(serial));
    })
}

fn metrics(registry: &Registry) -> String {
    let mut text = String::new();
    encode(&mut text, registry).unwrap();
    text
}

#[tokio::test]
async fn a_revoked_peer_is_refused_by_both_ends() {
    let (ca, other) = (TestCa::new(), TestCa::new());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca-crl.pem");
    // Several lists, the one that matters last.
    let lists =
        other.revocation_list(&[1], next_week()) + &ca.revocation_list(&[7, 300], next_week());
    fs::write(&file, lists).unwrap();
    let mut registry = Registry::default();
    let terms = terms(&file, &mut registry);
    let accepted = [identity("db")];
    let (good, bad) = (numbered(&ca, &terms, "db", 8), numbered(&ca, &terms, "db", 300));
    let (client_sees, server_sees) = meet(&good, &accepted, &good).await;
    assert!(client_sees.is_ok() && server_sees.is_ok());
    let (client_sees, _) = meet(&good, &accepted, &bad).await;
    assert!(client_sees.unwrap_err().is_revoked());
    let (_, server_sees) = meet(&bad, &accepted, &good).await;
    assert!(server_sees.unwrap_err().is_revoked());
    let text = metrics(&registry);
    for reporter in ["source", "destination"] {
        let line = format!("istio_crl_policy_rejections_total{{reporter=\"{reporter}\"}} 1");
        assert!(text.contains(&line), "{text}");
    }
}

/// Replaces the content of a mounted volume as the kubelet does: the files lie in a folder
/// of their own, and a symbolic link to it is swapped.
fn mount(volume: &Path, generation: u32, content: &str) {
    let folder = volume.join(format!("..{generation}"));
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("ca-crl.pem"), content).unwrap();
    symlink(format!("..{generation}"), volume.join("..data_tmp")).unwrap();
    fs::rename(volume.join("..data_tmp"), volume.join("..data")).unwrap();
}

#[tokio::test]
async fn open_connections_of_a_revoked_peer_are_cut_and_no_others() {
    let ca = TestCa::new();
    let volume = tempfile::tempdir().unwrap();
    let file = volume.path().join("ca-crl.pem");
    symlink("..data/ca-crl.pem", &file).unwrap();
    mount(volume.path(), 1, &ca.revocation_list(&[], next_week()));
    let terms = terms(&file, &mut Registry::default());
    let stop = CancellationToken::new();
    let running = tokio::spawn(terms.revocation.clone().run(stop.clone()));
    let accepted = [identity("db")];
    let (cart, db) = (numbered(&ca, &terms, "cart", 7), numbered(&ca, &terms, "db", 8));
    let (near, far) = pair().await;
    let dial = connect(&cart, &accepted, near, LOOPBACK, PATIENCE);
    let (dialled, served) = tokio::join!(dial, accept(&db, far, PATIENCE));
    let ((dialled, server), (served, client)) = (dialled.unwrap(), served.unwrap());
    let (mut dialled, mut served) = (server.watch(dialled), client.watch(served));
    dialled.write_u8(1).await.unwrap();
    dialled.flush().await.unwrap();
    assert_eq!(served.read_u8().await.unwrap(), 1);

    let (cut, mut changes) =
        (tokio::spawn(async move { served.read_u8().await }), terms.revocation.changes().unwrap());
    mount(volume.path(), 2, &ca.revocation_list(&[7], next_week()));
    let error = timeout(PATIENCE, cut).await.unwrap().unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    timeout(PATIENCE, changes.changed()).await.unwrap().unwrap();
    // The client's end was not cut by revocation: it sees the server go.
    let ended = timeout(PATIENCE, dialled.read_u8()).await.unwrap().unwrap_err();
    assert_ne!(ended.kind(), io::ErrorKind::ConnectionAborted);
    let (_, server_sees) = meet(&cart, &accepted, &db).await;
    assert!(server_sees.unwrap_err().is_revoked());
    stop.cancel();
    timeout(PATIENCE, running).await.unwrap().unwrap();
}

#[tokio::test]
async fn nothing_is_sent_to_a_revoked_peer_also_while_nothing_is_read_from_it() {
    let ca = TestCa::new();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca-crl.pem");
    fs::write(&file, ca.revocation_list(&[], next_week())).unwrap();
    let terms = terms(&file, &mut Registry::default());
    let accepted = [identity("db")];
    let (cart, db) = (numbered(&ca, &terms, "cart", 7), numbered(&ca, &terms, "db", 8));
    let (near, far) = pair().await;
    let dial = connect(&cart, &accepted, near, LOOPBACK, PATIENCE);
    let (dialled, _served) = tokio::join!(dial, accept(&db, far, PATIENCE));
    let (dialled, server) = dialled.unwrap();
    let mut dialled = server.watch(dialled);
    dialled.write_u8(1).await.unwrap();
    fs::write(&file, ca.revocation_list(&[8], next_week())).unwrap();
    terms.revocation.0.as_ref().unwrap().reload().unwrap();
    let flushed = dialled.flush().await.expect_err("staged bytes went to a revoked peer");
    assert_eq!(flushed.kind(), io::ErrorKind::ConnectionAborted);
    let written = dialled.write_u8(2).await.expect_err("bytes went to a revoked peer");
    assert_eq!(written.kind(), io::ErrorKind::ConnectionAborted);
}

#[test]
fn whatever_happens_to_the_file_the_last_good_lists_stay() {
    let ca = TestCa::new();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca-crl.pem");
    let mut registry = Registry::default();
    let revocation = Revocation::open(&file, &mut registry).unwrap();
    let (_, leaf) = ca.leaf(&[], |params| params.serial_number = Some(SerialNumber::from(7u64)));
    let shared = revocation.0.clone().unwrap();
    let revoked = || revocation.revoked(&[leaf.der().clone()], &ca.roots()).is_some();
    assert!(!revoked(), "there is no file yet");
    let good = ca.revocation_list(&[7], next_week());
    fs::write(&file, &good).unwrap();
    shared.reload().unwrap();
    assert!(revoked());
    let half = good[..good.len() / 2].to_owned();
    let mixed = good.clone() + &ca.root_pem();
    for broken in ["", " \n", "rubbish", &half, &mixed] {
        fs::write(&file, broken).unwrap();
        shared.reload().unwrap_err();
        shared.reload().unwrap_err();
        assert!(revoked(), "{broken:?} pardoned everybody");
    }
    fs::remove_file(&file).unwrap();
    shared.reload().unwrap_err();
    assert!(revoked());
    assert!(metrics(&registry).contains("sluice_crl_reload_failures_total 12"));
    fs::write(&file, ca.revocation_list(&[], next_week())).unwrap();
    shared.reload().unwrap();
    assert!(!revoked(), "a list without entries pardons");
    assert_eq!(*shared.changes.borrow(), 2);
}

#[test]
fn a_broken_file_at_the_start_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca-crl.pem");
    fs::write(&file, "rubbish").unwrap();
    let error = Revocation::open(&file, &mut Registry::default()).unwrap_err();
    assert!(error.to_string().contains("ca-crl.pem"), "{error}");
    fs::write(&file, "").unwrap();
    Revocation::open(&file, &mut Registry::default()).unwrap();
}

#[test]
fn a_stale_list_stays_in_force_and_is_told_about() {
    let ca = TestCa::new();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca-crl.pem");
    let yesterday = OffsetDateTime::now_utc() - Duration::days(1);
    fs::write(&file, ca.revocation_list(&[7], yesterday)).unwrap();
    let mut registry = Registry::default();
    let revocation = Revocation::open(&file, &mut registry).unwrap();
    revocation.0.as_ref().unwrap().report_stale();
    assert!(metrics(&registry).contains("sluice_crl_stale_lists 1"));
    let (_, leaf) = ca.leaf(&[], |params| params.serial_number = Some(SerialNumber::from(7u64)));
    assert!(revocation.revoked(&[leaf.der().clone()], &ca.roots()).is_some());
}

proptest! {
    #[test]
    fn no_bytes_make_reading_a_file_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Lists::parse(&bytes);
    }

    #[test]
    fn no_changed_byte_makes_reading_a_list_panic(place in any::<usize>(), byte in any::<u8>()) {
        static LIST: LazyLock<Vec<u8>> = LazyLock::new(|| {
            let pem = TestCa::new().revocation_list(&[1, 2, 3], next_week());
            let der = CertificateRevocationListDer::from_pem_slice(pem.as_bytes()).unwrap();
            der.to_vec()
        });
        let mut list = LIST.clone();
        let place = place % list.len();
        list[place] = byte;
        let _ = Lists::parse(&list);
    }
}
