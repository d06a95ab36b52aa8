//! gRPC over our own TLS to the control plane.

use std::time::Duration;

use tonic::transport::{Channel, Endpoint};

use crate::tls::{ControlConnector, ControlSettings, Cryptography, TlsError};

const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_DEADLINE: Duration = Duration::from_secs(10);

/// Why the control plane cannot be talked to.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The settings make no sense.
    #[error(transparent)]
    Settings(#[from] TlsError),
    /// The address is no URI that gRPC can use, or the connection failed.
    #[error("control plane {address}: {}", causes(.source))]
    Connect {
        /// Which one.
        address: String,
        /// What tonic says.
        source: tonic::transport::Error,
    },
}

/// tonic's own text is "transport error" only; what matters is what lies below it. Some
/// of our errors tell their cause themselves, so it is not told twice.
pub(super) fn causes(error: &tonic::transport::Error) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        let more = cause.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        next = cause.source();
    }
    text
}

/// Makes gRPC channels to one control plane address. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ControlChannel {
    endpoint: Endpoint,
    connector: ControlConnector,
}

impl ControlChannel {
    /// Checks the settings; nothing is connected yet.
    ///
    /// # Errors
    /// [`ChannelError`].
    pub fn new(settings: ControlSettings) -> Result<Self, ChannelError> {
        let address = settings.address.clone();
        let failed = |source| ChannelError::Connect { address: address.to_string(), source };
        let endpoint = Endpoint::new(address.clone())
            .map_err(failed)?
            .connect_timeout(CONNECT_DEADLINE)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_DEADLINE)
            .keep_alive_while_idle(true);
        Ok(Self { endpoint, connector: ControlConnector::new(settings)? })
    }

    /// With other cryptography than the default.
    #[must_use]
    pub fn with_cryptography(self, cryptography: &Cryptography) -> Self {
        Self { connector: self.connector.with_cryptography(cryptography), ..self }
    }

    /// With a packet mark, where traffic without one would be captured.
    #[must_use]
    pub fn with_mark(self, mark: Option<u32>) -> Self {
        Self { connector: self.connector.with_mark(mark), ..self }
    }

    /// Connects now, within 5 s.
    ///
    /// # Errors
    /// [`ChannelError::Connect`] with every cause in its text.
    pub async fn connect(&self) -> Result<Channel, ChannelError> {
        let failed =
            |source| ChannelError::Connect { address: self.endpoint.uri().to_string(), source };
        self.endpoint.connect_with_connector(self.connector.clone()).await.map_err(failed)
    }

    /// Connects with the first call, and again whenever a call finds no connection.
    #[must_use]
    pub fn lazy(&self) -> Channel {
        self.endpoint.connect_with_connector_lazy(self.connector.clone())
    }
}
