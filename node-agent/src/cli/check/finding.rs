//! PURE. What is told: one line for each finding, for people or for machines.

use serde::Serialize;
use serde_json::json;

/// How bad it is. The worst comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Something does not work with Sluice.
    Problem,
    /// Something may not work, or only part of it.
    Warning,
    /// Nobody can tell from here.
    Unknown,
    /// As it should be.
    Fine,
}

impl Severity {
    fn text(self) -> &'static str {
        match self {
            Self::Problem => "problem",
            Self::Warning => "warning",
            Self::Unknown => "unknown",
            Self::Fine => "fine",
        }
    }
}

/// How it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// Lines for people.
    Text,
    /// One object for machines.
    Json,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Its name, which stays the same over versions; listed in `docs/check.md`.
    pub id: &'static str,
    /// What was found, or why it is not known.
    pub text: String,
    /// What to change, exactly.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub change: Option<String>,
}

impl Finding {
    /// Does not work; `change` mends it.
    pub fn problem(id: &'static str, text: impl Into<String>, change: impl Into<String>) -> Self {
        let change = Some(change.into());
        Self { severity: Severity::Problem, id, text: text.into(), change }
    }

    /// May not work; `change` mends it.
    pub fn warning(id: &'static str, text: impl Into<String>, change: impl Into<String>) -> Self {
        let change = Some(change.into());
        Self { severity: Severity::Warning, id, text: text.into(), change }
    }

    /// Nobody can tell from here, because of `why`.
    pub fn unknown(id: &'static str, why: impl Into<String>) -> Self {
        Self { severity: Severity::Unknown, id, text: why.into(), change: None }
    }

    /// As it should be.
    pub fn fine(id: &'static str, text: impl Into<String>) -> Self {
        Self { severity: Severity::Fine, id, text: text.into(), change: None }
    }
}

/// Whether anything does not work.
#[must_use]
pub fn has_problems(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| finding.severity == Severity::Problem)
}

/// The whole report, with a line's end.
#[must_use]
pub fn render(findings: &[Finding], output: Output) -> String {
    match output {
        Output::Text => findings.iter().map(line).collect(),
        Output::Json => {
            let count = |severity| findings.iter().filter(|it| it.severity == severity).count();
            let report = json!({
                "problems": count(Severity::Problem),
                "warnings": count(Severity::Warning),
                "unknown": count(Severity::Unknown),
                "fine": count(Severity::Fine),
                "findings": findings,
            });
            format!("{report:#}\n")
        }
    }
}

/// Whatever an object's name holds, a finding stays one line.
fn line(finding: &Finding) -> String {
    let Finding { severity, id, text, change } = finding;
    let change = change.as_ref().map(|change| format!("; change: {change}")).unwrap_or_default();
    let because = if *severity == Severity::Unknown { "because " } else { "" };
    let line = format!("{:<8} {id}: {because}{text}{change}", severity.text());
    line.split_whitespace().collect::<Vec<_>>().join(" ").replacen(' ', "  ", 1) + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_finding_is_one_line_with_what_to_change() {
        let findings = [
            Finding::problem("a", "x is\non", "y=false"),
            Finding::unknown("b", "the account may not list pods"),
            Finding::fine("c", "z"),
        ];
        assert_eq!(
            render(&findings, Output::Text),
            "problem  a: x is on; change: y=false\n\
             unknown  b: because the account may not list pods\n\
             fine  c: z\n"
        );
        assert!(has_problems(&findings) && !has_problems(&findings[1..]));
    }

    #[test]
    fn machines_get_counts_and_the_same_findings() {
        let findings = [Finding::warning("a", "x", "y"), Finding::fine("c", "z")];
        let said: serde_json::Value =
            serde_json::from_str(&render(&findings, Output::Json)).unwrap();
        assert_eq!((&said["problems"], &said["warnings"]), (&json!(0), &json!(1)));
        let first = json!({"severity": "warning", "id": "a", "text": "x", "change": "y"});
        assert_eq!(said["findings"][0], first);
        assert_eq!(said["findings"][1].get("change"), None);
    }
}
