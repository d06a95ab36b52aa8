//! Three pods on a switch: `client`, `server`, and `middle` for whoever stands between
//! them, each in a namespace of its own, captured by rules of the shape that the node agent
//! installs.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh::proto::security::{Action, Authorization, Match, Rule, Scope, StringMatch};
use mesh::proto::security::{Clause, string_match::MatchType};
use mesh::{Identity, Policy, Protocol, View, Workload};
use netns::{Dial, Fence, Listen, PodNetns, dial_socket, listen_tcp};
use prometheus_client::registry::Registry;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::identity::{Certificates, Issuer};
use crate::proxy::{
    Claim, Listeners, NameServer, Pod, PodProxy, ProxyContext, ProxyError, Settings,
};
use crate::source::{ViewWriter, channel};
use crate::telemetry::Telemetry;
use crate::tls::Terms;
use crate::tls::test_ca::TestCa;
use crate::worker::Workers;

pub(super) const PATIENCE: Duration = Duration::from_secs(20);

pub(super) async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(PATIENCE, what).await.expect("it did not happen in time")
}

/// The connection is reset, as soon as it is there or later, and nothing is heard on it.
pub(super) async fn refused(dial: impl Future<Output = io::Result<TcpStream>>) {
    match dial.await {
        Ok(mut near) => torn(&mut near).await,
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
    }
}

/// The connection is torn, not ended.
pub(super) async fn torn(end: &mut TcpStream) {
    let error = soon(end.read_u8()).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

/// One pod: a namespace, its addresses, and its name.
#[derive(Clone)]
pub(super) struct TestPod {
    pub(super) name: &'static str,
    pub(super) netns: PodNetns,
    pub(super) v4: IpAddr,
    pub(super) v6: IpAddr,
    fence: Fence,
}

pub(super) struct World {
    pub(super) client: TestPod,
    pub(super) server: TestPod,
    /// A waypoint, a gateway, a resolver; nobody has it in a view unless a test says so.
    pub(super) middle: TestPod,
    _switch: PodNetns,
    pub(super) ca: TestCa,
    pub(super) context: Arc<ProxyContext>,
    pub(super) writer: ViewWriter,
}

/// What the agent's rules do to the connections of these tests.
const RULES: &str = "table inet capture {
  chain pre { type nat hook prerouting priority -105;
    iifname lo accept
    tcp dport 15008 accept
    meta l4proto tcp redirect to :15006
  }
  chain out { type nat hook output priority -105;
    oifname lo accept
    meta mark and 0xfff == 0x539 accept
    meta l4proto tcp redirect to :15001
  }
  chain answers { type route hook output priority mangle;
    oifname lo meta mark and 0xfff == 0x539 ct state new ct mark set 0x111 accept
    ct direction reply ct mark 0x111 meta mark set 0x111
  }
}";

impl TestPod {
    fn new(name: &'static str, number: u8, fence: &Fence) -> Self {
        let pod = Self {
            name,
            netns: PodNetns::scratch().expect("these tests need root"),
            v4: format!("10.77.0.{number}").parse().unwrap(),
            v6: format!("fd77::{number}").parse().unwrap(),
            fence: fence.clone(),
        };
        pod.run("ip", &["link", "set", "lo", "up"]);
        pod
    }

    /// Runs a program inside the pod.
    #[expect(clippy::disallowed_methods, reason = "tests build their own namespaces")]
    pub(super) fn run(&self, program: &'static str, args: &[&str]) {
        let args: Vec<String> = args.iter().map(ToString::to_string).collect();
        let text = format!("{program} {args:?}");
        let job = move || Command::new(program).args(args).output();
        let output = self.fence.run(&self.netns, job).unwrap().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{text}: {stderr}");
    }

    fn capture(&self) {
        self.run("nft", &[RULES]);
        for family in ["-4", "-6"] {
            let rule = "rule add fwmark 0x111/0xfff pref 13 lookup 1337";
            let route = "route add local default dev lo table 1337";
            for command in [rule, route] {
                let args: Vec<&str> = [family].into_iter().chain(command.split(' ')).collect();
                self.run("ip", &args);
            }
        }
    }

