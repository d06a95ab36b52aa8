//! The settings in effect, for operators.

use std::path::Path;

use serde_json::{Value, json};
use zds::WorkloadInfo;

use super::Config;
use crate::dns;
use crate::proxy::Role;
use crate::source::Scope;

impl Config {
    /// The settings in effect, by Istio's names and without the token.
    #[must_use]
    pub fn summary(&self) -> Value {
        let (hbone, xds) = (&self.proxy.hbone, self.source.xds.as_ref());
        json!({
            "localNode": self.node.node,
            "clusterId": self.node.cluster,
            "podName": self.node.pod_name,
            "podNamespace": self.node.pod_namespace,
            "instanceIp": self.node.instance_ip,
            "ztunnelIdentity": self.own_pod.as_ref().map(|own| own.identity.to_string()),
            "clusterDomain": *self.proxy.dns.domain,
            "dnsProxy": self.proxy.dns.mode == dns::Mode::Serve,
            "preferedServiceNamespace": self.proxy.dns.preferred_namespace.as_deref(),
            "network": *self.proxy.network,
            "trustDomain": self.proxy.trust_domain,
            "xdsAddress": xds.map(|xds| xds.address.to_string()),
            "altXdsHostname": xds.and_then(|xds| xds.alt_hostname.as_deref()),
            "xdsOnDemand": self.source.rules.scope == Scope::OnDemand,
            "xdsMassRemoval": format!("{:?}", self.source.rules.mass_removal),
            "caAddress": self.ca.address.to_string(),
            "altCaHostname": self.ca.alt_hostname,
            "token": self.token(),
            "secretTtl": duration(self.certificate_ttl),
            "tls": self.tls.summary(),
            "proxy": self.proxy.role == Role::Proxy,
            "proxyMode": self.mode.name(),
            "proxyWorkloadInformation": self.mode.machine().map(workload),
            "inpodUds": self.mode.socket(),
            "packetMark": self.proxy.packet_mark,
            "numWorkerThreads": self.worker_threads,
            "selfTerminationDeadline": duration(self.termination_deadline),
            "adminAddr": self.admin.admin,
            "statsAddr": self.admin.metrics,
            "readinessAddr": self.admin.ready,
            "windowSize": hbone.stream_window,
            "connectionWindowSize": hbone.connection_window,
            "frameSize": hbone.frame_size,
            "poolMaxStreamsPerConn": hbone.streams_per_connection,
            "poolUnusedReleaseTimeout": duration(hbone.idle_release),
            "maxLabelSets": self.telemetry.series.most,
            "log": self.log.filter,
        })
    }

    fn token(&self) -> &str {
        match &self.token {
            Some(text) if !Path::new(text).exists() => "given literally",
            Some(path) => path,
            None => "from the default path",
        }
    }
}

fn workload(info: &WorkloadInfo) -> Value {
    let WorkloadInfo { name, namespace, service_account } = info;
    json!({ "name": name, "namespace": namespace, "serviceAccount": service_account })
}

/// As Istio's dump has them.
fn duration(duration: std::time::Duration) -> Value {
    json!({ "secs": duration.as_secs(), "nanos": duration.subsec_nanos() })
}
