//! Handshakes between real endpoints over loopback sockets.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use mesh::Identity;
use rcgen::{CertificateParams, SanType};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig};
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::test_ca::{TestCa, mesh_domain};
use super::{
    ControlConnector, ControlSettings, Credentials, PeerError, RootSource, TlsError, accept,
    connect, provider,
};

pub(super) const PATIENCE: Duration = Duration::from_secs(20);
pub(super) const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

pub(super) fn identity(name: &str) -> Identity {
    Identity::new(mesh_domain(), "shop", name).unwrap()
}

pub(super) async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((LOOPBACK, 0)).await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (client, listener.accept().await.unwrap().0)
}

/// What each side says about the other: the client of the server, the server of the
/// client. A client learns late that it was refused, so it must also get a byte through.
pub(super) async fn meet(
    client: &Credentials,
    accepted: &[Identity],
    server: &Credentials,
) -> (Result<Identity, TlsError>, Result<Identity, TlsError>) {
    let (near, far) = pair().await;
    let dial = async {
        let (mut stream, peer) = connect(client, accepted, near, LOOPBACK, PATIENCE).await?;
        stream.read_u8().await.map_err(TlsError::Handshake)?;
        Ok(peer.identity)
    };
    let serve = async {
        let (mut stream, peer) = accept(server, far, PATIENCE).await?;
        stream.write_u8(1).await.map_err(TlsError::Handshake)?;
        stream.flush().await.map_err(TlsError::Handshake)?;
        Ok(peer.identity)
    };
    timeout(PATIENCE, async { tokio::join!(dial, serve) }).await.unwrap()
}

/// The reason that our own verifier gave, found by type and not by text.
pub(super) fn peer_error(error: &TlsError) -> Option<PeerError> {
    let TlsError::Handshake(error) = error else {
        return None;
    };
    let inner = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    let rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other)) = inner else {
        return None;
    };
    other.0.downcast_ref::<PeerError>().cloned()
}

#[tokio::test]
async fn both_ends_learn_who_the_other_is() {
    let ca = TestCa::new();
    let (cart, db) = (identity("cart"), identity("db"));
    let accepted = [identity("other"), db.clone()];
    let (client_sees, server_sees) =
        meet(&ca.credentials(&cart), &accepted, &ca.credentials(&db)).await;
    assert_eq!(client_sees.unwrap(), db);
    assert_eq!(server_sees.unwrap(), cart);
}

#[tokio::test]
async fn a_server_with_another_identity_is_refused() {
    let ca = TestCa::new();
    let (client_sees, server_sees) = meet(
        &ca.credentials(&identity("cart")),
        &[identity("db")],
        &ca.credentials(&identity("thief")),
    )
    .await;
    let expected =
        PeerError::Unexpected { found: identity("thief"), expected: identity("db").to_string() };
    assert_eq!(peer_error(&client_sees.unwrap_err()), Some(expected));
    assert!(server_sees.is_err());
}

#[tokio::test]
async fn names_that_are_not_one_spiffe_id_are_refused_by_both_ends() {
    let ca = TestCa::new();
    let good = ca.credentials(&identity("db"));
    let id = identity("db").to_string();
    let cases: [(&[&str], &str); 6] = [
        (&[], "count"),
        (&[&id, &id], "count"),
        (&[&id, "https://db.shop"], "count"),
        (&["https://db.shop"], "form"),
        (&["spiffe://cluster.local/ns/shop/sa/db/"], "form"),
        (&["SPIFFE://cluster.local/ns/shop/sa/db"], "form"),
    ];
    for (uris, kind) in cases {
        let odd = ca.credentials_with(uris, |_| ());
        let (client_sees, _) = meet(&good, &[identity("db")], &odd).await;
        let (_, server_sees) = meet(&odd, &[identity("db")], &good).await;
        for error in [client_sees.unwrap_err(), server_sees.unwrap_err()] {
            let found = match peer_error(&error) {
                Some(PeerError::UriCount(_)) => "count",
                Some(PeerError::Identity(_)) => "form",
                _ => "other",
            };
            assert_eq!(found, kind, "{uris:?}: {error}");
        }
    }
}

