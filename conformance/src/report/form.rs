//! Small words that several renderings share. PURE, but for the date.

use super::{Mark, Report};

/// Today, in UTC.
pub(crate) fn now() -> String {
    let day = time::OffsetDateTime::now_utc().date();
    format!("{:04}-{:02}-{:02}", day.year(), u8::from(day.month()), day.day())
}

/// One name of a run: level, cluster, versions.
pub(super) fn title(report: &Report) -> String {
    let versions = &report.versions;
    let kubernetes = versions.kubernetes.as_ref().map(|version| format!("Kubernetes {version}"));
    let parts = [versions.cni.clone(), kubernetes];
    let parts: Vec<_> = parts.into_iter().flatten().collect();
    if parts.is_empty() { "network namespaces".to_owned() } else { parts.join(", ") }
}

pub(crate) fn word(mark: Mark) -> &'static str {
    match mark {
        Mark::Passed => "passed",
        Mark::Failed => "failed",
        Mark::Skipped => "skipped",
        Mark::NotImplemented => "not implemented",
    }
}

/// For a cell of a Markdown table.
pub(crate) fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ").replace('<', "&lt;")
}
