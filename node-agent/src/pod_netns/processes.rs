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
/// A scan that still hangs after this time is not waited for any more: another one may begin.
const GIVEN_UP: Duration = Duration::from_secs(300);
/// So many threads may hang.
const MOST_HANGING: usize = 4;
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
    looks: Mutex<Looks>,
}

/// What was found, and what is still being looked for.
#[derive(Debug, Default)]
struct Looks {
    /// The last scan, and when it began.
    latest: Option<(Instant, Arc<Scan>)>,
    /// Scans that were given up and have not ended, and when they began: what hangs in `/proc`
    /// cannot be ended, and would hang again.
    hanging: Vec<(Instant, Finding)>,
}

type Finding = oneshot::Receiver<std::io::Result<Scan>>;

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
        Self { root, locator, looks: Mutex::default() }
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
        let mut looks = self.looks.lock().await;
        if let Some((at, scan)) = looks.latest.as_ref().filter(|(at, _)| at.elapsed() < EVERY) {
            tracing::debug!(age = ?at.elapsed(), "processes were looked through just now");
            return Ok(Arc::clone(scan));
        }
        // What they found is old by now.
        let hangs = |finding: &mut Finding| {
            matches!(finding.try_recv(), Err(oneshot::error::TryRecvError::Empty))
        };
        looks.hanging.retain_mut(|(_, finding)| hangs(finding));
        let hung_lately = looks.hanging.last().is_some_and(|(at, _)| at.elapsed() < GIVEN_UP);
        if hung_lately || looks.hanging.len() >= MOST_HANGING {
            return Err(ProcessError::TooSlow);
        }
        looks.latest = None;
        let began = Instant::now();
        let mut finding = self.begin()?;
        let Ok(scan) = timeout(PATIENCE, &mut finding).await else {
            looks.hanging.push((began, finding));
            return Err(ProcessError::TooSlow);
        };
        let scan = Arc::new(scan.map_err(|_| ProcessError::TooSlow)?.map_err(ProcessError::Scan)?);
        looks.latest = Some((began, Arc::clone(&scan)));
        Ok(scan)
    }

    /// Reads thousands of small files and waits for the fence: not on a runtime thread. Ends by
    /// itself when its time is over, unless one file keeps it.
    fn begin(&self) -> Result<Finding, ProcessError> {
        let (sender, finding) = oneshot::channel();
        let (root, locator) = (self.root.clone(), self.locator.clone());
        let work = move || drop(sender.send(look_through(&root, &locator)));
        let thread = std::thread::Builder::new().name("processes".into()).spawn(work);
        thread.map_err(ProcessError::Scan)?;
        Ok(finding)
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
        if began.elapsed() > PATIENCE {
            return Err(std::io::ErrorKind::TimedOut.into());
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
