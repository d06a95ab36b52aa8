//! What a scenario acts on: a cluster, and the namespaces that it makes there.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use lab::cluster::access::{Cluster, NodeFacts, paths};
use serde_json::Value;
use tokio::sync::OnceCell;

use super::observers::Observers;
use super::parts::Parts;
use super::room::{self, Room};
use super::run::Restarts;
use crate::scenario::Skip;

/// How long a pod may take to start: images may have to be pulled, and twenty may start.
pub(crate) const START: Duration = Duration::from_secs(180);
/// How long anything else observable may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Label of all namespaces that the suite makes; its value is the run.
pub(crate) const RUN_LABEL: &str = "sluice.dev/conformance";

/// A cluster, and what the running scenario has made in it.
pub(crate) struct Ground {
    /// The cluster.
    pub cluster: Cluster,
    /// The image that has this program.
    pub image: String,
    /// Nodes on which pods can run, by name.
    pub nodes: Vec<NodeFacts>,
    /// The mesh's own workloads.
    pub parts: Parts,
    /// Where scenarios may make things.
    pub room: Room,
    /// Whether the mesh's own pods may be ended.
    pub restarts: Restarts,
    /// What removes the mesh from the cluster, for the last scenario.
    pub removal: Option<UserCommand>,
    /// What cuts the power of the node `$NODE` and starts it again.
    pub reboot: Option<UserCommand>,
    /// Whether the primary CNI enforces network policies; found out when first needed.
    pub policy_engine: OnceCell<bool>,
    run: String,
    observers: OnceCell<Result<Observers, String>>,
    namespaces: Mutex<BTreeSet<String>>,
    /// Those that were asked to go, and may still be there.
    leaving: Mutex<BTreeSet<String>>,
    undo: tokio::sync::Mutex<Vec<Undo>>,
    sightings: Mutex<Vec<String>>,
}

/// What a run may do to the cluster.
#[derive(Clone, Debug)]
pub(crate) struct Allowed {
    /// Where scenarios may make things.
    pub room: Room,
    /// Whether the mesh's own pods may be ended.
    pub restarts: Restarts,
    /// What removes the mesh, to be judged last.
    pub removal: Option<UserCommand>,
    /// What cuts the power of the node `$NODE` and starts it again.
    pub reboot: Option<UserCommand>,
}

/// A command of the user's, for what a suite cannot know how to do.
#[derive(Clone, Debug)]
pub(crate) struct UserCommand {
    /// A line of shell.
    pub line: String,
    /// Its `KUBECONFIG`.
    pub kubeconfig: PathBuf,
}

/// A change to an object that is not the suite's own, and how it is taken back.
struct Undo {
    path: String,
    patch: Value,
}

impl Ground {
    pub(crate) async fn survey(
        cluster: Cluster,
        image: &str,
        allowed: Allowed,
    ) -> anyhow::Result<Self> {
        let Allowed { room, restarts, removal, reboot } = allowed;
        let run = run_name();
        let cluster = cluster.labelling(RUN_LABEL, &run);
        let nodes = match (cluster.nodes().await, &room) {
            (Err(error), Room::Given(namespace)) if error.code() == Some(403) => {
                let placed = room::nodes_of(&cluster, namespace, image).await;
                room::sweep(&cluster, namespace, &run).await.context("clear the namespace")?;
                placed.context("find nodes by placing pods")?
            }
            (nodes, _) => nodes.context("list the nodes")?,
        };
        let nodes: Vec<_> = nodes.into_iter().filter(|node| node.takes_pods).collect();
        anyhow::ensure!(!nodes.is_empty(), "no node is ready for pods");
        let parts = Parts::find(&cluster).await.context("look for the mesh's own workloads")?;
        Ok(Self {
            cluster,
            image: image.to_owned(),
            nodes,
            parts,
            room,
            restarts,
            removal,
            reboot,
            policy_engine: OnceCell::new(),
            run,
            observers: OnceCell::new(),
            namespaces: Mutex::default(),
            leaving: Mutex::default(),
            undo: tokio::sync::Mutex::default(),
            sightings: Mutex::default(),
        })
    }

