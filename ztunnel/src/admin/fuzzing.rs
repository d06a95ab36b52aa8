//! What fuzz targets reach of this room: its servers, on a connection of their own.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::reload::Layer;
use tracing_subscriber::{EnvFilter, Registry};

use super::routes::{Port, Routes};
use super::serve::serve;
use super::{Admin, Dump, Readiness};
use crate::identity::{CaClient, CaSettings, Certificates, ControlChannel, Token};
use crate::telemetry::Telemetry;
use crate::telemetry::log::Levels;
use crate::tls::{ControlSettings, RootSource};

/// The administration of a ztunnel that has nothing.
#[derive(Debug)]
pub struct Idle {
    routes: Routes,
    /// Levels can be changed as long as it lives.
    _filter: Layer<EnvFilter, Registry>,
}

impl Idle {
    /// Needs a runtime. `None` when the parts cannot be made.
    #[must_use]
    pub fn new() -> Option<Self> {
        let channel = ControlChannel::new(ControlSettings {
            address: http::Uri::from_static("https://127.0.0.1:1"),
            root: RootSource::File("/nonexistent".into()),
            alt_hostname: None,
        });
        let settings = CaSettings { cluster: "c".to_owned(), ttl: std::time::Duration::MAX };
        let token = Token::from_setting(Some("none"));
        let certificates = Certificates::new(CaClient::new(&channel.ok()?, token, settings));
        let mut registry = prometheus_client::registry::Registry::default();
        let (filter, levels) = Levels::new(EnvFilter::new("info"));
        let dump = Dump {
            view: crate::source::channel().1,
            certificates,
            workloads: crate::workloads::Handle::ended(),
            telemetry: Telemetry::new(&mut registry),
            config: serde_json::Value::Null,
        };
        let (readiness, quit) = (Readiness::default(), CancellationToken::new());
        let admin = Arc::new(Admin { readiness, registry, dump, levels, quit });
        Some(Self { routes: Routes::new(admin), _filter: filter })
    }

    /// Serves one connection of each port.
    pub async fn serve<Io: AsyncRead + AsyncWrite + Unpin>(&self, ports: [Io; 3]) {
        let [admin, metrics, ready] = ports;
        serve(admin, Port::Admin, &self.routes).await;
        serve(metrics, Port::Metrics, &self.routes).await;
        serve(ready, Port::Ready, &self.routes).await;
    }

    /// The levels as they are now.
    #[must_use]
    pub fn levels(&self) -> String {
        self.routes.admin.levels.current().unwrap_or_default()
    }
}
