//! The order of calls.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::CODE_TRY_AGAIN;
use super::cache::{Cache, CacheError};
use super::conflist::{Conflist, ConflistError};
use super::exec::{Executor, PluginError};
use super::request::{About, Attachment, Verb};
use crate::place::Place;

/// How long one plugin may take before it is killed.
const PLUGIN_DEADLINE: Duration = Duration::from_secs(30);

/// Why a network operation failed.
#[derive(Debug, thiserror::Error)]
pub enum CniError {
    /// The configuration is absent or malformed.
    #[error(transparent)]
    Conflist(#[from] ConflistError),
    /// ADD failed; what had been done was undone.
    #[error("{cause}{}", undone_text(.undone))]
    Add {
        /// The call that failed.
        cause: PluginError,
        /// DELs of the undoing that failed too; empty when nothing was left behind.
        undone: Undone,
    },
    /// Some plugins failed DEL; the others were called all the same.
    #[error("{0}")]
    Del(Undone),
    /// CHECK found a difference.
    #[error("{0}")]
    Check(PluginError),
    /// STATUS: a plugin would not serve an ADD.
    #[error("{0}")]
    Status(PluginError),
    /// GC: plugins failed, or DELs of what is not valid any more; all others were called.
    #[error("{0}")]
    Gc(Undone),
    /// CHECK is impossible: nothing was added, or the configuration's version has none.
    #[error("check of container {container_id}: {reason}")]
    CannotCheck {
        /// The sandbox.
        container_id: String,
        /// Why.
        reason: &'static str,
    },
    /// The cache failed.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

impl CniError {
    /// The code that the failing plugin gave, if it spoke.
    #[must_use]
    pub fn code(&self) -> Option<u32> {
        match self {
            Self::Add { cause, .. } | Self::Check(cause) | Self::Status(cause) => cause.code(),
            Self::Del(undone) | Self::Gc(undone) => undone.0.first().and_then(PluginError::code),
            _ => None,
        }
    }

    /// Whether a plugin asked to be called again later.
    #[must_use]
    pub fn is_try_again(&self) -> bool {
        self.code() == Some(CODE_TRY_AGAIN)
    }
}

/// The failures of a DEL that carried on.
#[derive(Debug, Default)]
pub struct Undone(pub Vec<PluginError>);

impl std::fmt::Display for Undone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let texts: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&texts.join("; "))
    }
}

fn undone_text(undone: &Undone) -> String {
    if undone.0.is_empty() { String::new() } else { format!("; undoing it: {undone}") }
}

/// A node's container runtime, as far as networks are concerned.
#[derive(Clone, Debug)]
pub struct Runtime {
    conf_folder: PathBuf,
    cache: Cache,
    executor: Executor,
}

impl Runtime {
    /// `place` is the namespace that the plugins run in, the node's; without one they run
    /// in the lab's own.
    #[must_use]
    pub fn new(
        conf_folder: &Path,
        cache_folder: &Path,
        plugin_folders: Vec<PathBuf>,
        place: Option<Place>,
    ) -> Self {
        let executor = Executor { place, folders: plugin_folders, deadline: PLUGIN_DEADLINE };
        let cache = Cache::new(cache_folder);
        Self { conf_folder: conf_folder.to_owned(), cache, executor }
    }

