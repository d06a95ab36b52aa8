//! Peers that do not behave, at port 15008.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{Method, Request, StatusCode, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::services::unheard;
use super::stories::{connected, exchange};
use super::world::{PATIENCE, World, deny, refused, soon};
use crate::proxy::Settings;
use crate::tls;

/// A genuine client that asks for what it likes.
pub(super) async fn peer(world: &World) -> SendRequest<Bytes> {
    let to = SocketAddr::new(world.server.v4, 15008);
    let tcp = world.client.dial_uncaptured(to).await.unwrap();
    let credentials = world.ca.credentials(&world.client.identity());
    let accepted = [world.server.identity()];
    let (stream, _) = tls::connect(&credentials, &accepted, tcp, to.ip(), PATIENCE).await.unwrap();
    let (send, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    send
}

pub(super) async fn ask(send: &SendRequest<Bytes>, method: Method, uri: &str) -> StatusCode {
    let request =
        Request::builder().method(method).version(Version::HTTP_2).uri(uri).body(()).unwrap();
    let mut send = send.clone().ready().await.unwrap();
    let (answer, _stream) = send.send_request(request, false).unwrap();
    soon(answer).await.unwrap().status()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_leads_into_this_pod_or_nowhere() {
    let (world, _client, _server) = World::started().await;
    let app = world.server.listen(8080);
    let send = peer(&world).await;
    let cases = [
        (Method::GET, "https://10.77.0.2:8080/", StatusCode::BAD_REQUEST),
        (Method::POST, "https://10.77.0.2:8080/", StatusCode::BAD_REQUEST),
        (Method::CONNECT, "10.77.0.1:8080", StatusCode::BAD_REQUEST),
        (Method::CONNECT, "127.0.0.1:8080", StatusCode::BAD_REQUEST),
        (Method::CONNECT, "[::1]:8080", StatusCode::BAD_REQUEST),
        (Method::CONNECT, "169.254.169.254:80", StatusCode::BAD_REQUEST),
        (Method::CONNECT, "[fd77::2]:8080", StatusCode::BAD_REQUEST),
        (Method::CONNECT, "server.shop:8080", StatusCode::SERVICE_UNAVAILABLE),
        (Method::CONNECT, "10.77.0.100:8080", StatusCode::BAD_REQUEST),
        (Method::CONNECT, "10.77.0.2:15001", StatusCode::BAD_REQUEST),
        (Method::CONNECT, "10.77.0.2:15006", StatusCode::BAD_REQUEST),
        (Method::CONNECT, "10.77.0.2:15008", StatusCode::BAD_REQUEST),
        (Method::CONNECT, "10.77.0.2:8081", StatusCode::SERVICE_UNAVAILABLE),
        (Method::CONNECT, "10.77.0.2:8080", StatusCode::OK),
    ];
    for (method, uri, expected) in cases {
        let status = ask(&send, method.clone(), uri).await;
        assert_eq!(status, expected, "{method} {uri}");
    }
    soon(app.accept()).await.unwrap();
    world.publish(&[deny(None)]);
    let denied = ask(&send, Method::CONNECT, "10.77.0.2:8080").await;
    assert_eq!(denied, StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_the_mesh_does_not_know_answers_503() {
    // Without a trust domain it could not even say who it is.
    let trust_domain = Some("cluster.local".to_owned());
    let world = World::with(Settings { trust_domain, ..Settings::default() });
    world.publish_with(&[], |server| server.rename("another"));
    let _server = world.start(&world.server).await.unwrap();
    world.server.listen(8080);
    let send = peer(&world).await;
    let status = ask(&send, Method::CONNECT, "10.77.0.2:8080").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_not_who_the_mesh_says_gets_no_traffic() {
    let (world, _client, _server) = World::started().await;
    let app = world.server.listen(8080);
    let thief = mesh::Identity::new("", "shop", "thief").unwrap();
    // The view says that somebody else lives at the server's address.
    world.publish_with(&[], |server| server.identity = thief);
    let to = SocketAddr::new(world.server.v4, 8080);
    refused(world.client.dial(to)).await;
    drop(app);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rubbish_on_the_tunnel_port_is_hung_up_on() {
    let (world, _client, _server) = World::started().await;
    let to = SocketAddr::new(world.server.v4, 15008);
    let mut tcp = world.client.dial_uncaptured(to).await.unwrap();
    tcp.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    // A TLS alert or a reset, but never an answer to the request.
    let _ = soon(tcp.read_to_end(&mut answer)).await;
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    assert!(answer.len() < 16, "{answer:?}");
}

/// A tunnel that is open proves who answered when it was made. It must not carry what is
/// meant for somebody else who lives, as the mesh now says, at the same address.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_tunnel_carries_nothing_for_somebody_else() {
    let (world, _client, _server) = World::started().await;
    let app = world.server.listen(8080);
    let to = SocketAddr::new(world.server.v4, 8080);
    let (mut near, mut far, _) = connected(world.client.dial(to), &app).await;
    let thief = mesh::Identity::new("", "shop", "thief").unwrap();
    let addresses = world.server.workload().addresses;
    world.publish_with(&[], |server| server.addresses = mesh::Addresses::default());
    let mut view = mesh::View::clone(&world.context.view.current().unwrap());
    let other = mesh::Workload::new("another", "shop", "another", thief);
    view.insert_workload(other.with(|it| {
        it.addresses = addresses;
        it.protocol = mesh::Protocol::Hbone;
    }));
    world.writer.publish(view);
    refused(world.client.dial(to)).await;
    unheard(&app).await;
    exchange(&mut near, &mut far).await;
}
