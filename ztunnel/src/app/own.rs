//! The tunnel to ztunnel itself.

use std::sync::Arc;

use netns::PodNetns;

use super::AppError;
use crate::config::Config;
use crate::proxy::{PodProxy, ProxyContext};

/// The pod that this ztunnel runs in, where Kubernetes tells which.
#[derive(Debug)]
pub(super) struct Own {
    info: zds::WorkloadInfo,
    netns: PodNetns,
    metrics: u16,
}

impl Own {
    pub(super) fn of(config: &Config) -> Result<Option<Self>, AppError> {
        let Some(pod) = &config.own_pod else { return Ok(None) };
        let info = zds::WorkloadInfo {
            name: pod.name.clone(),
            namespace: pod.identity.namespace().to_owned(),
            service_account: pod.identity.service_account().to_owned(),
        };
        let (netns, metrics) = (PodNetns::current()?, config.admin.metrics.port());
        Ok(Some(Self { info, netns, metrics }))
    }

    /// The pods of the node must not go without a proxy because our metrics do.
    pub(super) async fn start(self, context: &Arc<ProxyContext>) -> Option<PodProxy> {
        let Self { info, netns, metrics } = self;
        match PodProxy::start_own(context, info, netns, metrics).await {
            Ok(proxy) => Some(proxy),
            Err(error) => {
                tracing::error!(%error, "ztunnel's own metrics cannot be read through a tunnel");
                None
            }
        }
    }
}
