//! The real kubectl, as a user has it.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::json;

use crate::process::{self, Job, ProcessError, Ran};

/// Why kubectl has no outcome.
#[derive(Debug, thiserror::Error)]
pub enum KubectlError {
    /// It is not installed; tests that need it are skipped by this name.
    #[error("kubectl is not in PATH; Debian has it in the package kubernetes-client")]
    NotInstalled,
    /// It could not be run to its end.
    #[error(transparent)]
    Process(#[from] ProcessError),
}

/// Runs kubectl in the host's namespace. Its caches go to `home`.
pub(crate) async fn run(
    kubeconfig: &Path,
    home: &Path,
    args: &[&str],
) -> Result<Ran, KubectlError> {
    let program = process::find_program("kubectl").ok_or(KubectlError::NotInstalled)?;
    let mut job = Job::new(program).env("KUBECONFIG", kubeconfig).env("HOME", home);
    job.args = args.iter().map(Into::into).collect();
    Ok(process::run(None, job).await?)
}

/// A kubeconfig for a server without TLS and authentication. JSON is YAML.
pub(crate) fn kubeconfig(server: SocketAddr) -> String {
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "lab", "cluster": {"server": format!("http://{server}")}}],
        "users": [{"name": "lab", "user": {}}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "lab"}}],
        "current-context": "lab",
    });
    format!("{config:#}\n")
}
