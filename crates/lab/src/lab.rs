//! A lab: how it comes up, what can be done with it, and how it goes down.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::future::{join_all, try_join_all};
use netns::{Fence, NamedNetns};

use crate::container::Container;
use crate::errors::{LabError, MeshError};
use crate::ground::Ground;
use crate::kube_client::KubeClient;
use crate::kubectl::{self, KubectlError};
use crate::kubelet::{Kubelet, PodError, PodFailure};
use crate::leftovers::{self, Leftovers};
use crate::net::{self, plan};
use crate::node::{MeshSettings, Node};
use crate::options::Options;
use crate::part::Part;
use crate::place::Place;
use crate::pod::{Pod, PodSpec, Users};
use crate::process::Ran;
use crate::sandbox::Workshop;
use crate::services::{self, Services};
use crate::sniffer::{SniffError, Sniffer};
use crate::state::Ledger;

/// Threads that do jobs in namespaces: nodes and pods are set up side by side.
const FENCE_WORKERS: usize = 4;

/// A mesh on one machine. [`Lab::teardown`] ends it in order; dropping cleans up as far
/// as that goes without waiting for anybody.
#[derive(Debug)]
pub struct Lab {
    id: String,
    folder: PathBuf,
    options: Options,
    ledger: Arc<Ledger>,
    hub: Place,
    hub_named: Option<NamedNetns>,
    nodes: Vec<Node>,
    services: Option<Services>,
    kubelet: Kubelet,
    user_kubeconfig: PathBuf,
}

impl Lab {
    /// Cleans up after dead labs, then brings up the network, the Kubernetes API and
    /// control. Needs root.
    ///
    /// # Errors
    /// [`LabError`].
    pub async fn start(options: Options) -> Result<Self, LabError> {
        if !(1..=9).contains(&options.nodes) {
            return Err(LabError::Nodes(options.nodes));
        }
        let ground = Ground::prepare(&options)?;
        let fence = Fence::new(FENCE_WORKERS)?;
        let (hub, hub_named) = ground.netns("hub", &fence, &options)?;
        net::build_hub(&hub, options.nodes, options.family).await?;
        let listeners = services::Listeners::open(&hub).await?;
        let user_kubeconfig = ground.write("kubeconfig", &kubectl::kubeconfig(listeners.user))?;
        let nodes_server = plan::hub_addr(plan::API_PORT);
        let kubeconfig = ground.write("node-kubeconfig", &kubectl::kubeconfig(nodes_server))?;
        let root_certificate = ground.folder.join("root.pem");
        let mesh = options.subject.clone().map(|subject| MeshSettings {
            subject,
            log_level: options.log_level.clone(),
            kubeconfig,
            root_certificate: root_certificate.clone(),
            trust_domain: services::TRUST_DOMAIN,
            cluster_id: services::CLUSTER_ID,
        });
        let mut nodes = Vec::new();
        for number in 1..=options.nodes {
            nodes.push(ground.node(number, &hub, &fence, &options, mesh.as_ref()).await?);
        }
        let client = KubeClient::new(listeners.user);
        let services = Services::start(listeners, options.family, options.patience).await?;
        for node in &nodes {
            services::register(&client, node).await?;
        }
        ground.write("root.pem", services.root_certificate())?;
        let (netns_folder, patience) = (ground.netns_folder(), options.patience);
        let kubelet = Kubelet::new(client, Workshop { fence, netns_folder, patience });
        let (id, folder, ledger) = ground.keep();
        let services = Some(services);
        let hub_named = Some(hub_named);
        tracing::info!(id, folder = %folder.display(), "lab is up");
        Ok(Self {
            id,
            folder,
            options,
            ledger,
            hub,
            hub_named,
            nodes,
            services,
            kubelet,
            user_kubeconfig,
        })
    }

