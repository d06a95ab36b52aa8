//! Every network namespace of the node, for whoever leaves it: not only the pods that
//! somebody has told about.
//!
//! ```text
//! records ─┐
//! /proc/*/ns/net ─┼─► opened, told apart by their identity ─► all but the node's own
//! /proc/1/mountinfo ─┘     (a sandbox may have a name and no process)
//! ```
//!
//! Nothing is believed of a namespace: what is in it decides whether it concerns us.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use netns::{NetnsId, PodNetns};

use super::processes::pod_of;
use super::{Record, same};
use crate::facts::{PodName, PodUid};

/// One network namespace of the node.
#[derive(Clone, Debug)]
pub struct Place {
    /// It, held open.
    pub netns: PodNetns,
    /// The pods that it was made for, as far as anybody tells.
    pub pods: BTreeSet<PodUid>,
    /// How the first of them is called, where a record tells.
    pub name: Option<PodName>,
}

/// All namespaces that the records, the processes under `root`, and the mounts of its first
/// process lead to, but `own`. What vanishes meanwhile is left out.
///
/// # Errors
/// When `root` cannot be listed: then nobody knows what is on the node.
pub fn every(root: &Path, own: NetnsId, records: &[Record]) -> std::io::Result<Vec<Place>> {
    let mut places = Places { own, places: Vec::new(), met: HashSet::new() };
    for record in records {
        places.recorded(root, record);
    }
    let mut ways: BTreeMap<(u64, u64), (PathBuf, BTreeSet<PodUid>)> = BTreeMap::new();
    for entry in std::fs::read_dir(root)?.flatten() {
        if !entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit) {
            continue;
        }
        let way = entry.path().join("ns/net");
        // A process may end at any moment: then it is none.
        let Ok(stat) = std::fs::metadata(&way) else { continue };
        let group = std::fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default();
        let way = ways.entry((stat.dev(), stat.ino())).or_insert((way, BTreeSet::new()));
        way.1.extend(pod_of(&group).map(PodUid));
    }
    for (way, pods) in ways.into_values() {
        places.add(&way, pods);
    }
    for mounted in mounted(root) {
        places.add(&mounted, BTreeSet::new());
    }
    Ok(places.places)
}

struct Places {
    own: NetnsId,
    places: Vec<Place>,
    met: HashSet<(u64, u64)>,
}

impl Places {
    /// The path is one of the node, which may look different from where we are.
    fn recorded(&mut self, root: &Path, record: &Record) {
        let Some(path) = &record.path else { return };
        for way in [path.clone(), from_first(root, path)] {
            let at = self.add(&way, BTreeSet::new());
            let is_the_pods = |place: &&mut Place| same(place.netns.id(), record.netns.id());
            if let Some(place) = at.and_then(|at| self.places.get_mut(at)).filter(is_the_pods) {
                place.pods.insert(record.uid.clone());
                place.name.get_or_insert_with(|| record.name.clone());
                return;
            }
        }
    }

    /// Where the namespace stands among those that are known; `None` for one that is not
    /// there, or is the node's own.
    fn add(&mut self, way: &Path, pods: BTreeSet<PodUid>) -> Option<usize> {
        let netns = PodNetns::open(way).ok().filter(|netns| !same(netns.id(), self.own))?;
        let id = netns.id();
        if !self.met.insert((id.dev, id.ino)) {
            let known = self.places.iter().position(|place| same(place.netns.id(), id))?;
            self.places.get_mut(known)?.pods.extend(pods);
            return Some(known);
        }
        self.places.push(Place { netns, pods, name: None });
        Some(self.places.len() - 1)
    }
}

/// Network namespaces with a path in the file system of the node's first process.
fn mounted(root: &Path) -> Vec<PathBuf> {
    let mounts = std::fs::read_to_string(root.join("1/mountinfo")).unwrap_or_default();
    let path = |line: &str| {
        let mut words = line.split(' ').skip(3);
        words.next().filter(|root| root.starts_with("net:["))?;
        words.next().map(|path| from_first(root, Path::new(path)))
    };
    mounts.lines().filter_map(path).collect()
}

fn from_first(root: &Path, path: &Path) -> PathBuf {
    let path = path.strip_prefix("/").unwrap_or(path);
    root.join("1/root").join(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::pod_netns::StoredId;
    use crate::testing::ScratchPod;

    const UID: &str = "7f3c1c52-9d5c-4d43-8f6f-0d9f1b6a0c11";

    fn run(root: &Path, pid: u32, netns: &Path, group: &str) {
        let folder = root.join(pid.to_string());
        std::fs::create_dir_all(folder.join("ns")).unwrap();
        symlink(netns, folder.join("ns/net")).unwrap();
        std::fs::write(folder.join("cgroup"), group).unwrap();
    }

    fn record(pod: &ScratchPod) -> Record {
        Record {
            uid: PodUid("uid-web".into()),
            name: PodName { namespace: "shop".into(), name: "web".into() },
            container_id: "c".into(),
            ifname: "eth0".into(),
            network: None,
            path: Some(pod.path()),
            netns: StoredId::new(pod.netns().id(), "any"),
            ips: Vec::new(),
        }
    }

    #[test]
    fn each_is_found_once_and_the_own_one_never() {
        let (folder, own) = (tempfile::tempdir().unwrap(), PodNetns::current().unwrap().id());
        let (told, running, named) = (ScratchPod::new(), ScratchPod::new(), ScratchPod::new());
        let root = folder.path();
        std::fs::write(root.join("uptime"), "").unwrap();
        run(root, 1, Path::new("/proc/self/ns/net"), "");
        symlink("/", root.join("1/root")).unwrap();
        let named_at = named.path().display().to_string();
        let mounts = format!("9 8 0:4 net:[{}] {named_at} rw - nsfs nsfs rw\n", 7)
            + "7 1 0:9 / /proc rw - proc proc rw\nodd\n";
        std::fs::write(root.join("1/mountinfo"), mounts).unwrap();
        for pid in 10..13 {
            run(root, pid, &running.path(), &format!("0::/kubepods/pod{UID}/x\n"));
        }
        run(root, 20, &told.path(), "");
        run(root, 30, Path::new("/nonexistent"), "");

        let found = every(root, own, &[record(&told), record(&told)]).unwrap();
        let ids: Vec<_> = found.iter().map(|place| place.netns.id()).collect();
        assert_eq!(ids[0], told.netns().id());
        assert_eq!(ids[1..], [running.netns().id(), named.netns().id()]);
        assert_eq!(found[0].name.as_ref().unwrap().name, "web");
        assert_eq!(found[1].pods, [PodUid(UID.into())].into());
    }

    #[test]
    fn a_path_that_leads_to_another_pod_now_does_not_get_its_name() {
        let (folder, own) = (tempfile::tempdir().unwrap(), PodNetns::current().unwrap().id());
        let (old, new) = (ScratchPod::new(), ScratchPod::new());
        let stale = Record { path: Some(new.path()), ..record(&old) };
        let found = every(folder.path(), own, &[stale]).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].netns.id(), &found[0].name), (new.netns().id(), &None));
    }

    #[test]
    fn processes_that_cannot_be_listed_are_an_error() {
        let own = PodNetns::current().unwrap().id();
        assert!(every(Path::new("/nonexistent"), own, &[]).is_err());
    }
}
