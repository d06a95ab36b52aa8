//! Processes of the node, by the pod that they belong to.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// How long a process that is to be killed may take to appear.
const APPEARS: Duration = Duration::from_secs(100);
const PAUSE: Duration = Duration::from_millis(10);
/// This program as the kernel calls it.
const OWN: &str = "conformance";

/// Whose processes, and which.
#[derive(Debug, Args)]
pub(crate) struct Kill {
    /// The pod's UID.
    #[arg(long)]
    pod: String,
    /// The program's name, as the kernel knows it; otherwise the process that holds the pod's
    /// namespaces.
    #[arg(long)]
    program: Option<String>,
    /// Kill it again as soon as it is there again, until it was killed so often.
    #[arg(long, default_value_t = 1)]
    times: usize,
}

/// What was killed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Killed {
    pub pids: Vec<i32>,
}

/// Whose descriptors to count.
#[derive(Debug, Args)]
pub(crate) struct Count {
    /// UIDs of pods.
    #[arg(long)]
    pod: Vec<String>,
}

/// What pods could leave behind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counts {
    /// Open descriptors of the pods' processes, by UID.
    pub descriptors: BTreeMap<String, usize>,
    /// Mounts of the node, those that name namespaces among them.
    pub mounts: usize,
    /// Network namespaces that some process of the node is in, or has a descriptor of.
    pub namespaces: usize,
    /// Interfaces of the node.
    pub interfaces: usize,
}

/// A process, as `/proc` tells it.
#[derive(Debug)]
struct Process {
    pid: i32,
    name: String,
    /// Since the machine's start, in ticks.
    started: u64,
}

impl Kill {
    pub(super) async fn run(self) -> anyhow::Result<Killed> {
        let mut pids: Vec<i32> = Vec::new();
        let until = Instant::now() + APPEARS;
        while pids.len() < self.times {
            let found = self.victim();
            let Some(found) = found.filter(|found| !pids.contains(&found.pid)) else {
                if Instant::now() >= until {
                    let whose = self.program.as_deref().unwrap_or("process of a sandbox");
                    bail!("killed {pids:?}, then no {whose} of pod {} was found", self.pod);
                }
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            kill(Pid::from_raw(found.pid), Signal::SIGKILL).context("kill it")?;
            pids.push(found.pid);
        }
        Ok(Killed { pids })
    }

    fn victim(&self) -> Option<Process> {
        match &self.program {
            Some(program) => of_pod(&self.pod).into_iter().find(|process| process.name == *program),
            None => sandbox(&self.pod),
        }
    }
}

impl Count {
    pub(super) fn run(self) -> anyhow::Result<Counts> {
        let mut counts = Counts::default();
        for pod in self.pod {
            let all = of_pod(&pod);
            let descriptors =
                all.iter().map(|process| entries(&format!("/proc/{}/fd", process.pid)));
            counts.descriptors.insert(pod.clone(), descriptors.sum());
        }
        let mounts = fs::read_to_string("/proc/1/mountinfo").context("read the node's mounts")?;
        counts.mounts = mounts.lines().count();
        counts.namespaces = namespaces().len();
        counts.interfaces = fs::read_to_string("/proc/net/dev")?.lines().count();
        Ok(counts)
    }
}

fn entries(folder: &str) -> usize {
    fs::read_dir(folder).map(Iterator::count).unwrap_or_default()
}

/// Those of processes, and those behind their descriptors.
fn namespaces() -> std::collections::BTreeSet<String> {
    let mut all = std::collections::BTreeSet::new();
    for pid in pids() {
        let links = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        let links = links.map(|link| link.path()).chain([format!("/proc/{pid}/ns/net").into()]);
        let names =
            links.filter_map(|link| fs::read_link(link).ok()?.into_os_string().into_string().ok());
        all.extend(names.filter(|name| name.starts_with("net:[")));
    }
    all
}

fn pids() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Those of its containers. Control groups of nodes have the pod's UID in their names or not; but
/// something that the kubelet keeps for the pod is mounted in each container.
fn of_pod(uid: &str) -> Vec<Process> {
    // The systemd driver writes it otherwise.
    let ways = [uid.to_owned(), uid.replace('-', "_")];
    let is_its = |pid: &i32| {
        ["cgroup", "mountinfo"].iter().any(|file| {
            let text = fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
            ways.iter().any(|way| text.contains(way.as_str()))
        })
    };
    pids().filter(is_its).filter_map(process).collect()
}

/// The first process in the pod's network: it was there before any container.
fn sandbox(uid: &str) -> Option<Process> {
    let network = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/net")).ok();
    let of_node = network(1);
    let own = of_pod(uid).into_iter().find_map(|process| network(process.pid));
    let own = own.filter(|own| Some(own) != of_node.as_ref())?;
    let inside = pids().filter(|pid| network(*pid).as_ref() == Some(&own));
    let first = inside.filter_map(process).min_by_key(|process| process.started)?;
    (first.name != OWN).then_some(first)
}

fn process(pid: i32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (name, started) = read_stat(&stat)?;
    Some(Process { pid, name, started })
}

/// A name may have spaces and brackets in it.
fn read_stat(stat: &str) -> Option<(String, u64)> {
    let (before, after) = (stat.split_once('(')?.1, stat.rsplit_once(')')?.1);
    let name = before.rsplit_once(')')?.0.to_owned();
    Some((name, after.split_whitespace().nth(19)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_with_its_name_and_start() {
        let stat = "254 (a (b) c) S 233 254 254 0 -1 1077936384 80 0 0 0 0 1 0 0 20 0 1 0 4711 99";
        assert_eq!(read_stat(stat), Some(("a (b) c".to_owned(), 4711)));
        assert_eq!(read_stat("1"), None);
        let own = process(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(own.started > 0);
    }

    #[test]
    fn nobody_is_killed_for_a_pod_that_is_not_there() {
        let pod = "00000000-1111-2222-3333-444444444444".to_owned();
        assert!(Kill { pod, program: None, times: 1 }.victim().is_none());
    }
}
