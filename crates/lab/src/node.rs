//! A node: its namespace, its folder, its container runtime, and the subject's processes.

use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use netns::NamedNetns;

use crate::cni_runtime::Runtime;
use crate::conf;
use crate::net::plan;
use crate::options::{Family, Subject};
use crate::part::{Part, Readiness};
use crate::place::Place;
use crate::process::{Job, ProcessError, Ran};
use crate::state::Ledger;

/// What the parts of all nodes are told alike.
#[derive(Clone, Debug)]
pub(crate) struct MeshSettings {
    pub subject: Subject,
    pub log_level: String,
    pub kubeconfig: PathBuf,
    pub root_certificate: PathBuf,
    pub trust_domain: &'static str,
    pub cluster_id: &'static str,
}

/// Files of one node, below the lab's folder.
#[derive(Clone, Debug)]
pub(crate) struct NodeFiles {
    pub folder: PathBuf,
    pub agent: PathBuf,
    pub zds_socket: PathBuf,
    pub conf: PathBuf,
    pub cache: PathBuf,
    pub ipam: PathBuf,
    pub processes: PathBuf,
    pub logs: PathBuf,
    pub ztunnel_token: PathBuf,
}

impl NodeFiles {
    pub fn new(lab: &Path, node: &str) -> Self {
        let folder = lab.join(node);
        Self {
            agent: folder.join("agent"),
            zds_socket: folder.join("zds.sock"),
            conf: folder.join("cni/net.d"),
            cache: folder.join("cni/cache"),
            ipam: folder.join("ipam"),
            processes: folder.join("processes"),
            logs: folder.join("logs"),
            ztunnel_token: folder.join("ztunnel-token"),
            folder,
        }
    }

    fn create(&self) -> io::Result<()> {
        let Self { agent, conf, cache, ipam, processes, logs, .. } = self;
        [agent, conf, cache, ipam, processes, logs]
            .into_iter()
            .try_for_each(std::fs::create_dir_all)
    }
}

/// One node of the lab.
#[derive(Debug)]
pub struct Node {
    number: u8,
    place: Place,
    files: NodeFiles,
    conflist: PathBuf,
    runtime: Runtime,
    agent: Option<Part>,
    installer: Option<Part>,
    ztunnels: Option<Ztunnels>,
    named: NamedNetns,
}

/// The ztunnels that a node can run, one beside the other while it is upgraded.
#[derive(Debug)]
struct Ztunnels {
    first: Part,
    next: Part,
    binding_itself: Part,
    on_demand: Part,
}

impl Node {
    pub(crate) fn new(
        number: u8,
        place: Place,
        named: NamedNetns,
        lab: &Path,
        family: Family,
        mesh: Option<&MeshSettings>,
        ledger: &Arc<Ledger>,
    ) -> io::Result<Self> {
        let files = NodeFiles::new(lab, place.name());
        files.create()?;
        let socket = files.agent.join("plugin.sock");
        let conflist = files.conf.join(conf::FILE);
        let list = conf::conflist(number, family, &files.ipam, mesh.map(|_| socket.as_path()));
        std::fs::write(&conflist, format!("{list:#}\n"))?;
        let ours = mesh.map(|mesh| mesh.subject.cni_plugin_dir.clone());
        let plugins = [conf::PRIMARY_PLUGINS.into()].into_iter().chain(ours).collect();
        let runtime = Runtime::new(&files.conf, &files.cache, plugins, Some(place.clone()));
        let part = |name: &str, job: Job| {
            let log = files.logs.join(format!("{name}.log"));
            let readiness = Readiness { port: 8000, path: "/readyz" };
            Part::new(name, &place, job, log, readiness, ledger)
        };
        let agent = mesh.map(|mesh| part("node-agent", agent(mesh, &place, &files)));
        let installer = mesh.map(|mesh| part("installing-agent", installer(mesh, &place, &files)));
        let ztunnels = mesh.map(|mesh| ztunnels(mesh, &place, &files, ledger));
        Ok(Self { number, place, files, conflist, runtime, agent, installer, ztunnels, named })
    }

    /// Counted from 1.
    #[must_use]
    pub fn number(&self) -> u8 {
        self.number
    }

    /// Its name in the cluster, for example `node1`.
    #[must_use]
    pub fn name(&self) -> &str {
        self.place.name()
    }

