//! The record: what each witness says about each part, rendered between two markers of a file.
//! Nothing in it is written by hand; it comes from the results of runs.

use std::path::Path;

use anyhow::Context;

use super::parts::{Part, full_id, parts};
use super::{Witness, Witnessed};
use crate::report::{self, Mark, Markers, Outcome, Report, cell};

/// Between these lines everything belongs to the record.
const MARKERS: Markers = Markers {
    begin: "<!-- witnesses: begin; made by `conformance witnesses`, not by hand -->",
    end: "<!-- witnesses: end -->",
};

/// What stands for what.
const LEGEND: &str = "**works**: each of its scenarios passed. **differs**: some did, and those \
listed below did not. **fails**: none did. *not tried*: none could be run. In parentheses: how \
many passed, of how many.";

/// How a part was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Works,
    Differs,
    Fails,
    NotTried,
}

/// Puts the record of some reports into a file that has the markers.
pub(crate) fn write(files: &[impl AsRef<Path>], into: &Path) -> anyhow::Result<()> {
    let mut reports = Vec::new();
    for file in files {
        let report = report::read(file.as_ref())?;
        let name = file.as_ref().display();
        reports.push(with_witness(report).with_context(|| format!("{name} cannot be recorded"))?);
    }
    MARKERS.write(into, &render(reports))
}

fn with_witness(report: Report) -> anyhow::Result<(Witnessed, Report)> {
    let witnessed = report.witnessed.clone().context("the run was one without --witness")?;
    Ok((witnessed, report))
}

/// In the order of the witnesses, whatever that of the files is.
fn render(mut reports: Vec<(Witnessed, Report)>) -> String {
    reports.sort_by_key(|(witnessed, _)| witnessed.witness);
    let sections = reports.iter().map(|(witnessed, report)| section(witnessed, report));
    format!("\n{}{LEGEND}\n\n", sections.collect::<String>())
}

/// One witness: versions, a row per part, and what was not as expected.
fn section(Witnessed { witness, version }: &Witnessed, report: &Report) -> String {
    let versions = &report.versions;
    let known = |fact: &Option<String>| fact.clone().unwrap_or_else(|| "unknown".to_owned());
    let facts = [
        report.date.clone(),
        format!("Istio {version}"),
        format!("Sluice {}", env!("CARGO_PKG_VERSION")),
        format!("Kubernetes {}", known(&versions.kubernetes)),
        known(&versions.cni),
        format!("kernel {}", known(&versions.kernel)),
        known(&versions.runtime),
    ];
    let rows: String = parts(*witness).iter().map(|part| row(part, report)).collect();
    format!(
        "### {}\n\n{}.\n\n| between | about | verdict |\n|---|---|---|\n{rows}\n{}",
        witness.title(),
        cell(&facts.join(", ")),
        findings(*witness, report),
    )
}

fn row(part: &Part, report: &Report) -> String {
    let outcomes = outcomes(part, report);
    let passed = outcomes.iter().filter(|one| one.mark == Mark::Passed).count();
    let verdict = match verdict(&outcomes) {
        Verdict::Works => "**works**",
        Verdict::Differs => "**differs**",
        Verdict::Fails => "**fails**",
        Verdict::NotTried => "*not tried*",
    };
    let of = part.scenarios.len();
    format!("| {} | {} | {verdict} ({passed} of {of}) |\n", part.between, part.about)
}

fn outcomes<'a>(part: &Part, report: &'a Report) -> Vec<&'a Outcome> {
    let is_its = |one: &&Outcome| part.scenarios.iter().any(|id| one.id == full_id(id));
    report.results.iter().filter(is_its).collect()
}

/// What was not tried is no part of the verdict; how much it was stands beside it.
fn verdict(outcomes: &[&Outcome]) -> Verdict {
    let any = |mark| outcomes.iter().any(|one| one.mark == mark);
    match (any(Mark::Passed), any(Mark::Failed)) {
        (true, false) => Verdict::Works,
        (true, true) => Verdict::Differs,
        (false, true) => Verdict::Fails,
        (false, false) => Verdict::NotTried,
    }
}

