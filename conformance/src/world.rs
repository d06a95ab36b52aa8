//! What a scenario acts on: a lab with a running mesh, and the pods it makes.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use lab::{Lab, Pod, PodSpec, Server};

use crate::observe;
use crate::oracle::{Oracle, Verdict};
use crate::scenario::expect;

/// Label that puts a pod or a namespace into the mesh, or keeps a pod out of it.
pub(crate) const MODE_LABEL: &str = "istio.io/dataplane-mode";
/// Annotation that says "reach this pod through the tunnel".
pub(crate) const REDIRECTION: &str = "ambient.istio.io/redirection";
/// The port on which the scenarios' servers listen.
pub(crate) const APP_PORT: u16 = 8080;
/// The port of the tunnel.
pub(crate) const HBONE_PORT: u16 = 15008;

/// A lab and the pods of the scenario that is running.
pub(crate) struct World {
    /// The lab.
    pub lab: Lab,
    /// How long anything observable may take.
    pub patience: Duration,
    pods: Mutex<Vec<Arc<Pod>>>,
    oracles: tokio::sync::Mutex<Vec<Oracle>>,
}

impl World {
    pub(crate) fn new(lab: Lab, patience: Duration) -> Self {
        Self { lab, patience, pods: Mutex::default(), oracles: tokio::sync::Mutex::default() }
    }

    /// Makes a pod and remembers it for evidence and for the end of the scenario.
    pub(crate) async fn pod(&self, spec: PodSpec) -> anyhow::Result<Arc<Pod>> {
        let name = format!("{}/{}", spec.namespace, spec.name);
        let pod = self.lab.create_pod(spec).await.with_context(|| format!("create pod {name}"))?;
        let pod = Arc::new(pod);
        self.registry().push(Arc::clone(&pod));
        Ok(pod)
    }

    /// A client on node 1 and a server on node 2, both outside the mesh as yet, each with
    /// a service account of its own name. The server answers on [`APP_PORT`].
    pub(crate) async fn couple(&self, namespace: &str) -> anyhow::Result<Couple> {
        let client = self.pod(in_namespace(namespace, "client", 1)).await?;
        let server = self.pod(in_namespace(namespace, "server", 2)).await?;
        let app = server.serve(APP_PORT).await?;
        Ok(Couple { client, server, app })
    }

    /// As [`World::couple`], captured by labels, and the peers know it. From then on nothing
    /// between the two may go in clear text, unless [`World::may_speak_openly`].
    pub(crate) async fn captured_couple(&self, namespace: &str) -> anyhow::Result<Couple> {
        let couple = self.couple(namespace).await?;
        let oracle = Oracle::watch(&self.lab, [&couple.client, &couple.server]).await?;
        self.enrol(&couple.client).await?;
        self.enrol(&couple.server).await?;
        observe::tunnelled(self, &couple.client, &couple.server).await?;
        self.oracles.lock().await.push(oracle.known(&self.lab).await?);
        Ok(couple)
    }

    /// From now on clear text of this pod is what the scenario is about; until now there was
    /// none.
    pub(crate) async fn may_speak_openly(&self, pod: &Pod) -> anyhow::Result<()> {
        let mut oracles = self.oracles.lock().await;
        for oracle in oracles.extract_if(.., |oracle| oracle.is_about(pod)) {
            judge(&oracle.close().await?)?;
        }
        Ok(())
    }

    /// Ends all watches of the scenario: what they saw, one line each.
    ///
    /// # Errors
    /// Clear text between two captured pods.
    pub(crate) async fn verdicts(&self) -> anyhow::Result<Vec<String>> {
        let oracles = std::mem::take(&mut *self.oracles.lock().await);
        let mut lines = Vec::new();
        for oracle in oracles {
            let verdict = oracle.close().await?;
            judge(&verdict)?;
            lines.push(verdict.to_string());
        }
        Ok(lines)
    }

    /// The server of [`World::couple`] alone, captured.
    pub(crate) async fn captured_server(
        &self,
        namespace: &str,
    ) -> anyhow::Result<(Arc<Pod>, Server)> {
        let server = self.pod(in_namespace(namespace, "server", 2)).await?;
        let app = server.serve(APP_PORT).await?;
        self.enrol(&server).await?;
        Ok((server, app))
    }

    /// Labels a running pod into the mesh and waits until it says that it is captured.
    pub(crate) async fn enrol(&self, pod: &Pod) -> anyhow::Result<()> {
        let kube = self.lab.kube();
        kube.label_pod(pod.namespace(), pod.name(), MODE_LABEL, Some("ambient")).await?;
        self.until_redirection(pod, Some("enabled")).await
    }

    /// Takes the label off and waits until the pod says that it is released.
    pub(crate) async fn release(&self, pod: &Pod) -> anyhow::Result<()> {
        self.may_speak_openly(pod).await?;
        let kube = self.lab.kube();
        kube.label_pod(pod.namespace(), pod.name(), MODE_LABEL, None).await?;
        self.until_redirection(pod, None).await
    }

    /// Waits until the pod's annotation reads so.
    pub(crate) async fn until_redirection(
        &self,
        pod: &Pod,
        wanted: Option<&str>,
    ) -> anyhow::Result<()> {
        let what = format!("{REDIRECTION}={}", wanted.unwrap_or("(absent)"));
        self.lab
            .kube()
            .wait_pod(pod.namespace(), pod.name(), &what, self.patience, |object| {
                object["metadata"]["annotations"][REDIRECTION].as_str() == wanted
            })
            .await?;
        Ok(())
    }

    /// The pods made so far, for evidence.
    pub(crate) fn pods(&self) -> Vec<Arc<Pod>> {
        self.registry().clone()
    }

    /// Deletes what the scenario made.
    pub(crate) async fn clear(&self) -> anyhow::Result<()> {
        let pods = std::mem::take(&mut *self.registry());
        for pod in pods {
            let name = format!("{}/{}", pod.namespace(), pod.name());
            let pod = Arc::into_inner(pod).with_context(|| format!("pod {name} is still used"))?;
            self.lab.delete_pod(pod).await.with_context(|| format!("delete pod {name}"))?;
        }
        Ok(())
    }

    fn registry(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Pod>>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn judge(verdict: &Verdict) -> anyhow::Result<()> {
    expect("no clear text between captured pods", verdict, |verdict| verdict.open == 0)
}

/// Two pods that talk.
pub(crate) struct Couple {
    pub client: Arc<Pod>,
    pub server: Arc<Pod>,
    /// The server's application; it answers as long as it is held.
    pub app: Server,
}

/// A pod whose service account has its name.
pub(crate) fn in_namespace(namespace: &str, name: &str, node: u8) -> PodSpec {
    PodSpec::new(namespace, name, node).service_account(name)
}