#[tokio::test]
async fn a_client_of_another_trust_domain_is_refused() {
    let ca = TestCa::new();
    let foreign = ca.credentials_with(&["spiffe://other.example/ns/shop/sa/cart"], |_| ());
    let (_, server_sees) =
        meet(&foreign, &[identity("db")], &ca.credentials(&identity("db"))).await;
    let error = peer_error(&server_sees.unwrap_err());
    assert!(matches!(error, Some(PeerError::TrustDomain { .. })), "{error:?}");
}

#[tokio::test]
async fn another_root_is_believed_by_nobody() {
    let (ours, theirs) = (TestCa::new(), TestCa::new());
    let (cart, db) = (identity("cart"), identity("db"));
    let accepted = [db.clone()];
    let (client_sees, _) =
        meet(&ours.credentials(&cart), &accepted, &theirs.credentials(&db)).await;
    assert!(matches!(client_sees, Err(TlsError::Handshake(_))), "{client_sees:?}");
    let (_, server_sees) =
        meet(&theirs.credentials(&cart), &accepted, &ours.credentials(&db)).await;
    assert!(matches!(server_sees, Err(TlsError::Handshake(_))), "{server_sees:?}");
}

#[tokio::test]
async fn an_expired_certificate_is_refused_by_both_ends() {
    let ca = TestCa::new();
    let good = ca.credentials(&identity("db"));
    let expired = ca.credentials_with(&[&identity("db").to_string()], |params| {
        params.not_after = OffsetDateTime::now_utc() - time::Duration::minutes(1);
    });
    let (client_sees, _) = meet(&good, &[identity("db")], &expired).await;
    let (_, server_sees) = meet(&expired, &[identity("db")], &good).await;
    assert!(matches!(client_sees, Err(TlsError::Handshake(_))), "{client_sees:?}");
    assert!(matches!(server_sees, Err(TlsError::Handshake(_))), "{server_sees:?}");
}

#[tokio::test]
async fn plaintext_is_no_handshake() {
    let (mut near, far) = pair().await;
    near.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    let credentials = TestCa::new().credentials(&identity("db"));
    let result = accept(&credentials, far, PATIENCE).await;
    assert!(matches!(result, Err(TlsError::Handshake(_))), "{result:?}");
}

#[tokio::test]
async fn a_client_that_says_nothing_is_given_up() {
    let (_near, far) = pair().await;
    let credentials = TestCa::new().credentials(&identity("db"));
    let result = accept(&credentials, far, Duration::from_millis(50)).await;
    assert!(matches!(result, Err(TlsError::Deadline(_))), "{result:?}");
}

/// A client that offers what `alpn` says, with or without a certificate.
async fn offer(alpn: &[&[u8]], credentials: Option<&TestCa>) -> Result<Identity, TlsError> {
    let ca = credentials.cloned().unwrap_or_else(TestCa::new);
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_root_certificates(ca.roots());
    let (key, leaf) = ca.leaf(&[&identity("cart").to_string()], |params| {
        params.subject_alt_names.push(SanType::IpAddress(LOOPBACK));
    });
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut config = match credentials {
        Some(_) => builder.with_client_auth_cert(vec![leaf.der().clone()], key).unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let server = ca.credentials_with(&[&identity("db").to_string()], |params| {
        params.subject_alt_names.push(SanType::IpAddress(LOOPBACK));
    });
    let (near, far) = pair().await;
    let dial = TlsConnector::from(Arc::new(config)).connect(LOOPBACK.into_name(), near);
    let (_, served) = tokio::join!(dial, accept(&server, far, PATIENCE));
    served.map(|(_, peer)| peer.identity)
}

trait IntoName {
    fn into_name(self) -> ServerName<'static>;
}

impl IntoName for IpAddr {
    fn into_name(self) -> ServerName<'static> {
        ServerName::IpAddress(self.into())
    }
}

