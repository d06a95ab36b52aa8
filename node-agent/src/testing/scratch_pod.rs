//! A pod made of a namespace with a path.

use std::net::{IpAddr, TcpListener, TcpStream};
use std::path::PathBuf;

use netns::{Fence, NamedNetns, PodNetns};

/// A namespace with lo up and one address on it.
pub struct ScratchPod {
    named: NamedNetns,
    pub ip: IpAddr,
    fence: Fence,
    folder: tempfile::TempDir,
}

impl ScratchPod {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let named = NamedNetns::create(folder.path(), "pod").unwrap();
        let pod =
            Self { named, ip: "10.9.0.5".parse().unwrap(), fence: Fence::new(1).unwrap(), folder };
        pod.run("ip link set lo up");
        pod.run("ip address add 10.9.0.5/32 dev lo");
        pod
    }

    pub fn netns(&self) -> PodNetns {
        self.named.netns().clone()
    }

    pub fn path(&self) -> PathBuf {
        self.named.path().to_owned()
    }

    /// Runs a command line in the pod; its standard output.
    pub fn run(&self, line: &str) -> String {
        let (status, output) = self.try_run(line);
        assert!(status, "{line}: {output}");
        output
    }

    /// Like [`ScratchPod::run`], of something that may fail.
    #[expect(clippy::disallowed_methods, reason = "tests look at the kernel with its own tools")]
    pub fn try_run(&self, line: &str) -> (bool, String) {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let job = move || std::process::Command::new(&words[0]).args(&words[1..]).output();
        let output = self.fence.run(&self.named.netns().clone(), job).unwrap().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let status = output.status.success();
        (status, if status { text(&output.stdout) } else { text(&output.stderr) })
    }

    /// Runs code in the pod.
    pub fn inside<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        self.fence.run(&self.named.netns().clone(), job).unwrap()
    }

    /// The pod's application dials a server, and is led to a listener on ztunnel's port:
    /// the listener, the application's end, ztunnel's end.
    pub fn dial(&self) -> (TcpListener, TcpStream, TcpStream) {
        // A destination that is not local: only then is it captured.
        self.run("ip link add away type veth peer name far");
        self.run("ip address add 10.9.1.1/24 dev away");
        self.run("ip link set far up");
        self.run("ip link set away up");
        self.inside(|| {
            let ztunnel = TcpListener::bind("0.0.0.0:15001").unwrap();
            let app = TcpStream::connect("10.9.1.2:80").unwrap();
            let (accepted, _) = ztunnel.accept().unwrap();
            (ztunnel, app, accepted)
        })
    }

    /// A server elsewhere, at 10.9.1.2 behind a link of the pod: what is dialled there is
    /// captured. For as long as the pod is there.
    pub fn far_end(&self) -> PodNetns {
        use std::os::fd::{AsFd, AsRawFd};
        let far = PodNetns::scratch().unwrap();
        let path = format!("/proc/{}/fd/{}", std::process::id(), far.as_fd().as_raw_fd());
        self.run(&format!("ip link add away type veth peer name far netns {path}"));
        self.run("ip address add 10.9.1.1/24 dev away");
        self.run("ip link set away up");
        let up = |line: &'static str| {
            let words = line.split(' ').collect::<Vec<_>>();
            #[expect(clippy::disallowed_methods, reason = "tests make their links with ip")]
            let job = move || std::process::Command::new(words[0]).args(&words[1..]).status();
            assert!(self.fence.run(&far, job).unwrap().unwrap().success(), "{line}");
        };
        up("ip link set lo up");
        up("ip address add 10.9.1.2/24 dev far");
        up("ip link set far up");
        far
    }

    /// A connection of the pod's application with a server elsewhere: both ends.
    pub fn dial_elsewhere(&self) -> (TcpStream, TcpStream) {
        let far = self.far_end();
        let listener = self.fence.run(&far, || TcpListener::bind("10.9.1.2:80")).unwrap().unwrap();
        let app = self.inside(|| TcpStream::connect("10.9.1.2:80")).unwrap();
        (app, listener.accept().unwrap().0)
    }

    /// A captured connection of the pod's application: its end, and ztunnel's.
    pub fn dial_captured(&self) -> (TcpStream, TcpStream) {
        self.inside(|| {
            let ztunnel = TcpListener::bind("0.0.0.0:15001").unwrap();
            let app = TcpStream::connect("10.9.1.2:80").unwrap();
            (app, ztunnel.accept().unwrap().0)
        })
    }

    /// A connection that ztunnel opens to the pod's application: both ends.
    pub fn dial_as_ztunnel(&self) -> (TcpStream, TcpStream) {
        self.inside(|| {
            let listener = TcpListener::bind("10.9.0.5:0").unwrap();
            let to = listener.local_addr().unwrap();
            let mark = Some(zds::PACKET_MARK.value);
            let dial = netns::Dial { to, mark, from: None };
            let socket = netns::dial_socket(&dial).unwrap();
            socket.connect_timeout(&to.into(), super::PATIENCE).unwrap();
            (socket.into(), listener.accept().unwrap().0)
        })
    }

    /// A connection that stays in the pod: both ends.
    pub fn dial_itself(&self) -> (TcpStream, TcpStream) {
        self.inside(|| {
            let listener = TcpListener::bind("10.9.0.5:0").unwrap();
            let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            (near, listener.accept().unwrap().0)
        })
    }

    /// Everything of ours that is in the pod, as the kernel's own tools show it.
    pub fn traces(&self) -> String {
        let routes = |family: &str| self.try_run(&format!("ip {family} route show table 1337"));
        let mut traces = self.run("nft list ruleset");
        for family in ["-4", "-6"] {
            let rules = self.run(&format!("ip {family} rule"));
            traces.extend(rules.lines().filter(|rule| rule.contains("1337")));
            // A table that was never used is an error in words only.
            let (known, found) = routes(family);
            traces.push_str(if known { found.trim() } else { "" });
        }
        traces.push_str(self.run("conntrack -L").trim());
        traces
    }
}

impl Drop for ScratchPod {
    fn drop(&mut self) {
        // The folder becomes a mount point when a namespace is bound in it, and a mount
        // point cannot be removed.
        let _ = nix::mount::umount2(self.folder.path(), nix::mount::MntFlags::MNT_DETACH);
    }
}
