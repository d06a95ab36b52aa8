//! Policies, as connections meet them. The names begin with the row of the semantics whose
//! story it is; the tables are in `mesh::policy`.

use std::net::{IpAddr, SocketAddr};

use http::{Method, StatusCode};
use mesh::proto::security::{
    Action, Address, Authorization, Clause, Match, Rule, Scope, StringMatch, string_match,
};
use mesh::{Identity, Policy, PolicyKey, View, Workload};
use prometheus_client::registry::Registry;
use tokio::net::TcpStream;

use super::services::{endpoint, unheard, vips};
use super::stories::{connected, exchange};
use super::strangers::{ask, peer};
use super::waypoints::{self, TUNNEL};
use super::world::{World, counted, deny, refused, soon, torn};
use crate::proxy::PodProxy;
use crate::tls::Terms;

/// A policy for those who list it, about those who are one of these.
fn about(action: Action, who: &[&Identity]) -> Authorization {
    let exact = |it: &&Identity| StringMatch {
        match_type: Some(string_match::MatchType::Exact(it.principal())),
    };
    selected(action, Match { principals: who.iter().map(exact).collect(), ..Match::default() })
}

/// The same about those who come from one of these addresses.
fn from(action: Action, sources: &[IpAddr]) -> Authorization {
    let range = |it: &IpAddr| match it {
        IpAddr::V4(v4) => Address { address: v4.octets().to_vec(), length: 32 },
        IpAddr::V6(v6) => Address { address: v6.octets().to_vec(), length: 128 },
    };
    selected(action, Match { source_ips: sources.iter().map(range).collect(), ..Match::default() })
}

fn selected(action: Action, one: Match) -> Authorization {
    Authorization {
        name: "one".to_owned(),
        namespace: "shop".to_owned(),
        scope: Scope::WorkloadSelector.into(),
        action: action.into(),
        rules: vec![Rule { clauses: vec![Clause { matches: vec![one] }] }],
        ..Authorization::default()
    }
}

/// It holds for the whole namespace.
fn everywhere(name: &str, policy: Authorization) -> Authorization {
    Authorization { name: name.to_owned(), scope: Scope::Namespace.into(), ..policy }
}

fn lists(workload: &mut Workload) {
    workload.policies = [PolicyKey::parse("shop/one").unwrap()].into();
}

fn lists_none(_: &mut Workload) {}

