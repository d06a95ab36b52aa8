//! The kubelet's probes of captured pods that take no clear text.

pub(super) mod rules;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use lab::{AppError, HealthServer, Node, Place, Pod, Probe, Server, eventually};
use serde_json::json;

use super::policy::peers::Peer;
use crate::scenario::{Scenario, expect, scenario};
use crate::world::{APP_PORT, MODE_LABEL, World, in_namespace};

/// Declared under a name.
const HEALTH_PORT: u16 = 9090;
/// Declared for gRPC.
const GRPC_PORT: u16 = 9091;
/// Who probes, as pods see it.
const MARKERS: [&str; 2] = ["169.254.7.127", "fd16:9254:7127:1337:ffff:ffff:ffff:ffff"];
/// How long a forger waits for an answer that must not come.
const IN_VAIN: Duration = Duration::from_secs(2);

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(
            "probes-pass-where-clear-text-does-not",
            "the node's HTTP, TCP and gRPC probes reach a STRICT pod, and see that it is down",
            pass
        ),
        scenario!(
            "only-the-node-probes",
            "at a STRICT pod's probe ports neighbours and other nodes are turned away",
            only_the_node
        ),
        scenario!(
            "nat-to-a-probe-port-is-no-probe",
            "what a NodePort or a service's address leads to a probe port is turned away",
            nat
        ),
        scenario!(
            "forged-probe-source",
            "a neighbour that takes the probes' address, and the gateway's place, gets nowhere",
            forged
        ),
    ]
}

/// A pod that takes no clear text, on node 1, and a neighbour outside the mesh.
struct Strict {
    pod: Arc<Pod>,
    neighbour: Arc<Pod>,
    health: HealthServer,
    grpc: HealthServer,
    _app: Server,
    peer: Peer,
}

impl Strict {
    async fn make(world: &World, namespace: &str) -> anyhow::Result<Self> {
        let spec = in_namespace(namespace, "probed", 1)
            .label(MODE_LABEL, "ambient")
            .port("health", HEALTH_PORT)
            .probe(Probe::HttpNamed("health".into()))
            .probe(Probe::Grpc(GRPC_PORT));
        let pod = world.pod(spec).await?;
        let neighbour = world.pod(in_namespace(namespace, "neighbour", 1)).await?;
        let health = pod.serve_probes(HEALTH_PORT).await?;
        let grpc = pod.serve_probes(GRPC_PORT).await?;
        let app = pod.serve(APP_PORT).await?;
        let spec = json!({"mtls": {"mode": "STRICT"}});
        let peer = Peer::create(world, namespace, "all", &spec).await?;
        let strict = Self { pod, neighbour, health, grpc, _app: app, peer };
        eventually("clear text is turned away", world.patience, || async {
            let line = strict.neighbour.exchange(strict.pod.addr(APP_PORT), "clear").await;
            line.is_err().then_some(())
        })
        .await?;
        Ok(strict)
    }

    fn addrs(&self, port: u16) -> Vec<SocketAddr> {
        self.pod.ips().iter().map(|ip| SocketAddr::new(*ip, port)).collect()
    }

    /// Both kinds of probes at every address, from `place`.
    async fn probe(&self, place: &Place) -> Result<(), AppError> {
        for to in self.addrs(HEALTH_PORT) {
            place.probe(to, &Probe::Http(HEALTH_PORT)).await?;
            place.probe(to, &Probe::Tcp(HEALTH_PORT)).await?;
        }
        for to in self.addrs(GRPC_PORT) {
            place.probe(to, &Probe::Grpc(GRPC_PORT)).await?;
        }
        Ok(())
    }

    /// Every probe from `place` is turned away: connections may be taken, but the
    /// application sees nothing.
    async fn turns_away(&self, place: &Place) -> anyhow::Result<()> {
        let before = self.peers().len();
        for to in self.addrs(HEALTH_PORT) {
            let got = place.probe(to, &Probe::Http(HEALTH_PORT)).await;
            expect("no answer", format!("{got:?}"), |_| got.is_err())?;
        }
        for to in self.addrs(GRPC_PORT) {
            let got = place.probe(to, &Probe::Grpc(GRPC_PORT)).await;
            expect("no answer", format!("{got:?}"), |_| got.is_err())?;
        }
        expect("nothing at the application", self.peers().len(), |now| *now == before)
    }

    fn peers(&self) -> Vec<IpAddr> {
        self.health.peers().into_iter().chain(self.grpc.peers()).collect()
    }

    async fn end(self, world: &World) -> anyhow::Result<()> {
        self.peer.delete(world).await
    }
}

async fn pass(world: &World) -> anyhow::Result<()> {
    let strict = Strict::make(world, "probes").await?;
    let node = world.lab.node(1).place();
    // The very first probe counts: ADD has answered.
    strict.probe(node).await?;
    let peers = strict.peers();
    let markers = MARKERS.map(|marker| marker.parse::<IpAddr>());
    expect("only the probes' own address", format!("{peers:?}"), |_| {
        !peers.is_empty() && peers.iter().all(|peer| markers.contains(&Ok(*peer)))
    })?;
    for to in strict.addrs(APP_PORT) {
        let got = async { node.connect(to).await?.send_line("no probe").await }.await;
        expect("no answer at an undeclared port", format!("{got:?}"), |_| got.is_err())?;
    }
    let Strict { pod, health, peer, .. } = strict;
    drop(health);
    let down = node.probe(pod.addr(HEALTH_PORT), &Probe::Http(HEALTH_PORT)).await;
    expect("an application that is down is seen", format!("{down:?}"), |_| down.is_err())?;
    peer.delete(world).await
}

