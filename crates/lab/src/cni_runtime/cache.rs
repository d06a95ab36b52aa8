//! Results of ADD, kept until DEL, in the layout of libcni.

use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::conflist::Conflist;
use super::request::Attachment;

/// A result could not be kept, found or removed.
#[derive(Debug, thiserror::Error)]
#[error("{step} cached result {path}: {reason}")]
pub struct CacheError {
    /// What was attempted.
    pub step: &'static str,
    /// The file.
    pub path: PathBuf,
    /// What is in the way.
    pub reason: String,
}

#[derive(Clone, Debug)]
pub(crate) struct Cache {
    folder: PathBuf,
}

impl Cache {
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.join("results") }
    }

    pub fn path(&self, list: &Conflist, attachment: &Attachment) -> PathBuf {
        let Attachment { container_id, ifname, .. } = attachment;
        self.folder.join(format!("{}-{container_id}-{ifname}", list.name))
    }

    /// Written beside and renamed, so that no reader ever sees half of it.
    pub fn store(
        &self,
        list: &Conflist,
        attachment: &Attachment,
        result: &Value,
    ) -> Result<(), CacheError> {
        let path = self.path(list, attachment);
        let content = json!({
            "kind": "cniCacheV1",
            "networkName": list.name,
            "containerId": attachment.container_id,
            "ifName": attachment.ifname,
            "netns": attachment.netns,
            "cniArgs": attachment.args,
            "capabilityArgs": attachment.capability_args,
            "result": result,
        });
        let mut fresh = path.clone().into_os_string();
        fresh.push(".new");
        let write = || {
            std::fs::create_dir_all(&self.folder)?;
            std::fs::write(&fresh, content.to_string())?;
            std::fs::rename(&fresh, &path)
        };
        write().map_err(failed("write", &path))
    }

    pub fn find(
        &self,
        list: &Conflist,
        attachment: &Attachment,
    ) -> Result<Option<Value>, CacheError> {
        let path = self.path(list, attachment);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("read", &path)(error)),
        };
        let mut content: Value = serde_json::from_str(&text)
            .map_err(|error| failed("understand", &path)(io::Error::other(error)))?;
        Ok(content.get_mut("result").map(Value::take))
    }

    /// All attachments of the network that have a result, in no order.
    pub fn attachments(&self, list: &Conflist) -> Result<Vec<Attachment>, CacheError> {
        let entries = match std::fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed("list", &self.folder)(error)),
        };
        let mut found = Vec::new();
        for entry in entries {
            let path = entry.map_err(failed("list", &self.folder))?.path();
            let text = std::fs::read_to_string(&path).map_err(failed("read", &path))?;
            let entry: Entry = serde_json::from_str(&text)
                .map_err(|error| failed("understand", &path)(io::Error::other(error)))?;
            if entry.network_name == list.name {
                found.push(entry.into());
            }
        }
        Ok(found)
    }

    pub fn remove(&self, list: &Conflist, attachment: &Attachment) -> Result<(), CacheError> {
        let path = self.path(list, attachment);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("remove", &path)(error))
            }
            _ => Ok(()),
        }
    }
}

/// What a cached result says about its attachment.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    network_name: String,
    container_id: String,
    if_name: String,
    netns: Option<PathBuf>,
    cni_args: Vec<(String, String)>,
    capability_args: Map<String, Value>,
}

impl From<Entry> for Attachment {
    fn from(entry: Entry) -> Self {
        Self {
            container_id: entry.container_id,
            netns: entry.netns,
            ifname: entry.if_name,
            args: entry.cni_args,
            capability_args: entry.capability_args,
        }
    }
}

fn failed(step: &'static str, path: &Path) -> impl Fn(io::Error) -> CacheError {
    move |error| CacheError { step, path: path.to_owned(), reason: error.to_string() }
}
