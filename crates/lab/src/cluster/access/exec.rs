//! Commands in pods, by WebSocket.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::Api;
use kube::api::{AttachParams, AttachedProcess};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};

use super::{AccessError, Cluster};
use crate::process::Ran;

/// Room for what a command prints while nobody reads.
const BUFFER: usize = 64 << 10;

/// A command that runs in a pod. Dropping breaks the connection off; the command then finds
/// its input closed.
pub struct Running {
    process: AttachedProcess,
    stdout: BufReader<Box<dyn AsyncRead + Send + Unpin>>,
    pod: String,
    command: String,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { pod, command, .. } = self;
        f.debug_struct("Running").field("pod", pod).field("command", command).finish()
    }
}

impl Cluster {
    /// Runs a command in a pod's container `app` to its end.
    ///
    /// # Errors
    /// [`AccessError`] when it cannot be run or takes longer than `deadline`. A command that
    /// ran and failed is an outcome, in [`Ran::code`].
    pub async fn run(
        &self,
        namespace: &str,
        pod: &str,
        argv: &[&str],
        deadline: Duration,
    ) -> Result<Ran, AccessError> {
        let started = self.start(namespace, pod, argv, deadline).await?;
        started.finish(deadline).await
    }

    /// Starts a command in a pod's container `app` whose input and output are the caller's.
    ///
    /// # Errors
    /// [`AccessError`] when it cannot be run.
    pub async fn start(
        &self,
        namespace: &str,
        pod: &str,
        argv: &[&str],
        deadline: Duration,
    ) -> Result<Running, AccessError> {
        let command = argv.join(" ");
        let what = format!("run `{command}` in pod {namespace}/{pod}");
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let attach = AttachParams::default()
            .container("app")
            .stdin(true)
            .stdout(true)
            .stderr(true)
            .max_stdout_buf_size(BUFFER)
            .max_stderr_buf_size(BUFFER);
        let attached = tokio::time::timeout(deadline, pods.exec(pod, argv.to_vec(), &attach)).await;
        let mut process = match attached {
            Ok(attached) => attached.map_err(|error| AccessError::of(what, error))?,
            Err(_) => return Err(AccessError::Deadline { what, deadline }),
        };
        let stdout: Box<dyn AsyncRead + Send + Unpin> = match process.stdout() {
            Some(stdout) => Box::new(stdout),
            None => Box::new(tokio::io::empty()),
        };
        let pod = format!("{namespace}/{pod}");
        Ok(Running { process, stdout: BufReader::new(stdout), pod, command })
    }
}

impl Running {
    /// The next line that it prints; `None` when there are no more.
    ///
    /// # Errors
    /// [`AccessError::Deadline`], or that the connection broke.
    pub async fn line(&mut self, deadline: Duration) -> Result<Option<String>, AccessError> {
        let mut line = String::new();
        match tokio::time::timeout(deadline, self.stdout.read_line(&mut line)).await {
            Ok(Ok(0)) => Ok(None),
            Ok(Ok(_)) => Ok(Some(line.trim_end().to_owned())),
            Ok(Err(error)) => Err(self.failed(error.to_string())),
            Err(_) => Err(AccessError::Deadline { what: self.what(), deadline }),
        }
    }

    /// Closes its input, by which all commands of the suite know that they are to end, and
    /// waits for that.
    ///
    /// # Errors
    /// As [`Cluster::run`].
    pub async fn finish(mut self, deadline: Duration) -> Result<Ran, AccessError> {
        if let Some(mut stdin) = self.process.stdin() {
            // A command that has ended by itself has no input any more.
            let _ = stdin.shutdown().await;
        }
        let (pod, command) = (self.pod.clone(), self.command.clone());
        let failed = |problem| AccessError::Exec { pod, command, problem };
        match tokio::time::timeout(deadline, self.rest()).await {
            Ok(ran) => ran.map_err(failed),
            Err(_) => Err(failed(format!("not done after {deadline:?}"))),
        }
    }

    async fn rest(mut self) -> Result<Ran, String> {
        let status = self.process.take_status();
        let stderr = self.process.stderr();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let read_err = async {
            match stderr {
                Some(mut stderr) => stderr.read_to_end(&mut err).await,
                None => Ok(0),
            }
        };
        let read = tokio::join!(self.stdout.read_to_end(&mut out), read_err);
        read.0.and(read.1).map_err(|error| error.to_string())?;
        let status = match status {
            Some(status) => status.await,
            None => None,
        };
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let code = exit_code(status.as_ref())?;
        Ok(Ran { code: Some(code), stdout: text(out), stderr: text(err) })
    }

    fn failed(&self, problem: String) -> AccessError {
        AccessError::Exec { pod: self.pod.clone(), command: self.command.clone(), problem }
    }

    fn what(&self) -> String {
        format!("`{}` in pod {}", self.command, self.pod)
    }
}

/// The kubelet says "Success", or gives the code as the cause `ExitCode`.
fn exit_code(status: Option<&Status>) -> Result<i32, String> {
    let Some(status) = status else {
        return Err("the connection ended without a status".to_owned());
    };
    if status.status.as_deref() == Some("Success") {
        return Ok(0);
    }
    let causes = status.details.iter().flat_map(|details| details.causes.iter().flatten());
    let code = causes
        .filter(|cause| cause.reason.as_deref() == Some("ExitCode"))
        .find_map(|cause| cause.message.as_ref()?.parse().ok());
    code.ok_or_else(|| status.message.clone().unwrap_or_else(|| "it failed".to_owned()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_exit_code_is_read_from_the_status() {
        let status = |value| serde_json::from_value::<Status>(value).unwrap();
        let failed = status(json!({"status": "Failure", "reason": "NonZeroExitCode",
            "details": {"causes": [{"reason": "ExitCode", "message": "3"}]}}));
        assert_eq!(exit_code(Some(&failed)), Ok(3));
        assert_eq!(exit_code(Some(&status(json!({"status": "Success"})))), Ok(0));
        let broken = status(json!({"status": "Failure", "message": "no such container"}));
        assert_eq!(exit_code(Some(&broken)), Err("no such container".to_owned()));
        assert!(exit_code(None).is_err());
    }
}
