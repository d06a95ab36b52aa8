//! In which trust domain a pod is: what the control plane says.

use std::net::SocketAddr;

use mesh::{Identity, View};

use super::stories::{connected, exchange};
use super::world::{World, soon};
use crate::proxy::Settings;

/// Has the control plane say that both pods are in this trust domain.
fn publish(world: &World, domain: &str) {
    let mut view = View::default();
    for pod in [&world.client, &world.server] {
        let identity = Identity::new(domain, "shop", pod.name).unwrap();
        view.insert_workload(pod.workload().with(|it| it.identity = identity));
    }
    world.writer.publish(view);
}

/// Whose certificates are kept.
fn certified(world: &World) -> Vec<String> {
    world.context.certificates.summary().into_iter().map(|it| it.identity).collect()
}

fn both_in(domain: &str) -> Vec<String> {
    ["client", "server"].map(|pod| format!("spiffe://{domain}/ns/shop/sa/{pod}")).to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_prove_who_the_control_plane_says_they_are_and_nobody_else() {
    let world = World::new();
    let _client = world.start(&world.client).await.unwrap();
    let _server = world.start(&world.server).await.unwrap();
    assert_eq!(certified(&world), [""; 0], "nothing is guessed");
    publish(&world, "mesh.example");
    let app = world.server.listen(8080);
    let to = SocketAddr::new(world.server.v4, 8080);
    let (mut near, mut far, _) = connected(world.client.dial(to), &app).await;
    exchange(&mut near, &mut far).await;
    assert_eq!(certified(&world), both_in("mesh.example"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mesh_that_is_renamed_under_open_connections_goes_on() {
    let guess = Some("guess.example".to_owned());
    let world = World::with(Settings { trust_domain: guess, ..Settings::default() });
    let _client = world.start(&world.client).await.unwrap();
    let _server = world.start(&world.server).await.unwrap();
    assert_eq!(certified(&world), both_in("guess.example"), "to be ready early");
    let app = world.server.listen(8080);
    let to = SocketAddr::new(world.server.v4, 8080);
    let mut open = Vec::new();
    for domain in ["old.example", "new.example"] {
        publish(&world, domain);
        soon(async {
            while certified(&world) != both_in(domain) {
                tokio::task::yield_now().await;
            }
        })
        .await;
        open.push(connected(world.client.dial(to), &app).await);
        for (near, far, _) in &mut open {
            exchange(near, far).await;
        }
    }
    let middle = world.start(&world.middle).await.unwrap();
    let expected = "spiffe://new.example/ns/shop/sa/middle".to_owned();
    assert!(certified(&world).contains(&expected), "as its neighbours");
    drop(middle);
}
