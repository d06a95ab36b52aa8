//! Istio's label sets, as dashboards expect them.

use std::fmt::Write;
use std::sync::Arc;

use mesh::Workload;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};

use super::{ConnectionOpen, Direction, Endpoint, Reporter, ResponseFlags, Security};

/// A label's value; Istio writes `unknown` where there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Text(Option<Arc<str>>);

impl Text {
    fn of(workload: Option<&Workload>, field: impl Fn(&Workload) -> &Arc<str>) -> Self {
        Self(workload.map(field).filter(|text| !text.is_empty()).cloned())
    }

    fn principal(endpoint: &Endpoint) -> Self {
        Self(endpoint.identity.as_ref().map(|identity| identity.to_string().into()))
    }
}

impl EncodeLabelValue for Text {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        encoder.write_str(self.0.as_deref().unwrap_or("unknown"))
    }
}

impl EncodeLabelValue for Reporter {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        encoder.write_str(match self {
            Self::Source => "source",
            Self::Destination => "destination",
        })
    }
}

impl EncodeLabelValue for Direction {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        encoder.write_str(self.as_str())
    }
}

impl EncodeLabelValue for ResponseFlags {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        encoder.write_str(self.as_str())
    }
}

impl EncodeLabelValue for Security {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        encoder.write_str(match self {
            Self::MutualTls => "mutual_tls",
            Self::Plain => "unknown",
        })
    }
}

/// The labels of the `istio_tcp_*` metrics, in Istio's order. Services and localities
/// are not part of the view yet and read `unknown`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct TcpLabels {
    reporter: Reporter,
    source_workload: Text,
    source_canonical_service: Text,
    source_canonical_revision: Text,
    source_workload_namespace: Text,
    source_principal: Text,
    source_app: Text,
    source_version: Text,
    source_cluster: Text,
    destination_service: Text,
    destination_service_namespace: Text,
    destination_service_name: Text,
    destination_workload: Text,
    destination_canonical_service: Text,
    destination_canonical_revision: Text,
    destination_workload_namespace: Text,
    destination_principal: Text,
    destination_app: Text,
    destination_version: Text,
    destination_cluster: Text,
    request_protocol: &'static str,
    response_flags: ResponseFlags,
    connection_security_policy: Security,
    source_region: Text,
    source_zone: Text,
    destination_region: Text,
    destination_zone: Text,
}

impl TcpLabels {
    pub(super) fn new(connection: &ConnectionOpen, flags: ResponseFlags) -> Self {
        let source = connection.src.workload.as_deref();
        let destination = connection.dst.workload.as_deref();
        Self {
            reporter: connection.reporter,
            source_workload: Text::of(source, |workload| &workload.owner),
            source_canonical_service: Text::of(source, |workload| &workload.canonical_name),
            source_canonical_revision: Text::of(source, |workload| &workload.canonical_revision),
            source_workload_namespace: Text::of(source, |workload| &workload.namespace),
            source_principal: Text::principal(&connection.src),
            source_app: Text::of(source, |workload| &workload.canonical_name),
            source_version: Text::of(source, |workload| &workload.canonical_revision),
            source_cluster: Text::of(source, |workload| &workload.cluster),
            destination_service: Text::default(),
            destination_service_namespace: Text::default(),
            destination_service_name: Text::default(),
            destination_workload: Text::of(destination, |workload| &workload.owner),
            destination_canonical_service: Text::of(destination, |w| &w.canonical_name),
            destination_canonical_revision: Text::of(destination, |w| &w.canonical_revision),
            destination_workload_namespace: Text::of(destination, |workload| &workload.namespace),
            destination_principal: Text::principal(&connection.dst),
            destination_app: Text::of(destination, |workload| &workload.canonical_name),
            destination_version: Text::of(destination, |workload| &workload.canonical_revision),
            destination_cluster: Text::of(destination, |workload| &workload.cluster),
            request_protocol: "tcp",
            response_flags: flags,
            connection_security_policy: connection.security,
            source_region: Text::default(),
            source_zone: Text::default(),
            destination_region: Text::default(),
            destination_zone: Text::default(),
        }
    }
}

/// Labels of the gauge of open connections.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OpenLabels {
    pub(super) reporter: Reporter,
}

/// Labels of the counter of refusals.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct RefusedLabels {
    pub(super) direction: Direction,
    pub(super) reason: &'static str,
}

/// Labels of `istio_build`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct BuildLabels {
    pub(super) component: &'static str,
    pub(super) tag: &'static str,
}
