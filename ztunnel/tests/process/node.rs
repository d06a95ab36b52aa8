//! A node around the program: pods that are captured, something to talk to outside the
//! mesh, and an agent that hands the pods over.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use netns::{Dial, Fence, Listen, PodNetns};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;
use zds::link::{Link, Listener};
use zds::workload_request::Payload;
use zds::{AddWorkload, SnapshotSent, WorkloadInfo, WorkloadRequest};

use super::LIMIT;

/// Where the application outside listens; it sends back what it hears.
const ECHO: u16 = 8080;

/// The part of the capture that what pods open needs.
const RULES: &str = "table inet sluice { chain capture { type nat hook output priority -105; \
    oifname lo accept; meta mark and 0xfff == 0x539 accept; \
    meta l4proto tcp redirect to :15001; }; }";

/// What is not captured, with an application that echoes.
pub(super) struct Outside {
    fence: Fence,
    netns: PodNetns,
}

impl Outside {
    pub(super) fn new() -> Self {
        let fence = Fence::new(1).unwrap();
        let netns = PodNetns::scratch().expect("these tests need root");
        let addr = SocketAddr::from((Ipv4Addr::UNSPECIFIED, ECHO));
        let listen = Listen { addr, backlog: 4096, mark: None };
        let listener = fence.run(&netns, move || netns::listen_tcp(&listen)).unwrap().unwrap();
        listener.set_nonblocking(false).unwrap();
        // Ends with the test's process.
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                std::thread::spawn(move || io::copy(&mut &stream, &mut &stream));
            }
        });
        Self { fence, netns }
    }

    /// A captured pod with a wire to the outside.
    pub(super) fn pod(&self, name: &'static str, number: u8) -> TestPod {
        let netns = PodNetns::scratch().unwrap();
        let place = format!("/proc/{}/fd/{}", std::process::id(), self.netns.as_fd().as_raw_fd());
        let (near, far) = (format!("10.78.{number}.1"), format!("10.78.{number}.254"));
        let port = format!("to-{name}");
        let inside = |words: &str| run(&self.fence, &netns, words.split(' '));
        let outside = |words: &str| run(&self.fence, &self.netns, words.split(' '));
        inside("ip link set lo up");
        inside(&format!("ip link add eth0 type veth peer {port} netns {place}"));
        inside(&format!("ip address add {near}/24 dev eth0"));
        inside("ip link set eth0 up");
        outside(&format!("ip address add {far}/24 dev {port}"));
        outside(&format!("ip link set {port} up"));
        run(&self.fence, &netns, ["nft", RULES].into_iter());
        TestPod { name, netns, to: SocketAddr::new(far.parse().unwrap(), ECHO) }
    }
}

fn run<'a>(fence: &Fence, netns: &PodNetns, words: impl Iterator<Item = &'a str>) {
    let words: Vec<String> = words.map(str::to_owned).collect();
    let text = words.join(" ");
    let job = move || Command::new(&words[0]).args(&words[1..]).output();
    let output = fence.run(netns, job).unwrap().unwrap();
    assert!(output.status.success(), "{text}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A captured pod, and the application outside as it sees it.
pub(super) struct TestPod {
    pub(super) name: &'static str,
    pub(super) netns: PodNetns,
    to: SocketAddr,
}

impl TestPod {
    /// Connects to the application outside, which does not need ztunnel to have noticed.
    ///
    /// # Errors
    /// As `connect(2)`: reset, if ztunnel was quick to close it.
    pub(super) fn dial(&self) -> io::Result<TcpStream> {
        let dial = Dial { to: self.to, mark: None, from: None };
        let socket = netns::dial_socket_in(&self.netns, &dial).unwrap();
        socket.set_nonblocking(false).unwrap();
        socket.connect_timeout(&self.to.into(), LIMIT)?;
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(LIMIT))?;
        Ok(stream)
    }

    /// A connection that was served, or nothing if it was closed.
    pub(super) fn talk(&self) -> Option<TcpStream> {
        match self.dial() {
            Ok(stream) => echoes(&stream).then_some(stream),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => None,
            Err(error) => panic!("{}: {error}", self.name),
        }
    }
}

/// Does a byte come back, or is the connection closed?
pub(super) fn echoes(mut stream: &TcpStream) -> bool {
    match stream.write_all(b"?").and_then(|()| stream.read_exact(&mut [0])) {
        Ok(()) => true,
        Err(error) => {
            let late = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
            assert!(!late, "neither served nor closed: {error}");
            false
        }
    }
}

/// The node agent, as far as a ztunnel that binds its own ports needs one.
pub(super) struct Agent {
    runtime: Runtime,
    link: Link,
}

impl Agent {
    /// Waits for the ztunnel that `started` starts, and says that there is no pod yet.
    pub(super) fn meet(socket: &Path, started: impl FnOnce()) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let link = runtime.block_on(async {
            let mut listener = Listener::bind(socket).unwrap();
            started();
            let link = timeout(LIMIT, listener.accept()).await.unwrap().unwrap();
            let hello = timeout(LIMIT, link.recv()).await.unwrap().unwrap().unwrap();
            zds::decode_hello(&hello.bytes, &hello.fds).unwrap();
            link
        });
        let agent = Self { runtime, link };
        agent.ask(Payload::SnapshotSent(SnapshotSent {}), None);
        agent
    }

    /// Hands a pod over; it is served when this returns.
    pub(super) fn add(&self, pod: &TestPod) {
        let info = WorkloadInfo {
            name: pod.name.to_owned(),
            namespace: "shop".to_owned(),
            service_account: "default".to_owned(),
        };
        let uid = format!("uid-{}", pod.name);
        let add = AddWorkload { uid, workload_info: Some(info), ..AddWorkload::default() };
        self.ask(Payload::Add(add), Some(&pod.netns));
    }

    fn ask(&self, payload: Payload, netns: Option<&PodNetns>) {
        let request = WorkloadRequest { payload: Some(payload), ..WorkloadRequest::default() };
        let bytes = zds::encode(&request).unwrap();
        let fds: Vec<_> = netns.iter().map(|netns| netns.as_fd()).collect();
        self.runtime.block_on(async {
            self.link.send(&bytes, &fds).await.unwrap();
            let answer = timeout(LIMIT, self.link.recv()).await.unwrap().unwrap().unwrap();
            zds::decode_response(&answer.bytes, answer.fds).unwrap().unwrap();
        });
    }
}

/// Looks until it is so.
pub(super) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !is_so() {
        assert!(start.elapsed() < LIMIT, "not so in {LIMIT:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
