//! Settings: the environment as strings, then types per room. All mistakes are told at
//! once, because each attempt of an operator is a roll-out.
//!
//! The names and defaults are those of Istio's ztunnel. A setting for something that this
//! version does not have is an error: whoever set it counts on it.

mod parse;
mod proxy;
mod raw;
mod unsupported;

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::source::NodeInfo;
use crate::telemetry::log::{self, Layout};
use crate::tls::{ControlSettings, RootSource};
use crate::{admin, hbone, workloads};
use raw::Reader;

pub use raw::Raw;

/// Where Istio's charts mount the roots of the control plane.
const DEFAULT_ROOT: &str = "./var/run/secrets/istio/root-cert.pem";

/// Settings of the whole process, one part per room.
#[derive(Debug)]
pub struct Config {
    /// Who we are to the control plane.
    pub node: NodeInfo,
    /// Where the mesh view comes from.
    pub xds: ControlSettings,
    /// Where certificates come from.
    pub ca: ControlSettings,
    /// Path of our token, or the token itself; none: the place where Kubernetes mounts it.
    pub token: Option<String>,
    /// How long a certificate shall live.
    pub certificate_ttl: Duration,
    /// The session with the node agent.
    pub workloads: workloads::Settings,
    /// Listeners and tunnels of the pods.
    pub proxy: crate::proxy::Settings,
    /// Where operators ask.
    pub admin: admin::Settings,
    /// What is logged.
    pub log: log::Settings,
    /// Threads that carry traffic.
    pub worker_threads: usize,
    /// How long connections may take to finish when the process is told to stop.
    pub termination_deadline: Duration,
    /// What looks wrong but does not keep us from starting.
    pub warnings: Vec<String>,
}

impl Config {
    /// The settings in effect, for operators: without the token.
    #[must_use]
    pub fn summary(&self) -> serde_json::Value {
        let token = match &self.token {
            Some(text) if !Path::new(text).exists() => "given literally",
            Some(path) => path.as_str(),
            None => "from the default path",
        };
        serde_json::json!({
            "nodeName": self.node.node,
            "clusterId": self.node.cluster,
            "podName": self.node.pod_name,
            "podNamespace": self.node.pod_namespace,
            "instanceIp": self.node.instance_ip,
            "network": *self.proxy.network,
            "trustDomain": self.proxy.trust_domain,
            "xdsAddress": self.xds.address.to_string(),
            "caAddress": self.ca.address.to_string(),
            "token": token,
            "secretTtlSeconds": self.certificate_ttl.as_secs(),
            "inpodUds": self.workloads.socket,
            "packetMark": self.proxy.packet_mark,
            "workerThreads": self.worker_threads,
            "terminationDeadlineSeconds": self.termination_deadline.as_secs_f64(),
            "log": self.log.filter,
        })
    }
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
        let config = Self {
            node: node(&mut reader),
            xds: control(&mut reader, ["XDS_ADDRESS", "XDS_ROOT_CA", "ALT_XDS_HOSTNAME"]),
            ca: control(&mut reader, ["CA_ADDRESS", "CA_ROOT_CA", "ALT_CA_HOSTNAME"]),
            token: reader.text("AUTH_TOKEN"),
            certificate_ttl: reader.value(
                "SECRET_TTL",
                Duration::from_secs(24 * 3600),
                parse::positive_duration,
            ),
            workloads: workloads(&mut reader),
            proxy: proxy::proxy(&mut reader),
            admin: admin(&mut reader),
            log: log(&mut reader),
            worker_threads: worker_threads(&mut reader),
            termination_deadline: termination_deadline(&mut reader),
            warnings: Vec::new(),
        };
        unsupported::check(&mut reader);
        let (warnings, mistakes) = reader.finish();
        if mistakes.is_empty() { Ok(Self { warnings, ..config }) } else { Err(Mistakes(mistakes)) }
    }
}

fn node(reader: &mut Reader<'_>) -> NodeInfo {
    let cluster = reader.text("CLUSTER_ID").or_else(|| reader.text("ISTIO_META_CLUSTER_ID"));
    NodeInfo {
        node: reader.required("NODE_NAME", "the Kubernetes node this ztunnel serves"),
        cluster: cluster.unwrap_or_else(|| "Kubernetes".to_owned()),
        pod_name: reader.text("POD_NAME").unwrap_or_default(),
        pod_namespace: reader.text("POD_NAMESPACE").unwrap_or_default(),
        // Control planes want some address; this one says nothing.
        instance_ip: reader.text("INSTANCE_IP").unwrap_or_else(|| "1.1.1.1".to_owned()),
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
    if reader.is_empty(address) {
        reader.mistake(address, "a ztunnel without control plane is not supported by this version");
    }
    let default = http::Uri::from_static(default);
    ControlSettings {
        address: reader.value(address, default, parse::https),
        root: reader.value(root, RootSource::File(PathBuf::from(DEFAULT_ROOT)), root_source),
        alt_hostname: reader.text(hostname),
    }
}

fn root_source(text: &str) -> Result<RootSource, String> {
    if text == "SYSTEM" {
        return Err("the system's roots are not supported by this version, name a file".to_owned());
    }
    Ok(if text.contains("-----BEGIN") {
        RootSource::Pem(text.to_owned())
    } else {
        RootSource::File(PathBuf::from(text))
    })
}

fn workloads(reader: &mut Reader<'_>) -> workloads::Settings {
    let socket = reader.text("INPOD_UDS").unwrap_or_else(|| zds::DEFAULT_SOCKET.to_owned());
    workloads::Settings::new(PathBuf::from(socket))
}

fn admin(reader: &mut Reader<'_>) -> admin::Settings {
    let any = match reader.flag("IPV6_ENABLED", parse::Flag::On) {
        parse::Flag::On => Ipv6Addr::UNSPECIFIED.into(),
        parse::Flag::Off => Ipv4Addr::UNSPECIFIED.into(),
    };
    admin::Settings {
        admin: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), zds::port::ADMIN),
        metrics: SocketAddr::new(any, zds::port::METRICS),
        ready: SocketAddr::new(any, zds::port::READY),
    }
}

fn log(reader: &mut Reader<'_>) -> log::Settings {
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

fn worker_threads(reader: &mut Reader<'_>) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let default = cores.div_ceil(4).max(2);
    reader.value("ZTUNNEL_WORKER_THREADS", default, |text| parse::threads(text, cores))
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

/// An explicit deadline wins; else what Kubernetes' grace period leaves.
fn termination_deadline(reader: &mut Reader<'_>) -> Duration {
    let default = Duration::from_secs(5);
    let from_grace = |text: &str| {
        let grace = parse::number::<u64>(text)?;
        let seconds = if grace > 10 { grace - 5 } else { grace.saturating_sub(1).max(1) };
        Ok(Duration::from_secs(seconds))
    };
    let grace = reader.value("TERMINATION_GRACE_PERIOD_SECONDS", default, from_grace);
    reader.value("CONNECTION_TERMINATION_DEADLINE", grace, parse::duration)
}

#[cfg(test)]
mod tests;
