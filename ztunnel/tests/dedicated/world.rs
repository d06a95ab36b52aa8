//! Machines on a switch, each a namespace with rules of its own, as virtual machines have
//! them, and the program as a process on them.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use netns::{Fence, Listen, PodNetns, listen_tcp};
use socket2::SockRef;
use tempfile::{NamedTempFile, TempDir};

use super::authority::Authority;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_ztunnel");
pub const LIMIT: Duration = Duration::from_secs(30);

/// The user that ztunnel has on machines where rules tell it by that.
const USER: &str = "1337";

/// How a machine's rules tell ztunnel's own traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exempt {
    User,
    Mark,
}

/// What the rules of a machine do. Whoever operates it writes them; ztunnel does not.
fn rules(exempt: Exempt) -> String {
    let ours = match exempt {
        Exempt::User => format!("meta skuid {USER}"),
        Exempt::Mark => "meta mark and 0xfff == 0x539".to_owned(),
    };
    format!(
        "table inet capture {{
          chain pre {{ type nat hook prerouting priority -105;
            iifname lo accept
            tcp dport {{ 15008, 15020, 15021 }} accept
            meta l4proto tcp redirect to :15006
          }}
          chain out {{ type nat hook output priority -105;
            {ours} accept
            udp dport 53 redirect to :15053
            oifname lo accept
            meta l4proto tcp redirect to :15001
          }}
        }}"
    )
}

/// What it takes beyond that for applications to see clients' addresses: their answers must
/// come back to ztunnel.
const ANSWERS: &str = "table inet answers {
  chain answers { type route hook output priority mangle;
    oifname lo meta mark and 0xfff == 0x539 ct state new ct mark set 0x111 accept
    ct direction reply ct mark 0x111 meta mark set 0x111
  }
}";

/// One machine.
pub struct Host {
    pub netns: PodNetns,
    pub v4: IpAddr,
    pub v6: IpAddr,
    name: &'static str,
    fence: Fence,
}

impl Host {
    fn new(name: &'static str, number: u8) -> Self {
        let host = Self {
            netns: PodNetns::scratch().expect("these tests need root"),
            v4: format!("10.79.0.{number}").parse().unwrap(),
            v6: format!("fd79::{number}").parse().unwrap(),
            name,
            fence: Fence::new(1).unwrap(),
        };
        host.run("ip link set lo up");
        host
    }

    fn run(&self, command: &str) {
        let words: Vec<_> = command.split(' ').map(ToOwned::to_owned).collect();
        self.exec(words);
    }

