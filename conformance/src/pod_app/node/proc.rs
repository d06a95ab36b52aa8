//! What `/proc` says of the node's processes.
//!
//! Processes end while they are looked at, and that is no error. Whatever else cannot be read is
//! one: who counts only what can be seen never notices that something was left behind.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use anyhow::Context;
use nix::errno::Errno;

/// This program as the kernel calls it.
const OWN: &str = "conformance";
/// Lines before the interfaces in `net/dev`.
const HEADINGS: usize = 2;

/// The file system that tells about processes.
pub(super) struct Proc {
    root: PathBuf,
}

/// A process, as it tells it.
#[derive(Debug)]
pub(super) struct Process {
    pub pid: i32,
    pub name: String,
    /// Since the machine's start, in ticks.
    started: u64,
}

impl Proc {
    pub(super) fn of_node() -> Self {
        Self { root: "/proc".into() }
    }

    /// Those of a pod's containers. Control groups of nodes have the pod's UID in their names or
    /// not; but something that the kubelet keeps for the pod is mounted in each container.
    pub(super) fn of_pod(&self, uid: &str) -> anyhow::Result<Vec<i32>> {
        // The systemd driver writes it otherwise.
        let ways = [uid.to_owned(), uid.replace('-', "_")];
        let has_it = |text: &str| ways.iter().any(|way| text.contains(way.as_str()));
        let mut its = Vec::new();
        for pid in self.pids()? {
            let groups = self.text(pid, "cgroup")?.unwrap_or_default();
            if has_it(&groups) || self.mounted(pid)?.iter().any(|kept| has_it(kept)) {
                its.push(pid);
            }
        }
        Ok(its)
    }

    /// The first process in the pod's network: it was there before any container.
    pub(super) fn sandbox(&self, uid: &str) -> anyhow::Result<Option<Process>> {
        let network = |whose: &str| fs::read_link(self.root.join(whose).join("ns/net")).ok();
        // Where the node's first process cannot be asked, this one is in the node's network.
        let of_node = ["1", "self"].map(network);
        let own = self.of_pod(uid)?.iter().find_map(|pid| network(&pid.to_string()));
        if own.is_none() || of_node.contains(&own) {
            return Ok(None);
        }
        let mut first: Option<Process> = None;
        for pid in self.pids()? {
            if network(&pid.to_string()) == own {
                let earlier = self.process(pid)?.filter(|process| {
                    first.as_ref().is_none_or(|first| process.started < first.started)
                });
                first = earlier.or(first);
            }
        }
        Ok(first.filter(|first| first.name != OWN))
    }

    /// `None` once it has ended.
    pub(super) fn process(&self, pid: i32) -> anyhow::Result<Option<Process>> {
        let Some(stat) = self.text(pid, "stat")? else { return Ok(None) };
        let (name, started) = read_stat(&stat).with_context(|| format!("{stat:?} is no stat"))?;
        Ok(Some(Process { pid, name, started }))
    }

