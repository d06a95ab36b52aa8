//! A lab with two nodes and two pairs of pods on them: one pair captured, one not.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use lab::{Lab, Node, Options, Part, Pod, PodSpec, Subject, eventually};
use netns::Fence;

use crate::load::{Applications, Client};

/// Label that puts a pod into the mesh.
pub(crate) const MODE_LABEL: &str = "istio.io/dataplane-mode";
pub(crate) const NAMESPACE: &str = "bench";
/// The machine may be slow.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A client on node 1, a server on node 2.
pub(crate) struct Pair {
    pub client: Client,
    pub applications: Applications,
}

/// The lab, and who lives there.
pub(crate) struct Town {
    pub lab: Lab,
    pub captured: Pair,
    pub plain: Pair,
    pub fence: Fence,
}

impl Town {
    pub(crate) async fn start(subject: Subject) -> anyhow::Result<Self> {
        let options = Options { subject: Some(subject), patience: PATIENCE, ..Options::default() };
        let lab = Lab::start(options).await.context("bring up the lab")?;
        match Self::settle(&lab).await {
            Ok((captured, plain, fence)) => Ok(Self { lab, captured, plain, fence }),
            Err(error) => {
                lab.teardown().await;
                Err(error)
            }
        }
    }

    async fn settle(lab: &Lab) -> anyhow::Result<(Pair, Pair, Fence)> {
        let fence = Fence::new(2)?;
        lab.start_mesh().await.context("start the mesh")?;
        let captured = pair(lab, &fence, "captured", "ambient").await?;
        let plain = pair(lab, &fence, "plain", "none").await?;
        until_tunnelled(lab, &captured).await?;
        Ok((captured, plain, fence))
    }

    /// The processes that carry the traffic: of the client's node, of the server's.
    pub(crate) async fn ztunnels(&self) -> anyhow::Result<[u32; 2]> {
        Ok([pid(self.lab.node(1)).await?, pid(self.lab.node(2)).await?])
    }

    pub(crate) async fn tear_down(self) -> anyhow::Result<()> {
        drop((self.captured, self.plain));
        let left = self.lab.teardown().await;
        if !left.is_clean() {
            bail!("left behind: {left}");
        }
        Ok(())
    }
}

/// A pod in the mesh, or out of it.
pub(crate) async fn pod(lab: &Lab, name: &str, node: u8, mode: &str) -> anyhow::Result<Pod> {
    let spec = PodSpec::new(NAMESPACE, name, node).service_account(name).label(MODE_LABEL, mode);
    lab.create_pod(spec).await.with_context(|| format!("create pod {name}"))
}

async fn pair(lab: &Lab, fence: &Fence, name: &str, mode: &str) -> anyhow::Result<Pair> {
    let client = pod(lab, &format!("{name}-client"), 1, mode).await?;
    let server = pod(lab, &format!("{name}-server"), 2, mode).await?;
    let applications = Applications::start(fence, server.place().netns())?;
    let client = Client { netns: client.place().netns().clone(), to: server.ip() };
    Ok(Pair { client, applications })
}

/// ztunnel of a node, running.
pub(crate) fn ztunnel(node: &Node) -> anyhow::Result<&Part> {
    node.ztunnel().context("a lab without a subject")
}

async fn pid(node: &Node) -> anyhow::Result<u32> {
    ztunnel(node)?.pid().await.with_context(|| format!("ztunnel of {} ended", node.name()))
}

/// The sum of one metric of a node's ztunnel over all series that say so.
pub(crate) async fn metric(node: &Node, name: &str, says: &str) -> anyhow::Result<f64> {
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, zds::port::METRICS));
    let (status, text) = node.place().http_get(at, "/metrics").await?;
    anyhow::ensure!(status == 200, "metrics of {}: status {status}", node.name());
    let lines = text.lines().filter(|line| line.starts_with(name) && line.contains(says));
    Ok(lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
}

/// Waits until a connection of the pair is carried over mutual TLS.
async fn until_tunnelled(lab: &Lab, pair: &Pair) -> anyhow::Result<()> {
    eventually("a tunnel between the captured pods", PATIENCE, || async {
        let kept = tokio::task::block_in_place(|| pair.client.keep()).ok()?;
        let open = metric(lab.node(1), "sluice_connections_open", "mutual_tls").await.ok()?;
        drop(kept);
        pair.applications.let_go();
        (open > 0.0).then_some(())
    })
    .await?;
    Ok(())
}

/// Waits until both ztunnels say that they carry nothing.
pub(crate) async fn until_quiet(lab: &Lab, patience: Duration) -> anyhow::Result<()> {
    let start = Instant::now();
    loop {
        let mut open = 0.0;
        for node in lab.nodes() {
            open += metric(node, "sluice_connections_open", "").await?;
        }
        if open == 0.0 {
            return Ok(());
        }
        if start.elapsed() > patience {
            bail!("{open} connections are still open {patience:?} after all applications closed");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
