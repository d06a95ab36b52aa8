//! The last resort: the processes of the node, one of which lives in the pod's namespace.
//!
//! A namespace that carries the pod's address need not be the pod's: any pod can make one
//! and give it any address. So what counts besides is the control group of a process, which
//! names the pod it was started for, and which it cannot choose.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use netns::{NetnsId, PodNetns};
use tokio::sync::{Mutex, oneshot};
use tokio::time::{Instant, timeout};

use super::{LocateError, Locator, addresses, same};
use crate::facts::PodUid;

/// A scan serves everybody who asks within this time after it began.
const EVERY: Duration = Duration::from_secs(5);
/// How long a scan may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Processes that are looked at.
const MOST_PROCESSES: usize = 100_000;
/// Namespaces that are looked into: several times the pods of a large node.
const MOST_NAMESPACES: usize = 2_000;
/// Processes that are remembered as ways into one namespace: the first may end.
const WAYS: usize = 4;

/// Why no process leads to the pod.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The scan failed.
    #[error("look through the node's processes: {0}")]
    Scan(#[source] std::io::Error),
    /// It takes too long.
    #[error("the node's processes could not be looked through within {PATIENCE:?}")]
    TooSlow,
    /// None.
    #[error("no process of the node is in a network namespace with the pod's address")]
    None,
    /// More than one, and nothing tells them apart.
    #[error("several network namespaces have the pod's address")]
    Several,
    /// It is not what it was when the processes were looked through.
    #[error(transparent)]
    Locate(#[from] LocateError),
}

/// The node's processes.
#[derive(Debug)]
pub struct Processes {
    root: PathBuf,
    locator: Locator,
    /// When the last scan began and what it found, or when it was given up.
    latest: Mutex<Option<(Instant, Option<Arc<Scan>>)>>,
}

/// What one look found. Holds no namespace open.
#[derive(Debug, Default)]
struct Scan {
    namespaces: Vec<Seen>,
    /// Control groups of this node name pods: then one without a name is no pod's.
    names_pods: bool,
}

#[derive(Debug)]
struct Seen {
    id: NetnsId,
    ips: Vec<IpAddr>,
    ways: Vec<PathBuf>,
    /// Pods that its processes were started for.
    pods: BTreeSet<String>,
}

impl Processes {
    /// The processes that `root` shows, the node's `/proc`.
    #[must_use]
    pub fn new(root: PathBuf, locator: Locator) -> Self {
        Self { root, locator, latest: Mutex::default() }
    }

    /// The namespace of one process.
    #[must_use]
    pub fn netns_path(&self, pid: u32) -> PathBuf {
        self.root.join(pid.to_string()).join("ns/net")
    }

    /// The only namespace that can be this pod's, opened and verified.
    ///
    /// # Errors
    /// Any [`ProcessError`].
    pub async fn find(
        &self,
        uid: &PodUid,
        ips: &[IpAddr],
    ) -> Result<(PodNetns, PathBuf), ProcessError> {
        let scan = self.scan().await?;
        let seen = scan.choose(uid, ips)?;
        let opened = seen.ways.iter().find_map(|way| {
            let netns = PodNetns::open(way).ok().filter(|netns| same(netns.id(), seen.id))?;
            Some((netns, way.clone()))
        });
        let (netns, way) = opened.ok_or(ProcessError::None)?;
        self.locator.confirm(&netns, ips).await?;
        Ok((netns, way))
    }

    /// One scan for all who ask at a time.
    async fn scan(&self) -> Result<Arc<Scan>, ProcessError> {
        let mut latest = self.latest.lock().await;
        if let Some((at, scan)) = latest.as_ref().filter(|(at, _)| at.elapsed() < EVERY) {
            tracing::debug!(age = ?at.elapsed(), "processes were looked through just now");
            return scan.clone().ok_or(ProcessError::TooSlow);
        }
        let began = Instant::now();
        let (sender, receiver) = oneshot::channel();
        let (root, locator) = (self.root.clone(), self.locator.clone());
        let work = move || drop(sender.send(look_through(&root, &locator)));
        // Reads thousands of small files and waits for the fence: not on a runtime thread.
        std::thread::Builder::new()
            .name("processes".into())
            .spawn(work)
            .map_err(ProcessError::Scan)?;
        let Ok(scan) = timeout(PATIENCE, receiver).await else {
            // It would be slow for the next who asks, too.
            *latest = Some((Instant::now(), None));
            return Err(ProcessError::TooSlow);
        };
        let scan = Arc::new(scan.map_err(|_| ProcessError::TooSlow)?.map_err(ProcessError::Scan)?);
        *latest = Some((began, Some(Arc::clone(&scan))));
        Ok(scan)
    }
}

impl Scan {
    fn choose(&self, uid: &PodUid, ips: &[IpAddr]) -> Result<&Seen, ProcessError> {
        let carries = |seen: &&Seen| ips.iter().any(|ip| seen.ips.contains(ip));
        let with_address: Vec<&Seen> = self.namespaces.iter().filter(carries).collect();
        let named = with_address.iter().filter(|seen| seen.pods.contains(&uid.0));
        let mut candidates: Vec<&Seen> = named.copied().collect();
        if candidates.is_empty() && !self.names_pods {
            candidates = with_address;
        }
        match candidates[..] {
            [] => Err(ProcessError::None),
            [only] => Ok(only),
            _ => Err(ProcessError::Several),
        }
    }
}

/// Groups the processes by namespace and looks into each namespace once.
fn look_through(root: &Path, locator: &Locator) -> std::io::Result<Scan> {
    let began = std::time::Instant::now();
    let mut namespaces: HashMap<(u64, u64), (Vec<PathBuf>, BTreeSet<String>)> = HashMap::new();
    for entry in std::fs::read_dir(root)?.flatten().take(MOST_PROCESSES) {
        let folder = entry.path();
        if !entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit) {
            continue;
        }
        let way = folder.join("ns/net");
        // A process may end at any moment: then it is none.
        let Ok(stat) = std::fs::metadata(&way) else { continue };
        let (ways, pods) = namespaces.entry((stat.dev(), stat.ino())).or_default();
        if ways.len() < WAYS {
            ways.push(way);
        }
        let group = std::fs::read_to_string(folder.join("cgroup")).unwrap_or_default();
        pods.extend(pod_of(&group));
    }
    let mut scan = Scan::default();
    for (ways, pods) in namespaces.into_values().take(MOST_NAMESPACES) {
        if began.elapsed() > PATIENCE {
            break;
        }
        scan.names_pods |= !pods.is_empty();
        scan.namespaces.extend(look_into(locator, ways, pods));
    }
    Ok(scan)
}

fn look_into(locator: &Locator, ways: Vec<PathBuf>, pods: BTreeSet<String>) -> Option<Seen> {
    let netns = ways.iter().find_map(|way| PodNetns::open(way).ok())?;
    let id = netns.id();
    if same(id, locator.own) {
        return None;
    }
    let ips = locator.fence.run(&netns, addresses).ok()?.ok()?;
    Some(Seen { id, ips, ways, pods })
}

/// The pod that a control group was made for: `pod` and the UID in one of the path's parts,
/// written with `_` by systemd. UIDs of static pods are hashes.
pub(super) fn pod_of(group: &str) -> Option<String> {
    let is_hash = |text: &str| text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
    let is_uid = |text: &str| {
        let parts: Vec<usize> = text.split('-').map(str::len).collect();
        let hex = text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
        parts == [8, 4, 4, 4, 12] && hex
    };
    let parts = group.split(['/', '\n', ':']);
    let mut uids = parts.filter_map(|part| {
        let part = part.strip_suffix(".slice").unwrap_or(part);
        let uid = part.rsplit_once("pod")?.1.replace('_', "-");
        (is_uid(&uid) || is_hash(&uid)).then_some(uid)
    });
    uids.next_back()
}

#[cfg(test)]
mod tests;
