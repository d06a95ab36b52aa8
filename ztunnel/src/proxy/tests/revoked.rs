//! What becomes of the connections of a pod whose certificate is revoked.

use std::fs;
use std::net::SocketAddr;

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use time::{Duration, OffsetDateTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use super::world::{World, refused, soon};
use crate::tls::{Settings, Terms};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_client_loses_its_tunnel_and_gets_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca-crl.pem");
    let mut registry = Registry::default();
    let settings = Settings { revocation_lists: Some(file.clone()), ..Settings::default() };
    let terms = Terms::new(&settings, &mut registry).unwrap();
    let stop = CancellationToken::new();
    let running = tokio::spawn(terms.revocation.clone().run(stop.clone()));

    let world = World::under(&terms, &mut registry);
    world.publish(&[]);
    let client = world.start(&world.client).await.unwrap();
    let server = world.start(&world.server).await.unwrap();
    let app = world.server.listen(8080);
    let to = SocketAddr::new(world.server.v4, 8080);
    let mut near = soon(world.client.dial(to)).await.unwrap();
    let mut far = soon(app.accept()).await.unwrap().0;
    near.write_all(b"?").await.unwrap();
    assert_eq!(soon(far.read_u8()).await.unwrap(), b'?');

    let serial = world.serial_of(&world.client);
    let next_week = OffsetDateTime::now_utc() + Duration::days(7);
    fs::write(&file, world.ca.revocation_list(&[serial], next_week)).unwrap();
    soon(near.read_u8()).await.unwrap_err();
    soon(far.read_u8()).await.unwrap_err();
    refused(world.client.dial(to)).await;

    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    let failed = text.lines().filter(|line| line.starts_with("istio_tcp_connections_failed_total"));
    let flagged = failed.filter(|line| line.contains("response_flags=\"CERT_REVOKED\""));
    assert_ne!(flagged.count(), 0, "{text}");
    stop.cancel();
    soon(running).await.unwrap();
    drop((client, server));
}