    fn exec(&self, words: Vec<String>) {
        let text = format!("{words:?}");
        let job = move || Command::new(&words[0]).args(&words[1..]).output();
        let output = self.fence.run(&self.netns, job).unwrap().unwrap();
        assert!(output.status.success(), "{text}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Without rules, as before [`Host::capture`].
    fn release(&self) {
        self.exec(vec![
            "nft".to_owned(),
            "table inet capture; delete table inet capture".to_owned(),
        ]);
    }

    /// Loads the rules of a machine.
    pub fn capture(&self, exempt: Exempt) {
        self.exec(vec!["nft".to_owned(), rules(exempt)]);
    }

    /// Leads answers to clients back to ztunnel.
    pub fn lead_answers_back(&self) {
        self.exec(vec!["nft".to_owned(), ANSWERS.to_owned()]);
        for family in ["-4", "-6"] {
            self.run(&format!("ip {family} rule add fwmark 0x111/0xfff pref 13 lookup 1337"));
            self.run(&format!("ip {family} route add local default dev lo table 1337"));
        }
    }

    /// An application listens.
    pub fn listen(&self, port: u16) -> TcpListener {
        let addr = SocketAddr::new("::".parse().unwrap(), port);
        let job = move || listen_tcp(&Listen { addr, backlog: 64, mark: None });
        let listener = self.fence.run(&self.netns, job).unwrap().unwrap();
        listener.set_nonblocking(false).unwrap();
        SockRef::from(&listener).set_read_timeout(Some(LIMIT)).unwrap();
        listener
    }

    /// An application connects.
    pub fn dial(&self, to: SocketAddr) -> std::io::Result<TcpStream> {
        let job = move || TcpStream::connect_timeout(&to, LIMIT);
        let stream = self.fence.run(&self.netns, job).unwrap()?;
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        Ok(stream)
    }

    /// An application looks a name up, whoever its resolver is.
    pub fn ask(&self, query: &[u8]) -> Vec<u8> {
        let (query, from) = (query.to_vec(), SocketAddr::new(self.v4, 0));
        let job = move || {
            let socket = UdpSocket::bind(from).unwrap();
            socket.set_read_timeout(Some(LIMIT)).unwrap();
            socket.connect("10.79.0.200:53").unwrap();
            socket.send(&query).unwrap();
            let mut answer = [0; 512];
            let length = socket.recv(&mut answer).unwrap();
            answer[..length].to_vec()
        };
        self.fence.run(&self.netns, job).unwrap()
    }
}

/// Two machines and the host of the control plane, which nobody captures.
pub struct World {
    pub buyer: Host,
    pub seller: Host,
    pub control: Host,
    pub authority: Authority,
    folder: TempDir,
    _switch: Host,
}

/// The seller is also a service; its port 9090 is not for the buyer.
pub const SERVICE: &str = "10.96.0.10:80";
const MESH: &str = "
workloads:
- { uid: vm/buyer, name: buyer, namespace: shop, serviceAccount: buyer,
    workloadIps: [10.79.0.1, 'fd79::1'], protocol: HBONE }
- { uid: vm/seller, name: seller, namespace: shop, serviceAccount: seller,
    workloadIps: [10.79.0.2, 'fd79::2'], protocol: HBONE,
    services: { shop/seller.shop.svc.cluster.local: { 80: 8080 } } }
services:
- { name: seller, namespace: shop, hostname: seller.shop.svc.cluster.local,
    vips: [/10.96.0.10], ports: { 80: 8080 } }
policies:
- name: not-the-buyer
  namespace: shop
  scope: Namespace
  action: Deny
  rules: [[[{ principals: [cluster.local/ns/shop/sa/buyer], destinationPorts: [9090] }]]]
";

impl World {
    pub fn new() -> Self {
        let [buyer, seller, control] = [("buyer", 1), ("seller", 2), ("control", 100)]
            .map(|(name, number)| Host::new(name, number));
        let switch = wire([&buyer, &seller, &control]);
        let addr = SocketAddr::new(control.v4, 15012);
        let job = move || listen_tcp(&Listen { addr, backlog: 64, mark: None });
        let listener = control.fence.run(&control.netns, job).unwrap().unwrap();
        let authority = Authority::serve(listener);
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("root.pem"), authority.root()).unwrap();
        std::fs::write(folder.path().join("token"), "machine-token").unwrap();
        // Who is not root must be able to read them.
        open_to_all(folder.path());
        Self { buyer, seller, control, authority, folder, _switch: switch }
    }

    /// The file with the root of the control plane.
    pub fn root(&self) -> String {
        self.folder.path().join("root.pem").to_str().unwrap().to_owned()
    }

    /// Starts ztunnel on `host` as the workload of the same name, and waits until it is ready.
    pub fn start<'a>(
        &self,
        host: &'a Host,
        exempt: Exempt,
        settings: &[(&str, &str)],
    ) -> Ztunnel<'a> {
        host.release();
        host.capture(exempt);
        let info = format!("shop/{0}/{0}", host.name);
        let mark: &[_] = if exempt == Exempt::Mark { &[("PACKET_MARK", "1337")] } else { &[] };
        let settings = [settings, &[("PROXY_WORKLOAD_INFO", info.as_str())], mark].concat();
        let ztunnel = self.spawn(host, exempt, &settings);
        ztunnel.until_ready("200");
        ztunnel
    }

    /// The same without waiting.
    pub fn spawn<'a>(
        &self,
        host: &'a Host,
        exempt: Exempt,
        settings: &[(&str, &str)],
    ) -> Ztunnel<'a> {
        let (root, token) = (self.folder.path().join("root.pem"), self.folder.path().join("token"));
        let ca = format!("https://{}:15012", self.control.v4);
        let settings: Vec<_> = [
            ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
            ("PROXY_MODE", "dedicated"),
            ("CA_ADDRESS", &ca),
            ("CA_ROOT_CA", root.to_str().unwrap()),
            ("AUTH_TOKEN", token.to_str().unwrap()),
            ("XDS_ADDRESS", ""),
            ("LOCAL_XDS", MESH),
            ("ZTUNNEL_WORKER_THREADS", "2"),
        ]
        .iter()
        .chain(settings)
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
        let words: &[&str] = match exempt {
            Exempt::Mark => &[PROGRAM],
            // Without any privilege.
            Exempt::User => &[
                "setpriv",
                "--reuid",
                USER,
                "--regid",
                USER,
                "--clear-groups",
                "--inh-caps=-all",
                "--bounding-set=-all",
                "--no-new-privs",
                PROGRAM,
            ],
        };
        let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
        let log = NamedTempFile::new().unwrap();
        let output = log.reopen().unwrap();
        let job = move || spawn(&words, settings, output);
        let child = host.fence.run(&host.netns, job).unwrap();
        Ztunnel { host, child, log }
    }
}

