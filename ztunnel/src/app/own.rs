//! The tunnel to ztunnel itself.

use std::sync::Arc;

use netns::Workplace;

use crate::config::Config;
use crate::proxy::{PodProxy, ProxyContext, Role};

/// The pod that this ztunnel runs in, where Kubernetes tells which.
#[derive(Debug)]
pub(super) struct Own {
    info: zds::WorkloadInfo,
    metrics: u16,
}

impl Own {
    pub(super) fn of(config: &Config) -> Option<Self> {
        let pod = config.own_pod.as_ref().filter(|_| config.proxy.role == Role::Proxy)?;
        let info = zds::WorkloadInfo {
            name: pod.name.clone(),
            namespace: pod.identity.namespace().to_owned(),
            service_account: pod.identity.service_account().to_owned(),
        };
        Some(Self { info, metrics: config.admin.metrics.port() })
    }

    /// The pods of the node must not go without a proxy because our metrics do.
    pub(super) async fn start(self, context: &Arc<ProxyContext>) -> Option<PodProxy> {
        let Self { info, metrics } = self;
        match PodProxy::start_own(context, info, Workplace::Own, metrics).await {
            Ok(proxy) => Some(proxy),
            Err(error) => {
                tracing::error!(%error, "ztunnel's own metrics cannot be read through a tunnel");
                None
            }
        }
    }
}
