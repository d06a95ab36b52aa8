//! Services: what a captured client reaches by a service's address.

mod ports;

use std::net::{IpAddr, SocketAddr};

use anyhow::Context;
use lab::Pod;
use serde_json::{Value, json};

use crate::observe::{self, Seen, exchange_at, until_at};
use crate::scenario::{Scenario, expect, scenario};
use crate::world::{APP_PORT, World, in_namespace};

/// The port of the services here; they lead to another one, [`APP_PORT`].
const SERVICE_PORT: u16 = 80;
/// Exchanges in a row that would hardly avoid one of two endpoints by chance.
const MANY: usize = 12;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(
            "service-address-is-tunnelled",
            "a service's address leads through the tunnel to an endpoint's target port",
            tunnelled
        ),
        scenario!(
            "service-load-is-spread",
            "all endpoints of a service get connections, and all of these are tunnelled",
            spread
        ),
        scenario!(
            "named-ports-are-each-pods-own",
            "a service's named port is the one that each of its pods declares by that name",
            ports::named_ports
        ),
        scenario!(
            "not-ready-endpoints-get-nothing",
            "an endpoint that is not ready gets no connection by its service",
            not_ready
        ),
        scenario!(
            "service-without-endpoints-refuses",
            "a connection to a service without endpoints is refused and leaves no trace outside",
            without_endpoints
        ),
        scenario!(
            "headless-service-by-pod-address",
            "the pods of a headless service are reached through the tunnel",
            headless
        ),
        scenario!(
            "uncaptured-endpoint-is-plain",
            "a service's endpoint outside the mesh is reached in clear text",
            uncaptured
        ),
    ]
}

/// A service as the cluster has it.
pub(super) struct Service {
    path: String,
    pub(super) addresses: Vec<IpAddr>,
}

impl Service {
    /// Selects `app: server` in a namespace.
    pub(super) async fn create(
        world: &World,
        namespace: &str,
        more: Value,
    ) -> anyhow::Result<Self> {
        let mut object = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": "shop" },
            "spec": {
                "selector": { "app": "server" },
                "ports": [{ "port": SERVICE_PORT, "targetPort": APP_PORT }],
            },
        });
        for (field, value) in more.as_object().into_iter().flatten() {
            object["spec"][field] = value.clone();
        }
        let services = format!("/api/v1/namespaces/{namespace}/services");
        let created = world.lab.kube().create(&services, &object).await?;
        let texts = created["spec"]["clusterIPs"].as_array().context("clusterIPs")?;
        let addresses = texts.iter().filter_map(|text| text.as_str()?.parse().ok()).collect();
        Ok(Self { path: format!("{services}/shop"), addresses })
    }

    pub(super) fn addr(&self) -> SocketAddr {
        (self.addresses[0], SERVICE_PORT).into()
    }

    /// Everybody whom a connection to the service may show on the wire.
    pub(super) fn around(&self, endpoints: &[&Pod]) -> Vec<IpAddr> {
        let pods = endpoints.iter().flat_map(|pod| pod.ips());
        self.addresses.iter().chain(pods).copied().collect()
    }

    pub(super) async fn delete(self, world: &World) -> anyhow::Result<()> {
        Ok(world.lab.kube().delete(&self.path).await?)
    }
}

pub(super) fn server(namespace: &str, name: &str) -> lab::PodSpec {
    in_namespace(namespace, name, 2).label("app", "server")
}

pub(super) async fn captured(
    world: &World,
    spec: lab::PodSpec,
) -> anyhow::Result<std::sync::Arc<Pod>> {
    let pod = world.pod(spec).await?;
    world.enrol(&pod).await?;
    Ok(pod)
}

async fn tunnelled(world: &World) -> anyhow::Result<()> {
    let client = captured(world, in_namespace("vip", "client", 1)).await?;
    let server = captured(world, server("vip", "server")).await?;
    let app = server.serve(APP_PORT).await?;
    let service = Service::create(world, "vip", json!({})).await?;
    let others = service.around(&[&server]);
    let what = "the service's address to lead through the tunnel";
    until_at(world, what, &client, (service.addr(), &others), Seen::is_tunnelled).await?;
    let before = app.connections();
    for _ in 0..5 {
        let seen = exchange_at(world, &client, service.addr(), &others).await?;
        expect("only the tunnel on the wire", &seen, |seen| seen.is_tunnelled())?;
        expect("the client's own address at the server", &seen, |seen| {
            seen.peer_ip() == Some(client.ip())
        })?;
    }
    expect("each at the endpoint", app.connections() - before, |count| *count == 5)?;
    let identity = observe::logged_identity(world, &server, &client);
    expect("the client's identity", identity.unwrap_or_default(), |identity| {
        identity == "spiffe://cluster.local/ns/vip/sa/client"
    })?;
    service.delete(world).await
}

/// Two captured servers of one service, and a client that reaches it.
struct Two {
    client: std::sync::Arc<Pod>,
    servers: [std::sync::Arc<Pod>; 2],
    apps: [lab::Server; 2],
    service: Service,
    others: Vec<IpAddr>,
}

impl Two {
    async fn make(world: &World, namespace: &str) -> anyhow::Result<Self> {
        let client = captured(world, in_namespace(namespace, "client", 1)).await?;
        let servers = [
            captured(world, server(namespace, "server-a")).await?,
            captured(world, server(namespace, "server-b")).await?,
        ];
        let apps = [servers[0].serve(APP_PORT).await?, servers[1].serve(APP_PORT).await?];
        let service = Service::create(world, namespace, json!({})).await?;
        let others = service.around(&[&servers[0], &servers[1]]);
        let two = Self { client, servers, apps, service, others };
        let what = "the service's address to lead through the tunnel";
        let to = (two.service.addr(), &two.others[..]);
        until_at(world, what, &two.client, to, Seen::is_tunnelled).await?;
        Ok(two)
    }