fn spawn(words: &[String], settings: Vec<(String, String)>, output: File) -> Child {
    let errors = output.try_clone().unwrap();
    Command::new(&words[0])
        .args(&words[1..])
        .env_clear()
        .envs(settings)
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .spawn()
        .unwrap()
}

fn open_to_all(folder: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).unwrap();
}

fn wire(hosts: [&Host; 3]) -> Host {
    let switch = Host::new("switch", 254);
    let place = format!("/proc/{}/fd/{}", std::process::id(), switch.netns.as_fd().as_raw_fd());
    switch.run("ip link add br0 type bridge");
    switch.run("ip link set br0 up");
    for host in hosts {
        let (name, v4, v6) = (host.name, host.v4, host.v6);
        host.run(&format!("ip link add eth0 type veth peer {name} netns {place}"));
        switch.run(&format!("ip link set {name} master br0 up"));
        host.run(&format!("ip address add {v4}/24 dev eth0"));
        host.run(&format!("ip address add {v6}/64 dev eth0 nodad"));
        host.run("ip link set eth0 up");
        // Services have addresses of no network.
        host.run("ip route add default dev eth0");
    }
    switch
}

/// A running ztunnel; killed when dropped.
pub struct Ztunnel<'a> {
    host: &'a Host,
    child: Child,
    log: NamedTempFile,
}

impl Ztunnel<'_> {
    /// Asks over the machine's loopback; `None` while nobody answers.
    fn try_ask(&self, port: u16, request: &str) -> Option<String> {
        let mut stream = self.host.dial(SocketAddr::new([127, 0, 0, 1].into(), port)).ok()?;
        write!(stream, "{request} HTTP/1.1\r\nhost: x\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    pub fn ask(&self, port: u16, request: &str) -> String {
        self.eventually(request, || self.try_ask(port, request))
    }

    /// Waits until what readiness answers contains `text`.
    pub fn until_ready(&self, text: &str) -> String {
        let ask = || self.try_ask(15021, "GET /healthz/ready").filter(|it| it.contains(text));
        self.eventually(text, ask)
    }

    /// Waits until the log contains a line with all of `words`.
    pub fn until_logged(&self, words: &[&str]) {
        let has = |line: &&str| words.iter().all(|word| line.contains(word));
        let look = || self.log().lines().find(has).map(drop);
        self.eventually(&format!("{words:?} in the log"), look);
    }

    fn eventually<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            if let Some(found) = look() {
                return found;
            }
            assert!(start.elapsed() < LIMIT, "{what} did not come; its log:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log.path()).unwrap()
    }

    pub fn terminate(&self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    }

    pub fn ended(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < LIMIT, "it does not end; its log:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Ztunnel<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