/// What was open under one view of the mesh is cut by the next.
async fn cut_by(
    world: &World,
    app: &tokio::net::TcpListener,
    before: (&[Authorization], fn(&mut Workload)),
    after: (&[Authorization], fn(&mut Workload)),
) {
    world.publish_with(before.0, before.1);
    let to = SocketAddr::new(world.server.v4, 8080);
    let (mut near, mut far, _) = connected(world.client.dial(to), app).await;
    exchange(&mut near, &mut far).await;
    world.publish_with(after.0, after.1);
    torn(&mut near).await;
    torn(&mut far).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p21_whatever_changes_open_connections_are_judged_again() {
    use Action::{Allow, Deny};
    let mut registry = Registry::default();
    let world = World::under(&Terms::default(), &mut registry);
    world.publish(&[]);
    let _client = world.start(&world.client).await.unwrap();
    let server = world.start(&world.server).await.unwrap();
    let app = world.server.listen(8080);
    let (client, other) = (world.client.identity(), Identity::new("", "shop", "other").unwrap());
    let to = SocketAddr::new(world.server.v4, 8080);
    let (mut plain, mut plain_far, _) = connected(world.client.dial_uncaptured(to), &app).await;

    // A policy that was there is listed.
    let policy = [about(Deny, &[&client])];
    cut_by(&world, &app, (&policy, lists_none), (&policy, lists)).await;
    // One that was listed says something else.
    let changed = [about(Deny, &[&other])];
    cut_by(&world, &app, (&changed, lists), (&policy, lists)).await;
    // One that was tried is enforced.
    let tried = [Authorization { dry_run: true, ..policy[0].clone() }];
    cut_by(&world, &app, (&tried, lists), (&policy, lists)).await;
    exchange(&mut plain, &mut plain_far).await;

    // Somebody is allowed for the first time, and so the others are not.
    let only_other = [everywhere("a", about(Allow, &[&other]))];
    cut_by(&world, &app, (&[], lists_none), (&only_other, lists_none)).await;
    torn(&mut plain).await;
    // Of two that allow, the one that counted goes.
    let both = [only_other[0].clone(), everywhere("b", about(Allow, &[&client]))];
    cut_by(&world, &app, (&both, lists_none), (&only_other, lists_none)).await;

    idle(&server).await;
    let failed =
        counted(&registry, "istio_tcp_connections_failed_total", "reporter=\"destination\"");
    assert_eq!(failed["DENY"], 6, "each is counted with its reason: {failed:?}");
}

/// Waits until nothing is open.
async fn idle(proxy: &PodProxy) {
    soon(async {
        while proxy.connections() != crate::proxy::Connections::default() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p22_the_destinations_side_decides_and_answers_401_or_closes() {
    let (world, _client, _server) = World::started().await;
    let (at_server, at_client) = (world.server.listen(8080), world.client.listen(8080));
    let to_server = SocketAddr::new(world.server.v4, 8080);
    let to_client = SocketAddr::new(world.client.v4, 8080);
    // Nobody may reach the client; whom the client reaches is none of its policies' business.
    let nobody = selected(Action::Deny, Match::default());
    let nobody = Authorization { rules: vec![Rule::default()], ..nobody };
    let mut view = View::clone(&world.context.view.current().unwrap());
    view.insert_workload(world.client.workload().with(lists));
    view.insert_policy(Policy::try_from(nobody.clone()).unwrap());
    world.writer.publish(view);
    let (mut near, mut far, _) = connected(world.client.dial(to_server), &at_server).await;
    exchange(&mut near, &mut far).await;
    refused(world.server.dial(to_client)).await;
    refused(world.server.dial_uncaptured(to_client)).await;
    unheard(&at_client).await;
    // And the other way round; the peer is told why.
    world.publish_with(&[nobody], lists);
    let send = peer(&world).await;
    assert_eq!(ask(&send, Method::CONNECT, "10.77.0.2:8080").await, StatusCode::UNAUTHORIZED);
    refused(world.client.dial_uncaptured(to_server)).await;
    let (mut near, mut far, _) = connected(world.server.dial(to_client), &at_client).await;
    exchange(&mut near, &mut far).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_denial_is_counted_for_the_workload_that_it_protects() {
    let mut registry = Registry::default();
    let world = World::under(&Terms::default(), &mut registry);
    world.publish_with(&[about(Action::Allow, &[])], lists);
    let _client = world.start(&world.client).await.unwrap();
    let _server = world.start(&world.server).await.unwrap();
    let to = SocketAddr::new(world.server.v4, 8080);
    refused(world.client.dial(to)).await;
    refused(world.client.dial_uncaptured(to)).await;
    let denied = |with: &str| {
        counted(&registry, "istio_tcp_connections_failed_total", with).get("DENY").copied()
    };
    assert_eq!(denied("reporter=\"destination\""), Some(2));
    assert_eq!(denied("destination_workload_namespace=\"unknown\""), None);
}

/// The server is behind the waypoint and lists this policy.
fn guard(world: &World, policy: Authorization) {
    let mut view = View::clone(&world.context.view.current().unwrap());
    view.insert_workload(endpoint(world.server.workload()).with(lists));
    view.insert_policy(Policy::try_from(policy).unwrap());
    world.writer.publish(view);
}

/// Both hops of a connection by way of the waypoint: what reaches the waypoint, and what
/// it dials itself then.
async fn first_hop(
    world: &World,
    vip: SocketAddr,
    waypoint: &tokio::net::TcpListener,
) -> TcpStream {
    let near = soon(world.client.dial(vip)).await.unwrap();
    let (mut inside, _) = soon(waypoint.accept()).await.unwrap();
    let (_, _, identity) = waypoints::preface(&mut inside).await;
    assert_eq!(identity, world.client.identity().to_string(), "the waypoint knows who asks");
    near
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p24_p15_behind_a_waypoint_policies_see_the_waypoint_and_not_its_client() {
    use Action::{Allow, Deny};
    let (world, _client, _server) = World::started().await;
    waypoints::publish(&world, waypoints::tunnel(mesh::TunnelledProtocol::Proxy));
    let _middle = world.start(&world.middle).await.unwrap();
    let (waypoint, app) = (world.middle.listen(TUNNEL), world.server.listen(8080));
    let (client, middle) = (world.client.identity(), world.middle.identity());
    let (clients, middles) =
        ([world.client.v4, world.client.v6], [world.middle.v4, world.middle.v6]);
    for policy in [
        about(Allow, &[&middle]),
        about(Deny, &[&client]),
        from(Allow, &middles),
        from(Deny, &clients),
    ] {
        guard(&world, policy);
        for vip in vips() {
            let _near = first_hop(&world, vip, &waypoint).await;
            let (mut onward, mut far, _) = connected(world.middle.dial(vip), &app).await;
            exchange(&mut onward, &mut far).await;
        }
        // Past the waypoint it is the client itself that asks.
        refused(world.client.dial(SocketAddr::new(world.server.v4, 8080))).await;
    }
    for policy in [
        about(Allow, &[&client]),
        about(Deny, &[&middle]),
        from(Allow, &clients),
        from(Deny, &middles),
    ] {
        guard(&world, policy);
        for vip in vips() {
            let _near = first_hop(&world, vip, &waypoint).await;
            refused(world.middle.dial(vip)).await;
        }
        unheard(&app).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p23_a_policy_that_never_arrives_denies_in_the_end() {
    let (world, _client, _server) = World::started().await;
    let app = world.server.listen(8080);
    let to = SocketAddr::new(world.server.v4, 8080);
    // What is open has its time too, and is then cut.
    let (mut open, _far, _) = connected(world.client.dial(to), &app).await;
    world.publish_with(&[], lists);
    let (tunnelled, plain) = (world.client.dial(to), world.client.dial_uncaptured(to));
    tokio::join!(refused(tunnelled), refused(plain), torn(&mut open));
    unheard(&app).await;
    // Known denials do not wait.
    world.publish_with(&[deny(None)], lists);
    refused(world.client.dial(to)).await;
}
