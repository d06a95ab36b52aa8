//! The counters behind [`super::Telemetry`].

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::labels::{BuildLabels, OpenLabels, RefusedLabels, TcpLabels};
use super::{ConnectionOpen, Refusal, ResponseFlags};

#[derive(Debug, Default)]
pub(super) struct Metrics {
    opened: Family<TcpLabels, Counter>,
    closed: Family<TcpLabels, Counter>,
    failed: Family<TcpLabels, Counter>,
    sent: Family<TcpLabels, Counter>,
    received: Family<TcpLabels, Counter>,
    open: Family<OpenLabels, Gauge>,
    refused: Family<RefusedLabels, Counter>,
    pub(super) passthrough_unknown_destination: Counter,
}

/// The counters of one connection's label set.
#[derive(Debug)]
pub(super) struct ConnectionMetrics {
    pub(super) closed: Counter,
    pub(super) sent: Counter,
    pub(super) received: Counter,
    pub(super) open: Gauge,
}

impl Metrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        metrics.register_tcp(registry);
        metrics.register_own(registry);
        let build = Family::<BuildLabels, Gauge>::default();
        let tag = env!("CARGO_PKG_VERSION");
        build.get_or_create(&BuildLabels { component: "ztunnel", tag }).set(1);
        registry.register("istio_build", "Which program and version this is", build);
        metrics
    }

    fn register_tcp(&self, registry: &mut Registry) {
        let tcp: [(&str, &str, &Family<TcpLabels, Counter>); 5] = [
            ("istio_tcp_connections_opened", "TCP connections opened", &self.opened),
            ("istio_tcp_connections_closed", "TCP connections closed", &self.closed),
            ("istio_tcp_connections_failed", "TCP connections that did not end well", &self.failed),
            ("istio_tcp_sent_bytes", "Bytes of responses", &self.sent),
            ("istio_tcp_received_bytes", "Bytes of requests", &self.received),
        ];
        for (name, help, family) in tcp {
            registry.register(name, help, family.clone());
        }
    }

    fn register_own(&self, registry: &mut Registry) {
        registry.register(
            "sluice_connections_open",
            "Connections that are being carried now",
            self.open.clone(),
        );
        registry.register(
            "sluice_connections_refused",
            "Connections closed on purpose before a byte was carried",
            self.refused.clone(),
        );
        registry.register(
            "sluice_passthrough_unknown_destination",
            "Connections sent on in clear text, to destinations outside the mesh",
            self.passthrough_unknown_destination.clone(),
        );
    }

    /// Counts the connection and looks its counters up. What is counted at its end has
    /// the same labels, so that opened minus closed is the number that is open; only
    /// failures carry a flag.
    pub(super) fn opened(&self, connection: &ConnectionOpen) -> ConnectionMetrics {
        let labels = TcpLabels::new(connection, ResponseFlags::None);
        self.opened.get_or_create(&labels).inc();
        let open = self.open.get_or_create_owned(&OpenLabels { reporter: connection.reporter });
        open.inc();
        ConnectionMetrics {
            closed: self.closed.get_or_create_owned(&labels),
            sent: self.sent.get_or_create_owned(&labels),
            received: self.received.get_or_create_owned(&labels),
            open,
        }
    }

    pub(super) fn failed(&self, connection: &ConnectionOpen, flags: ResponseFlags) {
        self.failed.get_or_create(&TcpLabels::new(connection, flags)).inc();
    }

    pub(super) fn refused(&self, refusal: &Refusal) {
        self.failed(&refusal.connection, refusal.failure.flags);
        let direction = refusal.connection.direction;
        self.refused.get_or_create(&RefusedLabels { direction, reason: refusal.reason }).inc();
    }
}
