//! Markdown: for a summary page of CI, or to be attached to an issue. PURE.

use std::fmt::Write;

use super::form::{cell, title, word};
use super::{Report, Source};

pub(super) fn render(report: &Report) -> String {
    let versions = &report.versions;
    let mut text = format!("# Conformance: {}\n\n", title(report));
    let source = match report.source {
        Source::Ci => "run by CI",
        Source::Hand => "run by hand",
        Source::Documentation => "from documentation, nothing was run",
    };
    let facts = [
        ("Date", Some(format!("{}, {source}", report.date))),
        ("Kubernetes", versions.kubernetes.clone()),
        ("Primary CNI", versions.cni.clone()),
        ("Kernel", versions.kernel.clone()),
        ("Container runtime", versions.runtime.clone()),
        ("Under test", (!versions.subject.is_empty()).then(|| versions.subject.join(", "))),
        ("Result", Some(report.tally().to_string())),
    ];
    for (name, fact) in facts {
        if let Some(fact) = fact {
            // Writing to a String does not fail.
            let _ = writeln!(text, "- {name}: {fact}");
        }
    }
    text.push_str(
        "\n| scenario | what it shows | behaviours | result | s |\n|---|---|---|---|---|\n",
    );
    for outcome in &report.results {
        let numbers: Vec<_> = outcome.behaviours.iter().map(u8::to_string).collect();
        let reason = outcome.reason.as_ref().map(|reason| format!(": {}", cell(reason)));
        let _ = writeln!(
            text,
            "| `{}` | {} | {} | {}{} | {:.1} |",
            outcome.id,
            cell(&outcome.meaning),
            numbers.join(", "),
            word(outcome.mark),
            reason.unwrap_or_default(),
            outcome.seconds,
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::testing::sample;

    #[test]
    fn rows_hold_what_a_table_can() {
        let text = super::render(&sample());
        assert!(text.starts_with("# Conformance: flannel 0.28.9, Kubernetes v1.36.3\n"), "{text}");
        assert!(text.contains("- Date: 2026-08-31, run by hand\n"), "{text}");
        assert!(text.contains("| skipped: one node \\| only | 1.2 |"), "{text}");
        assert!(text.contains("| failed: expected &lt;x> observed \"y\" & z |"), "{text}");
    }
}
