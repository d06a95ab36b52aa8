//! The access log: target `access`, one line per connection, keys and order as Istio's.
//!
//! As there, `dst.addr` is where the next ztunnel listens, and `dst.hbone_addr` what was
//! asked of it.

use std::time::Duration;

use tracing::Level;

use super::{ConnectionOpen, Endpoint, Failure, Refusal, Reporter};

/// Bytes of a connection, from the view of the pod's ztunnel: `sent` went back to the
/// source, `received` came from it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bytes {
    pub(super) sent: u64,
    pub(super) received: u64,
}

/// The fields that every line has, then those of the line at hand.
macro_rules! access_event {
    ($level:expr, $message:literal, $connection:expr $(, $($rest:tt)*)?) => {{
        let connection: &ConnectionOpen = $connection;
        let (src, dst, hop) = (&connection.src, &connection.dst, connection.hop.as_ref());
        tracing::event!(
            target: "access",
            $level,
            {
                src.addr = %src.addr,
                src.workload = name(src),
                src.namespace = namespace(src),
                src.identity = identity(src).as_deref(),
                src.cluster = cluster(src),
                dst.addr = %hop.map_or(dst.addr, |hop| hop.peer),
                dst.hbone_addr = hop.map(|hop| tracing::field::display(&hop.target)),
                dst.service = connection.service.as_ref().map(|service| service.key.hostname()),
                dst.workload = name(dst),
                dst.namespace = namespace(dst),
                dst.identity = identity(dst).as_deref(),
                dst.cluster = cluster(dst),
                direction = connection.direction.as_str(),
                $($($rest)*)?
            },
            $message
        );
    }};
}

pub(super) fn opened(connection: &ConnectionOpen) {
    access_event!(Level::DEBUG, "connection opened", connection);
}

pub(super) fn closed(
    connection: &ConnectionOpen,
    bytes: Bytes,
    duration: Duration,
    failure: Option<&Failure>,
) {
    let duration = format!("{}ms", duration.as_millis());
    // The line tells the pod's own story. Toward a server, what the source gave us is
    // what was sent.
    let (sent, received) = match connection.reporter {
        Reporter::Source => (bytes.received, bytes.sent),
        Reporter::Destination => (bytes.sent, bytes.received),
    };
    match failure {
        None => access_event!(
            Level::INFO,
            "connection complete",
            connection,
            bytes_sent = sent,
            bytes_recv = received,
            duration = duration.as_str(),
        ),
        Some(failure) => access_event!(
            Level::ERROR,
            "connection complete",
            connection,
            bytes_sent = sent,
            bytes_recv = received,
            duration = duration.as_str(),
            error = failure.text.as_str(),
        ),
    }
}

pub(super) fn refused(refusal: &Refusal) {
    access_event!(
        Level::WARN,
        "connection failed",
        &refusal.connection,
        error = refusal.failure.text.as_str(),
        reason = refusal.reason,
    );
}

fn name(endpoint: &Endpoint) -> Option<&str> {
    endpoint.workload.as_deref().map(|workload| workload.name())
}

fn namespace(endpoint: &Endpoint) -> Option<&str> {
    endpoint.workload.as_deref().map(|workload| &*workload.namespace)
}

fn cluster(endpoint: &Endpoint) -> Option<&str> {
    endpoint.workload.as_deref().map(|workload| &*workload.cluster)
}

fn identity(endpoint: &Endpoint) -> Option<String> {
    endpoint.identity.as_ref().map(ToString::to_string)
}
