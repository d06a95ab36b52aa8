//! The compatibility matrix: behaviours by cluster, rendered between two markers of a file.
//!
//! Where a result comes from is part of its mark, so that what CI has shown, what somebody
//! has shown once, and what is only written somewhere cannot be taken for each other.

use std::collections::BTreeMap;
use std::path::Path;

use super::between::Markers;
use super::form::cell;
use super::{Mark, Report, Source, Tally};
use crate::behaviours::{BEHAVIOURS, Behaviour};

/// Between these lines everything belongs to the matrix.
const MARKERS: Markers = Markers {
    begin: "<!-- matrix: begin; made by `conformance matrix`, not by hand -->",
    end: "<!-- matrix: end -->",
};

/// What stands for what.
const LEGEND: &str = "**CI**: shown by a run that is repeated with every change. **hand**: shown \
by somebody's run. *docs*: not run, from documentation. **failed**: not as expected. skipped: \
could not be tried there. not implemented: not claimed yet. Empty: no scenario at that level. \
`(part)`: some of its scenarios were skipped.";

/// Rows about the run itself, before those about behaviours.
const FACTS: [&str; 4] = ["date", "kernel", "container runtime", "scenarios"];

/// What becomes of the columns that a matrix has already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Others {
    /// They go.
    Replaced,
    /// Those of other clusters, or of other versions, stay.
    Kept,
}

/// Puts the matrix of some reports into a file that has the markers.
pub(crate) fn write(files: &[impl AsRef<Path>], into: &Path, others: Others) -> anyhow::Result<()> {
    let mut columns = match others {
        Others::Replaced => Vec::new(),
        Others::Kept => columns(&MARKERS.read(into)?),
    };
    for file in files {
        put(&mut columns, Column::of(&super::read(file.as_ref())?));
    }
    MARKERS.write(into, &render(&columns))
}

/// One cluster's.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Column {
    heading: String,
    /// By the [`key`] of their rows; without those that say nothing.
    cells: BTreeMap<String, String>,
}

impl Column {
    fn of(report: &Report) -> Self {
        let versions = &report.versions;
        let cni = versions.cni.as_deref().unwrap_or("namespaces, without a cluster");
        let kubernetes = versions.kubernetes.as_ref();
        let kubernetes = kubernetes.map(|version| format!("<br>Kubernetes {version}"));
        let facts = [
            report.date.clone(),
            versions.kernel.clone().unwrap_or_default(),
            versions.runtime.clone().unwrap_or_default(),
            report.tally().to_string(),
        ];
        let facts = FACTS.map(str::to_owned).into_iter().zip(facts.map(|fact| cell(&fact)));
        let verdicts = BEHAVIOURS.iter().map(|one| (one.number.to_string(), verdict(report, one)));
        Self {
            heading: format!("{}{}", cell(cni), kubernetes.unwrap_or_default()),
            cells: facts.chain(verdicts).filter(|(_, text)| !text.is_empty()).collect(),
        }
    }
}

/// In the place of the one with the same heading, or at the end.
fn put(columns: &mut Vec<Column>, new: Column) {
    match columns.iter_mut().find(|column| column.heading == new.heading) {
        Some(old) => *old = new,
        None => columns.push(new),
    }
}

/// The columns of a matrix that was rendered before.
fn columns(text: &str) -> Vec<Column> {
    let mut rows = text.lines().filter(|line| line.starts_with('|')).map(cells);
    let headings = rows.next().unwrap_or_default();
    let column = |heading| Column { heading, cells: BTreeMap::new() };
    let mut columns: Vec<_> = headings.into_iter().skip(1).map(column).collect();
    for row in rows {
        let Some((label, texts)) = row.split_first() else { continue };
        for (column, text) in columns.iter_mut().zip(texts).filter(|(_, text)| !text.is_empty()) {
            column.cells.insert(key(label).to_owned(), text.clone());
        }
    }
    // Not a fact about any cluster: the line below the headings.
    columns.iter_mut().for_each(|column| column.cells.retain(|label, _| label != RULE));
    columns
}

/// The cells of a row; a `|` in one of them is escaped.
fn cells(row: &str) -> Vec<String> {
    let mut cells = vec![String::new()];
    let mut before = ' ';
    let row = row.trim();
    let row = row.strip_prefix('|').unwrap_or(row);
    for letter in row.strip_suffix('|').unwrap_or(row).chars() {
        match cells.last_mut() {
            Some(last) if letter != '|' || before == '\\' => last.push(letter),
            _ => cells.push(String::new()),
        }
        before = letter;
    }
    cells.iter().map(|cell| cell.trim().to_owned()).collect()
}

/// What a row is known by: a behaviour's number, whatever its words were, or a fact's name.
fn key(label: &str) -> &str {
    label.split_once(". ").map_or(label, |(number, _)| number)
}

const RULE: &str = "---";

