//! The program as a process, in a network namespace of its own.
#![expect(clippy::disallowed_methods, reason = "this room spawns the program under test")]
#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use netns::{Fence, PodNetns};

#[path = "process/descriptors.rs"]
mod descriptors;
#[path = "process/node.rs"]
mod node;

const PROGRAM: &str = env!("CARGO_BIN_EXE_ztunnel");
const LIMIT: Duration = Duration::from_secs(20);

/// A running ztunnel; killed when dropped.
struct Ztunnel {
    child: Child,
    fence: Fence,
}

impl Ztunnel {
    /// In a fresh namespace whose loopback is up.
    fn start(settings: &[(&str, &str)]) -> Self {
        Self::start_under(&[], settings, Stdio::piped())
    }

    /// The same as an argument of other programs, with its log going to `log`.
    fn start_under(wrapper: &[&str], settings: &[(&str, &str)], log: Stdio) -> Self {
        let script = "ip link set lo up && exec \"$0\" proxy ztunnel";
        let unshare = ["unshare", "--net", "sh", "-c", script, PROGRAM];
        let words = [wrapper, &unshare].concat();
        let child = Command::new(words[0])
            .args(&words[1..])
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .envs(settings.iter().copied())
            .stdout(log)
            .spawn()
            .unwrap();
        Self { child, fence: Fence::new(1).unwrap() }
    }

    /// Asks over the loopback of its namespace; `None` while nobody answers.
    fn ask(&self, port: u16, request: &str) -> Option<String> {
        let netns = PodNetns::open(Path::new(&format!("/proc/{}/ns/net", self.child.id()))).ok()?;
        let addr = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
        let connect = move || TcpStream::connect_timeout(&addr, Duration::from_secs(2));
        let mut stream = self.fence.run(&netns, connect).unwrap().ok()?;
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        write!(stream, "{request} HTTP/1.1\r\nhost: x\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    fn answer(&self, port: u16, request: &str) -> String {
        let start = Instant::now();
        loop {
            if let Some(answer) = self.ask(port, request) {
                return answer;
            }
            assert!(start.elapsed() < LIMIT, "nobody answers {request} on {port}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn terminate(&self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    }

    /// Waits for the end; what it logged comes along.
    fn ended(&mut self) -> (ExitStatus, String) {
        let start = Instant::now();
        let status = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status,
                None => assert!(start.elapsed() < LIMIT, "it does not end"),
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let mut log = String::new();
        if let Some(mut stdout) = self.child.stdout.take() {
            stdout.read_to_string(&mut log).unwrap();
        }
        (status, log)
    }
}

impl Drop for Ztunnel {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn alone_on_a_node_it_says_what_it_waits_for_and_ends_in_good_order() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("no-agent.sock");
    let root = folder.path().join("no-root.pem");
    let mut ztunnel = Ztunnel::start(&[
        ("NODE_NAME", "n1"),
        ("INPOD_UDS", socket.to_str().unwrap()),
        ("XDS_ROOT_CA", root.to_str().unwrap()),
    ]);
    let ready = ztunnel.answer(15021, "GET /healthz/ready");
    assert!(ready.starts_with("HTTP/1.1 500"), "{ready}");
    assert!(ready.contains("waiting for workloads from the control plane"), "{ready}");
    assert!(ready.contains("waiting for a connection to the node agent"), "{ready}");
    let metrics = ztunnel.answer(15020, "GET /metrics");
    assert!(metrics.contains("workload_manager_active_proxy_count 0"), "{metrics}");
    let dump = ztunnel.answer(15000, "GET /config_dump");
    assert!(dump.contains("\"localNode\": \"n1\""), "{dump}");

    ztunnel.terminate();
    let (status, log) = ztunnel.ended();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("no connection to the node agent"), "{log}");
    assert!(log.contains(socket.to_str().unwrap()), "{log}");
    assert!(log.contains("no stream to the control plane"), "{log}");
    assert!(log.contains("ztunnel ends"), "{log}");
}

#[test]
fn an_operator_can_end_it_over_the_admin_port() {
    let mut ztunnel = Ztunnel::start(&[("NODE_NAME", "n1"), ("LOG_FORMAT", "json")]);
    let answer = ztunnel.answer(15000, "POST /quitquitquit");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let (status, log) = ztunnel.ended();
    assert_eq!(status.code(), Some(0), "{log}");
    for line in log.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(line["message"].is_string() && line["time"].is_string(), "{line}");
    }
}

#[test]
fn bad_settings_are_told_at_once_and_nothing_starts() {
    let output = Command::new(PROGRAM)
        .env_clear()
        .env("LOG_FORMAT", "xml")
        .env("UNSTABLE_ENABLE_SOCKS5", "true")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    for name in ["NODE_NAME", "LOG_FORMAT", "UNSTABLE_ENABLE_SOCKS5"] {
        assert!(text.contains(name), "{name} is not named in {text}");
    }
}

#[test]
fn without_a_control_plane_the_mesh_comes_from_a_file() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/mesh.yaml");
    let ztunnel =
        Ztunnel::start(&[("NODE_NAME", "n1"), ("XDS_ADDRESS", ""), ("LOCAL_XDS_PATH", example)]);
    let ready = ztunnel.answer(15021, "GET /healthz/ready");
    assert!(!ready.contains("control plane"), "it waits for the agent only: {ready}");
    let dump = ztunnel.answer(15000, "GET /config_dump");
    assert!(dump.contains("\"uid\": \"Kubernetes//Pod/shop/cart\""), "{dump}");
    assert!(dump.contains("\"only-till\""), "{dump}");
}

#[test]
fn a_local_mesh_with_mistakes_is_told_in_full_and_nothing_starts() {
    let mut ztunnel = Ztunnel::start(&[
        ("NODE_NAME", "n1"),
        ("XDS_ADDRESS", ""),
        ("LOCAL_XDS", "workloads: [{uid: a, name: a}, {uid: b, name: b, namespace: x, ip: y}]"),
    ]);
    let (status, log) = ztunnel.ended();
    assert_eq!(status.code(), Some(1), "{log}");
    for words in ["in LOCAL_XDS", "workloads[0] a: missing field `namespace`", "workloads[1] b"] {
        assert!(log.contains(words), "{words} is not in {log}");
    }
}
