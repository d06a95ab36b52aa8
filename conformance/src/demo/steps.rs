//! The chapters.

use std::sync::Arc;

use anyhow::{Context, bail};
use lab::{KubectlError, Pod, Server};

use super::narrator::Narrator;
use crate::observe::{self, Seen, exchange, until};
use crate::scenario::expect;
use crate::world::{APP_PORT, MODE_LABEL, World, in_namespace};

const NAMESPACE: &str = "demo";

const POLICY: &str = r#"apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: no-other
  namespace: demo
spec:
  action: DENY
  rules:
  - from:
    - source:
        principals: ["cluster.local/ns/demo/sa/other"]
"#;

/// The four pods of the story.
struct Cast {
    client: Arc<Pod>,
    server: Arc<Pod>,
    other: Arc<Pod>,
    outside: Arc<Pod>,
}

/// Tells all of it. Returns the server's application, which answers as long as it is held.
pub(super) async fn tell(narrator: &Narrator, world: &World) -> anyhow::Result<Server> {
    let cast = bring_up(narrator, world).await?;
    let server = cast.server.serve(APP_PORT).await?;
    before(narrator, world, &cast).await?;
    label(narrator, world, &cast).await?;
    after(narrator, world, &cast).await?;
    outside(narrator, world, &cast).await?;
    policy(narrator, world, &cast).await?;
    release(narrator, world, &cast).await?;
    Ok(server)
}

async fn bring_up(narrator: &Narrator, world: &World) -> anyhow::Result<Cast> {
    narrator.chapter("Four running pods, none of them in the mesh");
    // Boxed, because four pods in the making are large.
    let make = |name, node| Box::pin(world.pod(in_namespace(NAMESPACE, name, node)));
    let cast = async {
        anyhow::Ok(Cast {
            client: make("client", 1).await?,
            server: make("server", 2).await?,
            other: make("other", 1).await?,
            outside: make("outside", 1).await?,
        })
    };
    let cast = narrator.wait("client, server, other and outside are running", cast).await?;
    kubectl(narrator, world, &["-n", NAMESPACE, "get", "pods", "-o", "wide"]).await?;
    Ok(cast)
}

async fn before(narrator: &Narrator, world: &World, cast: &Cast) -> anyhow::Result<()> {
    narrator.chapter("Before the label: client calls server");
    narrator.say(
        "Each call sends a line with a marker of its own, which the server sends back.\n\
         The wire between the nodes is searched for the marker in clear text; the tunnel's\n\
         port is 15008.",
    );
    let seen = exchange(world, &cast.client, &cast.server).await?;
    narrator.saw(seen.answer());
    narrator.saw(seen.wire());
    expect("the marker on the wire", &seen, |seen| seen.is_plain())
}

async fn label(narrator: &Narrator, world: &World, cast: &Cast) -> anyhow::Result<()> {
    narrator.chapter("The label, on running pods");
    let set = format!("{MODE_LABEL}=ambient");
    kubectl(narrator, world, &["-n", NAMESPACE, "label", "pod", "client", "server", "other", &set])
        .await?;
    for pod in [&cast.client, &cast.server, &cast.other] {
        let captured = world.until_redirection(pod, Some("enabled"));
        narrator.wait(&format!("{} is captured", pod.name()), captured).await?;
    }
    let rules = cast.client.run(&["nft", "list", "table", "inet", "sluice"]).await?.stdout;
    for rule in rules.lines().filter(|line| line.contains("redirect to")) {
        narrator.saw(format!("rule in client's kernel: {}", rule.trim()));
    }
    for (from, to) in [(&cast.client, &cast.server), (&cast.other, &cast.server)] {
        let known = until(world, "an exchange through the tunnel", from, to, Seen::is_tunnelled);
        narrator.quietly("the peers know it", known).await?;
    }
    Ok(())
}

async fn after(narrator: &Narrator, world: &World, cast: &Cast) -> anyhow::Result<()> {
    narrator.chapter("After the label: client calls server ten times");
    let (mut marker, mut tunnel, mut elsewhere) = (0, 0, 0);
    for _ in 0..10 {
        let seen = exchange(world, &cast.client, &cast.server).await?;
        expect("an answer from the client's own address", &seen, |seen| {
            seen.peer_ip() == Some(cast.client.ip())
        })?;
        marker += seen.marker;
        tunnel += seen.tunnel;
        elsewhere += seen.elsewhere;
    }
    narrator.saw(observe::on_the_wire(marker, tunnel, elsewhere));
    expect("only the tunnel on the wire", marker + elsewhere, |count| *count == 0)?;
    narrator.saw(format!(
        "each time answered, and the server saw the client's own address, {}",
        cast.client.ip()
    ));
    let identity = observe::logged_identity(world, &cast.server, &cast.client)
        .context("the server's ztunnel logged no identity for the client")?;
    narrator.saw(format!("the server's ztunnel verified {identity}"));
    expect("the client's identity", identity, |id| id == "spiffe://cluster.local/ns/demo/sa/client")
}

