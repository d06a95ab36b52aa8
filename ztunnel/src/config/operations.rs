//! What operators see: ports, log, metrics.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::parse::{self, Flag};
use super::raw::Reader;
use crate::admin;
use crate::telemetry::log::{self, Layout};
use crate::telemetry::{self, PolicyLog, SeriesLimits};

pub(super) fn admin(reader: &mut Reader<'_>) -> admin::Settings {
    let v6 = reader.flag("IPV6_ENABLED", Flag::On) == Flag::On;
    let any: IpAddr = if v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    let port = reader.value("proxyAdminPort", zds::port::ADMIN, parse::positive);
    let metrics = reader.value("statsPort", zds::port::METRICS, parse::positive);
    let chosen = reader.text("ADMIN_ADDR").is_some();
    let admin = own_address(reader, "ADMIN_ADDR", (Ipv4Addr::LOCALHOST.into(), port));
    if !admin.ip().is_loopback() {
        reader
            .mistake("ADMIN_ADDR", "who can reach it can end ztunnel: a loopback address expected");
    }
    admin::Settings {
        admin,
        // Who asks for `localhost` may mean either.
        admin_v6: (v6 && !chosen).then(|| SocketAddr::from((Ipv6Addr::LOCALHOST, port))),
        metrics: own_address(reader, "STATS_ADDR", (any, metrics)),
        ready: own_address(reader, "READINESS_ADDR", (any, zds::port::READY)),
    }
}

/// Two ztunnels of one node are in one network namespace when they are host processes:
/// during an upgrade the new one needs other ports for operators.
fn own_address(reader: &mut Reader<'_>, name: &'static str, default: (IpAddr, u16)) -> SocketAddr {
    reader.value(name, default.into(), |text| {
        text.parse().map_err(|_| "an address with port, as 127.0.0.1:15000, expected".to_owned())
    })
}

pub(super) fn log(reader: &mut Reader<'_>) -> log::Settings {
    let layout = reader.value("LOG_FORMAT", Layout::Plain, |text| match text {
        "plain" => Ok(Layout::Plain),
        "json" => Ok(Layout::Json),
        _ => Err("plain or json expected".to_owned()),
    });
    let filter = reader.text("RUST_LOG").unwrap_or_else(|| "info".to_owned());
    let settings = log::Settings { filter, layout };
    if let Err(error) = settings.check() {
        reader.mistake("RUST_LOG", &error.to_string());
    }
    settings
}

pub(super) fn telemetry(reader: &mut Reader<'_>) -> telemetry::Settings {
    let default = SeriesLimits::default();
    let policy_log = match reader.flag("AUTHZ_POLICY_INFO_LOGGING", Flag::Off) {
        Flag::On => PolicyLog::Info,
        Flag::Off => PolicyLog::Debug,
    };
    let series = SeriesLimits {
        most: reader.value("METRICS_MAX_LABEL_SETS", default.most, parse::positive),
        idle: reader.value("METRICS_IDLE_LABEL_SETS", default.idle, parse::positive_duration),
    };
    telemetry::Settings { series, policy_log }
}

/// An explicit deadline wins; else what Kubernetes' grace period leaves.
pub(super) fn termination_deadline(reader: &mut Reader<'_>) -> Duration {
    let default = Duration::from_secs(5);
    let from_grace = |text: &str| {
        let grace = parse::number::<u64>(text)?;
        let seconds = if grace > 10 { grace - 5 } else { grace.saturating_sub(1).max(1) };
        Ok(Duration::from_secs(seconds))
    };
    let grace = reader.value("TERMINATION_GRACE_PERIOD_SECONDS", default, from_grace);
    reader.value("CONNECTION_TERMINATION_DEADLINE", grace, parse::duration)
}
