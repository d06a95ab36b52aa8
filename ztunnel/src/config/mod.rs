//! Settings: the environment as strings, then types per room. All mistakes are told at
//! once, because each attempt of an operator is a roll-out.
//!
//! The names and defaults are those of Istio's ztunnel. A setting for something that this
//! version does not have is an error: whoever set it counts on it.

mod dns;
mod duration;
mod identity;
mod inpod;
mod mode;
mod node;
mod operations;
mod parse;
mod proxy;
mod proxy_config;
mod raw;
mod similar;
mod source;
mod summary;
mod threads;
mod unsupported;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::identity::ExtraHeaders;
use crate::source::NodeInfo;
use crate::telemetry::{self, log};
use crate::tls::{self, ControlSettings, RootSource};
use crate::{admin, hbone};
use raw::Reader;

pub use mode::Mode;
pub use node::OwnPod;
pub use raw::Raw;
pub use source::Source;

/// Where Istio's charts mount the roots of the control plane.
const DEFAULT_ROOT: &str = "./var/run/secrets/istio/root-cert.pem";

/// Settings of the whole process, one part per room.
#[derive(Debug)]
pub struct Config {
    /// Who we are to the control plane.
    pub node: NodeInfo,
    /// The pod that we run in, when Kubernetes tells.
    pub own_pod: Option<OwnPod>,
    /// Where the mesh view comes from.
    pub source: Source,
    /// Where certificates come from.
    pub ca: ControlSettings,
    /// Path of our token, or the token itself; none: the place where Kubernetes mounts it.
    pub token: Option<String>,
    /// How long a certificate shall live.
    pub certificate_ttl: Duration,
    /// Headers of the operator's own for the certificate service.
    pub ca_headers: ExtraHeaders,
    /// Versions, cryptography, revocation.
    pub tls: tls::Settings,
    /// Whom we serve.
    pub mode: Mode,
    /// Listeners and tunnels of the pods.
    pub proxy: crate::proxy::Settings,
    /// Where operators ask.
    pub admin: admin::Settings,
    /// What is logged.
    pub log: log::Settings,
    /// What is told about connections.
    pub telemetry: telemetry::Settings,
    /// Threads that carry traffic.
    pub worker_threads: usize,
    /// How long connections may take to finish when the process is told to stop; also those
    /// in a tunnel whose client's certificate has expired.
    pub termination_deadline: Duration,
    /// What looks wrong but does not keep us from starting.
    pub warnings: Vec<String>,
}

/// Everything that is wrong with the environment.
#[derive(Debug, thiserror::Error)]
pub struct Mistakes(Vec<String>);

impl Mistakes {
    /// One sentence per mistake; never empty.
    #[must_use]
    pub fn each(&self) -> &[String] {
        &self.0
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the settings in the environment cannot be used:")?;
        self.0.iter().try_for_each(|mistake| write!(f, "\n  {mistake}"))
    }
}

impl Config {
    /// Reads the settings out of `raw`.
    ///
    /// # Errors
    /// [`Mistakes`], all of them.
    pub fn parse(raw: &Raw) -> Result<Self, Mistakes> {
        let mut reader = Reader::new(raw);
        let mode = mode::mode(&mut reader);
        let termination_deadline = operations::termination_deadline(&mut reader);
        let drain_deadline = termination_deadline;
        let proxy = crate::proxy::Settings { drain_deadline, ..proxy::proxy(&mut reader, &mode) };
        let config = Self {
            node: node::node(&mut reader, &mode),
            own_pod: node::own_pod(&mut reader, proxy.trust_domain.as_deref(), &mode),
            source: source::source(&mut reader, |reader| {
                control(reader, ["XDS_ADDRESS", "XDS_ROOT_CA", "ALT_XDS_HOSTNAME"])
            }),
            ca: control(&mut reader, ["CA_ADDRESS", "CA_ROOT_CA", "ALT_CA_HOSTNAME"]),
            token: reader.text("AUTH_TOKEN"),
            certificate_ttl: reader.value(
                "SECRET_TTL",
                Duration::from_secs(24 * 3600),
                parse::positive_duration,
            ),
            ca_headers: identity::ca_headers(&mut reader),
            tls: identity::tls(&mut reader),
            mode,
            proxy,
            admin: operations::admin(&mut reader),
            log: operations::log(&mut reader),
            telemetry: operations::telemetry(&mut reader),
            worker_threads: threads::worker_threads(&mut reader),
            termination_deadline,
            warnings: Vec::new(),
        };
        unsupported::check(&mut reader);
        let (warnings, mistakes) = reader.finish();
        if mistakes.is_empty() { Ok(Self { warnings, ..config }) } else { Err(Mistakes(mistakes)) }
    }

    /// Mark of what we say to the control plane. Nobody captures that in a pod of ztunnel's
    /// own, but on a machine the rules capture what they do not know.
    #[must_use]
    pub fn control_mark(&self) -> Option<u32> {
        match self.mode {
            Mode::Shared(_) => None,
            Mode::Dedicated(_) => self.proxy.packet_mark,
        }
    }
}

fn control(reader: &mut Reader<'_>, names: [&'static str; 3]) -> ControlSettings {
    let [address, root, hostname] = names;
    let in_kubernetes = reader.text("KUBERNETES_SERVICE_HOST").is_some();
    let default = if in_kubernetes {
        "https://istiod.istio-system.svc:15012"
    } else {
        "https://localhost:15012"
    };
    if address == "CA_ADDRESS" && reader.is_empty(address) {
        reader.mistake(address, "a ztunnel without certificates is not supported by this version");
    }
    let default = http::Uri::from_static(default);
    ControlSettings {
        address: reader.value(address, default, parse::https),
        root: reader.value(
            root,
            RootSource::File(PathBuf::from(DEFAULT_ROOT)),
            identity::root_source,
        ),
        alt_hostname: reader.text(hostname),
    }
}

fn hbone(reader: &mut Reader<'_>, default: &hbone::Settings) -> hbone::Settings {
    let settings = hbone::Settings {
        stream_window: reader.value(
            "HTTP2_STREAM_WINDOW_SIZE",
            default.stream_window,
            parse::window,
        ),
        connection_window: reader.value(
            "HTTP2_CONNECTION_WINDOW_SIZE",
            default.connection_window,
            parse::window,
        ),
        frame_size: reader.value("HTTP2_FRAME_SIZE", default.frame_size, parse::frame_size),
        streams_per_connection: reader.value(
            "POOL_MAX_STREAMS_PER_CONNECTION",
            default.streams_per_connection,
            parse::positive,
        ),
        idle_release: reader.value(
            "POOL_UNUSED_RELEASE_TIMEOUT",
            default.idle_release,
            parse::positive_duration,
        ),
        ..default.clone()
    };
    if settings.connection_window < settings.stream_window {
        reader.mistake(
            "HTTP2_CONNECTION_WINDOW_SIZE",
            "smaller than HTTP2_STREAM_WINDOW_SIZE: one stalled stream would block all others",
        );
    }
    settings
}

#[cfg(test)]
mod tests;
