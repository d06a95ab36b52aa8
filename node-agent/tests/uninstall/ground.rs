//! A node of our own making: a namespace that stands for the node's, pods, a `/proc` that
//! shows them, the runtime's folders, and the command.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use netns::{Fence, NamedNetns, PodNetns};
use node_agent::facts::{PodName, PodUid};
use node_agent::pod_netns::{Record, StoredId};
use node_agent::rules::{Programs, Rules, contract_options};
use serde_json::json;

use crate::support::{KUBECONFIG, PATIENCE, eventually};

/// As control groups name them.
pub const UIDS: [&str; 2] =
    ["7f3c1c52-9d5c-4d43-8f6f-0d9f1b6a0c11", "11111111-2222-3333-4444-555555555555"];

/// Gone when dropped.
pub struct Ground {
    pub folder: tempfile::TempDir,
    pub host: PodNetns,
    pub fence: Fence,
    runtime: tokio::runtime::Runtime,
    rules: Rules,
}

impl Ground {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["proc", "conf", "bin", "cache/results", "agent"] {
            std::fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let fence = Fence::new(2).unwrap();
        let find = |program: &str| {
            let folders = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
            folders.iter().map(|f| PathBuf::from(f).join(program)).find(|p| p.is_file()).unwrap()
        };
        let programs = Programs { nft: find("nft"), conntrack: find("conntrack"), ss: find("ss") };
        let rules = Rules::new(programs, fence.clone(), runtime.handle().clone());
        let host = PodNetns::scratch().unwrap();
        Self { folder, host, fence, runtime, rules }
    }

    pub fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    pub fn write(&self, path: &str, text: &str) {
        std::fs::write(self.at(path), text).unwrap();
    }

    pub fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.at(path)).unwrap()
    }

    /// Redirects a pod's connections, as the agent does.
    pub fn capture(&self, pod: &Pod) {
        let netns = pod.named.netns();
        self.runtime.block_on(self.rules.apply(netns, &contract_options())).unwrap();
    }

    /// A process that lives in the pod.
    pub fn process(&self, pid: u32, pod: &Pod, uid: &str) {
        let folder = self.at("proc").join(pid.to_string());
        std::fs::create_dir_all(folder.join("ns")).unwrap();
        symlink(pod.named.path(), folder.join("ns/net")).unwrap();
        std::fs::write(folder.join("cgroup"), format!("0::/kubepods/pod{uid}/x\n")).unwrap();
    }

    /// What the plugin told the agent about the pod.
    pub fn record(&self, pod: &Pod, name: &str) {
        let record = Record {
            uid: PodUid(format!("uid-{name}")),
            name: PodName { namespace: "shop".into(), name: name.into() },
            container_id: format!("c-{name}"),
            ifname: "eth0".into(),
            network: None,
            path: Some(pod.named.path().to_owned()),
            netns: StoredId::new(pod.named.netns().id(), "this boot"),
            ips: Vec::new(),
        };
        self.write("agent/pods.json", &json!({ "version": 1, "pods": [record] }).to_string());
    }

    /// A program of the agent's binary, inside the namespace that stands for the node's.
    #[expect(clippy::disallowed_methods, reason = "a test of the process starts processes")]
    fn command(&self, arguments: &[&str], settings: &[(&str, &str)]) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_node-agent"));
        command
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("RUN_DIR", self.at("agent"))
            .env("INPOD_UDS", self.at("ztunnel.sock"))
            .env("HOST_PROC", self.at("proc"))
            .env("CNI_CONF_DIR", self.at("conf"))
            .env("CNI_BIN_DIR", self.at("bin"))
            .env("CNI_CACHE_DIR", self.at("cache"))
            .env("PROBE_SOURCE", "off")
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        self.fence.run(&self.host, move || command.spawn()).unwrap().unwrap()
    }

    pub fn begin(&self, arguments: &[&str], settings: &[(&str, &str)]) -> Child {
        self.command(&[&["uninstall"], arguments].concat(), settings)
    }

    pub fn uninstall(&self, arguments: &[&str]) -> Told {
        told(self.begin(arguments, &[]))
    }

    /// An agent that acts on this node, without an API.
    pub fn agent(&self) -> Agent {
        self.agent_with(&[])
    }

    /// Likewise, with more settings.
    pub fn agent_with(&self, more: &[(&str, &str)]) -> Agent {
        self.write("kubeconfig", KUBECONFIG);
        let kubeconfig = self.at("kubeconfig").display().to_string();
        let settings = [
            ("NODE_NAME", "n1"),
            ("KUBECONFIG", &kubeconfig),
            ("ADMIN_ADDR", "127.0.0.1:0"),
            ("RUST_LOG", "off"),
        ];
        let agent = Agent(self.command(&[], &[&settings[..], more].concat()));
        let socket = self.at("agent/plugin.sock");
        eventually("the agent acts", || std::os::unix::net::UnixStream::connect(&socket).is_ok());
        agent
    }

    /// A command line in the namespace that stands for the node's.
    pub fn on_host(&self, line: &str) -> String {
        run(&self.fence, &self.host, line)
    }
}

