//! Texts to types: pure.

use std::str::FromStr;

use http::Uri;

pub(super) use super::duration::{duration, positive_duration};

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