    fn address(&self) {
        self.run("ip", &["address", "add", &format!("{}/24", self.v4), "dev", "eth0"]);
        self.run("ip", &["address", "add", &format!("{}/64", self.v6), "dev", "eth0", "nodad"]);
        self.run("ip", &["link", "set", "eth0", "up"]);
        is_deliverable(&self.fence, &self.netns, self.v6);
    }

    /// An application of the pod listens.
    pub(super) fn listen(&self, port: u16) -> TcpListener {
        let addr = SocketAddr::new("::".parse().unwrap(), port);
        let listen = Listen { addr, backlog: 64, mark: None };
        let job = move || listen_tcp(&listen);
        let std = self.fence.run(&self.netns, job).unwrap().unwrap();
        TcpListener::from_std(std).unwrap()
    }

    /// The same for datagrams.
    pub(super) fn listen_udp(&self, port: u16) -> UdpSocket {
        let at = SocketAddr::new(self.v4, port);
        let job = move || netns::listen_udp(at, None, 4 << 20);
        UdpSocket::from_std(self.fence.run(&self.netns, job).unwrap().unwrap()).unwrap()
    }

    /// An application of the pod connects.
    pub(super) async fn dial(&self, to: SocketAddr) -> io::Result<TcpStream> {
        self.dial_marked(to, None).await
    }

    /// Connects past the pod's capture, as something outside the mesh at its address.
    pub(super) async fn dial_uncaptured(&self, to: SocketAddr) -> io::Result<TcpStream> {
        self.dial_marked(to, Some(zds::PACKET_MARK.value)).await
    }

    async fn dial_marked(&self, to: SocketAddr, mark: Option<u32>) -> io::Result<TcpStream> {
        let job = move || dial_socket(&Dial { to, mark, from: None });
        let socket = self.fence.run(&self.netns, job).unwrap()?;
        soon(TcpSocket::from_std_stream(socket.into()).connect(to)).await
    }

    pub(super) fn identity(&self) -> Identity {
        Identity::new("", "shop", self.name).unwrap()
    }

    pub(super) fn workload(&self) -> Workload {
        let uid = format!("Kubernetes//Pod/shop/{}", self.name);
        Workload::new(&uid, "shop", self.name, self.identity()).with(|it| {
            it.addresses = [self.v4, self.v6].into_iter().collect();
            it.protocol = Protocol::Hbone;
            it.node = "n1".into();
            it.canonical_name = self.name.into();
        })
    }

    pub(super) fn pod(&self) -> Pod {
        Pod {
            uid: format!("uid-{}", self.name),
            info: zds::WorkloadInfo {
                name: self.name.to_owned(),
                namespace: "shop".to_owned(),
                service_account: self.name.to_owned(),
            },
            netns: self.netns.clone().into(),
            listeners: Listeners::ToBind(Claim::Shared),
            name_server: NameServer::AsConfigured,
        }
    }
}

impl World {
    /// Both pods, captured, with nothing published yet.
    pub(super) fn new() -> Self {
        Self::made(Settings::default(), &Terms::default(), &mut Registry::default())
    }

    /// The same on other terms of TLS, with metrics to look at.
    pub(super) fn under(terms: &Terms, registry: &mut Registry) -> Self {
        Self::made(Settings::default(), terms, registry)
    }

    /// The same, with other settings.
    pub(super) fn with(settings: Settings) -> Self {
        Self::made(settings, &Terms::default(), &mut Registry::default())
    }

    fn made(settings: Settings, terms: &Terms, registry: &mut Registry) -> Self {
        let fence = Fence::new(2).unwrap();
        let client = TestPod::new("client", 1, &fence);
        let server = TestPod::new("server", 2, &fence);
        let middle = TestPod::new("middle", 3, &fence);
        let switch = wire([&client, &server, &middle]);
        for pod in [&client, &server, &middle] {
            pod.address();
            pod.capture();
        }
        let (writer, view) = channel();
        let ca = TestCa::new();
        let issuer = Issuer::Local(ca.clone());
        let certificates = Certificates::with_issuer_and_terms(issuer, terms);
        let telemetry = Telemetry::new(registry);
        let workers = Workers::start(NonZeroUsize::new(2).unwrap()).unwrap();
        let context = ProxyContext::new(view, certificates, telemetry, fence, workers, settings);
        Self { client, server, middle, _switch: switch, ca, context, writer }
    }

