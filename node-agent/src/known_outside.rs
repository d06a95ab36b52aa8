//! The file of pods that are known to be outside the mesh: a plugin that is told so lets
//! them start while it reaches no agent.
//!
//! Nobody may be in it who is captured: [`KnownOutside::strike`] comes before the first step
//! of every capture. It says for which boot it holds, because a run directory may survive a
//! reboot and labels may change meanwhile.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use plugin_api::{KNOWN_VERSION, KnownPod, MAX_KNOWN};
use tokio::io::AsyncWriteExt;
use tokio::sync::Mutex;

use crate::facts::{PodName, PodUid};
use crate::replace_file::FRESH;

/// Pods by UID.
pub type Pods = BTreeMap<PodUid, PodName>;

/// Most pods that are listed. A node has a few hundred; names are of a hundred letters.
const MOST: usize = 1000;

/// The file.
#[derive(Debug)]
pub struct KnownOutside {
    path: PathBuf,
    boot: String,
    /// What it says; `None` when there is none.
    said: Mutex<Option<Pods>>,
}

impl KnownOutside {
    /// Takes over what an earlier life of the agent has left in this boot. Anything else at
    /// this path is removed.
    pub async fn open(path: &Path, boot: &str) -> Self {
        let said = match tokio::fs::read(path).await {
            Ok(bytes) => parse(&bytes, boot),
            Err(_) => None,
        };
        let known = Self { path: path.to_owned(), boot: boot.to_owned(), said: Mutex::new(said) };
        let mut said = known.said.lock().await;
        if said.is_none() {
            known.remove(&mut said).await;
        }
        drop(said);
        known
    }

    /// Takes a pod out, before it is captured. A file that cannot be written is removed: who
    /// is not in it waits, and that is all that can happen.
    pub async fn strike(&self, uid: &PodUid) {
        let mut said = self.said.lock().await;
        let Some(mut pods) = said.clone() else { return };
        if pods.remove(uid).is_some() {
            self.write(&mut said, pods).await;
        }
    }

    /// Writes down what `gather` finds, if that is news. What is gathered is gathered in turn
    /// with [`KnownOutside::strike`]: what is captured meanwhile cannot come back.
    pub async fn replace(&self, gather: impl FnOnce() -> Pods) {
        let mut said = self.said.lock().await;
        let mut pods = gather();
        while pods.len() > MOST {
            pods.pop_last();
        }
        if said.as_ref() == Some(&pods) {
            self.touch();
        } else {
            self.write(&mut said, pods).await;
        }
    }

    async fn write(&self, said: &mut Option<Pods>, pods: Pods) {
        match self.put(&pods).await {
            Ok(()) => *said = Some(pods),
            Err(error) => {
                let file = self.path.display();
                tracing::warn!(%file, %error, "the list of pods outside the mesh is not written");
                self.remove(said).await;
            }
        }
    }

    /// Beside and renamed: who reads it reads all of it.
    async fn put(&self, pods: &Pods) -> io::Result<()> {
        let listed = pods.iter().map(|(uid, PodName { namespace, name })| KnownPod {
            namespace: namespace.clone(),
            name: name.clone(),
            uid: uid.0.clone(),
        });
        let (version, boot) = (KNOWN_VERSION, self.boot.clone());
        let list = plugin_api::KnownOutside { version, boot, pods: listed.collect() };
        let bytes = serde_json::to_vec(&list)?;
        if bytes.len() > MAX_KNOWN {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let fresh = self.path.with_extension(FRESH);
        let mut options = tokio::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&fresh).await?;
        file.write_all(&bytes).await?;
        file.flush().await?;
        tokio::fs::rename(&fresh, &self.path).await
    }

    /// What it says still holds: the plugin believes it for a time after that.
    fn touch(&self) {
        let touched =
            std::fs::File::open(&self.path).and_then(|file| file.set_modified(SystemTime::now()));
        if let Err(error) = touched {
            tracing::debug!(file = %self.path.display(), %error, "no sign is left");
        }
    }

    async fn remove(&self, said: &mut Option<Pods>) {
        *said = None;
        match tokio::fs::remove_file(&self.path).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let file = self.path.display();
                tracing::error!(%file, %error, "a list of pods outside the mesh is not removed");
            }
            _ => {}
        }
    }
}

fn parse(bytes: &[u8], boot: &str) -> Option<Pods> {
    let list: plugin_api::KnownOutside = serde_json::from_slice(bytes).ok()?;
    let own = list.version == KNOWN_VERSION && list.boot == boot;
    let pod = |KnownPod { namespace, name, uid }| (PodUid(uid), PodName { namespace, name });
    own.then(|| list.pods.into_iter().map(pod).collect())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn pods(names: &[&str]) -> Pods {
        let pod = |name: &&str| {
            let uid = PodUid(format!("uid-{name}"));
            (uid, PodName { namespace: "shop".into(), name: (*name).to_owned() })
        };
        names.iter().map(pod).collect()
    }

    fn read(path: &Path) -> Pods {
        parse(&std::fs::read(path).unwrap(), "boot").unwrap()
    }

    #[tokio::test]
    async fn it_is_roots_alone_and_is_written_when_it_changes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("known.json");
        let known = KnownOutside::open(&path, "boot").await;
        known.replace(|| pods(&["a", "b"])).await;
        assert_eq!(read(&path), pods(&["a", "b"]));
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        // Written once more only as a sign that it still holds.
        let long_ago = SystemTime::UNIX_EPOCH;
        std::fs::File::open(&path).unwrap().set_modified(long_ago).unwrap();
        known.replace(|| pods(&["a", "b"])).await;
        assert!(std::fs::metadata(&path).unwrap().modified().unwrap() > long_ago);

        known.strike(&PodUid("uid-a".into())).await;
        assert_eq!(read(&path), pods(&["b"]));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn the_next_life_strikes_out_of_the_list_of_the_last() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("known.json");
        KnownOutside::open(&path, "boot").await.replace(|| pods(&["a", "b"])).await;
        let known = KnownOutside::open(&path, "boot").await;
        assert_eq!(read(&path), pods(&["a", "b"]), "until there is a newer one");
        known.strike(&PodUid("uid-b".into())).await;
        assert_eq!(read(&path), pods(&["a"]));
    }

    #[tokio::test]
    async fn the_list_of_another_boot_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("known.json");
        KnownOutside::open(&path, "earlier").await.replace(|| pods(&["a"])).await;
        assert!(path.exists());
        KnownOutside::open(&path, "boot").await;
        assert!(!path.exists());
        std::fs::write(&path, "{").unwrap();
        KnownOutside::open(&path, "boot").await;
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn what_cannot_be_written_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("known.json");
        let known = KnownOutside::open(&path, "boot").await;
        known.replace(|| pods(&["a", "b"])).await;
        // What is written beside it cannot be.
        std::fs::create_dir(path.with_extension("json.new")).unwrap();
        known.strike(&PodUid("uid-a".into())).await;
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn it_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("known.json");
        let known = KnownOutside::open(&path, "boot").await;
        let names: Vec<_> = (0..2000).map(|number| format!("pod-{number}")).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        known.replace(|| pods(&names)).await;
        assert_eq!(read(&path).len(), MOST);
    }
}