async fn outside(narrator: &Narrator, world: &World, cast: &Cast) -> anyhow::Result<()> {
    narrator.chapter("A pod outside the mesh still reaches the server, in clear text");
    let seen = exchange(world, &cast.outside, &cast.server).await?;
    narrator.saw(seen.answer());
    narrator.saw(seen.wire());
    expect("clear text, and its own address at the server", &seen, |seen| {
        seen.is_plain() && seen.peer_ip() == Some(cast.outside.ip())
    })
}

async fn policy(narrator: &Narrator, world: &World, cast: &Cast) -> anyhow::Result<()> {
    narrator.chapter("A policy denies the identity of other, and only that");
    let file = world.lab.folder().join("policy.yaml");
    std::fs::write(&file, POLICY)?;
    narrator.say(POLICY.lines().skip(6).collect::<Vec<_>>().join("\n"));
    let file = file.display().to_string();
    kubectl(narrator, world, &["apply", "--validate=false", "-f", &file]).await?;
    let denied = until(world, "other refused", &cast.other, &cast.server, Seen::is_refused);
    let seen = narrator.quietly("the policy is known on node2", denied).await?;
    narrator.saw(format!("other:  {}\nother:  {}", seen.answer(), seen.wire()));
    let seen = exchange(world, &cast.client, &cast.server).await?;
    narrator.saw(format!("client: {}\nclient: {}", seen.answer(), seen.wire()));
    expect("client served through the tunnel", &seen, |seen| seen.is_tunnelled())
}

async fn release(narrator: &Narrator, world: &World, cast: &Cast) -> anyhow::Result<()> {
    narrator.chapter("The label is taken off again");
    narrator.say(
        "Peers are told first; the redirection ends seconds later, when all of them can know.",
    );
    let unset = format!("{MODE_LABEL}-");
    kubectl(narrator, world, &["-n", NAMESPACE, "label", "pod", "client", "server", &unset])
        .await?;
    for pod in [&cast.client, &cast.server] {
        let withdrawn = world.until_redirection(pod, None);
        narrator
            .wait(&format!("peers are told to call {} directly", pod.name()), withdrawn)
            .await?;
        let empty = lab::eventually("an empty pod", world.patience, || async {
            observe::residue(pod).await.ok().filter(String::is_empty)
        });
        let what = "holds no rule, route, listener or tracked connection of the mesh";
        narrator.wait(&format!("{} {what}", pod.name()), empty).await?;
    }
    let seen = exchange(world, &cast.client, &cast.server).await?;
    narrator.saw(seen.answer());
    narrator.saw(seen.wire());
    expect("clear text again", &seen, |seen| seen.is_plain())
}

/// What to play with while everything runs.
pub(super) fn invite(narrator: &Narrator, world: &World) {
    narrator.chapter("Everything stays until Ctrl-C. Play with it");
    let folder = world.lab.folder().display();
    narrator.say(format!("export KUBECONFIG={}", world.lab.kubeconfig().display()));
    narrator.say(format!("kubectl -n {NAMESPACE} get pods -o wide"));
    narrator.say(format!("kubectl -n {NAMESPACE} label pod client server {MODE_LABEL}=ambient"));
    let pods = world.pods();
    for pod in &pods {
        let path = pod.path().display();
        narrator.say(format!("nsenter --net={path} nft list ruleset    # {}", pod.name()));
    }
    let named = |name| pods.iter().find(|pod| pod.name() == name);
    if let (Some(client), Some(server)) = (named("client"), named("server")) {
        let (path, ip) = (client.path().display(), server.ip());
        let call = format!("exec 3<>/dev/tcp/{ip}/{APP_PORT}; echo hello >&3; head -n1 <&3");
        narrator.say(format!("nsenter --net={path} bash -c '{call}'    # client calls server"));
    }
    narrator.say(format!("logs: {folder}/node1, {folder}/node2"));
}

/// Runs kubectl and shows the command with what it printed.
async fn kubectl(narrator: &Narrator, world: &World, args: &[&str]) -> anyhow::Result<()> {
    narrator.ran(&format!("kubectl {}", args.join(" ")));
    let ran = match world.lab.kubectl(args).await {
        Err(KubectlError::NotInstalled) => {
            bail!("kubectl is not installed; `scripts/demo` installs Debian's kubernetes-client")
        }
        other => other?,
    };
    if !ran.ok() {
        bail!("kubectl {}: {}", args.join(" "), ran.stderr.trim());
    }
    narrator.saw(ran.stdout.trim_end());
    Ok(())
}
