//! Pods that do to a node what goes wrong with nodes: with its network, processes and files.

use std::time::Duration;

use anyhow::{Context, bail};
use lab::cluster::access::{Network, PodSpec, Reach, Review, Running, paths};
use serde::de::DeserializeOwned;

use super::ground::{Ground, PATIENCE, START};
use super::pods::PROGRAM;
use super::run::Restarts;
use crate::pod_app::Content;
use crate::scenario::Skip;

/// How long one deed may take; those that wait for a process take longest.
const DEED: Duration = Duration::from_secs(120);

/// A pod with hands on its node.
pub(crate) struct Hand {
    namespace: String,
    name: String,
    /// The node's name.
    pub node: String,
}

/// Harm that lasts until it is let go, or nobody holds it any more.
pub(crate) struct Held {
    running: Running,
}

impl Ground {
    /// A hand on the first or second node.
    ///
    /// # Errors
    /// [`Skip`] where the caller may not run such pods.
    pub(crate) async fn hand(&self, number: usize) -> anyhow::Result<Hand> {
        let refused = |why: &str| {
            let what = "needs a pod with the node's processes, files and network";
            anyhow::Error::from(Skip(format!("{what}: {why}")))
        };
        if let Review::Refused(why) = self.cluster.may("create", "namespaces", "").await? {
            return Err(refused(&why));
        }
        let node = self.node(number)?.name.clone();
        let privileged = [("pod-security.kubernetes.io/enforce", "privileged")];
        let namespace = self.namespace(&format!("hand-{number}"), &privileged).await?;
        let command = [PROGRAM, "app", "serve"];
        let mut spec = PodSpec::new(&namespace, "hand", &self.image, &command).on(&node);
        spec.network = Network::Node;
        spec.reach = Reach::Node;
        // Rules; processes of other users; what they have open.
        spec.main.capabilities = vec!["NET_ADMIN", "KILL", "SYS_PTRACE", "DAC_READ_SEARCH"];
        let pods = paths::core(&namespace, "pods");
        if let Review::Refused(why) = self.cluster.would_accept(&pods, &spec.object()).await? {
            return Err(refused(&why));
        }
        self.cluster.create_pod(&spec).await?;
        self.cluster.wait_ready(&namespace, "hand", START).await?;
        Ok(Hand { namespace, name: "hand".to_owned(), node })
    }

    /// Whether what others notice is allowed.
    ///
    /// # Errors
    /// [`Skip`].
    pub(crate) fn may_disturb(&self) -> anyhow::Result<()> {
        match self.restarts {
            Restarts::Allowed => Ok(()),
            Restarts::Refused => {
                let why = "ends or disturbs the mesh's own pods: asked for with --restarts";
                Err(Skip(why.to_owned()).into())
            }
        }
    }
}

impl Hand {
    /// Has something done, and reads what came of it.
    pub(crate) async fn ask<T: DeserializeOwned>(
        &self,
        ground: &Ground,
        words: &[&str],
    ) -> anyhow::Result<T> {
        let said = self.run(ground, &own(words)).await?;
        serde_json::from_str(said.trim())
            .with_context(|| format!("`{}` said {said}", words.join(" ")))
    }

    /// Has something done that has nothing to tell.
    pub(crate) async fn act(&self, ground: &Ground, words: &[&str]) -> anyhow::Result<()> {
        self.run(ground, &own(words)).await.map(drop)
    }

    /// Runs `nft` in the node's network.
    ///
    /// # Errors
    /// When it fails.
    pub(crate) async fn nft(&self, ground: &Ground, words: &[&str]) -> anyhow::Result<String> {
        let mut argv = vec!["nft"];
        argv.extend(words);
        self.run(ground, &argv).await
    }

    async fn run(&self, ground: &Ground, argv: &[&str]) -> anyhow::Result<String> {
        let ran = ground.cluster.run(&self.namespace, &self.name, argv, DEED).await?;
        if !ran.ok() {
            bail!("`{}` on {}: {}", argv.join(" "), self.node, ran.stderr.trim());
        }
        Ok(ran.stdout)
    }

    /// What a file of the node is.
    pub(crate) async fn read(&self, ground: &Ground, path: &str) -> anyhow::Result<Content> {
        self.ask(ground, &["read", path]).await
    }

    /// Does something to a file until that is let go.
    pub(crate) async fn hold(
        &self,
        ground: &Ground,
        path: &str,
        harm: &[&str],
    ) -> anyhow::Result<Held> {
        let mut argv = own(&["hold", path, "--as"]);
        argv.extend(harm);
        let mut running = ground.cluster.start(&self.namespace, &self.name, &argv, DEED).await?;
        match running.line(DEED).await? {
            Some(line) if line == "held" => Ok(Held { running }),
            _ => bail!("{path} cannot be held: {}", running.finish(DEED).await?.stderr),
        }
    }
}

impl Held {
    /// Ends it, and gives what was told at the end.
    ///
    /// # Errors
    /// When the file could not be made as it was.
    pub(crate) async fn release(self) -> anyhow::Result<String> {
        let ran = self.running.finish(PATIENCE).await?;
        if !ran.ok() {
            bail!("a file of the node is not as it was: {}", ran.stderr.trim());
        }
        Ok(ran.stdout.trim().to_owned())
    }
}

fn own<'a>(words: &[&'a str]) -> Vec<&'a str> {
    let mut argv = vec![PROGRAM, "app", "node"];
    argv.extend(words);
    argv
}
