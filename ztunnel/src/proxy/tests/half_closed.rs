//! Clients that have nothing to say, but want to hear.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::world::{World, soon};

/// As `nc host port </dev/null`: the whole answer comes though the request has ended.
async fn hears(mut near: TcpStream, app: &tokio::net::TcpListener) {
    near.shutdown().await.unwrap();
    let (mut far, _) = soon(app.accept()).await.unwrap();
    assert_eq!(soon(far.read(&mut [0])).await.unwrap(), 0);
    far.write_all(b"welcome").await.unwrap();
    far.shutdown().await.unwrap();
    let mut text = String::new();
    soon(near.read_to_string(&mut text)).await.unwrap();
    assert_eq!(text, "welcome");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_says_nothing_hears_the_answer() {
    let (world, _client, _server) = World::started().await;
    let app = world.server.listen(8080);
    for to in [world.server.v4, world.server.v6] {
        let to = SocketAddr::new(to, 8080);
        hears(world.client.dial(to).await.unwrap(), &app).await;
        hears(world.client.dial_uncaptured(to).await.unwrap(), &app).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_ended_its_request_while_it_waited_hears_the_answer() {
    let world = World::new();
    let _client = world.start(&world.client).await.unwrap();
    let _server = world.start(&world.server).await.unwrap();
    let app = world.server.listen(8080);
    let to = SocketAddr::new(world.server.v4, 8080);
    // Without a view both wait.
    let mut tunnelled = world.client.dial(to).await.unwrap();
    tunnelled.shutdown().await.unwrap();
    world.publish(&[]);
    hears(tunnelled, &app).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn for_who_went_away_while_it_waited_nobody_is_dialled() {
    let world = World::new();
    let client = world.start(&world.client).await.unwrap();
    let server = world.start(&world.server).await.unwrap();
    let app = world.server.listen(8080);
    let to = SocketAddr::new(world.server.v4, 8080);
    let gone =
        [world.client.dial(to).await.unwrap(), world.client.dial_uncaptured(to).await.unwrap()];
    soon(async {
        while client.connections().outbound + server.connections().inbound < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    for near in gone {
        near.set_zero_linger().unwrap();
        drop(near);
    }
    world.publish(&[]);
    soon(async {
        while client.connections().outbound + server.connections().inbound > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    super::services::unheard(&app).await;
}
