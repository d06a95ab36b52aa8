//! Ports that a service calls by name.

use std::net::SocketAddr;

use lab::Server;
use serde_json::json;

use super::{MANY, SERVICE_PORT, Service, captured, server};
use crate::observe::{Seen, exchange_at, until_at};
use crate::scenario::expect;
use crate::world::{APP_PORT, World, in_namespace};

/// The name of the port, and in each pod another number behind it; the service has one
/// port more, of which only one pod knows.
pub(super) async fn named_ports(world: &World) -> anyhow::Result<()> {
    let ns = "named";
    let client = captured(world, in_namespace(ns, "client", 1)).await?;
    let a = server(ns, "server-a").port("web", APP_PORT).port("more", APP_PORT + 2);
    let b = server(ns, "server-b").port("web", APP_PORT + 1);
    let (a, b) = (captured(world, a).await?, captured(world, b).await?);
    let apps = [a.serve(APP_PORT).await?, b.serve(APP_PORT + 1).await?];
    let more = a.serve(APP_PORT + 2).await?;
    let port = |name: &str, port: u16, target: &str| json!({ "name": name, "port": port, "targetPort": target });
    let ports = json!([
        port("http", SERVICE_PORT, "web"),
        port("admin", SERVICE_PORT + 1, "more"),
        port("gone", SERVICE_PORT + 2, "nowhere"),
    ]);
    let service = Service::create(world, ns, json!({ "ports": ports })).await?;
    let others = service.around(&[&a, &b]);
    let at = |port: u16| SocketAddr::new(service.addresses[0], port);
    let what = "the port of both pods to lead through the tunnel";
    until_at(world, what, &client, (at(SERVICE_PORT), &others), Seen::is_tunnelled).await?;
    let both_reached = || apps.iter().all(|app| app.connections() > 0);
    let deadline = tokio::time::Instant::now() + world.patience;
    while !both_reached() {
        let seen = exchange_at(world, &client, at(SERVICE_PORT), &others).await?;
        expect("only the tunnel on the wire", &seen, |seen| seen.is_tunnelled())?;
        expect("both pods reached in time", &seen, |_| tokio::time::Instant::now() < deadline)?;
    }
    let before = [apps[0].connections(), apps[1].connections()];
    for _ in 0..MANY {
        let seen = exchange_at(world, &client, at(SERVICE_PORT + 1), &others).await?;
        expect("only the tunnel on the wire", &seen, |seen| seen.is_tunnelled())?;
    }
    let after = [apps[0].connections(), apps[1].connections()];
    expect("each at the one pod that declares it", more.connections(), |count| *count == MANY)?;
    expect("none elsewhere", format!("{before:?} {after:?}"), |_| before == after)?;
    // Packets on the tunnel's port may be what the tunnel of before still says.
    let nowhere = exchange_at(world, &client, at(SERVICE_PORT + 2), &others).await?;
    let reached = || (apps.iter().map(Server::connections).sum::<usize>(), more.connections());
    let earlier = (after.iter().sum(), MANY);
    expect("a port that no pod declares refused, nothing in clear text", &nowhere, |seen| {
        seen.is_refused() && seen.elsewhere == 0
    })?;
    expect("no pod reached by it", format!("{:?}", reached()), |_| reached() == earlier)?;
    service.delete(world).await
}