    /// Both pods with their proxies, known to the mesh.
    pub(super) async fn started() -> (Self, PodProxy, PodProxy) {
        let world = Self::new();
        world.publish(&[]);
        let client = world.start(&world.client).await.unwrap();
        let server = world.start(&world.server).await.unwrap();
        (world, client, server)
    }

    pub(super) async fn start(&self, pod: &TestPod) -> Result<PodProxy, ProxyError> {
        soon(PodProxy::start(&self.context, pod.pod())).await
    }

    /// The serial number of a pod's certificate.
    pub(super) fn serial_of(&self, pod: &TestPod) -> u64 {
        let all = self.context.certificates.summary();
        let own = all.iter().find(|one| one.identity == pod.identity().to_string()).unwrap();
        own.cert_chain[0].serial_number.parse().unwrap()
    }

    /// Publishes a view of both pods and these policies.
    pub(super) fn publish(&self, policies: &[Authorization]) {
        self.publish_with(policies, |_| ());
    }

    /// The same, with the server's workload changed.
    pub(super) fn publish_with(
        &self,
        policies: &[Authorization],
        change: impl FnOnce(&mut Workload),
    ) {
        let mut view = View::default();
        let mut server = self.server.workload();
        change(&mut server);
        view.insert_workload(self.client.workload());
        view.insert_workload(server);
        for policy in policies {
            view.insert_policy(Policy::try_from(policy.clone()).unwrap());
        }
        self.writer.publish(view);
    }
}

/// The samples of a metric whose labels contain `with`, summed by the value of
/// `response_flags`; what has no such label is under the empty name.
pub(super) fn counted(registry: &Registry, name: &str, with: &str) -> BTreeMap<String, u64> {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
    let mut sums = BTreeMap::new();
    let all =
        text.lines().filter_map(|line| line.strip_prefix(name)).filter(|it| it.contains(with));
    for (labels, value) in all.filter_map(|sample| sample.rsplit_once(' ')) {
        let flags = labels.split_once("response_flags=\"").and_then(|(_, it)| it.split_once('"'));
        *sums.entry(flags.unwrap_or_default().0.to_owned()).or_default() +=
            value.parse::<u64>().unwrap();
    }
    sums
}

/// Waits until what is sent to an IPv6 address of this namespace stays here. The kernel lets
/// it be used before: until its own work queue has made the address' route, an answer to it
/// is looked for on the wire, and lost.
pub(super) fn is_deliverable(fence: &Fence, netns: &PodNetns, address: IpAddr) {
    let IpAddr::V6(v6) = address else { return };
    let route = format!("{:032x} 80 ", u128::from(v6));
    let deadline = Instant::now() + PATIENCE;
    let job = move || {
        while Instant::now() < deadline {
            let routes = std::fs::read_to_string("/proc/thread-self/net/ipv6_route").unwrap();
            if routes.lines().any(|line| line.starts_with(&route)) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        false
    };
    assert!(fence.run(netns, job).unwrap(), "{address} never became deliverable");
}

/// Puts the pods on one switch, which lives as long as its namespace.
fn wire(pods: [&TestPod; 3]) -> PodNetns {
    let switch = TestPod::new("switch", 254, &pods[0].fence);
    let place = format!("/proc/{}/fd/{}", std::process::id(), switch.netns.as_fd().as_raw_fd());
    switch.run("ip", &["link", "add", "br0", "type", "bridge"]);
    switch.run("ip", &["link", "set", "br0", "up"]);
    for pod in pods {
        let port = pod.name;
        let pair = ["link", "add", "eth0", "type", "veth", "peer", port, "netns", &place];
        pod.run("ip", &pair);
        switch.run("ip", &["link", "set", port, "master", "br0", "up"]);
    }
    switch.netns
}

/// Denies a principal; `None` denies everybody.
pub(super) fn deny(principal: Option<&Identity>) -> Authorization {
    let exact = |identity: &Identity| StringMatch {
        match_type: Some(MatchType::Exact(identity.principal())),
    };
    let clauses = principal.map(|identity| Clause {
        matches: vec![Match { principals: vec![exact(identity)], ..Match::default() }],
    });
    Authorization {
        name: "deny".to_owned(),
        namespace: "shop".to_owned(),
        scope: Scope::Namespace.into(),
        action: Action::Deny.into(),
        rules: vec![Rule { clauses: clauses.into_iter().collect() }],
        ..Authorization::default()
    }
}
