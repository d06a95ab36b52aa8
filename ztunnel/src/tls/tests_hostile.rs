//! Peers that are not what they should be, or break off, or never end.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair, SanType};
use rustls::crypto::aws_lc_rs::cipher_suite;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ProtocolVersion, ServerConfig, SupportedProtocolVersion};
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::provider::{Compliance, Cryptography, Versions};
use super::test_ca::{TestCa, mesh_domain};
use super::tests::{LOOPBACK, PATIENCE, identity, meet, pair};
use super::{Credentials, Terms, TlsError, accept, connect, provider};

fn terms(versions: Versions, compliance: Compliance) -> Terms {
    let cryptography = Cryptography::new(versions, compliance).unwrap();
    Terms { cryptography, ..Terms::default() }
}

fn under(ca: &TestCa, terms: &Terms, name: &str) -> Credentials {
    ca.credentials_under(terms, &[&identity(name).to_string()], |_| ())
}

#[tokio::test]
async fn certificates_that_prove_nothing_are_refused_by_both_ends() {
    let ca = TestCa::new();
    let good = ca.credentials(&identity("db"));
    let id = identity("db").to_string();
    let early = ca.credentials_with(&[&id], |params| {
        params.not_before = OffsetDateTime::now_utc() + time::Duration::hours(1);
        params.not_after = OffsetDateTime::now_utc() + time::Duration::hours(2);
    });
    let signs_code_only = ca.credentials_with(&[&id], |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
    });
    let for_neither =
        [("early", early), ("self-signed", self_signed(&ca)), ("usage", signs_code_only)];
    for (what, bad) in for_neither {
        let (client_sees, _) = meet(&good, &[identity("db")], &bad).await;
        let (_, server_sees) = meet(&bad, &[identity("db")], &good).await;
        for error in [client_sees, server_sees] {
            assert!(matches!(error, Err(TlsError::Handshake(_))), "{what}: {error:?}");
        }
    }
}

fn self_signed(ca: &TestCa) -> Credentials {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    let uri = identity("db").to_string().try_into().unwrap();
    params.subject_alt_names = vec![SanType::URI(uri)];
    let leaf = params.self_signed(&key).unwrap();
    let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let signer = provider().key_provider.load_private_key(der).unwrap();
    let key = CertifiedKey::new(vec![leaf.der().clone()], signer);
    Credentials::new(key, ca.roots(), mesh_domain(), &Terms::default()).unwrap()
}

type Version = &'static SupportedProtocolVersion;