    /// What a process has open.
    pub(super) fn descriptors(&self, pid: i32) -> anyhow::Result<Vec<PathBuf>> {
        let folder = self.of(pid).join("fd");
        let entries = fs::read_dir(&folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let entries = self.unless_ended(pid, &folder, entries)?.unwrap_or_default();
        Ok(entries.iter().map(fs::DirEntry::path).collect())
    }

    /// The network namespaces of processes, and those behind their descriptors.
    pub(super) fn namespaces(&self) -> anyhow::Result<BTreeSet<String>> {
        let mut all = BTreeSet::new();
        for pid in self.pids()? {
            let own = self.of(pid).join("ns/net");
            for link in self.descriptors(pid)?.into_iter().chain([own]) {
                let target = self.unless_ended(pid, &link, fs::read_link(&link))?;
                let name = target.map(|target| target.to_string_lossy().into_owned());
                all.extend(name.filter(|name| name.starts_with("net:[")));
            }
        }
        Ok(all)
    }

    /// Mounts of the node.
    pub(super) fn mounts(&self) -> anyhow::Result<usize> {
        Ok(self.node_text("1/mountinfo")?.lines().count())
    }

    /// Interfaces of the node, in whose network this process is.
    pub(super) fn interfaces(&self) -> anyhow::Result<usize> {
        Ok(self.node_text("net/dev")?.lines().skip(HEADINGS).count())
    }

    fn pids(&self) -> anyhow::Result<Vec<i32>> {
        let what = || format!("look into {}", self.root.display());
        let mut pids = Vec::new();
        for entry in fs::read_dir(&self.root).with_context(what)? {
            let name = entry.with_context(what)?.file_name();
            pids.extend(name.to_str().and_then(|name| name.parse::<i32>().ok()));
        }
        Ok(pids)
    }

    /// What is mounted for a process, by where it lies in its file system. Where it appears does
    /// not count: on the node, volumes of all pods appear below their UIDs.
    fn mounted(&self, pid: i32) -> anyhow::Result<Vec<String>> {
        let mounts = self.text(pid, "mountinfo")?.unwrap_or_default();
        let roots = mounts.lines().filter_map(|line| line.split(' ').nth(3));
        Ok(roots.map(str::to_owned).collect())
    }

    fn of(&self, pid: i32) -> PathBuf {
        self.root.join(pid.to_string())
    }

    fn text(&self, pid: i32, name: &str) -> anyhow::Result<Option<String>> {
        let file = self.of(pid).join(name);
        let bytes = self.unless_ended(pid, &file, fs::read(&file))?;
        Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    fn node_text(&self, name: &str) -> anyhow::Result<String> {
        let file = self.root.join(name);
        let bytes = fs::read(&file).with_context(|| format!("read {}", file.display()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Nothing when the process has ended, or has closed what was looked at.
    fn unless_ended<T>(
        &self,
        pid: i32,
        what: &Path,
        said: io::Result<T>,
    ) -> anyhow::Result<Option<T>> {
        let error = match said {
            Ok(said) => return Ok(Some(said)),
            Err(error) => error,
        };
        // EINVAL is what the mounts of a process say that nobody has waited for yet.
        let errno = error.raw_os_error().map(Errno::from_raw);
        let is_over = error.kind() == ErrorKind::NotFound
            || matches!(errno, Some(Errno::ESRCH | Errno::EINVAL));
        // A link that has lost its process between two steps denies permission instead.
        if is_over || matches!(self.of(pid).try_exists(), Ok(false)) {
            return Ok(None);
        }
        let why = "it takes SYS_PTRACE, DAC_READ_SEARCH, and no security profile against it";
        Err(error).with_context(|| format!("look at {}: {why}", what.display()))
    }
}

/// A name may have spaces and brackets in it.
fn read_stat(stat: &str) -> Option<(String, u64)> {
    let (before, after) = (stat.split_once('(')?.1, stat.rsplit_once(')')?.1);
    let name = before.rsplit_once(')')?.0.to_owned();
    Some((name, after.split_whitespace().nth(19)?.parse().ok()?))
}

#[cfg(test)]
pub(super) mod testing {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A folder that looks like `/proc`, until it is dropped.
    pub(in super::super) struct Pretended {
        root: PathBuf,
    }

    impl Pretended {
        /// A node whose first process is in the network `net:[1]`.
        pub(in super::super) fn node(name: &str) -> Self {
            let root = std::env::temp_dir().join(format!("proc-{name}-{}", std::process::id()));
            let pretended = Self { root };
            pretended.process(1, "init", &[]);
            fs::create_dir(pretended.root.join("net")).unwrap();
            let interfaces = "Inter-|\n face |\n    lo: 0\n  eth0: 0\n";
            fs::write(pretended.root.join("net/dev"), interfaces).unwrap();
            pretended
        }

        pub(in super::super) fn proc(&self) -> Proc {
            Proc { root: self.root.clone() }
        }

        /// A process of a pod in the network `net:[PID]`, with these descriptors.
        pub(in super::super) fn process(&self, pid: i32, pod: &str, descriptors: &[&str]) {
            let own = self.root.join(pid.to_string());
            fs::create_dir_all(own.join("fd")).unwrap();
            fs::create_dir_all(own.join("ns")).unwrap();
            symlink(format!("net:[{pid}]"), own.join("ns/net")).unwrap();
            for (number, target) in descriptors.iter().enumerate() {
                symlink(target, own.join(format!("fd/{number}"))).unwrap();
            }
            fs::write(own.join("cgroup"), "0::/\n").unwrap();
            let zeros = "0 ".repeat(18);
            let stat = format!("{pid} (program-{pid}) S {zeros}{} 0\n", 100 - pid);
            fs::write(own.join("stat"), stat).unwrap();
            self.mount(pid, &format!("/var/lib/kubelet/pods/{pod}/etc-hosts"), "/etc/hosts");
        }

        /// What is mounted for it, and where it sees that.
        pub(in super::super) fn mount(&self, pid: i32, root: &str, at: &str) {
            let line = format!("36 35 98:0 {root} {at} rw - ext4 /dev/root rw\n");
            fs::write(self.root.join(format!("{pid}/mountinfo")), line).unwrap();
        }

        /// Nobody can read this of it; root cannot be kept out by a mode.
        pub(in super::super) fn spoil(&self, pid: i32, what: &str) {
            self.remove(pid, what);
            let place = self.root.join(pid.to_string()).join(what);
            symlink(&place, &place).unwrap();
        }

        pub(in super::super) fn remove(&self, pid: i32, what: &str) {
            let place = self.root.join(pid.to_string()).join(what);
            let removed = if place.is_dir() && !place.is_symlink() {
                fs::remove_dir_all(&place)
            } else {
                fs::remove_file(&place)
            };
            removed.unwrap();
        }
    }

    impl Drop for Pretended {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.root);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::Pretended;
    use super::*;

    const POD: &str = "00000000-1111-2222-3333-444444444444";

    #[test]
    fn a_process_is_read_with_its_name_and_start() {
        let stat = "254 (a (b) c) S 233 254 254 0 -1 1077936384 80 0 0 0 0 1 0 0 20 0 1 0 4711 99";
        assert_eq!(read_stat(stat), Some(("a (b) c".to_owned(), 4711)));
        assert_eq!(read_stat("1"), None);
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(Proc::of_node().process(own).unwrap().unwrap().started > 0);
        assert!(!Proc::of_node().descriptors(own).unwrap().is_empty());
    }

    #[test]
    fn what_has_ended_is_no_error() {
        let node = Pretended::node("ended");
        node.process(7, POD, &["net:[2]"]);
        let proc = node.proc();
        assert!(proc.process(99).unwrap().is_none());
        assert!(proc.descriptors(99).unwrap().is_empty());
        // As a process that nobody has waited for: it is in no namespace.
        node.remove(7, "ns/net");
        assert_eq!(proc.namespaces().unwrap(), ["net:[1]", "net:[2]"].map(str::to_owned).into());
        let denied = || Err::<(), _>(io::Error::from(ErrorKind::PermissionDenied));
        let what = Path::new("ns/net");
        assert!(proc.unless_ended(99, what, denied()).unwrap().is_none());
        assert!(proc.unless_ended(7, what, denied()).is_err());
        for errno in [Errno::ENOENT, Errno::ESRCH, Errno::EINVAL] {
            let ended = Err::<(), _>(io::Error::from(errno));
            assert!(proc.unless_ended(7, what, ended).unwrap().is_none(), "{errno}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        for what in ["fd", "ns"] {
            let node = Pretended::node(&format!("spoilt-{what}"));
            node.process(7, POD, &["net:[2]"]);
            node.spoil(7, what);
            let error = format!("{:#}", node.proc().namespaces().unwrap_err());
            assert!(error.contains(&format!("7/{what}")), "{error}");
        }
        let nowhere = Proc { root: "/nowhere".into() };
        assert!(nowhere.namespaces().is_err() && nowhere.of_pod(POD).is_err());
        assert!(nowhere.mounts().is_err() && nowhere.interfaces().is_err());
    }

    #[test]
    fn a_pods_processes_have_its_files_mounted_or_its_group() {
        let node = Pretended::node("pod");
        node.process(7, POD, &[]);
        node.process(8, "another", &[]);
        // Of a token's volume the node sees only where it appears.
        node.mount(1, "/", &format!("/var/lib/kubelet/pods/{POD}/volumes/token"));
        assert_eq!(node.proc().of_pod(POD).unwrap(), [7]);
        let group = format!("0::/kubepods-pod{}.slice\n", POD.replace('-', "_"));
        fs::write(node.proc().of(8).join("cgroup"), group).unwrap();
        let mut its = node.proc().of_pod(POD).unwrap();
        its.sort_unstable();
        assert_eq!(its, [7, 8]);
    }

    #[test]
    fn a_sandbox_is_the_first_in_a_network_that_is_not_the_nodes() {
        let node = Pretended::node("sandbox");
        node.process(7, POD, &[]);
        node.process(8, "pause", &[]);
        node.process(9, "on-the-node", &[]);
        for (pid, network) in [(8, "net:[7]"), (9, "net:[1]")] {
            node.remove(pid, "ns/net");
            let link = node.proc().of(pid).join("ns/net");
            std::os::unix::fs::symlink(network, link).unwrap();
        }
        // The later a process of the pretended node, the earlier it has started.
        assert_eq!(node.proc().sandbox(POD).unwrap().unwrap().pid, 8);
        assert!(node.proc().sandbox("on-the-node").unwrap().is_none());
    }
}
