//! The settings in effect, for operators.

use std::path::Path;

use serde_json::{Value, json};

use super::Config;

impl Config {
    /// The settings in effect, by Istio's names and without the token.
    #[must_use]
    pub fn summary(&self) -> Value {
        let hbone = &self.proxy.hbone;
        json!({
            "localNode": self.node.node,
            "clusterId": self.node.cluster,
            "podName": self.node.pod_name,
            "podNamespace": self.node.pod_namespace,
            "instanceIp": self.node.instance_ip,
            "ztunnelIdentity": self.own_pod.as_ref().map(|own| own.identity.to_string()),
            "network": *self.proxy.network,
            "trustDomain": self.proxy.trust_domain,
            "xdsAddress": self.xds.address.to_string(),
            "altXdsHostname": self.xds.alt_hostname,
            "caAddress": self.ca.address.to_string(),
            "altCaHostname": self.ca.alt_hostname,
            "token": self.token(),
            "secretTtl": duration(self.certificate_ttl),
            "inpodUds": self.workloads.socket,
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

/// As Istio's dump has them.
fn duration(duration: std::time::Duration) -> Value {
    json!({ "secs": duration.as_secs(), "nanos": duration.subsec_nanos() })
}
