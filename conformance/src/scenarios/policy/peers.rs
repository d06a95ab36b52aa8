//! PeerAuthentication: who must prove an identity.

use std::net::SocketAddr;
use std::sync::Arc;

use lab::{Pod, Server};
use serde_json::{Value, json};

use crate::observe::{self, Seen, exchange_at, until, until_at};
use crate::scenario::{Scenario, expect, scenario};
use crate::world::{APP_PORT, World, in_namespace};

/// Its PeerAuthentications are about the whole mesh.
const ROOT_NAMESPACE: &str = "istio-system";
const SECOND_PORT: u16 = APP_PORT + 1;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(
            "strict-and-permissive",
            "STRICT turns clear text away, also what is open; PERMISSIVE takes it again",
            strict_and_permissive
        ),
        scenario!(
            "strict-but-for-a-port",
            "a workload's own STRICT leaves the port open that it excepts, and other workloads",
            but_for_a_port
        ),
        scenario!(
            "strict-mesh",
            "STRICT for the mesh holds in each namespace that does not say otherwise",
            strict_mesh
        ),
    ]
}

/// A captured client and server, and a client outside the mesh that reaches the server.
struct Three {
    client: Arc<Pod>,
    outside: Arc<Pod>,
    server: Arc<Pod>,
    _apps: [Server; 2],
}

impl Three {
    async fn make(world: &World, namespace: &str) -> anyhow::Result<Self> {
        let client = world.pod(in_namespace(namespace, "client", 1)).await?;
        let outside = world.pod(in_namespace(namespace, "outside", 1)).await?;
        let server = in_namespace(namespace, "server", 2).label("app", "server");
        let server = world.pod(server).await?;
        let apps = [server.serve(APP_PORT).await?, server.serve(SECOND_PORT).await?];
        world.enrol(&client).await?;
        world.enrol(&server).await?;
        observe::tunnelled(world, &client, &server).await?;
        let three = Self { client, outside, server, _apps: apps };
        three.until_open(world).await?;
        Ok(three)
    }

    /// Clear text is answered.
    async fn until_open(&self, world: &World) -> anyhow::Result<()> {
        until(world, "outside served", &self.outside, &self.server, Seen::is_plain).await?;
        self.mesh_goes_on(world).await
    }

    /// Clear text is turned away.
    async fn until_closed(&self, world: &World) -> anyhow::Result<()> {
        let turned_away = |seen: &Seen| seen.reply.is_err();
        until(world, "outside turned away", &self.outside, &self.server, turned_away).await?;
        self.mesh_goes_on(world).await
    }

    async fn mesh_goes_on(&self, world: &World) -> anyhow::Result<()> {
        let seen = observe::exchange(world, &self.client, &self.server).await?;
        expect("the mesh's own client served by tunnel", &seen, |seen| seen.is_tunnelled())
    }
}

async fn strict_and_permissive(world: &World) -> anyhow::Result<()> {
    let pods = Three::make(world, "peers").await?;
    let mut open = pods.outside.connect(pods.server.addr(APP_PORT)).await?;
    open.send_line("before").await?;
    let mut tunnelled = pods.client.connect(pods.server.addr(APP_PORT)).await?;
    tunnelled.send_line("before").await?;
    let peer = Peer::create(world, "peers", "all", &json!({"mtls": {"mode": "STRICT"}})).await?;
    pods.until_closed(world).await?;
    open.end().await?;
    peer.change(world, &json!({"mtls": {"mode": "PERMISSIVE"}})).await?;
    pods.until_open(world).await?;
    peer.change(world, &json!({"mtls": {"mode": "STRICT"}})).await?;
    pods.until_closed(world).await?;
    peer.delete(world).await?;
    pods.until_open(world).await?;
    let reply = tunnelled.send_line("after").await?;
    expect("the tunnel's own connection all along", reply.number, |number| *number == 2)
}