/// A running agent; killed when dropped.
pub struct Agent(Child);

impl Agent {
    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a command said and how it ended.
#[derive(Debug)]
pub struct Told {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

pub fn told(child: Child) -> Told {
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Told { code: status.code(), out: text(stdout), err: text(stderr) }
}

/// A namespace with lo up, an address, and a link behind which there is nobody.
pub struct Pod {
    pub named: NamedNetns,
    fence: Fence,
    folder: tempfile::TempDir,
}

impl Pod {
    pub fn new(ground: &Ground) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let named = NamedNetns::create(folder.path(), "pod").unwrap();
        let pod = Self { named, fence: ground.fence.clone(), folder };
        for line in [
            "ip link set lo up",
            "ip address add 10.9.0.5/32 dev lo",
            "ip link add away type veth peer name far",
            "ip address add 10.9.1.1/24 dev away",
            "ip link set far up",
            "ip link set away up",
        ] {
            pod.run(line);
        }
        pod
    }

    pub fn run(&self, line: &str) -> String {
        run(&self.fence, self.named.netns(), line)
    }

    pub fn inside<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        self.fence.run(self.named.netns(), job).unwrap()
    }

    /// The application dials, and is led to a listener on ztunnel's port: that listener, the
    /// application's end, ztunnel's end.
    pub fn dial(&self) -> (TcpListener, TcpStream, TcpStream) {
        self.inside(|| {
            let ztunnel = TcpListener::bind("0.0.0.0:15001").unwrap();
            let app = TcpStream::connect("10.9.1.2:80").unwrap();
            let (accepted, _) = ztunnel.accept().unwrap();
            (ztunnel, app, accepted)
        })
    }

    /// Everything of ours that is in it.
    pub fn traces(&self) -> String {
        let rules = self.run("ip rule") + &self.run("ip -6 rule");
        let rules: Vec<&str> = rules.lines().filter(|rule| rule.contains("1337")).collect();
        let tracked = self.run("conntrack -L");
        let all = self.run("ip route show table all") + &self.run("ip -6 route show table all");
        let routes: Vec<&str> = all.lines().filter(|route| route.contains("table 1337")).collect();
        let tables = self.run("nft list table inet sluice");
        [tables.trim(), &rules.join("\n"), &routes.join("\n"), tracked.trim()].concat()
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        // A mount point cannot be removed.
        let _ = nix::mount::umount2(self.folder.path(), nix::mount::MntFlags::MNT_DETACH);
    }
}

/// Standard output; empty when it fails.
#[expect(clippy::disallowed_methods, reason = "tests look at the kernel with its own tools")]
fn run(fence: &Fence, netns: &PodNetns, line: &str) -> String {
    let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
    let job = move || Command::new(&words[0]).args(&words[1..]).output();
    let output = fence.run(netns, job).unwrap().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// Whether bytes still come through.
pub fn lives(from: &mut TcpStream, to: &TcpStream) -> bool {
    let mut byte = [0];
    to.set_read_timeout(Some(PATIENCE)).unwrap();
    from.write_all(b"x").is_ok() && std::io::Read::read(&mut &*to, &mut byte).is_ok_and(|n| n == 1)
}

/// Names in a folder, in order.
pub fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
