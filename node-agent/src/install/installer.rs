//! Keeps program and folder as they should be, for as long as the agent runs.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::binary::{self, Placed};
use super::folder::{Applied, Folder};
use super::keeper::Keeper;
use super::metrics::Metrics;
use super::places;
use super::plan::Settings;
use super::record::Record;
use super::report::Report;
use super::standing::{Standing, Stands};
use super::undo::undo;
use super::watch::Watch;

/// How often the folder is read, news or not: a link leads elsewhere, or the folder was
/// not there.
const LOOK: Duration = Duration::from_secs(2);
/// How soon after one look there may be another, however often somebody writes.
const PACE: Duration = Duration::from_millis(20);

/// How often the program is compared with its source.
const COMPARE: Duration = Duration::from_secs(4);

/// What people are told by others than the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// Somebody removes our entry again and again; the text says who, as far as that shows.
    Contested(String),
    /// Pods start outside the mesh, or none starts, until somebody does something.
    Trouble(String),
    /// What stands in `/readyz`; empty when all is well.
    Remark(String),
    /// Program and configuration stand as they should, for the first time in this life.
    InPlace,
}

pub(super) type Teller = Arc<dyn Fn(News) + Send + Sync>;

/// Keeps our plugin in the runtime's configuration.
pub struct Installer {
    folder: PathBuf,
    watch: Watch,
    start: Instant,
    program: Option<PathBuf>,
    compared: Option<Instant>,
    written_down: Option<PathBuf>,
    keeper: Keeper,
}

impl std::fmt::Debug for Installer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Installer").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl Installer {
    /// Does nothing yet.
    #[must_use]
    pub fn new(
        found: places::Found,
        settings: Settings,
        metrics: Metrics,
        tell: impl Fn(News) + Send + Sync + 'static,
    ) -> Self {
        let keeper = Keeper::new(found, settings, metrics, Arc::new(tell));
        let folder = keeper.found.conf_dir.clone();
        let (watch, start) = (Watch::default(), Instant::now());
        let (program, compared, written_down) = (None, None, None);
        Self { folder, watch, start, program, compared, written_down, keeper }
    }

    /// Tells there what is seen in the folder.
    #[must_use]
    pub fn with_standing(mut self, standing: Standing) -> Self {
        standing.see(Stands::Not("the network configuration was not looked at yet".into()));
        self.keeper.standing = standing;
        self
    }

    /// Writes down in this file where it works, and clears the places where an earlier life
    /// did.
    #[must_use]
    pub fn with_record(self, file: PathBuf) -> Self {
        Self { written_down: Some(file), ..self }
    }

    /// Puts the program that is here, if any, into the runtime's folder too.
    #[must_use]
    pub fn with_program(self, program: Option<PathBuf>) -> Self {
        Self { program, ..self }
    }

    /// Keeps it there until `stop`, and leaves it there: to end is not to be removed. To be
    /// called when the plugin's socket is open.
    pub async fn keep(mut self, stop: CancellationToken) {
        self.write_down().await;
        while !stop.is_cancelled() {
            self.place_program().await;
            self.watch.renew(&self.folder);
            let now = self.start.elapsed();
            let Some((keeper, again)) = blocking(self.keeper, now).await else {
                tracing::error!("the conflist is not looked after any more");
                return;
            };
            self.keeper = keeper;
            if self.keeper.in_place {
                self.leave_old_places().await;
            }
            let pause = again.unwrap_or(LOOK).clamp(PACE, LOOK);
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(PACE) => {}
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.watch.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
}

impl Installer {
    /// Before anything is made there.
    async fn write_down(&self) {
        let Some(file) = &self.written_down else { return };
        let known = Record::read(file);
        let record = known.clone().with(&self.keeper.found);
        if record != known
            && let Err(error) = record.write(file).await
        {
            let file = file.display();
            tracing::warn!(%file, %error, "where the plugin is installed is not written down");
        }
    }

    /// Once the new place serves. What cannot be cleared stays written down, for the removal.
    async fn leave_old_places(&mut self) {
        let Some(file) = self.written_down.take() else { return };
        let mut record = Record::read(&file);
        let known = record.clone();
        for seen in known.other_conf(&self.keeper.found) {
            let folder = Folder::new(&self.keeper.found.root, &seen);
            match cleared(folder, self.keeper.settings.own.clone()).await {
                Ok(()) => {
                    tracing::info!(folder = %seen.display(), "the old place is cleared");
                    record.forget(&self.keeper.found.root, &seen);
                }
                Err(error) => {
                    let folder = seen.display();
                    tracing::warn!(%folder, error, "our entry stays in the old place");
                }
            }
        }
        if record != known
            && let Err(error) = record.write(&file).await
        {
            tracing::warn!(file = %file.display(), %error, "the old place stays written down");
        }
    }

    /// Before anything names it; and again when somebody has changed it.
    async fn place_program(&mut self) {
        let Some(source) = &self.program else { return };
        if self.compared.is_some_and(|compared| compared.elapsed() < COMPARE) {
            return;
        }
        self.compared = Some(Instant::now());
        let folder = self.keeper.found.program_dir();
        let placed = match tokio::fs::create_dir_all(&folder).await {
            Ok(()) => binary::place(source, &folder).await.map_err(|error| error.to_string()),
            Err(error) => Err(format!("create {}: {error}", folder.display())),
        };
        if let Ok(Placed::Now) = placed {
            tracing::info!(folder = %folder.display(), "the plugin's program is put in place");
        }
        self.keeper.program = placed.err().map(|what| Report::Failed { what });
    }
}

/// Takes us out of a folder that is not ours to keep any more.
async fn cleared(folder: Folder, own: String) -> Result<(), String> {
    #[expect(clippy::disallowed_methods, reason = "files may hang; no namespace is entered")]
    let cleared = tokio::task::spawn_blocking(move || {
        if folder.may_be_hidden() {
            return Err("it is not seen from here: an uninstall that sees it clears it".into());
        }
        let view = folder.read().map_err(|error| error.to_string())?;
        let undo = undo(&view, &own);
        for change in &undo.changes {
            match folder.apply(change).map_err(|error| error.to_string())? {
                Applied::Made => {}
                Applied::Overtaken => return Err(format!("{} is being written", change.name())),
            }
        }
        match undo.troubles.first() {
            Some(trouble) => Err(trouble.clone()),
            None => Ok(()),
        }
    });
    cleared.await.unwrap_or_else(|error| Err(error.to_string()))
}

/// Files only, never a namespace: a thread of the pool does.
async fn blocking(mut keeper: Keeper, now: Duration) -> Option<(Keeper, Option<Duration>)> {
    #[expect(clippy::disallowed_methods, reason = "files may hang; no namespace is entered")]
    let look = tokio::task::spawn_blocking(move || {
        let again = keeper.look(now);
        (keeper, again)
    });
    look.await.ok()
}