async fn but_for_a_port(world: &World) -> anyhow::Result<()> {
    let pods = Three::make(world, "excepted").await?;
    let other = world.pod(in_namespace("excepted", "other", 2)).await?;
    let _other_app = other.serve(APP_PORT).await?;
    world.enrol(&other).await?;
    let spec = json!({
        "selector": {"matchLabels": {"app": "server"}},
        "mtls": {"mode": "STRICT"},
        "portLevelMtls": {SECOND_PORT.to_string(): {"mode": "PERMISSIVE"}},
    });
    let peer = Peer::create(world, "excepted", "server", &spec).await?;
    pods.until_closed(world).await?;
    let second = (SocketAddr::new(pods.server.ip(), SECOND_PORT), pods.server.ips());
    let seen = exchange_at(world, &pods.outside, second.0, second.1).await?;
    expect("clear text at the excepted port", &seen, |seen| seen.is_plain())?;
    let seen = observe::exchange(world, &pods.outside, &other).await?;
    expect("clear text at another workload", &seen, |seen| seen.is_plain())?;
    // The other way round: only the port is closed.
    let spec = json!({
        "mtls": {"mode": "PERMISSIVE"},
        "portLevelMtls": {SECOND_PORT.to_string(): {"mode": "STRICT"}},
    });
    peer.change(world, &spec).await?;
    pods.until_open(world).await?;
    let turned_away = |seen: &Seen| seen.reply.is_err();
    until_at(world, "the port closed", &pods.outside, second, turned_away).await?;
    let seen = exchange_at(world, &pods.client, second.0, second.1).await?;
    expect("the mesh's own client served there", &seen, |seen| seen.is_tunnelled())?;
    peer.delete(world).await
}

async fn strict_mesh(world: &World) -> anyhow::Result<()> {
    let pods = Three::make(world, "meshwide").await?;
    let strict = json!({"mtls": {"mode": "STRICT"}});
    root_namespace(world).await?;
    let mesh = Peer::create(world, ROOT_NAMESPACE, "default", &strict).await?;
    let told = async {
        pods.until_closed(world).await?;
        let permissive = json!({"mtls": {"mode": "PERMISSIVE"}});
        let own = Peer::create(world, "meshwide", "own", &permissive).await?;
        pods.until_open(world).await?;
        own.delete(world).await?;
        pods.until_closed(world).await
    };
    let told = Box::pin(told).await;
    // The other scenarios live in the same mesh.
    mesh.delete(world).await?;
    told?;
    pods.until_open(world).await
}

/// Makes it, unless an earlier scenario has.
async fn root_namespace(world: &World) -> anyhow::Result<()> {
    let object =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": ROOT_NAMESPACE}});
    match world.lab.kube().create("/api/v1/namespaces", &object).await {
        Err(error) if error.code() != Some(409) => Err(error.into()),
        _ => Ok(()),
    }
}

/// A PeerAuthentication as the cluster has it.
pub(in crate::scenarios) struct Peer(String);

impl Peer {
    pub(in crate::scenarios) async fn create(
        world: &World,
        namespace: &str,
        name: &str,
        spec: &Value,
    ) -> anyhow::Result<Self> {
        let all = format!("/apis/security.istio.io/v1/namespaces/{namespace}/peerauthentications");
        let object = json!({
            "apiVersion": "security.istio.io/v1",
            "kind": "PeerAuthentication",
            "metadata": {"name": name, "namespace": namespace},
            "spec": spec,
        });
        world.lab.kube().create(&all, &object).await?;
        Ok(Self(format!("{all}/{name}")))
    }

    /// What is not mentioned stays as it is.
    async fn change(&self, world: &World, spec: &Value) -> anyhow::Result<()> {
        world.lab.kube().merge_patch(&self.0, &json!({"spec": spec})).await?;
        Ok(())
    }

    pub(in crate::scenarios) async fn delete(self, world: &World) -> anyhow::Result<()> {
        Ok(world.lab.kube().delete(&self.0).await?)
    }
}