/// A client that is not ours: one version, a good certificate.
async fn foreign_client(
    ca: &TestCa,
    version: Version,
    server: &Credentials,
) -> Result<(), TlsError> {
    let (key, leaf) = ca.leaf(&[&identity("cart").to_string()], |_| ());
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Cryptography::new(Versions::Tls12And13, Compliance::None).unwrap().provider;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(ca.roots())
        .with_client_auth_cert(vec![leaf.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let (near, far) = pair().await;
    let name = ServerName::IpAddress(LOOPBACK.into());
    let dial = TlsConnector::from(Arc::new(config)).connect(name, near);
    tokio::join!(dial, accept(server, far, PATIENCE)).1.map(|_| ())
}

/// A server that is not ours: one version, a good certificate.
async fn foreign_server(
    ca: &TestCa,
    version: Version,
    client: &Credentials,
) -> Result<ProtocolVersion, TlsError> {
    let (key, leaf) = ca.leaf(&[&identity("db").to_string()], |_| ());
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Cryptography::new(Versions::Tls12And13, Compliance::None).unwrap().provider;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let (near, far) = pair().await;
    let accepted = [identity("db")];
    let serve = TlsAcceptor::from(Arc::new(config)).accept(far);
    let dialled = tokio::join!(connect(client, &accepted, near, LOOPBACK, PATIENCE), serve).0;
    dialled.map(|(stream, _)| stream.session().protocol_version().unwrap())
}

#[tokio::test]
async fn tls12_is_spoken_only_where_it_is_switched_on() {
    let ca = TestCa::new();
    let strict = terms(Versions::Tls13, Compliance::None);
    let lenient = terms(Versions::Tls12And13, Compliance::None);
    let refused = foreign_client(&ca, &TLS12, &under(&ca, &strict, "db")).await;
    assert!(
        matches!(refused, Err(TlsError::Handshake(_))),
        "a client of TLS 1.2 was served: {refused:?}"
    );
    let refused = foreign_server(&ca, &TLS12, &under(&ca, &strict, "cart")).await;
    assert!(matches!(refused, Err(TlsError::Handshake(_))), "{refused:?}");
    let client = under(&ca, &lenient, "cart");
    let version = foreign_server(&ca, &TLS12, &client).await.unwrap();
    assert_eq!(version, ProtocolVersion::TLSv1_2);
    let version = foreign_server(&ca, &TLS13, &client).await.unwrap();
    assert_eq!(version, ProtocolVersion::TLSv1_3, "TLS 1.2 was taken where 1.3 was possible");
}

/// Both ends of a handshake between two of ours: suite and group.
async fn agreed(client: &Credentials, server: &Credentials) -> Result<[String; 2], TlsError> {
    let (near, far) = pair().await;
    let accepted = [identity("db")];
    let dial = connect(client, &accepted, near, LOOPBACK, PATIENCE);
    let (dialled, served) = tokio::join!(dial, accept(server, far, PATIENCE));
    served?;
    let (stream, _) = dialled?;
    let connection = stream.session();
    let group = connection.negotiated_key_exchange_group().unwrap().name();
    let suite = connection.negotiated_cipher_suite().unwrap().suite();
    Ok([format!("{suite:?}"), format!("{group:?}")])
}

#[tokio::test]
async fn a_tls12_client_of_ours_and_a_server_of_ours_prove_their_identities() {
    let ca = TestCa::new();
    let mut only12 = terms(Versions::Tls12And13, Compliance::None);
    static ONLY_12: [Version; 1] = [&TLS12];
    only12.cryptography.versions = &ONLY_12;
    let lenient = terms(Versions::Tls12And13, Compliance::None);
    let (cart, db) = (under(&ca, &only12, "cart"), under(&ca, &lenient, "db"));
    let (client_sees, server_sees) = meet(&cart, &[identity("db")], &db).await;
    assert_eq!(client_sees.unwrap(), identity("db"));
    assert_eq!(server_sees.unwrap(), identity("cart"));
    let suite = agreed(&cart, &db).await.unwrap()[0].clone();
    assert_eq!(suite, "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384");
    let thief = under(&ca, &only12, "thief");
    let (client_sees, _) = meet(&thief, &[identity("other")], &db).await;
    assert!(matches!(client_sees, Err(TlsError::Handshake(_))), "{client_sees:?}");
}

#[tokio::test]
async fn the_strongest_that_both_ends_have_is_agreed_on() {
    let ca = TestCa::new();
    let plain = terms(Versions::Tls13, Compliance::None);
    let quantum = terms(Versions::Tls13, Compliance::PostQuantum);
    let mut classical = terms(Versions::Tls13, Compliance::None);
    Arc::make_mut(&mut classical.cryptography.provider).kx_groups.remove(0);
    let hybrid = ["TLS13_AES_256_GCM_SHA384", "X25519MLKEM768"];
    let cases = [
        (&plain, &plain, Some(hybrid)),
        (&plain, &quantum, Some(hybrid)),
        (&quantum, &plain, Some(hybrid)),
        (&classical, &plain, Some(["TLS13_AES_256_GCM_SHA384", "X25519"])),
        (&classical, &quantum, None),
        (&quantum, &classical, None),
    ];
    for (number, (client, server, expected)) in cases.into_iter().enumerate() {
        let found = agreed(&under(&ca, client, "cart"), &under(&ca, server, "db")).await;
        match expected {
            Some(expected) => assert_eq!(found.unwrap(), expected, "case {number}"),
            None => assert!(matches!(found, Err(TlsError::Handshake(_))), "{number}: {found:?}"),
        }
    }
    let both = Cryptography::new(Versions::Tls12And13, Compliance::PostQuantum);
    assert!(matches!(both, Err(TlsError::Compliance)));
}

#[tokio::test]
async fn aes_gcm_is_all_there_is_and_the_longer_key_comes_first() {
    for (versions, expected) in [(Versions::Tls13, 2), (Versions::Tls12And13, 6)] {
        let provider = Cryptography::new(versions, Compliance::None).unwrap().provider;
        let names: Vec<_> =
            provider.cipher_suites.iter().map(|it| format!("{:?}", it.suite())).collect();
        assert_eq!(names.len(), expected, "{names:?}");
        for pair in names.chunks(2) {
            let [long, short] = pair else { panic!("{names:?}") };
            assert!(long.contains("AES_256_GCM"), "{names:?}");
            assert_eq!(long.replace("256_GCM_SHA384", "128_GCM_SHA256"), *short);
        }
    }
    let ca = TestCa::new();
    let plain = terms(Versions::Tls13, Compliance::None);
    let only = |suite| {
        let mut terms = terms(Versions::Tls13, Compliance::None);
        Arc::make_mut(&mut terms.cryptography.provider).cipher_suites = vec![suite];
        terms
    };
    let short = only(cipher_suite::TLS13_AES_128_GCM_SHA256);
    let other = only(cipher_suite::TLS13_CHACHA20_POLY1305_SHA256);
    for (client, server) in [(&plain, &short), (&short, &plain)] {
        let found = agreed(&under(&ca, client, "cart"), &under(&ca, server, "db")).await;
        assert_eq!(found.unwrap()[0], "TLS13_AES_128_GCM_SHA256");
    }
    for (client, server) in [(&plain, &other), (&other, &plain)] {
        let found = agreed(&under(&ca, client, "cart"), &under(&ca, server, "db")).await;
        assert!(matches!(found, Err(TlsError::Handshake(_))), "{found:?}");
    }
}

#[test]
fn configurations_are_built_once_and_their_number_is_bounded() {
    let credentials = TestCa::new().credentials(&identity("cart"));
    let first = credentials.client(&[identity("db")]).unwrap();
    let other = credentials.client(&[identity("web")]).unwrap();
    assert!(!Arc::ptr_eq(&first, &other), "two sets of identities share a verifier");
    assert!(Arc::ptr_eq(&first, &credentials.clone().client(&[identity("db")]).unwrap()));
    assert!(Arc::ptr_eq(&credentials.server(), &credentials.clone().server()));
    for n in 0..300 {
        credentials.client(&[identity(&format!("n{n}"))]).unwrap();
        assert!(Arc::ptr_eq(&first, &credentials.client(&[identity("db")]).unwrap()));
    }
    assert_eq!(Arc::strong_count(&other), 1, "what is not used any more is kept for ever");
}

/// Carries bytes both ways, at most so many of each; then closes, or falls silent.
async fn relay(client: TcpStream, server: TcpStream, limits: [usize; 2], end: End) -> [usize; 2] {
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    let up = carry(client_read, server_write, limits[0], end);
    let down = carry(server_read, client_write, limits[1], end);
    let (up, down) = tokio::join!(up, down);
    [up, down]
}

#[derive(Clone, Copy, PartialEq)]
enum End {
    Close,
    Silence,
}

async fn carry(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    limit: usize,
    end: End,
) -> usize {
    let mut carried = 0;
    let mut buffer = vec![0; 16 << 10];
    while carried < limit {
        let room = buffer.len().min(limit - carried);
        match from.read(&mut buffer[..room]).await {
            Ok(0) | Err(_) => break,
            Ok(count) => {
                if to.write_all(&buffer[..count]).await.is_err() {
                    break;
                }
                carried += count;
            }
        }
    }
    if end == End::Silence && carried == limit {
        std::future::pending::<()>().await;
    }
    let _ = to.shutdown().await;
    carried
}

type Outcome = Result<(), TlsError>;

/// A handshake through a relay: client's and server's outcome, bytes carried.
async fn relayed(
    credentials: &[Credentials; 2],
    limits: [usize; 2],
    end: End,
    deadline: Duration,
) -> (Outcome, Outcome, [usize; 2]) {
    let ((near, near_far), (far_near, far)) = (pair().await, pair().await);
    let accepted = [identity("db")];
    let carried = tokio::spawn(relay(near_far, far_near, limits, end));
    let [cart, db] = credentials;
    let dial = async { connect(cart, &accepted, near, LOOPBACK, deadline).await.map(|_| ()) };
    let serve = async { accept(db, far, deadline).await.map(|_| ()) };
    let (dialled, served) = tokio::join!(dial, serve);
    let carried = match end {
        End::Close => timeout(PATIENCE, carried).await.unwrap().unwrap(),
        End::Silence => {
            carried.abort();
            limits
        }
    };
    (dialled, served, carried)
}

#[tokio::test]
async fn a_handshake_that_is_cut_anywhere_ends_at_once_and_proves_nothing() {
    let ca = TestCa::new();
    let credentials = [ca.credentials(&identity("cart")), ca.credentials(&identity("db"))];
    let all = [usize::MAX; 2];
    let (dialled, served, total) = relayed(&credentials, all, End::Close, PATIENCE).await;
    assert!(dialled.is_ok() && served.is_ok());
    // Signatures differ in length by a few bytes.
    let cuts = |total: usize| (0..total - 12).step_by(97).chain([1, 5, 6, total - 12]);
    for cut in cuts(total[0]) {
        let limits = [cut, usize::MAX];
        let (_, served, _) = relayed(&credentials, limits, End::Close, PATIENCE).await;
        let Err(TlsError::Handshake(error)) = served else { panic!("{cut}: {served:?}") };
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "after {cut} of the client's bytes");
    }
    for cut in cuts(total[1]) {
        let limits = [usize::MAX, cut];
        let (dialled, served, _) = relayed(&credentials, limits, End::Close, PATIENCE).await;
        assert!(matches!(dialled, Err(TlsError::Handshake(_))), "{cut}: {dialled:?}");
        assert!(served.is_err(), "after {cut} of the server's bytes the server believed a client");
    }
}

#[tokio::test]
async fn a_handshake_that_stops_anywhere_is_given_up_at_the_deadline() {
    let ca = TestCa::new();
    let credentials = [ca.credentials(&identity("cart")), ca.credentials(&identity("db"))];
    let deadline = Duration::from_millis(400);
    for limits in [[0, usize::MAX], [3, usize::MAX], [700, usize::MAX]] {
        let (dialled, served, _) = relayed(&credentials, limits, End::Silence, deadline).await;
        assert!(matches!(served, Err(TlsError::Deadline(_))), "{limits:?}: {served:?}");
        assert!(matches!(dialled, Err(TlsError::Deadline(_))), "{limits:?}: {dialled:?}");
    }
    let limits = [usize::MAX, 200];
    let (dialled, served, _) = relayed(&credentials, limits, End::Silence, deadline).await;
    assert!(matches!(dialled, Err(TlsError::Deadline(_))), "{dialled:?}");
    assert!(matches!(served, Err(TlsError::Deadline(_))), "{served:?}");
}

/// What the server makes of raw bytes, which come again and again up to `times`.
async fn raw(bytes: &[u8], times: usize) -> TlsError {
    let (near, far) = pair().await;
    let credentials = TestCa::new().credentials(&identity("db"));
    let (mut read, mut write) = near.into_split();
    let send = async {
        for _ in 0..times {
            if write.write_all(bytes).await.is_err() {
                break;
            }
        }
        let mut answer = Vec::new();
        let _ = read.read_to_end(&mut answer).await;
    };
    // The server hangs up while the client still has more to say.
    let serve = async { accept(&credentials, far, PATIENCE).await.unwrap_err() };
    timeout(PATIENCE, async { tokio::join!(serve, send).0 }).await.unwrap()
}

#[tokio::test]
async fn records_that_are_too_large_or_never_end_are_refused_at_once() {
    // Handshake, TLS 1.0 as all hellos say, 65535 bytes: more than a record may have.
    let mut oversized = vec![0x16, 3, 1, 0xff, 0xff];
    oversized.extend(vec![1; 0xffff]);
    // A hello of 16 MiB in records of 16 KiB.
    let mut endless = vec![0x16, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff];
    endless.extend(vec![0; 0x4000 - 4]);
    // Records without content, which rustls allows a few of.
    let empty = [0x16, 3, 1, 0, 0];
    let cases: [(&str, &[u8], usize); 5] = [
        ("oversized", &oversized, 1),
        ("endless hello", &endless, 64),
        ("empty records", &empty, 10_000),
        ("application data first", &[0x17, 3, 3, 0, 1, 0], 1),
        ("alert", &[0x15, 3, 3, 0, 2, 2, 40], 1),
    ];
    for (what, bytes, times) in cases {
        let error = raw(bytes, times).await;
        let TlsError::Handshake(error) = error else { panic!("{what}: {error}") };
        let by_protocol = error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>());
        assert!(by_protocol, "{what}: {error}");
    }
}
