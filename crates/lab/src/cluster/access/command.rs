//! A command of the user's own, by which a cluster is changed from outside: `helm uninstall`.

use std::path::Path;
use std::time::Duration;

use crate::process::{self, Job, ProcessError, Ran};

/// Runs a line of shell with this kubeconfig and without any other setting. Its home is the
/// kubeconfig's folder.
///
/// # Errors
/// [`ProcessError`] when it cannot be run or takes longer than `deadline`. A command that ran
/// and failed is an outcome, in [`Ran::code`].
pub async fn user_command(
    line: &str,
    kubeconfig: &Path,
    deadline: Duration,
) -> Result<Ran, ProcessError> {
    let home = kubeconfig.parent().unwrap_or(Path::new("/"));
    let mut job = Job::of(&["sh", "-c", line]).env("KUBECONFIG", kubeconfig).env("HOME", home);
    job.deadline = deadline;
    process::run(None, job).await
}
