//! Finds the namespace of a pod, by one way after the other, and believes none of them
//! before the namespace was looked at.
//!
//! ```text
//! ADD of this process's life ─► the runtime ─► the record of an ADD of an earlier life
//!                                   ─► what ztunnel has given back ─► /proc
//! ```
//!
//! The runtime comes before older records: it knows when a pod got another sandbox while
//! nobody looked.

use std::net::IpAddr;
use std::path::PathBuf;

use netns::{Fence, PodNetns};

use super::{
    Known, LocateError, Locator, Place, ProcessError, Processes, Record, Runtime, RuntimeError,
    StoredId,
};
use crate::facts::{PodName, PodUid};

/// The interface that runtimes make for the kubelet's pods.
const IFNAME: &str = "eth0";

/// Where to look for runtime and processes.
#[derive(Clone, Debug)]
pub struct Places {
    /// Sockets of container runtimes; those that are not there are passed over.
    pub runtime_sockets: Vec<PathBuf>,
    /// The node's `/proc`.
    pub processes: PathBuf,
}

/// What is known about a pod whose namespace is looked for.
#[derive(Debug)]
pub struct Sought<'a> {
    /// Which pod.
    pub uid: &'a PodUid,
    /// Where it stands in the API.
    pub name: Option<&'a PodName>,
    /// The addresses that the API shows; without any, those of the record count.
    pub ips: &'a [IpAddr],
    /// What the plugin told.
    pub known: Option<Known>,
    /// What a ztunnel has given back.
    pub given: Option<PodNetns>,
}

/// By which way a namespace was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The plugin told it to this process.
    Plugin,
    /// The container runtime.
    Runtime,
    /// The plugin told it to an earlier life of the agent.
    Record,
    /// A ztunnel gave it back.
    Ztunnel,
    /// A process that lives in it.
    Processes,
}

/// A pod's namespace, verified.
#[derive(Clone, Debug)]
pub struct Located {
    /// It.
    pub netns: PodNetns,
    /// How it was found.
    pub way: Way,
    /// What should be written down from now on, if it was not known before.
    pub news: Option<Record>,
}

/// No way led to the namespace; what each met with.
#[derive(Debug, thiserror::Error)]
#[error(
    "find the pod's network namespace: {runtime}; {}; {processes}; if the pod runs, restart it",
    told(.record.as_ref())
)]
pub struct NotFound {
    runtime: Refused<RuntimeError>,
    record: Option<LocateError>,
    processes: ProcessError,
}

/// A way that ended at its own fault or at a namespace that is not the pod's.
#[derive(Debug, thiserror::Error)]
enum Refused<E: std::error::Error + 'static> {
    #[error(transparent)]
    Way(E),
    #[error("what the runtime names is not the pod's: {0}")]
    NotThePods(LocateError),
}

fn told(record: Option<&LocateError>) -> String {
    let unknown = || "the plugin has not told about this pod".to_owned();
    record.map_or_else(unknown, |error| format!("what the plugin told holds no more: {error}"))
}

/// Finds namespaces.
#[derive(Debug)]
pub struct Finder {
    locator: Locator,
    runtime: Runtime,
    processes: Processes,
}

/// Why there is no finder.
#[derive(Debug, thiserror::Error)]
pub enum FinderError {
    /// The own namespace cannot be told from others.
    #[error(transparent)]
    Locate(#[from] LocateError),
    /// A path that cannot be one of a socket.
    #[error("the container runtime's socket: {0}")]
    Socket(#[from] tonic::transport::Error),
}

impl Finder {
    /// Nothing is asked yet. Needs an async runtime around it.
    ///
    /// # Errors
    /// Any [`FinderError`].
    pub fn new(fence: Fence, places: &Places) -> Result<Self, FinderError> {
        let locator = Locator::new(fence)?;
        let runtime = Runtime::new(&places.runtime_sockets)?;
        let processes = Processes::new(places.processes.clone(), locator.clone());
        Ok(Self { locator, runtime, processes })
    }

    /// Who checks what others say of namespaces.
    #[must_use]
    pub fn locator(&self) -> &Locator {
        &self.locator
    }

    /// Finds a pod's namespace.
    ///
    /// # Errors
    /// [`NotFound`], with what each way met with.
    pub async fn find(&self, sought: Sought<'_>) -> Result<Located, NotFound> {
        let known = sought.known.as_ref();
        let found = |netns, way| Located { netns, way, news: None };
        if let Some(Known::Seen(record)) = known
            && let Ok(netns) = self.locator.open(record).await
        {
            return Ok(found(netns, Way::Plugin));
        }
        let ips = addresses_of(&sought);
        let runtime = match self.by_runtime(&sought, &ips).await {
            Ok(found) => return Ok(found),
            Err(error) => error,
        };
        let record = match known.map(Known::record) {
            Some(record) => match self.locator.open(record).await {
                Ok(netns) => return Ok(found(netns, Way::Record)),
                Err(error) => Some(error),
            },
            None => None,
        };
        if let Some(netns) = &sought.given
            && self.locator.confirm(netns, &ips).await.is_ok()
        {
            return Ok(found(netns.clone(), Way::Ztunnel));
        }
        match self.processes.find(sought.uid, &ips).await {
            Ok((netns, way)) => {
                tracing::info!(uid = %sought.uid, path = %way.display(), "pod found by a process");
                Ok(found(netns, Way::Processes))
            }
            Err(processes) => Err(NotFound { runtime, record, processes }),
        }
    }

    async fn by_runtime(
        &self,
        sought: &Sought<'_>,
        ips: &[IpAddr],
    ) -> Result<Located, Refused<RuntimeError>> {
        let sandbox = self.runtime.sandbox(sought.uid).await.map_err(Refused::Way)?;
        let path = match sandbox.place {
            Place::Path(path) => path,
            Place::Pid(pid) => self.processes.netns_path(pid),
        };
        let opened = PodNetns::open(&path).map_err(LocateError::from);
        let netns = opened.map_err(Refused::NotThePods)?;
        self.locator.confirm(&netns, ips).await.map_err(Refused::NotThePods)?;
        let known = sought.known.as_ref().map(Known::record);
        if known.is_some_and(|known| known.container_id == sandbox.id) {
            return Ok(Located { netns, way: Way::Runtime, news: None });
        }
        let news = sought.name.map(|name| Record {
            uid: sought.uid.clone(),
            name: name.clone(),
            container_id: sandbox.id,
            ifname: IFNAME.to_owned(),
            network: None,
            path: Some(path),
            netns: StoredId::new(netns.id(), self.locator.boot()),
            ips: ips.to_vec(),
        });
        Ok(Located { netns, way: Way::Runtime, news })
    }
}

fn addresses_of(sought: &Sought<'_>) -> Vec<IpAddr> {
    let told = sought.known.as_ref().map(|known| known.record().ips.clone());
    if sought.ips.is_empty() { told.unwrap_or_default() } else { sought.ips.to_vec() }
}

#[cfg(test)]
mod tests;
