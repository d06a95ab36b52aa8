//! The only room that speaks to the Kubernetes API: it watches, it has tokens reviewed, and
//! it keeps the root. What it learns leaves it as facts.

mod changes;
mod leave;
mod objects;
mod own;
mod review;
mod watch;

use std::time::Duration;

pub use leave::{LeaveError, ready_everywhere, remove};
pub use own::OwnError;
pub(crate) use own::{Own, Stored};
pub(crate) use review::{Reviewer, TokenProblem};
pub(crate) use watch::watch;

use crate::settings::KubeApi;

/// A connection that does not come about in this time never will.
const CONNECT: Duration = Duration::from_secs(5);

/// Why no client could be made.
#[derive(Debug, thiserror::Error)]
pub enum KubeError {
    /// Neither a kubeconfig nor a service account.
    #[error("no access to a Kubernetes API is configured (KUBECONFIG, or in-cluster): {0}")]
    Infer(#[source] Box<kube::config::InferConfigError>),
    /// Not a URL.
    #[error("the Kubernetes API address {url:?} is no URL: {source}")]
    Url {
        /// What was given.
        url: String,
        /// What is wrong with it.
        source: http::uri::InvalidUri,
    },
    /// The configuration has something in it that does not work.
    #[error("the Kubernetes client cannot be set up: {0}")]
    Client(#[source] Box<kube::Error>),
}

/// Makes a client; nothing is sent yet.
pub(crate) async fn client(api: &KubeApi) -> Result<kube::Client, KubeError> {
    let mut config = match api {
        KubeApi::Infer => {
            kube::Config::infer().await.map_err(|error| KubeError::Infer(Box::new(error)))?
        }
        KubeApi::Url(url) => {
            let uri = url.parse().map_err(|source| KubeError::Url { url: url.clone(), source })?;
            kube::Config::new(uri)
        }
    };
    config.connect_timeout = Some(CONNECT);
    kube::Client::try_from(config).map_err(|error| KubeError::Client(Box::new(error)))
}
