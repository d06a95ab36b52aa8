//! What the suite does on a cluster, all of it through its API server.
//!
//! ```text
//! kubeconfig ─► Cluster ─► objects: JSON in, JSON out      (objects)
//!                       ├► pods from a typed specification (pod_spec)
//!                       ├► wait, with the object's events  (wait)
//!                       ├► commands in pods, and their logs (exec)
//!                       └► may I? what is this cluster?     (facts)
//! ```

mod command;
mod error;
mod exec;
mod facts;
mod objects;
pub mod paths;
mod pod_spec;
mod wait;

use std::path::Path;

use kube::config::{KubeConfigOptions, Kubeconfig};

pub use command::user_command;
pub use error::AccessError;
pub use exec::Running;
pub use facts::{NodeFacts, Review};
pub use pod_spec::{ContainerSpec, Network, PodSpec, Port, Probes, Reach, Restart, Usual};

/// A cluster, by the rights of one kubeconfig.
#[derive(Clone)]
pub struct Cluster {
    client: kube::Client,
    /// Put on all that is created.
    label: Option<(String, String)>,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").finish_non_exhaustive()
    }
}

impl Cluster {
    /// Reads a kubeconfig, in which the current context counts. Nothing is asked yet.
    ///
    /// # Errors
    /// [`AccessError::Kubeconfig`].
    pub async fn connect(kubeconfig: &Path) -> Result<Self, AccessError> {
        let wrong =
            |problem: String| AccessError::Kubeconfig { file: kubeconfig.to_owned(), problem };
        let read = Kubeconfig::read_from(kubeconfig).map_err(|error| wrong(error.to_string()))?;
        let config = kube::Config::from_custom_kubeconfig(read, &KubeConfigOptions::default())
            .await
            .map_err(|error| wrong(error.to_string()))?;
        let client = kube::Client::try_from(config).map_err(|error| wrong(error.to_string()))?;
        Ok(Self { client, label: None })
    }

    /// The same, but whatever is created gets this label.
    #[must_use]
    pub fn labelling(self, key: &str, value: &str) -> Self {
        Self { label: Some((key.to_owned(), value.to_owned())), ..self }
    }
}
