//! The agent as a process: settings, the lock, signals, and an API that is not there.
#![expect(clippy::disallowed_methods, reason = "a test of the process starts processes")]
#![expect(clippy::unwrap_used, reason = "a test panics where something is not as expected")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use support::{KUBECONFIG, PATIENCE, eventually};

mod support;

/// How long a stop may take.
const STOP: Duration = Duration::from_secs(5);

/// A running agent; killed when dropped.
struct Agent {
    child: Child,
    admin: SocketAddr,
}

impl Agent {
    fn start(folder: &Path) -> Self {
        let admin = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let kubeconfig = folder.join("kubeconfig");
        std::fs::write(&kubeconfig, KUBECONFIG).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_node-agent"))
            .env("NODE_NAME", "n1")
            .env("KUBECONFIG", kubeconfig)
            .env("RUN_DIR", folder.join("agent"))
            .env("INPOD_UDS", folder.join("ztunnel.sock"))
            .env("ADMIN_ADDR", admin.to_string())
            // This process runs in the network namespace of whoever runs the test.
            .env("PROBE_SOURCE", "off")
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, admin }
    }

    /// What `/readyz` says; empty while nobody answers.
    fn readyz(&self) -> String {
        let mut answer = String::new();
        if let Ok(mut stream) = TcpStream::connect(self.admin) {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let request = b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
            stream.write_all(request).unwrap();
            stream.read_to_string(&mut answer).unwrap();
        }
        answer
    }

    fn stop(&mut self) {
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM).unwrap();
        let asked = Instant::now();
        eventually("the agent ends", || self.child.try_wait().unwrap().is_some());
        assert!(asked.elapsed() < STOP, "took {:?}", asked.elapsed());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn without_an_api_the_agent_is_alive_not_ready_and_stops_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(folder.path());
    let socket = folder.path().join("agent/plugin.sock");
    eventually("the plugin can ask", || UnixStream::connect(&socket).is_ok());
    eventually("it says what it waits for", || {
        let page = agent.readyz();
        page.contains("503") && page.contains("Kubernetes API") && !page.contains("lock")
    });
    agent.stop();
}

#[test]
fn a_second_agent_waits_for_the_first_to_end() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = Agent::start(folder.path());
    let socket = folder.path().join("agent/plugin.sock");
    eventually("the first one acts", || UnixStream::connect(&socket).is_ok());
    let mut second = Agent::start(folder.path());
    eventually("the second one waits", || second.readyz().contains("waits for the lock"));
    assert!(UnixStream::connect(&socket).is_ok(), "and touches nothing");
    first.stop();
    eventually("the second one acts", || {
        let page = second.readyz();
        page.contains("503") && !page.contains("lock")
    });
    eventually("the plugin can ask it", || UnixStream::connect(&socket).is_ok());
    second.stop();
}

#[test]
fn all_mistakes_in_the_settings_are_told_at_once() {
    let output = Command::new(env!("CARGO_BIN_EXE_node-agent"))
        .env_remove("NODE_NAME")
        .env("WITHDRAW_WAIT", "soon")
        .env("LOG_FORMAT", "xml")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let told = String::from_utf8(output.stderr).unwrap();
    for name in ["NODE_NAME", "WITHDRAW_WAIT", "LOG_FORMAT"] {
        assert!(told.contains(name), "{told}");
    }
}

#[test]
fn a_missing_kubeconfig_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_node-agent"))
        .env("NODE_NAME", "n1")
        .env("KUBECONFIG", "/nonexistent/kubeconfig")
        .env("RUN_DIR", folder.path().join("agent"))
        .env("INPOD_UDS", folder.path().join("ztunnel.sock"))
        .env("ADMIN_ADDR", "127.0.0.1:0")
        .env("PROBE_SOURCE", "off")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("/nonexistent/kubeconfig"), "{told}");
}
