//! `/metrics`: in the format and encoding that was asked for.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, HeaderName, VARY};
use http::{HeaderMap, HeaderValue, StatusCode};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::sync::OwnedSemaphorePermit;

use super::response::{Answer, answer, held, text};

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The answer has `place` until it is read.
pub(super) fn metrics(
    registry: &Registry,
    request: &HeaderMap,
    place: OwnedSemaphorePermit,
) -> Answer {
    let mut body = String::new();
    if let Err(error) = encode(&mut body, registry) {
        return text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n"));
    }
    let openmetrics = accepts(request, &ACCEPT, "application/openmetrics-text");
    let (content_type, body) =
        if openmetrics { (OPENMETRICS, body) } else { (PROMETHEUS, prometheus_text(&body)) };
    let mut response = match accepts(request, &ACCEPT_ENCODING, "gzip").then(|| gzip(&body)) {
        Some(Ok(zipped)) => {
            let mut response = answer(StatusCode::OK, content_type, held(zipped, place));
            response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            response
        }
        Some(Err(_)) | None => answer(StatusCode::OK, content_type, held(body.into_bytes(), place)),
    };
    response.headers_mut().insert(VARY, HeaderValue::from_static("accept, accept-encoding"));
    response
}

/// Is `what` named, and not with a weight of 0?
fn accepts(headers: &HeaderMap, name: &HeaderName, what: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|item| {
        let mut parts = item.split(';').map(str::trim);
        let named = parts.next().is_some_and(|part| part.eq_ignore_ascii_case(what));
        let weight = parts.filter_map(|part| part.split_once('=')).find(|(key, _)| *key == "q");
        named
            && weight.is_none_or(|(_, weight)| weight.trim().parse::<f32>().is_ok_and(|q| q > 0.0))
    })
}

/// Fast rather than small: labels repeat so much that either is a tenth.
fn gzip(text: &str) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text.as_bytes())?;
    encoder.finish()
}

/// The older text format out of OpenMetrics: there counters are described by the name of
/// their samples, and units and the end are not marked.
fn prometheus_text(openmetrics: &str) -> String {
    let mut text = String::with_capacity(openmetrics.len());
    let mut help = None;
    for line in openmetrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = Some(rest);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap_or((rest, "unknown"));
            let (ending, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "unknown" | "stateset" | "gaugehistogram" => ("", "untyped"),
                kind => ("", kind),
            };
            if let Some((_, about)) = help.take().and_then(|help: &str| help.split_once(' ')) {
                text.push_str(&format!("# HELP {name}{ending} {about}\n"));
            }
            text.push_str(&format!("# TYPE {name}{ending} {kind}\n"));
        } else if !line.starts_with('#') {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_described_by_the_name_of_their_samples() {
        let openmetrics = "# HELP a Some thing.\n# TYPE a counter\n# UNIT a bytes\n\
            a_total{x=\"# TYPE\"} 1\n# HELP b Other.\n# TYPE b gauge\nb 2\n# EOF\n";
        let expected = "# HELP a_total Some thing.\n# TYPE a_total counter\n\
            a_total{x=\"# TYPE\"} 1\n# HELP b Other.\n# TYPE b gauge\nb 2\n";
        assert_eq!(prometheus_text(openmetrics), expected);
    }

    #[test]
    fn what_is_accepted() {
        let cases = [
            ("", false),
            ("identity", false),
            ("gzip", true),
            ("deflate, GZIP;q=0.5", true),
            ("gzip;q=0", false),
            ("gzip;q=0.0, br", false),
            ("x-gzip", false),
            ("gzip;q=much", false),
        ];
        for (value, expected) in cases {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_str(value).unwrap());
            assert_eq!(accepts(&headers, &ACCEPT_ENCODING, "gzip"), expected, "{value}");
        }
        assert!(!accepts(&HeaderMap::new(), &ACCEPT_ENCODING, "gzip"));
    }
}
