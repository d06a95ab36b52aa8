//! The compatibility matrix: behaviours by cluster, rendered between two markers of a file.
//!
//! Where a result comes from is part of its mark, so that what CI has shown, what somebody
//! has shown once, and what is only written somewhere cannot be taken for each other.

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

/// Puts the matrix of some reports into a file that has the markers.
pub(crate) fn write(files: &[impl AsRef<Path>], into: &Path) -> anyhow::Result<()> {
    let mut reports = Vec::new();
    for file in files {
        reports.push(super::read(file.as_ref())?);
    }
    MARKERS.write(into, &render(&reports))
}

fn render(reports: &[Report]) -> String {
    let mut rows = vec![heading(reports), rule(reports.len())];
    rows.push(row("date", reports, |report| report.date.clone()));
    rows.push(row("kernel", reports, |report| report.versions.kernel.clone().unwrap_or_default()));
    rows.push(row("container runtime", reports, |report| {
        report.versions.runtime.clone().unwrap_or_default()
    }));
    rows.push(row("scenarios", reports, |report| report.tally().to_string()));
    let mut group = "";
    for behaviour in BEHAVIOURS {
        let cells: Vec<_> = reports.iter().map(|report| verdict(report, behaviour)).collect();
        if cells.iter().all(String::is_empty) {
            continue;
        }
        if behaviour.group != group {
            group = behaviour.group;
            rows.push(format!("| **{group}** |{}", " |".repeat(reports.len())));
        }
        let title = format!("{}. {}", behaviour.number, behaviour.title);
        rows.push(format!("| {} | {} |", cell(&title), cells.join(" | ")));
    }
    format!("\n{}\n\n{LEGEND}\n\n", rows.join("\n"))
}

fn heading(reports: &[Report]) -> String {
    let names = reports.iter().map(|report| {
        let versions = &report.versions;
        let cni = versions.cni.as_deref().unwrap_or("namespaces, without a cluster");
        let kubernetes = versions.kubernetes.as_ref();
        let kubernetes = kubernetes.map(|version| format!("<br>Kubernetes {version}"));
        format!(" {}{} |", cell(cni), kubernetes.unwrap_or_default())
    });
    format!("| behaviour |{}", names.collect::<String>())
}

fn rule(columns: usize) -> String {
    format!("|---|{}", "---|".repeat(columns))
}

fn row(name: &str, reports: &[Report], fact: impl Fn(&Report) -> String) -> String {
    let cells: Vec<_> = reports.iter().map(|report| cell(&fact(report))).collect();
    format!("| {name} | {} |", cells.join(" | "))
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
        let text = render(&[hand, ci, docs]);
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
}
