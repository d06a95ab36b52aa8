//! ztunnel's own pod: nobody captures it, but the mesh may want to read its metrics
//! through a tunnel, as policies demand of everybody else.

use std::sync::Arc;

use netns::Workplace;

use super::context::{ProxyContext, SourceAddress};
use super::dial::Dialer;
use super::listen;
use super::pod::{PodProxy, PodShared};
use super::refusal::Refusal;
use super::{ProxyError, target};
use crate::dns::{Forwarder, Resolver, Sockets};

/// Ports of a pod that peers may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OpenPorts {
    /// Whatever an application listens on.
    All,
    /// This.
    Only(u16),
}

impl OpenPorts {
    pub(super) fn check(self, port: u16) -> Result<(), Refusal> {
        match self {
            Self::All => target::own_port(port),
            Self::Only(open) if port == open => Ok(()),
            Self::Only(_) => Err(Refusal::ClosedPort(port)),
        }
    }
}

impl PodProxy {
    /// Serves tunnels toward the pod that ztunnel itself runs in, whose namespace is
    /// `netns`. They lead to `port`, and nowhere else. Nothing in there redirects, so
    /// ztunnel dials itself under its own address.
    ///
    /// # Errors
    /// [`ProxyError`]. "Address in use" means that another ztunnel serves this namespace.
    pub async fn start_own(
        context: &Arc<ProxyContext>,
        info: zds::WorkloadInfo,
        netns: Workplace,
        port: u16,
    ) -> Result<Self, ProxyError> {
        let settings = &context.settings;
        let name = format!("{}/{}", info.namespace, info.name);
        let identity = PodShared::identity(context, &info)
            .map_err(|source| ProxyError::Identity { pod: name.clone(), source })?;
        let home = context.workers.least_busy().clone();
        let listener = listen::open_for_tunnels(context, &netns, &home).await;
        let listener = listener.map_err(|error| error.of(&name))?;
        let sockets = Sockets::new(context.fence.clone(), netns.clone(), settings.packet_mark);
        let forwarder = Forwarder::new(sockets, settings.dns.upstreams.clone());
        let resolver = Resolver::new(Arc::new(forwarder), context.telemetry.dns().clone());
        let dialer = Dialer { netns: netns.clone(), source_address: SourceAddress::Pod };
        let mut shared = PodShared::new(context, identity, info, dialer, resolver);
        shared.open_ports = OpenPorts::Only(port);
        tracing::info!(pod = %name, port, "ztunnel's own metrics are served by tunnel");
        Ok(Self::of(shared, home, netns, listener))
    }
}