/// Every scenario that did not pass, with the reason; those outside of all parts as well.
fn findings(witness: Witness, report: &Report) -> String {
    let asked = super::scenarios(witness);
    let mut lines: Vec<_> = report
        .results
        .iter()
        .filter(|one| one.mark == Mark::Failed || asked.contains(&one.id))
        .filter(|one| one.mark != Mark::Passed)
        .map(|one| {
            let reason = one.reason.as_deref().unwrap_or("no reason");
            format!("- `{}` {}: {}\n", one.id, report::word(one.mark), cell(reason))
        })
        .collect();
    if !lines.is_empty() {
        lines.push("\n".to_owned());
    }
    lines.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run with istiod of which these scenarios ended so.
    fn run(results: &[(&str, Mark)]) -> Report {
        let mut report = report::testing::sample();
        let outcome = |(id, mark): &(&str, Mark)| {
            let reason = (*mark == Mark::Failed).then(|| "expected a\nobserved b".to_owned());
            let mut outcome = Outcome::of(&full_id(id), "what it shows", reason);
            outcome.mark = *mark;
            outcome
        };
        report.results = results.iter().map(outcome).collect();
        report
    }

    fn told(results: &[(&str, Mark)]) -> String {
        let witnessed = Witnessed { witness: Witness::Istiod, version: "1.31-dev.abc".to_owned() };
        section(&witnessed, &run(results))
    }

    #[test]
    fn verdicts_come_from_results() {
        use Mark::{Failed, Passed, Skipped};
        let policies = |results: &[(&str, Mark)]| {
            let text = told(results);
            let row = text.lines().find(|line| line.contains("policies")).unwrap();
            row.rsplit(" | ").next().unwrap().to_owned()
        };
        let (deny, allow) = ("deny-by-identity", "allow-by-identity");
        let strict = "strict-refuses-clear-text";
        assert_eq!(
            policies(&[(deny, Passed), (allow, Passed), (strict, Passed)]),
            "**works** (3 of 3) |"
        );
        assert_eq!(policies(&[(deny, Passed), (allow, Failed)]), "**differs** (1 of 3) |");
        assert_eq!(policies(&[(deny, Failed), (allow, Skipped)]), "**fails** (0 of 3) |");
        assert_eq!(policies(&[(deny, Skipped)]), "*not tried* (0 of 3) |");
        assert_eq!(policies(&[("cluster-ip", Passed)]), "*not tried* (0 of 3) |");
    }

    #[test]
    fn what_failed_is_told_with_its_reason() {
        let text = told(&[("deny-by-identity", Mark::Failed), ("cluster-ip", Mark::Passed)]);
        let line = "- `cluster/deny-by-identity` failed: expected a observed b\n";
        assert!(text.contains(line), "{text}");
        assert!(!text.contains("- `cluster/cluster-ip`"), "{text}");
        assert!(text.contains("2026-08-31, Istio 1.31-dev.abc, Sluice "), "{text}");
    }

    #[test]
    fn only_runs_with_a_witness_are_recorded_in_their_order() {
        let mut report = report::testing::sample();
        assert!(with_witness(report.clone()).is_err());
        let of = |witness| Witnessed { witness, version: "1.31".to_owned() };
        report.witnessed = Some(of(Witness::Istio));
        let istio = with_witness(report.clone()).unwrap();
        let text = render(vec![istio, (of(Witness::Istiod), report)]);
        let at = |witness: Witness| text.find(&format!("### {}\n", witness.title())).unwrap();
        assert!(at(Witness::Istiod) < at(Witness::Istio), "{text}");
        assert!(text.ends_with(&format!("{LEGEND}\n\n")), "{text}");
    }
}
