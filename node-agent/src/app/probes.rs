//! Wiring of probes: what tells them from other traffic on this node.

use std::collections::BTreeSet;
use std::net::IpAddr;

use anyhow::Context;
use capture::Options;
use netns::PodNetns;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::admin::Readiness;
use crate::reconcile::Reconciler;
use crate::rules::{HostMetrics, HostProbes, NodeAddresses, ProbeSource, Rules};

/// What was found out before the first pod is looked at.
pub(super) struct Probes {
    pub(super) host: HostProbes,
    /// Where probes come from.
    pub(super) sources: BTreeSet<IpAddr>,
    addresses: Option<NodeAddresses>,
}

impl Probes {
    pub(super) async fn prepare(
        source: ProbeSource,
        options: &Options,
        rules: &Rules,
        metrics: HostMetrics,
    ) -> anyhow::Result<Self> {
        let off = HostProbes::off();
        if source == ProbeSource::Off {
            return Ok(Self { host: off, sources: BTreeSet::new(), addresses: None });
        }
        let node = PodNetns::current().context("open the node's network namespace")?;
        if source == ProbeSource::Marker {
            let host = HostProbes::new(rules, node, metrics);
            let sources = options.probes.sources.clone();
            return Ok(Self { host, sources, addresses: None });
        }
        // What an earlier start with another setting has left would give probes an address
        // that no pod knows any more.
        if let Err(error) = HostProbes::new(rules, node.clone(), metrics).remove().await {
            tracing::warn!(%error, "probe rules of an earlier start stay on the host");
        }
        let addresses = NodeAddresses::open(rules, &node).await;
        let addresses = addresses.context("find the node's addresses")?;
        let sources = addresses.read().await.context("find the node's addresses")?;
        tracing::info!(?sources, "probes are told by the node's addresses");
        Ok(Self { host: off, sources, addresses: Some(addresses) })
    }

    /// Nothing waits for what is begun here: pods are captured also on a node where probes
    /// do not work.
    pub(super) fn spawn(
        self,
        tasks: &mut JoinSet<()>,
        reconciler: &Reconciler,
        readiness: Readiness,
        stop: &CancellationToken,
    ) {
        let Self { host, sources, addresses } = self;
        let options = reconciler.settings().options.clone();
        tasks.spawn(host.clone().keep(stop.clone()));
        tasks.spawn(host.clone().test(options, stop.clone()));
        tasks.spawn(remark(host, readiness, stop.clone()));
        if let Some(addresses) = addresses {
            let (reconciler, stop) = (reconciler.clone(), stop.clone());
            let tell = move |now: &BTreeSet<IpAddr>| reconciler.probe_from(now);
            tasks.spawn(addresses.follow(sources, tell, stop));
        }
    }
}

async fn remark(host: HostProbes, readiness: Readiness, stop: CancellationToken) {
    let mut troubles = host.troubles();
    loop {
        let known: Vec<_> = troubles.borrow_and_update().values().cloned().collect();
        readiness.remark("probes", &known.join("; "));
        tokio::select! {
            () = stop.cancelled() => return,
            changed = troubles.changed() => if changed.is_err() { return },
        }
    }
}
