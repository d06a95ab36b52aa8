//! Processes of the node are killed, and what they have open is counted, by the pod that they
//! belong to.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::proc::{Proc, Process};

/// How long a process that is to be killed may take to appear.
const APPEARS: Duration = Duration::from_secs(100);
const PAUSE: Duration = Duration::from_millis(10);

/// Whose processes, and which.
#[derive(Debug, Args)]
pub(crate) struct Kill {
    /// The pod's UID.
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
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
    /// UIDs of pods, all of which run.
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
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

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { descriptors, mounts, namespaces, interfaces } = self;
        write!(
            f,
            "{mounts} mounts, {namespaces} namespaces, {interfaces} interfaces; descriptors by \
             pod: {descriptors:?}"
        )
    }
}

impl Kill {
    pub(super) async fn run(self) -> anyhow::Result<Killed> {
        let proc = Proc::of_node();
        let mut pids: Vec<i32> = Vec::new();
        let until = Instant::now() + APPEARS;
        while pids.len() < self.times {
            let found = self.victim(&proc)?;
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

    fn victim(&self, proc: &Proc) -> anyhow::Result<Option<Process>> {
        let Some(program) = &self.program else { return proc.sandbox(&self.pod) };
        for pid in proc.of_pod(&self.pod)? {
            if let Some(process) = proc.process(pid)?.filter(|process| process.name == *program) {
                return Ok(Some(process));
            }
        }
        Ok(None)
    }
}

impl Count {
    pub(super) fn run(self) -> anyhow::Result<Counts> {
        self.of(&Proc::of_node())
    }

    /// A zero means that nothing could be seen, and then a leak would not be seen either.
    fn of(self, proc: &Proc) -> anyhow::Result<Counts> {
        let mut descriptors = BTreeMap::new();
        for pod in self.pod {
            let mut open = 0;
            for pid in proc.of_pod(&pod)? {
                open += proc.descriptors(pid)?.len();
            }
            if open == 0 {
                bail!("pod {pod} has nothing open: it has ended, or is out of sight");
            }
            descriptors.insert(pod, open);
        }
        let counts = Counts {
            descriptors,
            mounts: proc.mounts()?,
            namespaces: proc.namespaces()?.len(),
            interfaces: proc.interfaces()?,
        };
        if counts.mounts == 0 || counts.namespaces == 0 || counts.interfaces == 0 {
            bail!("a node has some of each: {counts}");
        }
        Ok(counts)
    }
}

#[cfg(test)]
mod tests {
    use super::super::proc::testing::Pretended;
    use super::*;

    const POD: &str = "00000000-1111-2222-3333-444444444444";

    fn kill(program: Option<&str>) -> Kill {
        Kill { pod: POD.to_owned(), program: program.map(str::to_owned), times: 1 }
    }

    fn count(pretended: &Pretended) -> anyhow::Result<Counts> {
        Count { pod: vec![POD.to_owned()] }.of(&pretended.proc())
    }

    #[test]
    fn nobody_is_killed_for_a_pod_that_is_not_there() {
        assert!(kill(None).victim(&Proc::of_node()).unwrap().is_none());
    }

    #[test]
    fn a_pods_program_is_found_by_its_name() {
        let node = Pretended::node("kill");
        node.process(7, POD, &["net:[2]"]);
        node.process(8, "another", &["net:[2]"]);
        let found = |program| kill(Some(program)).victim(&node.proc()).unwrap();
        assert_eq!(found("program-7").unwrap().pid, 7);
        assert!(found("program-8").is_none());
    }

    #[test]
    fn whatever_is_open_is_counted() {
        let node = Pretended::node("count");
        node.process(7, POD, &["net:[2]", "socket:[1]", "net:[3]"]);
        node.process(8, POD, &["net:[2]"]);
        node.process(9, "another", &["net:[4]"]);
        let counts = count(&node).unwrap();
        assert_eq!(counts.descriptors, [(POD.to_owned(), 4)].into());
        assert_eq!((counts.mounts, counts.namespaces, counts.interfaces), (1, 7, 2));
    }

    #[test]
    fn a_part_without_descriptors_was_not_seen() {
        let node = Pretended::node("part");
        let error = count(&node).unwrap_err().to_string();
        assert!(error.contains(POD), "{error}");
        node.process(7, POD, &[]);
        assert!(count(&node).is_err());
        node.process(8, POD, &["socket:[1]"]);
        assert!(count(&node).is_ok());
    }

    #[test]
    fn what_cannot_be_read_is_no_zero() {
        let node = Pretended::node("unreadable");
        node.process(7, POD, &["net:[2]"]);
        assert!(count(&node).is_ok());
        node.process(8, "another", &[]);
        node.spoil(8, "fd");
        let error = format!("{:#}", count(&node).unwrap_err());
        assert!(error.contains("8/fd"), "{error}");
    }

    #[test]
    fn no_namespace_at_all_is_no_count() {
        let node = Pretended::node("none");
        node.process(7, POD, &["socket:[1]"]);
        for pid in [1, 7] {
            node.remove(pid, "ns/net");
        }
        let error = count(&node).unwrap_err().to_string();
        assert!(error.contains("0 namespaces"), "{error}");
    }
}
