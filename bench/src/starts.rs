//! The plugin's own time, from its start to its end, when the agent answers at once.

use std::io::Write;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use netns::PodNetns;
use plugin_api::{Outcome, Reply, VERSION};
use serde_json::{Value, json};

use crate::process;
use crate::report::{Report, median, quantile};

/// Starts that are measured, after some that are not.
const STARTS: usize = 500;
const WARM_UP: usize = 20;
/// What starting any process costs on this machine.
const FLOOR: &str = "/bin/true";

/// Measures ADD, DEL and VERSION of the plugin at `plugin`, and what a process costs that does
/// nothing. Blocks.
pub(crate) fn measure(plugin: &Path, report: &mut Report) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let pod = Pod { netns: PodNetns::scratch()?, socket: folder.path().join("plugin.sock") };
    let listener = UnixListener::bind(&pod.socket)?;
    // Ends with this process: nobody else connects to this folder.
    std::thread::spawn(move || listener.incoming().flatten().try_for_each(answer));
    report.chapter(&format!("Plugin: {STARTS} starts, one after the other"));
    let size = std::fs::metadata(plugin).with_context(|| plugin.display().to_string())?.len();
    report.add("size of the binary", bytes(size) / 1024.0, "KiB");
    spread(report, "a process that does nothing", || pod.floor())?;
    for verb in ["VERSION", "ADD", "DEL"] {
        spread(report, verb, || pod.call(plugin, verb))?;
    }
    Ok(())
}

fn spread(
    report: &mut Report,
    what: &str,
    mut start: impl FnMut() -> anyhow::Result<Duration>,
) -> anyhow::Result<()> {
    for _ in 0..WARM_UP {
        start()?;
    }
    let children = || process::children_cpu(std::process::id());
    let before = children()?;
    let mut took = Vec::with_capacity(STARTS);
    for _ in 0..STARTS {
        took.push(start()?.as_secs_f64() * 1000.0);
    }
    let cpu = children()?.saturating_sub(before).as_secs_f64() * 1000.0;
    report.add(&format!("{what}, start to end, p50"), median(&mut took), "ms");
    report.add(&format!("{what}, start to end, p99"), quantile(&mut took, 0.99), "ms");
    report.add(&format!("{what}, CPU"), cpu / count(STARTS), "ms");
    Ok(())
}

struct Pod {
    netns: PodNetns,
    socket: PathBuf,
}

impl Pod {
    #[expect(clippy::disallowed_methods, reason = "processes are what is measured")]
    fn floor(&self) -> anyhow::Result<Duration> {
        run(Command::new(FLOOR).env_clear(), "")
    }

    #[expect(clippy::disallowed_methods, reason = "the subject is a process")]
    fn call(&self, plugin: &Path, verb: &str) -> anyhow::Result<Duration> {
        let netns = format!("/proc/{}/fd/{}", std::process::id(), self.netns.as_fd().as_raw_fd());
        let mut command = Command::new(plugin);
        command.env_clear().env("CNI_COMMAND", verb).env("CNI_CONTAINERID", "c0ffee");
        command.env("CNI_IFNAME", "eth0").env("CNI_NETNS", netns).env("CNI_PATH", "/opt/cni/bin");
        let pod = "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web;K8S_POD_UID=0b1c-2d;IgnoreUnknown=1";
        run(command.env("CNI_ARGS", pod), &self.config().to_string())
    }

    fn config(&self) -> Value {
        json!({
            "cniVersion": "1.0.0",
            "name": "bench",
            "type": "sluice-cni",
            "agentSocket": self.socket,
            "excludeNamespaces": ["kube-system", "sluice-system"],
            "prevResult": {
                "cniVersion": "1.0.0",
                "interfaces": [{"name": "eth0", "mac": "aa:bb:cc:dd:ee:ff", "sandbox": "/x"}],
                "ips": [{"interface": 0, "address": "10.0.0.7/24", "gateway": "10.0.0.1"}],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        })
    }
}

/// From before the start until the end was seen.
fn run(command: &mut Command, stdin: &str) -> anyhow::Result<Duration> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let begin = Instant::now();
    let mut child = command.spawn()?;
    // One that reads nothing may have ended.
    let _ = child.stdin.take().context("a pipe")?.write_all(stdin.as_bytes());
    let output = child.wait_with_output()?;
    let took = begin.elapsed();
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    Ok(took)
}

/// As fast an agent as can be. `None` ends it.
fn answer(mut stream: UnixStream) -> Option<()> {
    let mut request = [0; 4096];
    // The descriptor that comes along is closed by the kernel: nobody asks for it.
    std::io::Read::read(&mut stream, &mut request).ok()?;
    let del = request.windows(5).any(|window| window == b"\"DEL\"");
    let outcome = if del { Outcome::Done } else { Outcome::Captured };
    stream.write_all(&plugin_api::encode(&Reply { version: VERSION, outcome }).ok()?).ok()
}

#[expect(clippy::cast_precision_loss, reason = "far below what a float holds")]
fn bytes(number: u64) -> f64 {
    number as f64
}

#[expect(clippy::cast_precision_loss, reason = "far below what a float holds")]
fn count(number: usize) -> f64 {
    number as f64
}
