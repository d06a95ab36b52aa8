//! One look at the folder, and what it makes necessary. Files only: a thread of the pool does it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::fights::{Fights, Tell, culprit};
use super::folder::{Applied, FolderError};
use super::installer::{News, Teller};
use super::metrics::Metrics;
use super::places;
use super::plan::{Change, Found, Past, Plan, Settings, View, plan};
use super::report::Report;
use super::standing::{Standing, stands};
use super::telling::Telling;

/// What is known between looks.
pub(super) struct Keeper {
    pub(super) found: places::Found,
    pub(super) settings: Settings,
    metrics: Metrics,
    tell: Teller,
    /// `None` before the first look.
    past: Option<Past>,
    /// What stood there after the last look.
    shown: Option<BTreeMap<String, String>>,
    fights: Fights,
    telling: Telling,
    pub(super) standing: Standing,
    /// Everything stood as it should, at some time.
    pub(super) in_place: bool,
    /// Why the program is not as it should be.
    pub(super) program: Option<Report>,
}

impl Keeper {
    /// Has not looked yet.
    pub(super) fn new(
        found: places::Found,
        settings: Settings,
        metrics: Metrics,
        tell: Teller,
    ) -> Self {
        Self {
            found,
            settings,
            metrics,
            tell,
            past: None,
            shown: None,
            fights: Fights::default(),
            telling: Telling::default(),
            standing: Standing::default(),
            in_place: false,
            program: None,
        }
    }

    /// One look, and what it makes necessary; when the next one is due.
    pub(super) fn look(&mut self, now: Duration) -> Option<Duration> {
        match self.try_look(now) {
            Ok((reports, again)) => {
                self.report(&reports, now);
                again
            }
            Err(error) => {
                let what = format!("{error}; what was there stays");
                self.metrics.in_place.set(0);
                self.report(&[Report::Failed { what }].into(), now);
                None
            }
        }
    }

    fn try_look(
        &mut self,
        now: Duration,
    ) -> Result<(BTreeSet<Report>, Option<Duration>), FolderError> {
        let view = self.found.conf().read()?;
        self.standing.see(stands(&view));
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
        if !self.found.has_program() {
            let folders = self.found.bin_dirs.iter().map(|folder| folder.display().to_string());
            let folders = folders.collect::<Vec<_>>().join(", ");
            made.reports.insert(Report::NoProgram { folders });
            self.metrics.in_place.set(0);
            return Ok((made.reports, made.again));
        }
        if self.carry_out(&made)? == Applied::Overtaken {
            // What stands there now is news.
            return Ok((made.reports, Some(Duration::ZERO)));
        }
        let nested = made.reports.iter().any(|it| matches!(it, Report::Nested { .. }));
        let trouble = made.reports.iter().any(Report::is_trouble);
        let in_place = (nested || !made.wanted.is_empty()) && !trouble;
        self.metrics.in_place.set(i64::from(in_place));
        self.shown = Some(made.wanted);
        if in_place {
            self.is_in_place()?;
        }
        Ok((made.reports, made.again))
    }

    fn is_in_place(&mut self) -> Result<(), FolderError> {
        self.standing.see(stands(&self.found.conf().read()?));
        if !std::mem::replace(&mut self.in_place, true) {
            (self.tell)(News::InPlace);
        }
        Ok(())
    }

    /// Stops before a file that somebody has written since it was read.
    fn carry_out(&self, made: &Plan) -> Result<Applied, FolderError> {
        let folder = self.found.conf();
        if !made.changes.is_empty() {
            folder.make()?;
        }
        for change in &made.changes {
            if folder.apply(change)? == Applied::Overtaken {
                tracing::debug!(name = change.name(), "written by its owner this very moment");
                return Ok(Applied::Overtaken);
            }
            self.metrics.writes.inc();
            match change {
                Change::Write { name, .. } => tracing::info!(name, "conflist is written"),
                Change::Remove { name, .. } => tracing::info!(name, "conflist is removed"),
            }
        }
        Ok(Applied::Made)
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

    fn report(&mut self, reports: &BTreeSet<Report>, now: Duration) {
        for report in self.telling.news(reports, now) {
            if report.is_trouble() {
                tracing::error!("{report}");
                (self.tell)(News::Trouble(report.to_string()));
            } else {
                tracing::warn!("{report}");
            }
        }
        if self.telling.differs(reports) {
            let lines: Vec<_> = reports.iter().map(ToString::to_string).collect();
            (self.tell)(News::Remark(lines.join("; ")));
        }
    }
}
