//! Durations as Go writes them, which is how people who run Kubernetes do.

use std::time::Duration;

/// Nanoseconds of each unit.
const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    // The micro sign and the Greek letter look alike.
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Reads `90s`, `500ms`, `1.5h`, `1h30m`: one number with a unit after the other, and `0`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "a duration such as 5s, 500ms, 1m30s or 24h expected".to_owned();
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if text.is_empty() {
        return Err(wrong());
    }
    if text.chars().all(|c| c.is_ascii_digit()) {
        return Err(format!("{text} of what? A duration such as {text}s or {text}m expected"));
    }
    let (mut total, mut rest) = (0_u64, text);
    while !rest.is_empty() {
        let (part, tail) = part(rest).ok_or_else(wrong)?;
        total = total.checked_add(part).ok_or_else(wrong)?;
        rest = tail;
    }
    Ok(Duration::from_nanos(total))
}

/// A duration that is not 0.
pub(super) fn positive_duration(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("a duration above 0 expected".to_owned()),
        value => Ok(value),
    }
}

/// Nanoseconds of the first number with its unit, and what follows.
fn part(text: &str) -> Option<(u64, &str)> {
    let (whole, rest) = digits(text);
    let (fraction, rest) = rest.strip_prefix('.').map_or(("", rest), digits);
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let end = rest.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(end);
    let (_, size) = UNITS.into_iter().find(|(name, _)| *name == unit)?;
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let nanos = whole.checked_mul(size)?.checked_add(part_of(fraction, size)?)?;
    Some((nanos, rest))
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// What `0.fraction` of a unit is; below a nanosecond it is cut.
fn part_of(fraction: &str, size: u64) -> Option<u64> {
    // 18 digits are more than any unit can tell apart.
    let fraction = &fraction[..fraction.len().min(18)];
    if fraction.is_empty() {
        return Some(0);
    }
    let number: u128 = fraction.parse().ok()?;
    let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    u64::try_from(number * u128::from(size) / scale).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn table() {
        let cases = [
            ("0", Some(0)),
            ("5s", Some(5_000_000_000)),
            ("500ms", Some(500_000_000)),
            ("1h30m", Some(5_400_000_000_000)),
            ("1.5h", Some(5_400_000_000_000)),
            (".5s", Some(500_000_000)),
            ("2.s", Some(2_000_000_000)),
            ("0.000000001s", Some(1)),
            ("1m1m", Some(120_000_000_000)),
            ("7us", Some(7_000)),
            ("7\u{b5}s", Some(7_000)),
            ("7\u{3bc}s", Some(7_000)),
            ("3ns", Some(3)),
            ("", None),
            ("5", None),
            ("-5s", None),
            ("5 s", None),
            ("5d", None),
            ("s", None),
            (".s", None),
            ("1.2.3s", None),
            ("5S", None),
            ("1h30", None),
            ("99999999999999999999h", None),
            ("9999999h", None),
        ];
        for (text, nanos) in cases {
            assert_eq!(duration(text).ok(), nanos.map(Duration::from_nanos), "{text}");
        }
        assert!(duration("24").unwrap_err().contains("24s"), "it says what is missing");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[0-9.a-zµ]{0,40}") {
            let _ = duration(&text);
        }

        #[test]
        fn what_go_prints_is_read(h in 0_u64..1000, m in 0_u64..60, ms in 0_u64..60_000) {
            let text = format!("{h}h{m}m{}.{:03}s", ms / 1000, ms % 1000);
            let millis = (h * 60 + m) * 60_000 + ms;
            prop_assert_eq!(duration(&text), Ok(Duration::from_millis(millis)));
        }
    }
}
