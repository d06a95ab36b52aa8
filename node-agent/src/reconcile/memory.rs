//! What one life of the agent leaves to the next about pods: what counts where an
//! annotation means nothing, and since when a pod is captured and how often its older
//! connections were ended.
//!
//! Nothing here decides whether a pod is captured. A file that is lost costs a pod its last
//! good options, where what it says now means nothing, and lets older connections live.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use capture::Options;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::aging::Aging;
use super::pod::Pod;
use crate::enrollment::{Key, Wishes};
use crate::facts::PodUid;
use crate::replace_file::{Outlives, replace_file};

/// Version of the file's shape.
const VERSION: u32 = 1;

/// What is known of one pod from before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Remembered {
    /// Texts of options that count, by annotation.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    options: BTreeMap<String, String>,
    /// Seconds since 1970 at which the pod was captured.
    #[serde(skip_serializing_if = "Option::is_none")]
    captured: Option<u64>,
    /// How often older connections were ended since.
    passes: u8,
}

#[derive(Serialize, Deserialize)]
struct File {
    version: u32,
    pods: BTreeMap<PodUid, Remembered>,
}

impl Remembered {
    /// What is worth being left of a pod, if anything is.
    #[must_use]
    pub fn of(pod: &Pod) -> Option<Self> {
        // Good ones too: they may be spoiled while no agent looks.
        let options = pod.wishes.texts().iter();
        let options = options.map(|(key, text)| (key.annotation().to_owned(), text.clone()));
        let seconds = |aging: Aging| aging.since.duration_since(UNIX_EPOCH).ok();
        let remembered = Self {
            options: options.collect(),
            captured: pod.aging.and_then(seconds).map(|since| since.as_secs()),
            passes: pod.aging.map_or(0, |aging| aging.passes),
        };
        (remembered != Self::default()).then_some(remembered)
    }

    /// The rules that the pod had, where those of this node are `node`.
    #[must_use]
    pub fn options(&self, node: &Options) -> Options {
        self.clone().pod().wishes.options(node)
    }

    /// The pod as it begins in this life.
    #[must_use]
    pub fn pod(self) -> Pod {
        let known = |(name, text): (String, String)| Some((Key::of(&name)?, text));
        let texts = self.options.into_iter().filter_map(known).collect();
        let (wishes, _) = Wishes::default().hear(&texts);
        let passes = self.passes;
        let since = |seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
        let aging = |since| Aging { since, passes };
        Pod { wishes, aging: self.captured.and_then(since).map(aging), ..Pod::new() }
    }
}

/// The file.
#[derive(Debug)]
pub struct Memory {
    path: PathBuf,
    found: BTreeMap<PodUid, Remembered>,
    written: Mutex<()>,
}

impl Memory {
    /// Reads what an earlier life has left. A file that cannot be read is as good as none.
    pub async fn open(path: &Path) -> Self {
        let found = match tokio::fs::read(path).await {
            Ok(bytes) => parse(&bytes).unwrap_or_else(|reason| {
                tracing::warn!(file = %path.display(), reason, "what pods said before is lost");
                BTreeMap::new()
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => {
                tracing::warn!(file = %path.display(), %error, "what pods said before is lost");
                BTreeMap::new()
            }
        };
        Self { path: path.to_owned(), found, written: Mutex::new(()) }
    }

    /// What an earlier life has left.
    #[must_use]
    pub fn found(&self) -> &BTreeMap<PodUid, Remembered> {
        &self.found
    }

    /// Replaces the file. It outlives the process, not the machine: pods do not either.
    ///
    /// # Errors
    /// The system's answer.
    pub async fn write(
        &self,
        news: impl FnOnce() -> Option<BTreeMap<PodUid, Remembered>>,
    ) -> io::Result<()> {
        // What is written is gathered within: the last one to write knows most, and who finds
        // no news knows that they are written.
        let _turn = self.written.lock().await;
        let Some(pods) = news() else { return Ok(()) };
        let bytes = serde_json::to_vec(&File { version: VERSION, pods })?;
        replace_file(&self.path, &bytes, Outlives::Process).await
    }
}

fn parse(bytes: &[u8]) -> Result<BTreeMap<PodUid, Remembered>, String> {
    let file: File = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if file.version != VERSION {
        return Err(format!("version {} is not {VERSION}", file.version));
    }
    let mut pods = file.pods;
    // A time in the future would never be over: the clock was set back since.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    for remembered in pods.values_mut() {
        remembered.captured = remembered.captured.map(|captured| captured.min(now));
    }
    Ok(pods)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;

    fn said(text: &str) -> crate::facts::PodFacts {
        let mut facts = pod("web");
        facts.options = [(Key::ExcludeOutboundPorts, text.to_owned())].into();
        facts
    }

    #[tokio::test]
    async fn the_next_life_knows_the_last_good_options_and_the_time_of_capture() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("memory.json");
        let mut before = Pod::new();
        assert_eq!(Remembered::of(&before), None, "it has said nothing");
        before.learn(said("5432"));
        let since = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        before.aging = Some(Aging { since, passes: 1 });
        let uid = PodUid("uid-web".into());
        let memory = Memory::open(&path).await;
        let left = || Some([(uid.clone(), Remembered::of(&before).unwrap())].into());
        memory.write(left).await.unwrap();
        memory.write(|| None).await.unwrap();

        let memory = Memory::open(&path).await;
        let mut after = memory.found()[&uid].clone().pod();
        after.learn(said("http"));
        assert_eq!(after.wishes, before.wishes);
        assert_eq!((after.aging, after.state), (before.aging, super::super::State::Unknown));
    }

    #[tokio::test]
    async fn a_damaged_file_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("memory.json");
        for text in ["{", "{\"version\":9,\"pods\":{}}", "[]"] {
            std::fs::write(&path, text).unwrap();
            assert!(Memory::open(&path).await.found().is_empty(), "{text}");
        }
    }
}
