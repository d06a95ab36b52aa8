//! Texts to types: pure.

use std::str::FromStr;
use std::time::Duration;

use http::Uri;

/// A setting that is on or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flag {
    On,
    Off,
}

pub(super) fn flag(text: &str) -> Result<Flag, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "on" | "yes" => Ok(Flag::On),
        "false" | "0" | "off" | "no" => Ok(Flag::Off),
        _ => Err("true or false expected".to_owned()),
    }
}

pub(super) fn number<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| "a number expected".to_owned())
}

pub(super) fn positive<T: FromStr + PartialOrd + Default>(text: &str) -> Result<T, String> {
    match number::<T>(text)? {
        value if value > T::default() => Ok(value),
        _ => Err("a number above 0 expected".to_owned()),
    }
}

/// An HTTP/2 window (RFC 9113, section 6.9.1).
pub(super) fn window(text: &str) -> Result<u32, String> {
    in_range(text, 65_535, 0x7fff_ffff)
}

/// An HTTP/2 frame size (RFC 9113, section 4.2).
pub(super) fn frame_size(text: &str) -> Result<u32, String> {
    in_range(text, 0x4000, 0x00ff_ffff)
}

fn in_range(text: &str, least: u32, most: u32) -> Result<u32, String> {
    match number::<u32>(text)? {
        value if (least..=most).contains(&value) => Ok(value),
        _ => Err(format!("a number from {least} to {most} expected")),
    }
}

/// `90s`, `500ms`, `1m`, `24h`, or several of them: `1m30s`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "a duration such as 5s, 500ms, 1m or 24h expected".to_owned();
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (amount, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let millis: u64 = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(wrong()),
        };
        let amount: u64 = amount.parse().map_err(|_| wrong())?;
        let part = Duration::from_millis(amount.checked_mul(millis).ok_or_else(wrong)?);
        total = total.checked_add(part).ok_or_else(wrong)?;
        rest = tail;
    }
    if text.is_empty() { Err(wrong()) } else { Ok(total) }
}

pub(super) fn positive_duration(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("a duration above 0 expected".to_owned()),
        value => Ok(value),
    }
}

/// An address of the control plane; the scheme may be left out.
pub(super) fn https(text: &str) -> Result<Uri, String> {
    let with_scheme =
        if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
    let uri: Uri = with_scheme.parse().map_err(|error| format!("{error}"))?;
    if uri.scheme_str() != Some("https") {
        return Err("only https is spoken to the control plane".to_owned());
    }
    if uri.host().is_none_or(str::is_empty) {
        return Err("an address such as https://istiod.istio-system.svc:15012 expected".to_owned());
    }
    Ok(uri)
}

/// A number of threads, a share of the `cores`, or 0 for all of them.
pub(super) fn threads(text: &str, cores: usize) -> Result<usize, String> {
    if let Some(percent) = text.strip_suffix('%') {
        let percent: usize = positive(percent)?;
        return Ok((cores * percent).div_ceil(100).max(1));
    }
    match number(text)? {
        0 => Ok(cores),
        threads if threads <= 1024 => Ok(threads),
        threads => Err(format!("{threads} threads are more than 1024")),
    }
}

/// How many letters must change to turn one text into the other.
pub(super) fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