    /// Makes a namespace for the running scenario; its full name is given.
    pub(crate) async fn namespace(
        &self,
        name: &str,
        labels: &[(&str, &str)],
    ) -> anyhow::Result<String> {
        if let Room::Given(given) = &self.room {
            if !labels.is_empty() {
                return Err(Skip("needs a namespace with labels of its own".to_owned()).into());
            }
            if !locked(&self.namespaces).insert(given.clone()) {
                return Err(Skip("needs a second namespace".to_owned()).into());
            }
            return Ok(given.clone());
        }
        // One of that name may still be on its way out.
        let number = locked(&self.leaving).len();
        let full = format!("sluice-test-{}-{number}-{name}", self.run);
        let mut all = vec![(RUN_LABEL, self.run.as_str())];
        all.extend(labels);
        // Known before it is there: whatever happens now, it is removed.
        locked(&self.namespaces).insert(full.clone());
        self.cluster.create_namespace(&full, &all).await?;
        Ok(full)
    }

    /// Names of all nodes but at most two: pods of a scenario run on the first or the second.
    pub(crate) fn node(&self, number: usize) -> anyhow::Result<&NodeFacts> {
        let missing = || Skip(format!("needs {number} nodes that take pods"));
        Ok(number.checked_sub(1).and_then(|at| self.nodes.get(at)).ok_or_else(missing)?)
    }

    /// Observers on the first two nodes.
    ///
    /// # Errors
    /// [`Skip`] where the caller may not run them.
    pub(crate) async fn observers(&self) -> anyhow::Result<&Observers> {
        let made = self.observers.get_or_init(|| async {
            Observers::start(self).await.map_err(|error| format!("{error:#}"))
        });
        match made.await {
            Ok(observers) => Ok(observers),
            Err(why) => Err(Skip(format!(
                "needs an observer in the nodes' network (hostNetwork, NET_RAW): {why}"
            ))
            .into()),
        }
    }

    /// Changes an object that is not the suite's own, until the scenario is over.
    pub(crate) async fn change(
        &self,
        path: &str,
        patch: &Value,
        back: Value,
    ) -> anyhow::Result<()> {
        self.undo.lock().await.push(Undo { path: path.to_owned(), patch: back });
        self.cluster.merge_patch(path, patch).await?;
        Ok(())
    }

    /// Takes all such changes back, the last first.
    pub(crate) async fn undo(&self) -> anyhow::Result<()> {
        let mut changes = self.undo.lock().await;
        while let Some(change) = changes.last() {
            self.cluster.merge_patch(&change.path, &change.patch).await?;
            changes.pop();
        }
        Ok(())
    }

    /// Ends what the scenario has made. Namespaces go away by themselves from here on.
    pub(crate) async fn clear(&self) -> anyhow::Result<()> {
        self.undo().await.context("take changes back")?;
        locked(&self.sightings).clear();
        let observers = self.observers.get().and_then(|made| made.as_ref().ok());
        let observers = observers.map(|observers| observers.namespace.clone());
        for namespace in self.namespaces() {
            if Some(&namespace) != observers.as_ref() {
                self.let_go(&namespace).await?;
            }
        }
        Ok(())
    }

    /// Removes everything that this run has made, and waits until it is gone.
    pub(crate) async fn leave(&self) -> anyhow::Result<()> {
        let undone = self.undo().await;
        for namespace in self.namespaces() {
            self.let_go(&namespace).await?;
        }
        let leaving: Vec<_> = locked(&self.leaving).iter().cloned().collect();
        for namespace in &leaving {
            self.cluster.wait_gone(&paths::namespace(namespace), START).await?;
        }
        undone.context("take changes back")
    }

    async fn let_go(&self, namespace: &str) -> anyhow::Result<()> {
        if matches!(self.room, Room::Given(_)) {
            room::sweep(&self.cluster, namespace, &self.run).await?;
            locked(&self.namespaces).remove(namespace);
            return Ok(());
        }
        self.cluster.delete(&paths::namespace(namespace)).await?;
        locked(&self.namespaces).remove(namespace);
        locked(&self.leaving).insert(namespace.to_owned());
        Ok(())
    }

    /// The namespaces that are there now.
    pub(crate) fn namespaces(&self) -> Vec<String> {
        locked(&self.namespaces).iter().cloned().collect()
    }

    /// Keeps what was seen on the wire, for evidence.
    pub(crate) fn remember(&self, sighting: String) {
        locked(&self.sightings).push(sighting);
    }

    /// What was seen on the wire by this scenario.
    pub(crate) fn sightings(&self) -> Vec<String> {
        locked(&self.sightings).clone()
    }
}

/// Short, and another one each time: two runs on one cluster do not meet.
fn run_name() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let nanos = now.unwrap_or_default().as_nanos();
    format!("{:06x}", (nanos >> 10) & 0xff_ffff)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
