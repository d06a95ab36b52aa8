//! What the program does instead of being a control plane: steps of a chart's removal.

use std::time::Duration;

use clap::{Args, Subcommand};
use control::{KubeApi, ObjectName};
use tokio::signal::unix::Signal;

/// Steps of a chart's removal.
#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// Removes a DaemonSet and waits until its pods are gone.
    RemoveDaemonSet(About),
    /// Waits until a DaemonSet is ready on all nodes.
    AwaitDaemonSet(About),
    /// Does nothing until it is told to end: for a pod whose work is done.
    Rest,
}

/// Which DaemonSet, and for how long.
#[derive(Debug, Args)]
pub(crate) struct About {
    /// Its name.
    name: String,
    /// Its namespace.
    #[arg(long, env = "POD_NAMESPACE")]
    namespace: String,
    /// In seconds.
    #[arg(long, default_value = "270")]
    patience: u64,
}

/// Does it, or ends when it is told to.
pub(crate) async fn run(task: &Task, [one, other]: [&mut Signal; 2]) -> anyhow::Result<()> {
    let work = async {
        match task {
            Task::RemoveDaemonSet(set) => {
                control::remove_daemon_set(&KubeApi::Infer, &set.object(), set.patience()).await?;
            }
            Task::AwaitDaemonSet(set) => {
                control::await_daemon_set(&KubeApi::Infer, &set.object(), set.patience()).await?;
            }
            Task::Rest => std::future::pending().await,
        }
        Ok(())
    };
    tokio::select! {
        done = work => done,
        // Who rests has done nothing else; who worked has not finished.
        _ = one.recv() => told_to_end(task),
        _ = other.recv() => told_to_end(task),
    }
}

fn told_to_end(task: &Task) -> anyhow::Result<()> {
    match task {
        Task::Rest => Ok(()),
        _ => Err(anyhow::anyhow!("told to end before it was done")),
    }
}

impl About {
    fn object(&self) -> ObjectName {
        ObjectName { namespace: self.namespace.clone(), name: self.name.clone() }
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(self.patience)
    }
}
