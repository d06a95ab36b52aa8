//! Pods, as conformance sees them.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use crate::app::{AppError, Conversation, Echo, Reply, Server};
use crate::cni_runtime::{Attachment, CniError};
use crate::health::{HealthServer, Probe};
use crate::place::Place;
use crate::process::{ProcessError, Ran};
use crate::sandbox::Sandbox;

/// What to do when a plugin asks to be called again later (code 11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TryAgain {
    /// Make a new sandbox and try again, until the lab's patience ends.
    AsKubelet,
    /// Hand the error to the caller.
    Never,
}

/// Whose user namespace owns a pod's network namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Users {
    /// The node's.
    #[default]
    Node,
    /// One of the pod's own, as with `hostUsers: false`.
    Own,
}

/// A pod to be.
#[derive(Clone, Debug)]
pub struct PodSpec {
    /// Its namespace; made when absent.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The node that it is placed on.
    pub node: u8,
    /// Its service account; made when absent.
    pub service_account: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// The ports that its container declares, by name.
    pub ports: BTreeMap<String, u16>,
    /// Its container's liveness, readiness and startup probe, in this order.
    pub probes: Vec<Probe>,
    /// See [`Users`].
    pub users: Users,
    /// See [`TryAgain`].
    pub try_again: TryAgain,
}

impl PodSpec {
    /// A pod with the namespace's default service account and no labels.
    #[must_use]
    pub fn new(namespace: impl Into<String>, name: impl Into<String>, node: u8) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
            node,
            service_account: "default".into(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            ports: BTreeMap::new(),
            probes: Vec::new(),
            users: Users::Node,
            try_again: TryAgain::AsKubelet,
        }
    }

    /// The same with another service account.
    #[must_use]
    pub fn service_account(mut self, name: impl Into<String>) -> Self {
        self.service_account = name.into();
        self
    }

    /// The same with one more label.
    #[must_use]
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }

    /// The same with one more annotation.
    #[must_use]
    pub fn annotation(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.annotations.insert(key.into(), value.into());
        self
    }

    /// The same with one more declared port.
    #[must_use]
    pub fn port(mut self, name: impl Into<String>, number: u16) -> Self {
        self.ports.insert(name.into(), number);
        self
    }

    /// The same with one more probe; a container has three at most.
    #[must_use]
    pub fn probe(mut self, probe: Probe) -> Self {
        self.probes.push(probe);
        self
    }

    /// The same with other users.
    #[must_use]
    pub fn users(mut self, users: Users) -> Self {
        self.users = users;
        self
    }

    /// The same with another answer to code 11.
    #[must_use]
    pub fn try_again(mut self, try_again: TryAgain) -> Self {
        self.try_again = try_again;
        self
    }
}

/// A running pod. Dropping the handle does not end the pod.
#[derive(Debug)]
pub struct Pod {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) node: u8,
    pub(crate) ips: Vec<IpAddr>,
    pub(crate) sandbox: Arc<Sandbox>,
}

impl Pod {
    /// Its namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its UID.
    #[must_use]
    pub fn uid(&self) -> &str {
        &self.uid
    }

    /// The number of its node.
    #[must_use]
    pub fn node(&self) -> u8 {
        self.node
    }

    /// Its first address, IPv4 where it has both.
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        self.ips[0]
    }

    /// All its addresses, at least one.
    #[must_use]
    pub fn ips(&self) -> &[IpAddr] {
        &self.ips
    }

    /// A port at its first address.
    #[must_use]
    pub fn addr(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.ip(), port)
    }

    /// Its network namespace.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.sandbox.place
    }

    /// The namespace's file, for `nsenter --net=`.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.sandbox.place.path()
    }

    /// Its sandbox, as `CNI_CONTAINERID` has it.
    #[must_use]
    pub fn container_id(&self) -> &str {
        &self.sandbox.attachment.container_id
    }

    /// The attachment that its ADD was called for.
    #[must_use]
    pub fn attachment(&self) -> &Attachment {
        &self.sandbox.attachment
    }

    /// What ADD resulted in.
    #[must_use]
    pub fn result(&self) -> &Value {
        &self.sandbox.result
    }

    /// Starts the lab's app in it.
    ///
    /// # Errors
    /// [`AppError`] when the port is taken.
    pub async fn serve(&self, port: u16) -> Result<Server, AppError> {
        self.place().serve(port).await
    }

    /// Starts an application in it that answers probes.
    ///
    /// # Errors
    /// [`AppError`] when the port is taken.
    pub async fn serve_probes(&self, port: u16) -> Result<HealthServer, AppError> {
        HealthServer::start(self.place(), port).await
    }

    /// Opens a connection from it.
    ///
    /// # Errors
    /// [`AppError`], whose kind tells refused from reset from silent.
    pub async fn connect(&self, to: SocketAddr) -> Result<Conversation, AppError> {
        self.place().connect(to).await
    }

    /// Opens a connection from it, says one line, hears the answer, and closes.
    ///
    /// # Errors
    /// As [`Pod::connect`] and [`Conversation::send_line`].
    pub async fn exchange(&self, to: SocketAddr, line: &str) -> Result<Reply, AppError> {
        self.connect(to).await?.send_line(line).await
    }

    /// Sends one datagram from it and waits for one answer, see [`Place::ask`].
    ///
    /// # Errors
    /// As [`Place::ask`].
    pub async fn ask(&self, to: SocketAddr, question: &[u8]) -> Result<Vec<u8>, AppError> {
        self.place().ask(to, question).await
    }

    /// Has it send every datagram back that comes to this port.
    ///
    /// # Errors
    /// [`AppError`] when the port is taken.
    pub async fn echo_datagrams(&self, port: u16) -> Result<Echo, AppError> {
        Echo::start(self.place(), port).await
    }

    /// Runs a command in its network namespace, see [`Place::run`].
    ///
    /// # Errors
    /// [`ProcessError`].
    pub async fn run(&self, argv: &[&str]) -> Result<Ran, ProcessError> {
        self.place().run(argv).await
    }

    /// CNI's CHECK.
    ///
    /// # Errors
    /// [`CniError::Check`] from the first plugin that sees a difference.
    pub async fn check(&self) -> Result<(), CniError> {
        self.sandbox.check().await
    }
}
