//! Istio's label sets, as dashboards expect them.

use std::fmt::{Error, Write};
use std::sync::Arc;

use mesh::{Identity, Service, ServiceKey, Workload};
use prometheus_client::encoding::{
    EncodeLabel, EncodeLabelSet, EncodeLabelValue, LabelSetEncoder, LabelValueEncoder,
};

use super::{ConnectionOpen, Direction, Endpoint, Reporter, ResponseFlags, Security};

/// A label's value; Istio writes `unknown` where there is none. Values are capped: some
/// come from peers.
type Text = Option<Arc<str>>;

/// Longer than any name in Kubernetes, and than a SPIFFE id of such names.
const LONGEST: usize = 1024;

/// What the `istio_tcp_*` metrics are counted by, but for the response flags. All of it
/// is shared with the view: a label set allocates nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum TcpLabels {
    /// Of a connection.
    Known(Box<Known>),
    /// Of all connections for which there was no room.
    Other,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Known {
    reporter: Reporter,
    security: Security,
    source: End,
    service: Option<Dialled>,
    destination: End,
}

/// The labels of the service that was dialled.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Dialled {
    key: ServiceKey,
    name: Arc<str>,
}

impl Dialled {
    fn of(service: &Service) -> Self {
        Self { key: service.key.clone(), name: Arc::clone(&service.name) }
    }
}

/// The labels of one end. Istio's `app` and `version` are the canonical service and its
/// revision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct End {
    workload: Text,
    canonical_service: Text,
    canonical_revision: Text,
    namespace: Text,
    principal: Option<Identity>,
    cluster: Text,
    region: Text,
    zone: Text,
}

impl End {
    fn of(endpoint: &Endpoint) -> Self {
        let workload = endpoint.workload.as_deref();
        let text = |field: fn(&Workload) -> &Arc<str>| {
            workload.map(field).filter(|text| !text.is_empty()).cloned()
        };
        Self {
            workload: text(|workload| &workload.owner),
            canonical_service: text(|workload| &workload.canonical_name),
            canonical_revision: text(|workload| &workload.canonical_revision),
            namespace: text(|workload| &workload.namespace),
            principal: endpoint.identity.clone(),
            cluster: text(|workload| &workload.cluster),
            region: text(|workload| &workload.locality.region),
            zone: text(|workload| &workload.locality.zone),
        }
    }
}

impl TcpLabels {
    pub(super) fn of(connection: &ConnectionOpen) -> Self {
        Self::Known(Box::new(Known {
            reporter: connection.reporter,
            security: connection.security,
            source: End::of(&connection.src),
            service: connection.service.as_deref().map(Dialled::of),
            destination: End::of(&connection.dst),
        }))
    }

    /// With the flags, in Istio's order.
    pub(super) fn flagged(&self, flags: ResponseFlags) -> Flagged<'_> {
        Flagged { labels: self, flags }
    }
}

/// A complete label set.
#[derive(Debug)]
pub(super) struct Flagged<'a> {
    labels: &'a TcpLabels,
    flags: ResponseFlags,
}

/// The labels between `reporter` and `request_protocol`.
const OF_THE_ENDS: [&str; 19] = [
    "source_workload",
    "source_canonical_service",
    "source_canonical_revision",
    "source_workload_namespace",
    "source_principal",
    "source_app",
    "source_version",
    "source_cluster",
    "destination_service",
    "destination_service_namespace",
    "destination_service_name",
    "destination_workload",
    "destination_canonical_service",
    "destination_canonical_revision",
    "destination_workload_namespace",
    "destination_principal",
    "destination_app",
    "destination_version",
    "destination_cluster",
];

impl EncodeLabelSet for Flagged<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), Error> {
        let mut put = Put(encoder);
        match self.labels {
            TcpLabels::Known(known) => known.encode(&mut put, self.flags),
            TcpLabels::Other => other(&mut put, self.flags),
        }
    }
}

fn other(put: &mut Put<'_, '_>, flags: ResponseFlags) -> Result<(), Error> {
    put.text("reporter", "other")?;
    OF_THE_ENDS.iter().try_for_each(|name| put.text(name, "other"))?;
    put.text("request_protocol", "tcp")?;
    put.text("response_flags", flags.as_str())?;
    put.text("connection_security_policy", "other")?;
    let places = ["source_region", "source_zone", "destination_region", "destination_zone"];
    places.into_iter().try_for_each(|name| put.text(name, "other"))
}

impl Known {
    fn encode(&self, put: &mut Put<'_, '_>, flags: ResponseFlags) -> Result<(), Error> {
        let (source, destination) = (&self.source, &self.destination);
        let service = self.service.as_ref();
        put.text("reporter", self.reporter.as_str())?;
        put.value("source_workload", &source.workload)?;
        put.value("source_canonical_service", &source.canonical_service)?;
        put.value("source_canonical_revision", &source.canonical_revision)?;
        put.value("source_workload_namespace", &source.namespace)?;
        put.principal("source_principal", source.principal.as_ref())?;
        put.value("source_app", &source.canonical_service)?;
        put.value("source_version", &source.canonical_revision)?;
        put.value("source_cluster", &source.cluster)?;
        put.option("destination_service", service.map(|it| it.key.hostname()))?;
        put.option("destination_service_namespace", service.map(|it| it.key.namespace()))?;
        put.option("destination_service_name", service.map(|it| &*it.name))?;
        put.value("destination_workload", &destination.workload)?;
        put.value("destination_canonical_service", &destination.canonical_service)?;
        put.value("destination_canonical_revision", &destination.canonical_revision)?;
        put.value("destination_workload_namespace", &destination.namespace)?;
        put.principal("destination_principal", destination.principal.as_ref())?;
        put.value("destination_app", &destination.canonical_service)?;
        put.value("destination_version", &destination.canonical_revision)?;
        put.value("destination_cluster", &destination.cluster)?;
        put.text("request_protocol", "tcp")?;
        put.text("response_flags", flags.as_str())?;
        put.text("connection_security_policy", self.security.as_str())?;
        put.value("source_region", &source.region)?;
        put.value("source_zone", &source.zone)?;
        put.value("destination_region", &destination.region)?;
        put.value("destination_zone", &destination.zone)
    }
}

/// Writes one label after the other.
struct Put<'a, 'b>(&'a mut LabelSetEncoder<'b>);

impl Put<'_, '_> {
    fn text(&mut self, name: &str, value: &str) -> Result<(), Error> {
        (name, capped(value)).encode(self.0.encode_label())
    }

    fn option(&mut self, name: &str, value: Option<&str>) -> Result<(), Error> {
        self.text(name, value.filter(|text| !text.is_empty()).unwrap_or("unknown"))
    }

    fn value(&mut self, name: &str, value: &Text) -> Result<(), Error> {
        self.option(name, value.as_deref())
    }

    fn principal(&mut self, name: &str, identity: Option<&Identity>) -> Result<(), Error> {
        match identity {
            Some(identity) => self.text(name, &identity.to_string()),
            None => self.text(name, "unknown"),
        }
    }
}

fn capped(text: &str) -> &str {
    &text[..text.floor_char_boundary(LONGEST)]
}

impl Reporter {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
        }
    }
}

impl Security {
    /// Istio's word; what is not mutual TLS is `unknown`.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::MutualTls => "mutual_tls",
            Self::Plain => "unknown",
        }
    }
}

impl EncodeLabelValue for Direction {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), Error> {
        encoder.write_str(self.as_str())
    }
}

impl EncodeLabelValue for Reporter {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), Error> {
        encoder.write_str(self.as_str())
    }
}
