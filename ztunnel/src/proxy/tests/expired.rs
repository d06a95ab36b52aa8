//! What becomes of a tunnel when the certificate of its client expires.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Method, Request, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::strangers;
use super::world::{World, soon, torn};
use crate::proxy::Settings;

/// Certificates of these tests live for an hour; to this clock it is nearly over.
fn late() -> SystemTime {
    SystemTime::now() + Duration::from_secs(3600 - 4)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_drains_when_its_clients_certificate_expires_and_then_is_cut() {
    let drain_deadline = Duration::from_secs(5);
    let world = World::with(Settings { clock: late, drain_deadline, ..Settings::default() });
    world.publish(&[]);
    let _server = world.start(&world.server).await.unwrap();
    let app = world.server.listen(8080);
    let send = strangers::peer(&world).await;
    let connect = Request::builder().method(Method::CONNECT).version(Version::HTTP_2);
    let connect = connect.uri("10.77.0.2:8080").body(()).unwrap();
    let (answer, mut near) =
        send.clone().ready().await.unwrap().send_request(connect, false).unwrap();
    let mut heard = soon(answer).await.unwrap().into_body();
    let mut far = soon(app.accept()).await.unwrap().0;

    // The peer is told.
    let refused = soon(async {
        loop {
            match send.clone().ready().await {
                Ok(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                Err(error) => return error,
            }
        }
    })
    .await;
    assert_eq!((refused.is_go_away(), refused.reason()), (true, Some(h2::Reason::NO_ERROR)));
    // What is open goes on for a while.
    near.send_data(Bytes::from_static(b"?"), false).unwrap();
    assert_eq!(soon(far.read_u8()).await.unwrap(), b'?');
    far.write_all(b"!").await.unwrap();
    assert_eq!(soon(heard.data()).await.unwrap().unwrap(), "!");
    // And not for ever.
    soon(heard.data()).await.unwrap().unwrap_err();
    torn(&mut far).await;
}
