//! Starts ztunnel, and looks at processes from outside.
#![expect(clippy::disallowed_methods, reason = "this room spawns the program under test")]

use std::fs;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};

/// Starts a ztunnel in a network namespace of its own with its loopback up. It ends with
/// the handle, and with this program.
pub(crate) fn ztunnel(program: &Path, env: &[(&str, &str)]) -> io::Result<Child> {
    Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "unshare", "--net", "sh", "-c"])
        .arg("ip link set lo up && exec \"$0\" proxy ztunnel")
        .arg(program)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .envs(env.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
}

/// What a process holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Holds {
    /// Resident memory in KiB.
    pub rss: u64,
    /// The part of it that is no file's.
    pub anonymous: u64,
    pub threads: u64,
    pub descriptors: u64,
}

impl Holds {
    pub(crate) fn of(pid: u32) -> io::Result<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd"))?.count();
        Ok(Self {
            rss: field(&status, "VmRSS:"),
            anonymous: field(&status, "RssAnon:"),
            threads: field(&status, "Threads:"),
            descriptors: u64::try_from(descriptors).unwrap_or(u64::MAX),
        })
    }
}

fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// CPU time of all living threads, to the nanosecond.
pub(crate) fn cpu(pid: u32) -> io::Result<Duration> {
    let mut nanos = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end while we look.
        let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
        nanos += text.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0);
    }
    Ok(Duration::from_nanos(nanos))
}

/// CPU time of the programs that a process has started and that have ended, in steps of
/// 10 ms.
pub(crate) fn children_cpu(pid: u32) -> io::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    Ok(ticks(&stat, 13))
}

/// CPU time of this program, ended threads included, in steps of 10 ms.
pub(crate) fn own_cpu() -> io::Result<Duration> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    Ok(ticks(&stat, 11))
}

/// User's and system's time in hundredths of a second, which stand in two fields of what
/// `/proc` says of a process; the first one so many behind its name, which may hold anything.
fn ticks(stat: &str, first: usize) -> Duration {
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(first).take(2).filter_map(|n| n.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

/// How many descriptors this program may have.
pub(crate) fn descriptor_limit() -> usize {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(1024)
}
