//! The agent as a process that puts its plugin into a runtime's configuration.
#![expect(clippy::disallowed_methods, reason = "a test of the process starts processes")]
#![expect(clippy::unwrap_used, reason = "a test panics where something is not as expected")]

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use support::{KUBECONFIG, eventually};

mod support;

const PRIMARY: &str = r#"{"name":"pods","cniVersion":"1.0.0","plugins":[{"type":"bridge"}]}"#;

/// An agent; killed when dropped.
struct Agent(Child);

impl Agent {
    fn start(root: &Path) -> Self {
        std::fs::write(root.join("kubeconfig"), KUBECONFIG).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_node-agent"))
            .env("NODE_NAME", "n1")
            .env("KUBECONFIG", root.join("kubeconfig"))
            .env("RUN_DIR", root.join("agent"))
            .env("INPOD_UDS", root.join("ztunnel.sock"))
            .env("ADMIN_ADDR", "127.0.0.1:0")
            .env("PROBE_SOURCE", "off")
            .env("INSTALL_CNI", "own")
            .env("HOST_ROOT", root.join("host"))
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    fn stop(&mut self) {
        kill(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGTERM).unwrap();
        eventually("the agent ends", || self.0.try_wait().unwrap().is_some());
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn whom_the_conflist_names_answers_and_a_restart_changes_nothing() {
    let root = tempfile::tempdir().unwrap();
    let (conf, bin) =
        (root.path().join("host/etc/cni/net.d"), root.path().join("host/opt/cni/bin"));
    std::fs::create_dir_all(&conf).unwrap();
    std::fs::create_dir_all(&bin).unwrap();
    std::fs::write(bin.join("sluice-cni"), "x").unwrap();
    std::fs::set_permissions(bin.join("sluice-cni"), PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::write(conf.join("10-bridge.conflist"), PRIMARY).unwrap();
    let ours = conf.join("00-sluice.conflist");

    let mut agent = Agent::start(root.path());
    eventually("our list is there", || ours.exists());
    let list: Value = serde_json::from_slice(&std::fs::read(&ours).unwrap()).unwrap();
    let entry = &list["plugins"][1];
    let socket = Path::new(entry["agentSocket"].as_str().unwrap());
    assert!(UnixStream::connect(socket).is_ok(), "the plugin would not wait in vain");
    assert_eq!((&list["name"], &entry["type"]), (&"pods".into(), &"sluice-cni".into()));
    assert_eq!(entry["excludeNamespaces"], serde_json::json!(["kube-system", "sluice-system"]));

    agent.stop();
    let made = std::fs::metadata(&ours).unwrap().modified().unwrap();
    let mut next = Agent::start(root.path());
    eventually("the next one acts", || UnixStream::connect(socket).is_ok());
    next.stop();
    assert_eq!(std::fs::metadata(&ours).unwrap().modified().unwrap(), made, "it was not written");
}