    /// How many connections each server got of [`MANY`] that were all tunnelled.
    async fn round(&self, world: &World) -> anyhow::Result<[usize; 2]> {
        let before = self.counts();
        for _ in 0..MANY {
            let to = self.service.addr();
            let seen = exchange_at(world, &self.client, to, &self.others).await?;
            expect("only the tunnel on the wire", &seen, |seen| seen.is_tunnelled())?;
        }
        let after = self.counts();
        Ok([after[0] - before[0], after[1] - before[1]])
    }

    fn counts(&self) -> [usize; 2] {
        [self.apps[0].connections(), self.apps[1].connections()]
    }
}

async fn spread(world: &World) -> anyhow::Result<()> {
    let two = Two::make(world, "spread").await?;
    let both = |counts: &[usize; 2]| counts.iter().all(|count| *count > 0);
    until_round(world, &two, "connections at both endpoints", both).await?;
    two.service.delete(world).await
}

async fn not_ready(world: &World) -> anyhow::Result<()> {
    let two = Two::make(world, "unready").await?;
    let path = |pod: &Pod| format!("/api/v1/namespaces/unready/pods/{}/status", pod.name());
    let ready = |status: &str| json!({ "status": { "conditions": [{ "type": "Ready", "status": status }] } });
    let kube = world.lab.kube();
    kube.merge_patch(&path(&two.servers[1]), &ready("False")).await?;
    let only_ready = |counts: &[usize; 2]| *counts == [MANY, 0];
    until_round(world, &two, "connections at the ready endpoint only", only_ready).await?;
    kube.merge_patch(&path(&two.servers[0]), &ready("False")).await?;
    kube.merge_patch(&path(&two.servers[1]), &ready("True")).await?;
    let other = |counts: &[usize; 2]| *counts == [0, MANY];
    until_round(world, &two, "connections at the other endpoint only", other).await?;
    two.service.delete(world).await
}

/// Repeats rounds until one is as `holds` wants it. A round in which a connection fails
/// while endpoints change places is no answer yet.
async fn until_round(
    world: &World,
    two: &Two,
    expected: &str,
    holds: impl Fn(&[usize; 2]) -> bool,
) -> anyhow::Result<()> {
    let deadline = tokio::time::Instant::now() + world.patience;
    loop {
        let round = two.round(world).await;
        let late = tokio::time::Instant::now() >= deadline;
        match round {
            Ok(counts) if holds(&counts) => return Ok(()),
            Ok([a, b]) if late => return expect(expected, format!("{a} and {b}"), |_| false),
            Err(error) if late => return Err(error),
            _ => {}
        }
    }
}

async fn without_endpoints(world: &World) -> anyhow::Result<()> {
    let client = captured(world, in_namespace("empty", "client", 1)).await?;
    let service = Service::create(world, "empty", json!({})).await?;
    let others = service.around(&[]);
    let kept_in = |seen: &Seen| seen.is_refused() && seen.elsewhere == 0 && seen.tunnel == 0;
    let what = "a refusal, with nothing on the wire";
    until_at(world, what, &client, (service.addr(), &others), kept_in).await?;
    for _ in 0..3 {
        let seen = exchange_at(world, &client, service.addr(), &others).await?;
        expect("a refusal, with nothing on the wire", &seen, |seen| kept_in(seen))?;
    }
    service.delete(world).await
}

async fn headless(world: &World) -> anyhow::Result<()> {
    let client = captured(world, in_namespace("headless", "client", 1)).await?;
    let server = captured(world, server("headless", "server")).await?;
    let _app = server.serve(APP_PORT).await?;
    let service = Service::create(world, "headless", json!({ "clusterIP": "None" })).await?;
    expect("no address", service.addresses.len(), |count| *count == 0)?;
    observe::tunnelled(world, &client, &server).await?;
    service.delete(world).await
}

async fn uncaptured(world: &World) -> anyhow::Result<()> {
    let client = captured(world, in_namespace("outside", "client", 1)).await?;
    let server = world.pod(server("outside", "server")).await?;
    let app = server.serve(APP_PORT).await?;
    let service = Service::create(world, "outside", json!({})).await?;
    let others = service.around(&[&server]);
    let what = "an answer in clear text";
    until_at(world, what, &client, (service.addr(), &others), Seen::is_plain).await?;
    expect("a connection at the server", app.connections(), |count| *count >= 1)?;
    service.delete(world).await
}

pub(super) async fn both_addresses(world: &World) -> anyhow::Result<()> {
    let client = captured(world, in_namespace("two", "client", 1)).await?;
    let server = captured(world, server("two", "server")).await?;
    let _app = server.serve(APP_PORT).await?;
    let policy = json!({ "ipFamilyPolicy": "RequireDualStack" });
    let service = Service::create(world, "two", policy).await?;
    expect("two addresses", service.addresses.len(), |count| *count == 2)?;
    let others = service.around(&[&server]);
    for address in &service.addresses {
        let to = (SocketAddr::from((*address, SERVICE_PORT)), &others[..]);
        let what = format!("{address} to lead through the tunnel");
        until_at(world, &what, &client, to, Seen::is_tunnelled).await?;
    }
    service.delete(world).await
}
