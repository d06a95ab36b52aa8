//! The records on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::Record;
use crate::facts::PodUid;
use crate::replace_file::{Outlives, replace_file};

/// Version of the file's shape.
const VERSION: u32 = 1;

/// Why the records could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{step} {}: {source}", .path.display())]
pub struct StoreError {
    step: &'static str,
    path: PathBuf,
    source: io::Error,
}

#[derive(Serialize, Deserialize)]
struct File {
    version: u32,
    pods: Vec<Record>,
}

/// The records at `path`, for who only reads them; none where there is no file.
///
/// # Errors
/// In words, when the file cannot be read or is no record file.
pub fn recorded(path: &Path) -> Result<Vec<Record>, String> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(parse(&bytes)?.into_values().collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(failed("read", path)(error).to_string()),
    }
}

/// A record, and since when it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// This process was told: nothing has happened to the sandbox unseen.
    Seen(Record),
    /// An earlier life of the agent was told.
    Earlier(Record),
}

impl Known {
    /// What was told.
    #[must_use]
    pub fn record(&self) -> &Record {
        match self {
            Self::Seen(record) | Self::Earlier(record) => record,
        }
    }
}

/// What a file of records ends with that could not be read.
pub const DAMAGED: &str = "json.damaged";

/// The records, in memory and in a file that is replaced as a whole.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    records: Mutex<BTreeMap<PodUid, Record>>,
    /// Pods of which the file told when it was opened, and nobody since.
    earlier: std::sync::Mutex<BTreeSet<PodUid>>,
}

impl Store {
    /// Reads `path`. A file that is no record file is moved aside with an error in the
    /// log: one damaged file must not keep the agent from every pod of the node.
    ///
    /// # Errors
    /// [`StoreError`] when the file can neither be read nor moved.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let records = match tokio::fs::read(path).await {
            Ok(bytes) => match parse(&bytes) {
                Ok(records) => records,
                Err(reason) => {
                    let aside = path.with_extension(DAMAGED);
                    tokio::fs::rename(path, &aside).await.map_err(failed("move aside", path))?;
                    tracing::error!(
                        file = %path.display(), moved_to = %aside.display(), %reason,
                        "record of pods is damaged; running pods are found again when they restart"
                    );
                    BTreeMap::new()
                }
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(failed("read", path)(error)),
        };
        let earlier = std::sync::Mutex::new(records.keys().cloned().collect());
        Ok(Self { path: path.to_owned(), records: Mutex::new(records), earlier })
    }

    /// Everything that is known.
    pub async fn all(&self) -> Vec<Record> {
        self.records.lock().await.values().cloned().collect()
    }

    /// One pod's record.
    pub async fn get(&self, uid: &PodUid) -> Option<Record> {
        self.records.lock().await.get(uid).cloned()
    }

    /// One pod's record, and since when it is known.
    pub async fn known(&self, uid: &PodUid) -> Option<Known> {
        let record = self.get(uid).await?;
        Some(if self.earlier().contains(uid) {
            Known::Earlier(record)
        } else {
            Known::Seen(record)
        })
    }

    /// The pod of a sandbox, by its first interface.
    pub async fn find(&self, container_id: &str, ifname: &str) -> Option<Record> {
        let records = self.records.lock().await;
        let of = |r: &&Record| r.container_id == container_id && r.ifname == ifname;
        records.values().find(of).cloned()
    }

    /// The pod of a sandbox, by whichever of its interfaces.
    pub async fn of_sandbox(&self, container_id: &str) -> Option<Record> {
        let records = self.records.lock().await;
        records.values().find(|record| record.container_id == container_id).cloned()
    }

    /// Writes a record down; it is on disk when this returns.
    ///
    /// # Errors
    /// [`StoreError`]; the record is then forgotten again.
    pub async fn remember(&self, record: Record) -> Result<(), StoreError> {
        let mut records = self.records.lock().await;
        let uid = record.uid.clone();
        let before = records.insert(uid.clone(), record);
        let written = self.write(&records).await;
        match (&written, before) {
            (Ok(()), _) => drop(self.earlier().remove(&uid)),
            (Err(_), Some(before)) => drop(records.insert(uid, before)),
            (Err(_), None) => drop(records.remove(&uid)),
        }
        written
    }

    /// Forgets one pod's record, if it is the one of this sandbox.
    ///
    /// # Errors
    /// [`StoreError`]; it is forgotten in memory all the same, and a stale line in the
    /// file is found out by the namespace's identity.
    pub async fn forget(&self, uid: &PodUid, container_id: &str) -> Result<(), StoreError> {
        let mut records = self.records.lock().await;
        if records.get(uid).is_none_or(|record| record.container_id != container_id) {
            return Ok(());
        }
        records.remove(uid);
        self.write(&records).await
    }

    fn earlier(&self) -> std::sync::MutexGuard<'_, BTreeSet<PodUid>> {
        self.earlier.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    async fn write(&self, records: &BTreeMap<PodUid, Record>) -> Result<(), StoreError> {
        let file = File { version: VERSION, pods: records.values().cloned().collect() };
        let bytes = serde_json::to_vec_pretty(&file)
            .map_err(|error| failed("render", &self.path)(error.into()))?;
        let replaced = replace_file(&self.path, &bytes, Outlives::Machine).await;
        replaced.map_err(failed("replace", &self.path))
    }
}

fn parse(bytes: &[u8]) -> Result<BTreeMap<PodUid, Record>, String> {
    let file: File = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if file.version != VERSION {
        return Err(format!("version {} is not {VERSION}", file.version));
    }
    Ok(file.pods.into_iter().map(|record| (record.uid.clone(), record)).collect())
}

fn failed<'a>(step: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> StoreError + 'a {
    move |source| StoreError { step, path: path.to_owned(), source }
}
