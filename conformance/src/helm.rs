//! Charts on a cluster of the harness.

use std::time::Duration;

use anyhow::{Context, bail};
use lab::cluster::harness::{Cluster, Tools};

/// How long a workload may take to get ready.
const READY: &str = "180s";
/// Deadline of a command.
const COMMAND: Duration = Duration::from_secs(240);

/// A cluster, and the tools to install with.
pub(crate) struct Helm<'a> {
    pub cluster: &'a Cluster,
    pub tools: &'a Tools,
    /// How long an import of an image may take.
    pub patience: Duration,
}

impl Helm<'_> {
    /// Installs a chart, with values as `--set` takes them and further words.
    pub(crate) async fn install(
        &self,
        name: &str,
        chart: &str,
        namespace: &str,
        values: &[&str],
        more: &[&str],
    ) -> anyhow::Result<()> {
        let mut words =
            vec!["install", name, chart, "--namespace", namespace, "--create-namespace"];
        words.extend(more);
        for value in values {
            words.extend(["--set", value]);
        }
        let program = self.tools.built("helm", "helm")?;
        let ran = self.cluster.as_administrator(&program, &words, Vec::new(), COMMAND).await;
        let ran = ran.context("run helm")?;
        if !ran.ok() {
            bail!("helm refuses to install {name}: {}", ran.stderr.trim());
        }
        Ok(())
    }

    /// Imports an image that lies in the folder of a group of tools.
    pub(crate) async fn import(&self, group: &str, file: &str) -> anyhow::Result<()> {
        let archive = self.tools.built(group, file)?;
        Ok(self.cluster.import(&archive, self.patience).await?)
    }

    /// Waits until a workload is ready.
    pub(crate) async fn wait_for(&self, namespace: &str, workload: &str) -> anyhow::Result<()> {
        let timeout = format!("--timeout={READY}");
        let words = ["--namespace", namespace, "rollout", "status", workload, &timeout];
        let ran = self.cluster.kubectl(self.tools, &words, Vec::new(), COMMAND).await?;
        if ran.ok() {
            return Ok(());
        }
        let words = ["--namespace", namespace, "get", "pods,events", "--output=wide"];
        let seen = self.cluster.kubectl(self.tools, &words, Vec::new(), COMMAND).await?;
        bail!("{workload} does not get ready: {}\n{}", ran.stderr.trim(), seen.stdout);
    }
}
