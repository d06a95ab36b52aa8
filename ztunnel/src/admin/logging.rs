//! `/logging`: what is logged, as `istioctl ztunnel-config log` asks for it.

use http::{Method, StatusCode};

use super::response::{Answer, text};
use crate::telemetry::log::{LevelError, Levels};

const USAGE: &str = "\
POST /logging                        shows the levels
POST /logging?level=debug            changes the level of everything
POST /logging?level=access=debug,info changes the levels of targets and of the rest
POST /logging?reset                  goes back to the levels of the beginning
levels: off, error, warn, info, debug, trace
";

/// A GET shows and never changes.
pub(super) fn answer(method: &Method, query: Option<&str>, levels: &Levels) -> Answer {
    let result = match Wish::of(query.unwrap_or_default()) {
        Wish::Show => Ok(()),
        _ if method != Method::POST => {
            return text(StatusCode::METHOD_NOT_ALLOWED, format!("POST only\n{USAGE}"));
        }
        Wish::Change(level) => levels.change(&level),
        Wish::Reset(level) => levels.reset(&level),
        Wish::Unknown => {
            return text(StatusCode::BAD_REQUEST, format!("unknown parameter\n{USAGE}"));
        }
    };
    match result.and_then(|()| levels.current()) {
        Ok(current) => {
            if method == Method::POST {
                tracing::info!(levels = current, "log levels asked for or changed");
            }
            text(StatusCode::OK, format!("current log level is {current}\n"))
        }
        Err(error @ LevelError::Ended(_)) => {
            text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n"))
        }
        Err(error) => text(StatusCode::BAD_REQUEST, format!("{error}\n{USAGE}")),
    }
}

/// What a query asks for.
#[derive(Debug, PartialEq, Eq)]
enum Wish {
    Show,
    Change(String),
    Reset(String),
    Unknown,
}

impl Wish {
    fn of(query: &str) -> Self {
        let (mut level, mut reset) = (String::new(), false);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let Some(value) = decoded(value) else { return Self::Unknown };
            match name {
                "level" if value == "reset" => reset = true,
                "level" => level = value,
                "reset" => reset = true,
                _ => return Self::Unknown,
            }
        }
        match (reset, level) {
            (true, level) => Self::Reset(level),
            (false, level) if level.is_empty() => Self::Show,
            (false, level) => Self::Change(level),
        }
    }
}

/// Undoes the percent encoding of a query; `None` for what is none.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                let (high, low) = (digit()?, digit()?);
                u8::try_from(high * 16 + low).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        let change = |text: &str| Wish::Change(text.to_owned());
        let reset = |text: &str| Wish::Reset(text.to_owned());
        let cases = [
            ("", Wish::Show),
            ("level=", Wish::Show),
            ("level=debug", change("debug")),
            ("level=access:debug,info", change("access:debug,info")),
            ("level=access%3Ddebug%2Cinfo", change("access=debug,info")),
            ("level=info&reset", reset("info")),
            ("reset", reset("")),
            ("level=reset", reset("")),
            ("levels=debug", Wish::Unknown),
            ("level=%zz", Wish::Unknown),
            ("level=%e", Wish::Unknown),
            ("level=%ff", Wish::Unknown),
        ];
        for (query, expected) in cases {
            assert_eq!(Wish::of(query), expected, "{query}");
        }
    }
}
