//! What becomes of tunnels when the pod's certificate is renewed.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use http::Response;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::world::{PATIENCE, World, soon};
use crate::tls;

/// Serves tunnels; says of each request by which certificate (their serial number) its
/// connection was proved.
async fn serve(
    world: &World,
    listener: TcpListener,
) -> (mpsc::UnboundedReceiver<(Vec<u8>, SendResponse<Bytes>)>, JoinSet<()>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let credentials = world.ca.credentials(&world.server.identity());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (tcp, _): (TcpStream, _) = listener.accept().await.unwrap();
            let (stream, _) = tls::accept(&credentials, tcp, PATIENCE).await.unwrap();
            let serial = serial(&stream);
            let sender = sender.clone();
            connections.spawn(async move {
                let mut peer = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((_, answer))) = peer.accept().await {
                    sender.send((serial.clone(), answer)).unwrap();
                }
            });
        }
    });
    (receiver, tasks)
}

fn serial<Io>(stream: &tls::Stream<Io>) -> Vec<u8> {
    let chain = stream.session().peer_certificates().unwrap();
    let (_, parsed) = x509_parser::parse_x509_certificate(&chain[0]).unwrap();
    parsed.raw_serial().to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_renewal_new_connections_use_a_new_tunnel_and_old_ones_go_on() {
    let world = World::new();
    world.publish(&[]);
    let _client = world.start(&world.client).await.unwrap();
    let (mut requests, _tasks) = serve(&world, world.server.listen(15008)).await;
    let to = SocketAddr::new(world.server.v4, 8080);

    let mut first = world.client.dial(to).await.unwrap();
    let (old, mut answer) = soon(requests.recv()).await.unwrap();
    let mut first_far = answer.send_response(Response::new(()), false).unwrap();
    let _same = world.client.dial(to).await.unwrap();
    let (same, _answer) = soon(requests.recv()).await.unwrap();
    assert_eq!(same, old);

    let before = world.serial_of(&world.client);
    world.context.certificates.renew_all(Duration::ZERO);
    soon(async {
        while world.serial_of(&world.client) == before {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // The pod hears of it a moment later.
    let mut kept = Vec::new();
    let new = soon(async {
        loop {
            kept.push(world.client.dial(to).await.unwrap());
            let (serial, answer) = requests.recv().await.unwrap();
            if serial != old {
                return (serial, answer);
            }
        }
    })
    .await;
    assert_ne!(new.0, old);
    first_far.send_data(Bytes::from_static(b"!"), false).unwrap();
    assert_eq!(soon(first.read_u8()).await.unwrap(), b'!');
}