    /// The same with another deadline for each call of a plugin.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.executor.deadline = deadline;
        self
    }

    /// The same that looks for plugins elsewhere.
    #[must_use]
    pub fn with_plugins(&self, folders: Vec<PathBuf>) -> Self {
        Self { executor: Executor { folders, ..self.executor.clone() }, ..self.clone() }
    }

    /// Where the binary of a plugin is, if it is anywhere.
    #[must_use]
    pub fn find(&self, plugin: &str) -> Option<PathBuf> {
        self.executor.find(plugin).ok()
    }

    /// The configuration as it stands now.
    ///
    /// # Errors
    /// [`ConflistError`] naming the file and the problem.
    pub fn load(&self) -> Result<Conflist, ConflistError> {
        Conflist::load(&self.conf_folder)
    }

    /// Attaches a container and returns the last plugin's result, which is also cached.
    ///
    /// # Errors
    /// [`CniError::Add`] after DEL was called for all plugins, last first.
    pub async fn add(&self, list: &Conflist, attachment: &Attachment) -> Result<Value, CniError> {
        let mut result = None;
        for plugin in &list.plugins {
            let about = About::Attached(attachment, result.as_ref());
            match self.executor.call(Verb::Add, list, plugin, about).await {
                Ok(next) => result = next,
                Err(cause) => {
                    // No result of the whole list exists, so DEL gets none.
                    let undone = Undone(self.undo(list, attachment, None).await);
                    return Err(CniError::Add { cause, undone });
                }
            }
        }
        let result = result.unwrap_or_default();
        if let Err(error) = self.cache.store(list, attachment, &result) {
            self.undo(list, attachment, Some(&result)).await;
            return Err(error.into());
        }
        Ok(result)
    }

    /// Detaches a container: all plugins, last first, with the cached result where there
    /// is one, so also a second time and after the sandbox is gone.
    ///
    /// # Errors
    /// [`CniError::Del`] with every failure; the cached result stays for another attempt.
    pub async fn del(&self, list: &Conflist, attachment: &Attachment) -> Result<(), CniError> {
        let cached = self.cache.find(list, attachment)?.filter(|_| list.remembers_results());
        let failures = self.undo(list, attachment, cached.as_ref()).await;
        if failures.is_empty() {
            return Ok(self.cache.remove(list, attachment)?);
        }
        Err(CniError::Del(Undone(failures)))
    }

    /// Asks all plugins, in order, whether the attachment still holds.
    ///
    /// # Errors
    /// [`CniError::Check`] from the first plugin that sees a difference.
    pub async fn check(&self, list: &Conflist, attachment: &Attachment) -> Result<(), CniError> {
        if list.disable_check {
            return Ok(());
        }
        let cannot = |reason| CniError::CannotCheck {
            container_id: attachment.container_id.clone(),
            reason,
        };
        if !list.remembers_results() {
            return Err(cannot("the configuration's version has no CHECK"));
        }
        let cached =
            self.cache.find(list, attachment)?.ok_or_else(|| cannot("it was not added"))?;
        let about = About::Attached(attachment, Some(&cached));
        for plugin in &list.plugins {
            let call = self.executor.call(Verb::Check, list, plugin, about);
            call.await.map_err(CniError::Check)?;
        }
        Ok(())
    }

    /// Asks all plugins, in order, whether they would serve an ADD. Before version 1.1.0
    /// nobody can be asked, and the answer is yes.
    ///
    /// # Errors
    /// [`CniError::Status`] from the first plugin that would not.
    pub async fn status(&self, list: &Conflist) -> Result<(), CniError> {
        if !list.asks_about_the_network() {
            return Ok(());
        }
        for plugin in &list.plugins {
            let call = self.executor.call(Verb::Status, list, plugin, About::Network);
            call.await.map_err(CniError::Status)?;
        }
        Ok(())
    }

    /// Ends all of the network but `valid`: DEL for what the cache knows, then GC to all
    /// plugins, from version 1.1.0 on, for what it does not know.
    ///
    /// # Errors
    /// [`CniError::Gc`] with every failure; nothing is left out because of one.
    pub async fn gc(&self, list: &Conflist, valid: &[&Attachment]) -> Result<(), CniError> {
        if list.disable_gc {
            return Ok(());
        }
        let mut failures = Vec::new();
        for cached in self.cache.attachments(list)? {
            if valid.iter().any(|it| cached.is_same(it)) {
                continue;
            }
            match self.del(list, &cached).await {
                Err(CniError::Del(Undone(more))) => failures.extend(more),
                other => other?,
            }
        }
        let plugins = list.plugins.iter().filter(|_| list.asks_about_the_network());
        for plugin in plugins {
            let call = self.executor.call(Verb::Gc, list, plugin, About::Valid(valid));
            failures.extend(call.await.err());
        }
        if failures.is_empty() { Ok(()) } else { Err(CniError::Gc(Undone(failures))) }
    }

    /// Where the result of an attachment is cached.
    #[must_use]
    pub fn cached(&self, list: &Conflist, attachment: &Attachment) -> PathBuf {
        self.cache.path(list, attachment)
    }

    async fn undo(
        &self,
        list: &Conflist,
        attachment: &Attachment,
        result: Option<&Value>,
    ) -> Vec<PluginError> {
        let mut failures = Vec::new();
        let about = About::Attached(attachment, result);
        for plugin in list.plugins.iter().rev() {
            if let Err(error) = self.executor.call(Verb::Del, list, plugin, about).await {
                tracing::warn!(plugin = plugin.kind, %error, "DEL failed");
                failures.push(error);
            }
        }
        failures
    }
}