    /// Its address on the wire.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        plan::node_v4(self.number)
    }

    /// Its namespace.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Runs a command in its namespace, see [`Place::run`].
    ///
    /// # Errors
    /// [`ProcessError`].
    pub async fn run(&self, argv: &[&str]) -> Result<Ran, ProcessError> {
        self.place.run(argv).await
    }

    /// All its files.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.files.folder
    }

    /// The network configuration that its runtime reads for each pod.
    #[must_use]
    pub fn conflist(&self) -> &Path {
        &self.conflist
    }

    /// Its container runtime.
    #[must_use]
    pub fn cni(&self) -> &Runtime {
        &self.runtime
    }

    /// The node agent; `None` without a subject.
    #[must_use]
    pub fn agent(&self) -> Option<&Part> {
        self.agent.as_ref()
    }

    /// The node agent that puts the plugin into the network configuration itself, to be
    /// started in the place of [`Node::agent`].
    #[must_use]
    pub fn installing_agent(&self) -> Option<&Part> {
        self.installer.as_ref()
    }

    /// The ztunnel; `None` without a subject.
    #[must_use]
    pub fn ztunnel(&self) -> Option<&Part> {
        self.ztunnels.as_ref().map(|ztunnels| &ztunnels.first)
    }

    /// The ztunnel that replaces the first one in an upgrade. It runs only when it is
    /// started, and answers operators on other ports.
    #[must_use]
    pub fn next_ztunnel(&self) -> Option<&Part> {
        self.ztunnels.as_ref().map(|ztunnels| &ztunnels.next)
    }

    /// Like [`Node::next_ztunnel`], of a ztunnel that takes no listeners from the agent, as
    /// ztunnels of version 1 of the protocol.
    #[must_use]
    pub fn ztunnel_binding_itself(&self) -> Option<&Part> {
        self.ztunnels.as_ref().map(|ztunnels| &ztunnels.binding_itself)
    }

    /// Like [`Node::next_ztunnel`], of a ztunnel that asks the control plane for what its
    /// pods dial, and not for the whole mesh.
    #[must_use]
    pub fn ztunnel_on_demand(&self) -> Option<&Part> {
        self.ztunnels.as_ref().map(|ztunnels| &ztunnels.on_demand)
    }

    /// Every process of the subject, running or not.
    pub fn parts(&self) -> impl Iterator<Item = &Part> {
        let ztunnels = self.ztunnels.iter();
        let ztunnels = ztunnels.flat_map(|z| [&z.first, &z.next, &z.binding_itself, &z.on_demand]);
        self.agent.iter().chain(&self.installer).chain(ztunnels)
    }

    /// The agent's run directory.
    #[must_use]
    pub fn agent_folder(&self) -> &Path {
        &self.files.agent
    }

    /// What the agent takes for the node's `/proc`. Empty: the machine's shows other labs and
    /// clusters too.
    #[must_use]
    pub fn processes_folder(&self) -> &Path {
        &self.files.processes
    }

    /// Where agent and ztunnel meet.
    #[must_use]
    pub fn zds_socket(&self) -> &Path {
        &self.files.zds_socket
    }

    pub(crate) fn token_file(&self) -> &Path {
        &self.files.ztunnel_token
    }

    /// The namespace's file goes; what runs inside keeps the namespace.
    pub(crate) fn unname(self) {
        drop(self.named);
    }
}

fn agent(mesh: &MeshSettings, place: &Place, files: &NodeFiles) -> Job {
    Job::new(&mesh.subject.node_agent)
        .env("NODE_NAME", place.name())
        .env("KUBECONFIG", &mesh.kubeconfig)
        .env("RUN_DIR", &files.agent)
        .env("INPOD_UDS", &files.zds_socket)
        .env("HOST_PROC", &files.processes)
        .env("EXCLUDE_NAMESPACES", conf::EXCLUDED.join(","))
        .env("RUST_LOG", &mesh.log_level)
        .env("LOG_FORMAT", "plain")
}

fn installer(mesh: &MeshSettings, place: &Place, files: &NodeFiles) -> Job {
    agent(mesh, place, files)
        .env("INSTALL_CNI", "own")
        .env("CNI_CONF_DIR", &files.conf)
        .env("CNI_BIN_DIR", &mesh.subject.cni_plugin_dir)
        .env("WHEN_AGENT_ABSENT", "allow-known")
        .env("CNI_LOG_FILE", files.logs.join("plugin.log"))
        .env("CNI_LOG_MAX_BYTES", "65536")
}

fn ztunnels(
    mesh: &MeshSettings,
    place: &Place,
    files: &NodeFiles,
    ledger: &Arc<Ledger>,
) -> Ztunnels {
    let part = |name: &str, job: Job, port: u16| {
        let log = files.logs.join(format!("{name}.log"));
        let readiness = Readiness { port, path: "/healthz/ready" };
        Part::new(name, place, job, log, readiness, ledger)
    };
    let ready = zds::port::READY;
    let first = ztunnel(mesh, place, files);
    let beside = |number| beside(first.clone(), number);
    let (next, itself, on_demand) = (beside(1), beside(2), beside(3));
    // Lookups of names need the whole mesh.
    let on_demand = on_demand.env("XDS_ON_DEMAND", "true").env("ISTIO_META_DNS_CAPTURE", "false");
    Ztunnels {
        first: part("ztunnel", first.clone(), ready),
        next: part("next-ztunnel", next, ready + BESIDE),
        binding_itself: part(
            "binding-ztunnel",
            itself.env("INPOD_LISTENERS", "own"),
            ready + 2 * BESIDE,
        ),
        on_demand: part("on-demand-ztunnel", on_demand, ready + 3 * BESIDE),
    }
}

/// Between the ports of two ztunnels of one node.
const BESIDE: u16 = 1000;

/// For another ztunnel in the same namespace.
fn beside(job: Job, number: u16) -> Job {
    let at = |port: u16| port + number * BESIDE;
    job.env("ADMIN_ADDR", format!("127.0.0.1:{}", at(zds::port::ADMIN)))
        .env("STATS_ADDR", format!("[::]:{}", at(zds::port::METRICS)))
        .env("READINESS_ADDR", format!("[::]:{}", at(zds::port::READY)))
}

fn ztunnel(mesh: &MeshSettings, place: &Place, files: &NodeFiles) -> Job {
    let control = format!("https://{}", plan::hub_addr(plan::CONTROL_PORT));
    Job::new(&mesh.subject.ztunnel)
        .env("NODE_NAME", place.name())
        .env("INPOD_UDS", &files.zds_socket)
        .env("XDS_ADDRESS", &control)
        .env("XDS_ROOT_CA", &mesh.root_certificate)
        .env("CA_ADDRESS", &control)
        .env("CA_ROOT_CA", &mesh.root_certificate)
        .env("AUTH_TOKEN", &files.ztunnel_token)
        .env("CLUSTER_ID", mesh.cluster_id)
        .env("TRUST_DOMAIN", mesh.trust_domain)
        .env("IPV6_ENABLED", "true")
        .env("RUST_LOG", &mesh.log_level)
        .env("LOG_FORMAT", "plain")
}
