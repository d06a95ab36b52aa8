//! Keeps the folder as the plan says.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::binary::{self, Placed};
use super::entry::PLUGIN;
use super::fights::{Fights, Tell};
use super::folder::{self, FolderError};
use super::metrics::Metrics;
use super::places;
use super::plan::{Change, Found, Past, Plan, Settings, View, plan};
use super::report::Report;
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
}

type Teller = Arc<dyn Fn(News) + Send + Sync>;

/// Keeps our plugin in the runtime's configuration.
pub struct Installer {
    folder: PathBuf,
    watch: Watch,
    start: Instant,
    program: Option<PathBuf>,
    compared: Option<Instant>,
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
        let keeper = Keeper {
            found,
            settings,
            metrics,
            tell: Arc::new(tell),
            past: None,
            shown: None,
            fights: Fights::default(),
            told: BTreeSet::new(),
            program: None,
        };
        let folder = keeper.found.conf_dir.clone();
        let (watch, start) = (Watch::default(), Instant::now());
        Self { folder, watch, start, program: None, compared: None, keeper }
    }

    /// Puts the program that is here, if any, into the runtime's folder too.
    #[must_use]
    pub fn with_program(self, program: Option<PathBuf>) -> Self {
        Self { program, ..self }
    }

    /// Keeps it there until `stop`, and leaves it there: to end is not to be removed. To be
    /// called when the plugin's socket is open.
    pub async fn keep(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            self.place_program().await;
            self.watch.renew(&self.folder);
            let now = self.start.elapsed();
            let Some((keeper, again)) = blocking(self.keeper, now).await else {
                tracing::error!("the conflist is not looked after any more");
                return;
            };
            self.keeper = keeper;
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

/// Files only, never a namespace: a thread of the pool does.
async fn blocking(mut keeper: Keeper, now: Duration) -> Option<(Keeper, Option<Duration>)> {
    #[expect(clippy::disallowed_methods, reason = "files may hang; no namespace is entered")]
    let look = tokio::task::spawn_blocking(move || {
        let again = keeper.look(now);
        (keeper, again)
    });
    look.await.ok()
}

struct Keeper {
    found: places::Found,
    settings: Settings,
    metrics: Metrics,
    tell: Teller,
    /// `None` before the first look.
    past: Option<Past>,
    /// What stood there after the last look.
    shown: Option<BTreeMap<String, String>>,
    fights: Fights,
    told: BTreeSet<Report>,
    /// Why the program is not as it should be.
    program: Option<Report>,
}

impl Keeper {
    /// One look, and what it makes necessary; when the next one is due.
    fn look(&mut self, now: Duration) -> Option<Duration> {
        match self.try_look(now) {
            Ok((reports, again)) => {
                self.report(reports);
                again
            }
            Err(error) => {
                let what = format!("{error}; what was there stays");
                self.metrics.in_place.set(0);
                self.report([Report::Failed { what }].into());
                None
            }
        }
    }

    fn try_look(
        &mut self,
        now: Duration,
    ) -> Result<(BTreeSet<Report>, Option<Duration>), FolderError> {
        let folder = self.found.conf_dir.clone();
        let view = folder::read(&folder)?;
        let past = self.past.get_or_insert_with(|| Past::inherited(&view, &self.settings));
        let mut made = plan(&view, &self.settings, past, now);
        self.past = Some(std::mem::take(&mut made.past));
        made.reports.extend(self.program.clone());
        self.notice(&view, now);
        let rest = self.fights.rest(now);
        if !rest.is_zero() {
            self.metrics.in_place.set(i64::from(made.changes.is_empty()));
            return Ok((made.reports, Some(rest)));
        }
        if !folder::has_program(&self.found.bin_dirs, PLUGIN) {
            let folders = self.found.bin_dirs.iter().map(|folder| folder.display().to_string());
            let folders = folders.collect::<Vec<_>>().join(", ");
            made.reports.insert(Report::NoProgram { folders });
            self.metrics.in_place.set(0);
            return Ok((made.reports, made.again));
        }
        self.carry_out(&made)?;
        let nested = made.reports.iter().any(|it| matches!(it, Report::Nested { .. }));
        let trouble = made.reports.iter().any(Report::is_trouble);
        let in_place = (nested || !made.wanted.is_empty()) && !trouble;
        self.metrics.in_place.set(i64::from(in_place));
        self.shown = Some(made.wanted);
        Ok((made.reports, made.again))
    }

    fn carry_out(&self, made: &Plan) -> Result<(), FolderError> {
        let folder = &self.found.conf_dir;
        if !made.changes.is_empty() {
            folder::make(folder)?;
        }
        for change in &made.changes {
            folder::apply(folder, change)?;
            self.metrics.writes.inc();
            match change {
                Change::Write { name, .. } => tracing::info!(name, "conflist is written"),
                Change::Remove { name } => tracing::info!(name, "conflist is removed"),
            }
        }
        Ok(())
    }

    /// Whether somebody has undone what stood there after the last look.
    fn notice(&mut self, view: &View, now: Duration) {
        let Some(shown) = self.shown.take() else { return };
        let same = |(name, text): &(&String, &String)| matches!(view.files.get(*name), Some(Found::Text(found)) if found == *text);
        let Some((name, _)) = shown.iter().find(|it| !same(it)) else {
            self.shown = Some(shown);
            return;
        };
        self.metrics.undone.inc();
        let what = culprit(name, view, &self.settings);
        match self.fights.undone(now) {
            Tell::Once => tracing::warn!("{what}; it is put back"),
            Tell::Contested(times) => {
                let text = format!("{what}, {times} times by now; it is put back ever slower");
                tracing::error!("{text}");
                (self.tell)(News::Contested(text));
            }
            Tell::Nothing => {}
        }
    }

    fn report(&mut self, reports: BTreeSet<Report>) {
        for report in reports.difference(&self.told) {
            if report.is_trouble() {
                tracing::error!("{report}");
                (self.tell)(News::Trouble(report.to_string()));
            } else {
                tracing::warn!("{report}");
            }
        }
        if reports != self.told {
            let lines: Vec<_> = reports.iter().map(ToString::to_string).collect();
            (self.tell)(News::Remark(lines.join("; ")));
            self.told = reports;
        }
    }
}

/// What was done to our file or entry, and by whom as far as that shows.
fn culprit(name: &str, view: &View, settings: &Settings) -> String {
    let what = match view.files.get(name) {
        None => "was removed",
        Some(_) if name == settings.own => "was changed",
        Some(_) => "lost our plugin's entry",
    };
    let aside = view.others.iter().find(|other| other.starts_with(name));
    let by = match aside {
        Some(aside) if aside.ends_with(".cilium_bak") => {
            format!(" by Cilium, which moved it to {aside}: set cni.exclusive=false there")
        }
        Some(aside) => format!(" by somebody who moved it to {aside}"),
        None => " by another writer".to_owned(),
    };
    format!("network configuration {name} {what}{by}")
}
