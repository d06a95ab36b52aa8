//! What a tunnel costs against what is below it: both ends, the applications and all
//! pumps in one thread, over loopback. Compare only within one run.

#![allow(missing_docs, reason = "divan's attribute writes functions without any")]
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot start should say why and end")]

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use futures_util::future::join_all;
use http::HeaderMap;
use mesh::Identity;
use rcgen::string::Ia5String;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};
use ztunnel::hbone::{Connect, Pool, PoolKey, ServerTunnel, Settings, pump};
use ztunnel::tls::{Credentials, Terms, accept, connect};

/// One way, on one stream.
const BULK: usize = 64 << 20;

/// Question and answer.
const MESSAGE: usize = 1 << 10;

const STREAMS: usize = 32;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const DEADLINE: Duration = Duration::from_secs(20);

fn main() {
    divan::main();
}

#[divan::bench_group(sample_count = 10, sample_size = 1)]
mod bulk {
    use super::{Bencher, bulk, raw, tls, tunnel};

    #[divan::bench]
    fn raw_tcp(bencher: Bencher<'_, '_>) {
        bulk(bencher, raw(1));
    }

    #[divan::bench]
    fn tokio_rustls(bencher: Bencher<'_, '_>) {
        bulk(bencher, tls(1));
    }

    #[divan::bench]
    fn tunnel_with_both_pumps(bencher: Bencher<'_, '_>) {
        bulk(bencher, tunnel(1));
    }
}

#[divan::bench_group(sample_count = 20, sample_size = 50)]
mod request_response {
    use super::{Bencher, STREAMS, questions, raw, tls, tunnel};

    #[divan::bench]
    fn raw_tcp(bencher: Bencher<'_, '_>) {
        questions(bencher, raw(STREAMS));
    }

    #[divan::bench]
    fn tokio_rustls(bencher: Bencher<'_, '_>) {
        questions(bencher, tls(STREAMS));
    }

    #[divan::bench]
    fn tunnel_with_both_pumps(bencher: Bencher<'_, '_>) {
        questions(bencher, tunnel(STREAMS));
    }
}

/// Connections between two applications, and the thread that they live in.
struct World<Near, Far> {
    runtime: Runtime,
    pairs: Vec<(Near, Far)>,
    _pool: Option<Pool<Infallible>>,
}

fn bulk<Near, Far>(bencher: Bencher<'_, '_>, mut world: World<Near, Far>)
where
    Near: AsyncRead + AsyncWrite + Unpin,
    Far: AsyncRead + AsyncWrite + Unpin,
{
    let piece = vec![7; 256 << 10];
    let mut buffer = vec![0; 256 << 10];
    let (near, far) = &mut world.pairs[0];
    bencher.counter(BytesCount::new(BULK)).bench_local(|| {
        world.runtime.block_on(async {
            let write = async {
                for _ in 0..BULK / piece.len() {
                    near.write_all(&piece).await.unwrap();
                }
                near.flush().await.unwrap();
            };
            let read = async {
                let mut left = BULK;
                while left > 0 {
                    left -= far.read(&mut buffer).await.unwrap();
                }
            };
            tokio::join!(write, read);
        });
    });
}

fn questions<Near, Far>(bencher: Bencher<'_, '_>, mut world: World<Near, Far>)
where
    Near: AsyncRead + AsyncWrite + Unpin,
    Far: AsyncRead + AsyncWrite + Unpin,
{
    let (runtime, pairs) = (&world.runtime, &mut world.pairs);
    bencher.counter(ItemsCount::new(STREAMS)).bench_local(|| {
        runtime.block_on(join_all(pairs.iter_mut().map(|(near, far)| async {
            let ask = async {
                near.write_all(&[1; MESSAGE]).await.unwrap();
                near.flush().await.unwrap();
                near.read_exact(&mut [0; MESSAGE]).await.unwrap();
            };
            let answer = async {
                let mut message = [0; MESSAGE];
                far.read_exact(&mut message).await.unwrap();
                far.write_all(&message).await.unwrap();
                far.flush().await.unwrap();
            };
            tokio::join!(ask, answer);
        })));
    });
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((LOOPBACK, 0)).await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let far = listener.accept().await.unwrap().0;
    near.set_nodelay(true).unwrap();
    far.set_nodelay(true).unwrap();
    (near, far)
}

fn raw(count: usize) -> World<TcpStream, TcpStream> {
    let runtime = runtime();
    let pairs = runtime.block_on(join_all((0..count).map(|_| sockets())));
    World { runtime, pairs, _pool: None }
}

