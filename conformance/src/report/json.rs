//! JSON: what other programs read, `conformance matrix` among them. PURE.

use std::path::Path;

use anyhow::Context;

use super::Report;

pub(super) fn render(report: &Report) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(report)? + "\n")
}

/// Reads a report that a run has written.
pub(crate) fn read(file: &Path) -> anyhow::Result<Report> {
    let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is no report", file.display()))
}

#[cfg(test)]
mod tests {
    use super::super::testing::sample;

    #[test]
    fn a_report_survives() {
        let report = sample();
        let text = super::render(&report).unwrap();
        assert!(text.contains("\"mark\": \"not-implemented\""), "{text}");
        assert_eq!(serde_json::from_str::<super::Report>(&text).unwrap(), report);
    }
}
