//! What one connection costs while it is idle. A limit that is passed may be raised, but
//! not by accident: ten thousand idle connections pay it.

use std::io;
use std::mem::{size_of, size_of_val};
use std::time::Duration;

use http::HeaderMap;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::{Connect, Pool, PoolKey, ServerTunnel, Settings, TunnelIo, TunnelStream, pump};
use crate::tls;
use crate::tls::test_ca::TestCa;

fn assert_at_most(what: &str, bytes: usize, most: usize) {
    println!("{what}: {bytes} bytes");
    assert!(bytes <= most, "{what} has grown to {bytes} bytes, {most} were agreed");
}

#[tokio::test]
async fn futures_and_handles_stay_small() {
    assert_at_most("TunnelStream", size_of::<TunnelStream>(), 56);
    assert_at_most("TunnelIo", size_of::<TunnelIo>(), 104);
    assert_at_most("tls::Stream", size_of::<tls::Stream<TcpStream>>(), 336);
    assert_handshakes_stay_small().await;
    let settings = Settings::default();
    let pool: Pool<io::Error> = Pool::new(settings.clone());
    let key = PoolKey {
        source: mesh::Identity::new("", "shop", "cart").unwrap(),
        accepted: Vec::new(),
        destination: "127.0.0.1:1".parse().unwrap(),
    };
    let connect = Connect { authority: "127.0.0.1:1".to_owned(), headers: HeaderMap::new() };
    let (near, far) = duplex(1 << 16);
    let near = std::sync::Mutex::new(Some(near));
    let dial = || {
        let io = near.lock().unwrap().take().expect("dialled once");
        async move { Ok::<_, io::Error>(io) }
    };
    let opening = pool.open(&key, &connect, dial);
    assert_at_most("Pool::open", size_of_val(&opening), 64);
    let serving = async {
        let accepting = ServerTunnel::accept(far, &settings, Duration::from_secs(60));
        assert_at_most("ServerTunnel::accept", size_of_val(&accepting), 192);
        let mut tunnel = accepting.await.unwrap();
        assert_at_most("ServerTunnel::next", size_of_val(&tunnel.next()), 32);
        let stream = tunnel.next().await.unwrap().unwrap().accept(HeaderMap::new()).unwrap();
        (stream, tokio::spawn(async move { while let Ok(Some(_)) = tunnel.next().await {} }))
    };
    let both = async { tokio::join!(opening, serving) };
    let (opened, (at_server, _task)) = timeout(Duration::from_secs(60), both).await.unwrap();
    let mut stream = opened.unwrap().0;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut app = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let tcp = listener.accept().await.unwrap().0;
    let pumping = pump(&tcp, &mut stream, |_, _| ());
    assert_at_most("pump", size_of_val(&pumping), 80);
    // And it is the real one.
    app.write_all(b"x").await.unwrap();
    let mut at_server = at_server.into_io();
    tokio::select! {
        result = pumping => panic!("ended: {result:?}"),
        read = timeout(Duration::from_secs(60), at_server.read_u8()) => {
            assert_eq!(read.unwrap().unwrap(), b'x');
        }
    }
}

/// A stranger's connection costs this much before he has proved anything.
async fn assert_handshakes_stay_small() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let near = TcpStream::connect(addr).await.unwrap();
    let far = listener.accept().await.unwrap().0;
    let identity = mesh::Identity::new("", "shop", "cart").unwrap();
    let credentials = TestCa::new().credentials(&identity);
    let (accepted, deadline) = ([identity], Duration::from_secs(60));
    let connecting = tls::connect(&credentials, &accepted, near, addr.ip(), deadline);
    assert_at_most("tls::connect", size_of_val(&connecting), 1024);
    let accepting = tls::accept(&credentials, far, deadline);
    assert_at_most("tls::accept", size_of_val(&accepting), 1024);
    let both = async { tokio::join!(connecting, accepting) };
    let (client, server) = timeout(deadline, both).await.unwrap();
    assert!(client.is_ok() && server.is_ok());
}