/// One authority, and one workload that is both ends.
struct Trust {
    roots: Arc<RootCertStore>,
    key: CertifiedKey,
    der: Vec<u8>,
    identity: Identity,
}

fn trust() -> Trust {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let identity = Identity::new("cluster.local", "bench", "both").unwrap();
    let mut params = CertificateParams::default();
    let uri = Ia5String::try_from(identity.to_string()).unwrap();
    params.subject_alt_names = vec![SanType::URI(uri), SanType::IpAddress(LOOPBACK)];
    let key = KeyPair::generate().unwrap();
    let leaf = params.signed_by(&key, &issuer).unwrap();
    let der = key.serialize_der();
    let signer = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der.clone()));
    let signer = default_provider().key_provider.load_private_key(signer).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(issuer.der().clone()).unwrap();
    let key = CertifiedKey::new(vec![leaf.der().clone()], signer);
    Trust { roots: Arc::new(roots), key, der, identity }
}

type TlsPair = (client::TlsStream<TcpStream>, server::TlsStream<TcpStream>);

/// TLS 1.3 as tokio-rustls does it, a connection for each stream.
fn tls(count: usize) -> World<client::TlsStream<TcpStream>, server::TlsStream<TcpStream>> {
    let trust = trust();
    let provider = Arc::new(default_provider());
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(trust.der.clone()));
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(trust.key.cert.clone(), key)
        .unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_root_certificates(trust.roots)
        .with_no_client_auth();
    let (connector, acceptor) =
        (TlsConnector::from(Arc::new(client)), TlsAcceptor::from(Arc::new(server)));
    let pair = || async {
        let (near, far) = sockets().await;
        let name = ServerName::IpAddress(LOOPBACK.into());
        let both = tokio::join!(connector.connect(name, near), acceptor.accept(far));
        let pair: TlsPair = (both.0.unwrap(), both.1.unwrap());
        pair
    };
    let runtime = runtime();
    let pairs = runtime.block_on(join_all((0..count).map(|_| pair())));
    World { runtime, pairs, _pool: None }
}

/// Application, pump, one tunnel for all streams, pump, application.
fn tunnel(count: usize) -> World<TcpStream, TcpStream> {
    let trust = trust();
    let credentials =
        Credentials::new(trust.key, trust.roots, "cluster.local", &Terms::default()).unwrap();
    let runtime = runtime();
    let pool: Pool<Infallible> = Pool::new(Settings::default());
    let pairs = runtime.block_on(async {
        let listener = TcpListener::bind((LOOPBACK, 0)).await.unwrap();
        let destination = listener.local_addr().unwrap();
        let apps = TcpListener::bind((LOOPBACK, 0)).await.unwrap();
        tokio::spawn(serve(listener, credentials.clone(), apps.local_addr().unwrap().to_string()));
        let accepted = vec![trust.identity.clone()];
        let key = PoolKey { source: trust.identity.clone(), accepted, destination };
        let request = Connect { authority: "10.0.0.1:80".to_owned(), headers: HeaderMap::new() };
        let dial = || {
            let (credentials, accepted) = (credentials.clone(), key.accepted.clone());
            async move {
                let tcp = TcpStream::connect(destination).await.unwrap();
                tcp.set_nodelay(true).unwrap();
                Ok(connect(&credentials, &accepted, tcp, LOOPBACK, DEADLINE).await.unwrap().0)
            }
        };
        let mut pairs = Vec::new();
        for _ in 0..count {
            let mut stream = pool.open(&key, &request, dial).await.unwrap().0;
            let (near, captured) = sockets().await;
            tokio::spawn(async move { pump(&captured, &mut stream, |_, _| ()).await });
            pairs.push((near, apps.accept().await.unwrap().0));
        }
        pairs
    });
    World { runtime, pairs, _pool: Some(pool) }
}

/// The peer: every stream goes to an application.
async fn serve(listener: TcpListener, credentials: Credentials, apps: String) {
    let tcp = listener.accept().await.unwrap().0;
    tcp.set_nodelay(true).unwrap();
    let io = accept(&credentials, tcp, DEADLINE).await.unwrap().0;
    let mut tunnel = ServerTunnel::accept(io, &Settings::default(), DEADLINE).await.unwrap();
    while let Ok(Some(incoming)) = tunnel.next().await {
        let apps = apps.clone();
        tokio::spawn(async move {
            let app = TcpStream::connect(apps).await.unwrap();
            app.set_nodelay(true).unwrap();
            let mut stream = incoming.accept(HeaderMap::new()).unwrap();
            pump(&app, &mut stream, |_, _| ()).await
        });
    }
}
