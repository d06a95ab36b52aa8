//! JUnit's XML, as CI servers read it. PURE.
//!
//! The format knows no "not implemented": such a scenario is `skipped` with a message that
//! begins so.

use std::fmt::Write;

use super::form::{title, word};
use super::{Mark, Outcome, Report};

pub(super) fn render(report: &Report) -> String {
    let tally = report.tally();
    let seconds: f32 = report.results.iter().map(|outcome| outcome.seconds).sum();
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    // Writing to a String does not fail.
    let _ = writeln!(
        text,
        "<testsuites>\n<testsuite name=\"{}\" tests=\"{}\" failures=\"{}\" skipped=\"{}\" \
         time=\"{seconds:.3}\" timestamp=\"{}T00:00:00\">",
        escape(&title(report)),
        report.results.len(),
        tally.failed,
        tally.skipped + tally.not_implemented,
        report.date,
    );
    text.extend(report.results.iter().map(case));
    text.push_str("</testsuite>\n</testsuites>\n");
    text
}

fn case(outcome: &Outcome) -> String {
    let (class, name) = outcome.id.rsplit_once('/').unwrap_or(("conformance", &outcome.id));
    let head = format!(
        "<testcase classname=\"{}\" name=\"{}\" time=\"{:.3}\">",
        escape(class),
        escape(name),
        outcome.seconds
    );
    let reason = escape(outcome.reason.as_deref().unwrap_or_default());
    let inside = match outcome.mark {
        Mark::Passed => String::new(),
        Mark::Failed => {
            let evidence = outcome.evidence.as_ref().map(|folder| folder.display().to_string());
            let evidence = evidence.map(|folder| format!("\nevidence: {}", escape(&folder)));
            let evidence = evidence.unwrap_or_default();
            let meaning = escape(&outcome.meaning);
            format!("<failure message=\"{meaning}\">{reason}{evidence}</failure>")
        }
        mark @ (Mark::Skipped | Mark::NotImplemented) => {
            format!("<skipped message=\"{}: {reason}\"/>", word(mark))
        }
    };
    format!("{head}{inside}</testcase>\n")
}

/// XML 1.0 also forbids most control characters altogether.
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' | '\t' => escaped.push(character),
            other if other.is_control() => escaped.push('?'),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::super::testing::sample;
    use super::*;

    #[test]
    fn each_mark_has_its_element() {
        let text = render(&sample());
        assert!(text.contains("tests=\"4\" failures=\"1\" skipped=\"2\" time=\"5.000\""), "{text}");
        let failure = "<failure message=\"what b shows\">expected &lt;x&gt;\nobserved \
                       &quot;y&quot; &amp; z\nevidence: evidence/b</failure>";
        assert!(text.contains(failure), "{text}");
        assert!(text.contains("<skipped message=\"not implemented: no such option\"/>"), "{text}");
        assert!(text.contains("<testcase classname=\"conformance\" name=\"a\" time=\"1.250\">"));
        assert_eq!(escape("\u{1b}[1m"), "?[1m");
    }
}