fn render(columns: &[Column]) -> String {
    let headings = columns.iter().map(|column| format!(" {} |", column.heading));
    let mut rows = vec![
        format!("| behaviour |{}", headings.collect::<String>()),
        format!("|{RULE}|{}", format!("{RULE}|").repeat(columns.len())),
    ];
    rows.extend(FACTS.iter().map(|fact| row(fact, columns)));
    let mut group = "";
    for behaviour in BEHAVIOURS {
        let title = format!("{}. {}", behaviour.number, behaviour.title);
        let label = cell(&title);
        if columns.iter().all(|column| !column.cells.contains_key(key(&label))) {
            continue;
        }
        if behaviour.group != group {
            group = behaviour.group;
            rows.push(format!("| **{group}** |{}", " |".repeat(columns.len())));
        }
        rows.push(row(&label, columns));
    }
    format!("\n{}\n\n{LEGEND}\n\n", rows.join("\n"))
}

fn row(label: &str, columns: &[Column]) -> String {
    let cell = |column: &Column| column.cells.get(key(label)).cloned().unwrap_or_default();
    let cells: Vec<_> = columns.iter().map(cell).collect();
    format!("| {label} | {} |", cells.join(" | "))
}

/// The worst that happened to any scenario of a behaviour; a pass is one only when something
/// passed.
fn verdict(report: &Report, behaviour: &Behaviour) -> String {
    let about = report.results.iter().filter(|one| one.behaviours.contains(&behaviour.number));
    let marks: Vec<_> = about.map(|outcome| outcome.mark).collect();
    let count = |mark| marks.iter().filter(|one| **one == mark).count();
    let tally = Tally {
        passed: count(Mark::Passed),
        failed: count(Mark::Failed),
        skipped: count(Mark::Skipped),
        not_implemented: count(Mark::NotImplemented),
    };
    let passed = match report.source {
        Source::Ci => "**CI**",
        Source::Hand => "**hand**",
        Source::Documentation => "*docs*",
    };
    match tally {
        Tally { failed: 1.., .. } => "**failed**".to_owned(),
        Tally { passed: 1.., skipped: 0, not_implemented: 0, .. } => passed.to_owned(),
        Tally { passed: 1.., .. } => format!("{passed} (part)"),
        Tally { not_implemented: 1.., .. } => "not implemented".to_owned(),
        Tally { skipped: 1.., .. } => "skipped".to_owned(),
        Tally { .. } => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::sample;
    use super::*;

    #[test]
    fn marks_are_never_mixed() {
        let hand = sample();
        let mut ci = sample();
        ci.source = Source::Ci;
        ci.results.retain(|outcome| outcome.mark != Mark::Failed);
        let mut docs = ci.clone();
        docs.source = Source::Documentation;
        docs.results.truncate(1);
        docs.results[0].behaviours.push(14);
        let text = render(&[hand, ci, docs].map(|report| Column::of(&report)));
        let row = |number: &str| {
            let start = format!("| {number}. ");
            let line = text.lines().find(|line| line.starts_with(&start)).unwrap();
            line.rsplitn(5, " | ").collect::<Vec<_>>()[..3].join("/")
        };
        assert_eq!(row("1"), "*docs* |/**CI**/**hand**");
        assert_eq!(row("3"), "*docs* |/**CI**/**failed**");
        assert_eq!(row("14"), "*docs* |/skipped/skipped");
        assert_eq!(row("16"), " |/not implemented/not implemented");
        assert!(!text.contains("\n| 2. "), "a row that nobody covers");
        assert!(text.starts_with("\n| behaviour | flannel 0.28.9<br>Kubernetes v1.36.3 |"));
    }

    #[test]
    fn a_pass_with_skips_is_told() {
        let mut report = sample();
        report.results[1].mark = Mark::Skipped;
        let third = BEHAVIOURS.iter().find(|behaviour| behaviour.number == 3).unwrap();
        assert_eq!(verdict(&report, third), "**hand** (part)");
    }

    #[test]
    fn columns_of_others_stay_as_they_are() {
        let mut other = sample();
        other.versions.cni = Some("calico | 3.28.5".to_owned());
        let both = [sample(), other.clone()].map(|report| Column::of(&report));
        let text = render(&both);
        assert_eq!(columns(&text), both);
        let other_words = text.replace(" is captured", " goes through the tunnel");
        assert_ne!(other_words, text);
        assert_eq!(columns(&other_words), both, "rows are known by their numbers");

        // Of the same cluster a new run counts, in the same place.
        let mut again = sample();
        (again.source, again.date) = (Source::Ci, "2026-12-01".to_owned());
        let mut merged = columns(&text);
        put(&mut merged, Column::of(&again));
        assert_eq!(merged, [Column::of(&again), Column::of(&other)]);
        assert_eq!(columns(&render(&merged)), merged);

        // Of another version it is another column.
        again.versions.kubernetes = Some("v1.37.0".to_owned());
        put(&mut merged, Column::of(&again));
        assert_eq!(merged.len(), 3);
        assert!(columns("no table").is_empty());
    }
}