async fn only_the_node(world: &World) -> anyhow::Result<()> {
    let strict = Strict::make(world, "probers").await?;
    let far = world.pod(in_namespace("probers", "far", 2)).await?;
    for place in [strict.neighbour.place(), far.place(), world.lab.node(2).place()] {
        strict.turns_away(place).await.with_context(|| format!("from {}", place.name()))?;
    }
    strict.probe(world.lab.node(1).place()).await?;
    strict.end(world).await
}

async fn nat(world: &World) -> anyhow::Result<()> {
    let strict = Strict::make(world, "nodeports").await?;
    let node = world.lab.node(1);
    for ip in strict.pod.ips() {
        lead(node, *ip).await?;
    }
    let before = strict.peers().len();
    let own = [IpAddr::V4(node.address()), "fd00:30::11".parse()?];
    for ip in strict.pod.ips() {
        let own = own.into_iter().find(|own| own.is_ipv4() == ip.is_ipv4()).context("a family")?;
        let to = SocketAddr::new(own, 30_090);
        for place in [world.lab.hub(), world.lab.node(2).place(), node.place()] {
            let got = place.probe(to, &Probe::Http(HEALTH_PORT)).await;
            let expected = format!("no answer to {}", place.name());
            expect(&expected, format!("{got:?}"), |_| got.is_err())?;
        }
    }
    expect("nothing at the application", strict.peers().len(), |now| *now == before)?;
    // The way is right: without the policy it leads to the application.
    let hub = world.lab.hub().clone();
    let (family, ip) = (own, strict.pod.ip());
    let Strict { peer, health, .. } = strict;
    peer.delete(world).await?;
    let own = family.into_iter().find(|own| own.is_ipv4() == ip.is_ipv4()).context("a family")?;
    let to = SocketAddr::new(own, 30_090);
    eventually("the NodePort answers", world.patience, || async {
        hub.probe(to, &Probe::Http(HEALTH_PORT)).await.ok()
    })
    .await?;
    expect("the proxied client at the application", format!("{:?}", health.peers()), |_| {
        health.peers().iter().all(|peer| !MARKERS.contains(&peer.to_string().as_str()))
    })?;
    node.run(&["nft", "delete", "table", "inet", "services"]).await?;
    Ok(())
}

/// What kube-proxy does for a NodePort whose endpoint is on this node, with clients hidden
/// behind the node.
async fn lead(node: &Node, to: IpAddr) -> anyhow::Result<()> {
    let family = if to.is_ipv4() { "ip" } else { "ip6" };
    let to = SocketAddr::new(to, HEALTH_PORT);
    let matches = if family == "ip" { "ipv4" } else { "ipv6" };
    let dnat = format!("meta nfproto {matches} tcp dport 30090 dnat {family} to {to}");
    let commands = [
        "add table inet services".to_owned(),
        "add chain inet services pre { type nat hook prerouting priority -100; }".into(),
        "add chain inet services out { type nat hook output priority -100; }".into(),
        "add chain inet services post { type nat hook postrouting priority 100; }".into(),
        format!("add rule inet services pre {dnat}"),
        format!("add rule inet services out {dnat}"),
        format!("add rule inet services post meta nfproto {matches} ct status dnat masquerade"),
    ];
    for command in commands {
        let ran = node.run(&["nft", &command]).await?;
        expect("the node leads connections on", ran.stderr, String::is_empty)?;
    }
    Ok(())
}

async fn forged(world: &World) -> anyhow::Result<()> {
    let strict = Strict::make(world, "forgers").await?;
    let forger = &strict.neighbour;
    for ip in strict.pod.ips() {
        let marker = MARKERS[usize::from(ip.is_ipv6())];
        let (family, bits) = if ip.is_ipv4() { ("-4", "32") } else { ("-6", "128") };
        let whole = format!("{marker}/{bits}");
        // The forger has the address, and uses it; the pod takes the forger for its gateway.
        succeed(forger, &["ip", family, "address", "add", &whole, "dev", "eth0"]).await?;
        let route = ["ip", family, "route", "add", &format!("{ip}/{bits}"), "dev", "eth0"];
        let route: Vec<_> = route.into_iter().chain(["src", marker]).collect();
        succeed(forger, &route).await?;
        let shown = succeed(&strict.pod, &["ip", family, "route", "show", "default"]).await?;
        let gateway = shown.split_whitespace().nth(2).context("the pod's gateway")?;
        let shown = succeed(forger, &["ip", "-o", "link", "show", "eth0"]).await?;
        let mac = shown.split("link/ether ").nth(1).and_then(|rest| rest.split(' ').next());
        let mac = mac.context("the forger's address on the link")?;
        let poison = ["ip", "neigh", "replace", gateway, "lladdr", mac, "dev", "eth0"];
        let poison: Vec<_> = poison.into_iter().chain(["nud", "permanent"]).collect();
        succeed(&strict.pod, &poison).await?;
        let before = strict.peers().len();
        let to = SocketAddr::new(*ip, HEALTH_PORT);
        let place = forger.place();
        let probe = Probe::Tcp(HEALTH_PORT);
        let got = tokio::time::timeout(IN_VAIN, place.probe(to, &probe)).await;
        let answered = matches!(got, Ok(Ok(())));
        expect("no connection", format!("{got:?}"), |_| !answered)?;
        expect("nothing at the application", strict.peers().len(), |now| *now == before)?;
    }
    strict.end(world).await
}

async fn succeed(pod: &Pod, argv: &[&str]) -> anyhow::Result<String> {
    let ran = pod.run(argv).await?;
    expect(&argv.join(" "), ran.stderr, String::is_empty)?;
    Ok(ran.stdout)
}
