//! How long the certificates will last, as gauges without a label per identity.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::Certificates;

/// Counted at each scrape.
#[derive(Debug)]
struct Expiry(Certificates);

impl Collector for Expiry {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let ends = self.0.ends();
        let missing = ends.iter().filter(|end| end.is_none_or(|end| end <= SystemTime::now()));
        let first = ends.iter().flatten().min().and_then(|end| end.duration_since(UNIX_EPOCH).ok());
        let gauges = [
            ("sluice_certificates", "Identities that certificates are kept for", ends.len() as f64),
            (
                "sluice_certificates_missing",
                "Identities without a valid certificate",
                missing.count() as f64,
            ),
            (
                "sluice_certificates_first_expiry_timestamp_seconds",
                "When the first certificate expires, if it is not renewed (Unix time, 0: none)",
                first.unwrap_or_default().as_secs_f64(),
            ),
        ];
        for (name, help, value) in gauges {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        Ok(())
    }
}

/// Registers what is told about `certificates`.
pub(super) fn register(certificates: &Certificates, failures: &Counter, registry: &mut Registry) {
    registry.register_collector(Box::new(Expiry(certificates.clone())));
    registry.register(
        "sluice_certificate_failures",
        "Attempts to have a certificate that failed",
        failures.clone(),
    );
}