    /// Its id, part of all its names.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// All its files.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What it was asked to be.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// For the user's kubectl.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.user_kubeconfig
    }

    /// Its Kubernetes API.
    #[must_use]
    pub fn kube(&self) -> &KubeClient {
        &self.kubelet.client
    }

    /// The middle of the wire.
    #[must_use]
    pub fn hub(&self) -> &Place {
        &self.hub
    }

    /// A node, counted from 1.
    ///
    /// # Panics
    /// When the lab has no such node.
    #[must_use]
    pub fn node(&self, number: u8) -> &Node {
        let index = usize::from(number).checked_sub(1);
        index.and_then(|index| self.nodes.get(index)).expect("a node of this lab, counted from 1")
    }

    /// All nodes.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Starts node agent and ztunnel on every node and waits until all are ready.
    ///
    /// # Errors
    /// [`MeshError`], naming the part and quoting its log.
    pub async fn start_mesh(&self) -> Result<(), MeshError> {
        for node in &self.nodes {
            services::place_token(self.kube(), node).await?;
        }
        let parts = self.parts();
        if parts.is_empty() {
            return Err(MeshError::NoSubject);
        }
        try_join_all(parts.iter().map(|part| part.start())).await?;
        try_join_all(parts.iter().map(|part| part.ready())).await?;
        Ok(())
    }

    /// Whatever has happened to agents and ztunnels: those that every node runs from the start
    /// run and are ready, no others do. Gives the names of those that had to be helped.
    ///
    /// # Errors
    /// [`MeshError`]
    pub async fn restore_mesh(&self) -> Result<Vec<String>, MeshError> {
        let usual = self.parts();
        let mut helped = Vec::new();
        for part in self.nodes.iter().flat_map(Node::parts) {
            let is_usual = usual.iter().any(|usual| std::ptr::eq(*usual, part));
            if is_usual == part.pid().await.is_some() && (!is_usual || part.is_ready().await) {
                continue;
            }
            helped.push(part.name().to_owned());
            if part.was_started().await {
                part.kill().await?;
            }
            if is_usual {
                part.start().await?;
            }
        }
        try_join_all(usual.iter().map(|part| part.ready())).await?;
        Ok(helped)
    }

    /// Runs a pod, as a kubelet does: objects, namespace, ADD, status.
    ///
    /// # Errors
    /// [`PodError`]; nothing of the pod is left then.
    ///
    /// # Panics
    /// When the lab has no such node.
    pub async fn create_pod(&self, spec: PodSpec) -> Result<Pod, PodError> {
        self.kubelet.create(self.node(spec.node), &spec).await
    }

    /// Ends a pod: object deleted, DEL twice as containerd does, namespace removed.
    ///
    /// # Errors
    /// [`PodError`]; the namespace is gone all the same.
    pub async fn delete_pod(&self, pod: Pod) -> Result<(), PodError> {
        let Pod { namespace, name, .. } = pod;
        self.kubelet.delete(&namespace, &name).await
    }

    /// Makes the namespace of a container that is no pod. No plugin is called for it.
    ///
    /// # Errors
    /// [`PodFailure`], of a name that is taken too.
    pub async fn container(&self, name: &str) -> Result<Container, PodFailure> {
        let file = format!("container-{name}");
        let made = self.kubelet.workshop.namespace(&file, format!("container {name}"), Users::Node);
        let (place, named) = made.await?;
        Ok(Container::new(place, named))
    }

    /// Listens on the hub's port towards a node: what is seen there crosses the wire.
    ///
    /// # Errors
    /// [`SniffError::Open`].
    pub async fn sniff_wire(&self, node: u8) -> Result<Sniffer, SniffError> {
        Sniffer::open(&self.hub, &net::port_name(node, &self.id)).await
    }

    /// Listens on any interface of any place.
    ///
    /// # Errors
    /// [`SniffError::Open`].
    pub async fn sniff(&self, place: &Place, interface: &str) -> Result<Sniffer, SniffError> {
        Sniffer::open(place, interface).await
    }

    /// Runs the real kubectl as the lab's user.
    ///
    /// # Errors
    /// [`KubectlError::NotInstalled`] is a reason to skip.
    pub async fn kubectl(&self, args: &[&str]) -> Result<Ran, KubectlError> {
        kubectl::run(&self.user_kubeconfig, &self.folder, args).await
    }

    /// Ends everything in order, then looks what is left.
    pub async fn teardown(mut self) -> Leftovers {
        let ending = self.kubelet.names();
        let deletions = ending.iter().map(|(namespace, name)| self.kubelet.delete(namespace, name));
        for error in join_all(deletions).await.into_iter().filter_map(Result::err) {
            tracing::warn!(%error, "teardown");
        }
        let mut running = Vec::new();
        for part in self.nodes.iter().flat_map(Node::parts) {
            if part.pid().await.is_some() {
                running.push(part);
            }
        }
        for error in join_all(running.iter().map(|part| part.stop()))
            .await
            .into_iter()
            .filter_map(Result::err)
        {
            tracing::warn!(%error, "teardown");
        }
        if let Some(services) = self.services.take() {
            services.shutdown().await;
        }
        for node in self.nodes.drain(..) {
            node.unname();
        }
        drop(self.hub_named.take());
        let state = self.ledger.state();
        leftovers::remove(&self.folder, &state);
        leftovers::observe(&self.folder, &state)
    }

    /// What every node runs from the start.
    fn parts(&self) -> Vec<&Part> {
        self.nodes.iter().flat_map(|node| [node.agent(), node.ztunnel()]).flatten().collect()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.folder.exists() {
            leftovers::remove(&self.folder, &self.ledger.state());
        }
    }
}