#[tokio::test]
async fn only_h2_is_negotiated_and_only_with_a_certificate() {
    let ca = TestCa::new();
    assert_eq!(offer(&[b"h2"], Some(&ca)).await.unwrap(), identity("cart"));
    assert_eq!(offer(&[b"http/1.1", b"h2"], Some(&ca)).await.unwrap(), identity("cart"));
    let wrong = offer(&[b"http/1.1"], Some(&ca)).await;
    assert!(matches!(wrong, Err(TlsError::Handshake(_))), "{wrong:?}");
    let none = offer(&[], Some(&ca)).await;
    assert!(matches!(none, Err(TlsError::Alpn)), "{none:?}");
    let anonymous = offer(&[b"h2"], None).await;
    assert!(matches!(anonymous, Err(TlsError::Handshake(_))), "{anonymous:?}");
}

/// A control plane whose certificate has the name `name`.
async fn control_plane(ca: &TestCa, name: SanType) -> (u16, tokio::task::JoinHandle<()>) {
    let (key, leaf) = ca.leaf(&[], |params: &mut CertificateParams| {
        params.subject_alt_names = vec![name];
    });
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let listener = TcpListener::bind((LOOPBACK, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let _ = TlsAcceptor::from(Arc::new(config.clone())).accept(tcp).await;
        }
    });
    (port, task)
}

fn connector(port: u16, root: RootSource, alt_hostname: Option<&str>) -> ControlConnector {
    let address = format!("https://127.0.0.1:{port}").parse().unwrap();
    let alt_hostname = alt_hostname.map(ToOwned::to_owned);
    ControlConnector::new(ControlSettings { address, root, alt_hostname }).unwrap()
}

#[tokio::test]
async fn a_control_plane_is_believed_by_name_and_root() {
    let ca = TestCa::new();
    let (port, _task) = control_plane(&ca, SanType::IpAddress(LOOPBACK)).await;
    let root = RootSource::Pem(ca.root_pem());
    connector(port, root.clone(), None).connect().await.unwrap();
    let other_name = connector(port, root, Some("istiod.example")).connect().await;
    assert!(matches!(other_name, Err(TlsError::Handshake(_))), "{other_name:?}");
    let other_root = RootSource::Pem(TestCa::new().root_pem());
    let refused = connector(port, other_root, None).connect().await;
    assert!(matches!(refused, Err(TlsError::Handshake(_))), "{refused:?}");
    let alt = SanType::DnsName("istiod.example".try_into().unwrap());
    let (port, _task) = control_plane(&ca, alt).await;
    let root = RootSource::Pem(ca.root_pem());
    connector(port, root, Some("istiod.example")).connect().await.unwrap();
}

#[tokio::test]
async fn a_rotated_root_file_needs_no_restart() {
    let (old, new) = (TestCa::new(), TestCa::new());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("root-cert.pem");
    let (port, _task) = control_plane(&new, SanType::IpAddress(LOOPBACK)).await;
    let connector = connector(port, RootSource::File(file.clone()), None);
    let missing = connector.connect().await;
    assert!(
        matches!(&missing, Err(TlsError::RootFile { source, .. })
            if source.kind() == io::ErrorKind::NotFound),
        "{missing:?}"
    );
    fs::write(&file, "no certificate").unwrap();
    assert!(matches!(connector.connect().await, Err(TlsError::Roots { .. })));
    fs::write(&file, old.root_pem()).unwrap();
    assert!(matches!(connector.connect().await, Err(TlsError::Handshake(_))));
    fs::write(&file, old.root_pem() + &new.root_pem()).unwrap();
    connector.connect().await.unwrap();
}

#[test]
fn credentials_show_no_key() {
    let text = format!("{:?}", TestCa::new().credentials(&identity("cart")));
    assert_eq!(text, "Credentials { roots: 1, .. }");
}
