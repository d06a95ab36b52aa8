//! Changing what is logged while the process runs.

use tracing_subscriber::filter::ParseError;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::{EnvFilter, Registry};

/// Longer than any list of levels that a person writes.
const LONGEST: usize = 1024;

/// Why a level was not changed.
#[derive(Debug, thiserror::Error)]
pub enum LevelError {
    /// The text is too long.
    #[error("more than {LONGEST} characters")]
    Long,
    /// An item of the list is neither a level nor `target=level`.
    #[error("{0:?} is neither a level (off, error, warn, info, debug, trace) nor target=level")]
    Item(String),
    /// The list as a whole cannot be read.
    #[error("{0}")]
    Parse(#[from] ParseError),
    /// The log has ended.
    #[error("the log has ended")]
    Ended(#[from] reload::Error),
}

/// The levels in use. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Levels {
    handle: Handle<EnvFilter, Registry>,
    /// As they were at the beginning.
    first: String,
}

impl Levels {
    pub(crate) fn new(filter: EnvFilter) -> (reload::Layer<EnvFilter, Registry>, Self) {
        let first = filter.to_string();
        let (layer, handle) = reload::Layer::new(filter);
        (layer, Self { handle, first })
    }

    /// The levels, in the language of `RUST_LOG`.
    ///
    /// # Errors
    /// [`LevelError::Ended`].
    pub fn current(&self) -> Result<String, LevelError> {
        Ok(self.handle.with_current(ToString::to_string)?)
    }

    /// Changes the levels that `text` names: `debug`, or `access=debug,info`. A colon does
    /// as well as the equals sign. What is not named stays as it is.
    ///
    /// # Errors
    /// Any [`LevelError`]; then nothing changes.
    pub fn change(&self, text: &str) -> Result<(), LevelError> {
        self.set(&self.current()?, text)
    }

    /// Goes back to the levels of the beginning, but for those that `text` names.
    ///
    /// # Errors
    /// As [`Levels::change`].
    pub fn reset(&self, text: &str) -> Result<(), LevelError> {
        self.set(&self.first, text)
    }

    fn set(&self, base: &str, text: &str) -> Result<(), LevelError> {
        let changes = directives(text)?;
        let all = [base, changes.as_str()].into_iter().filter(|part| !part.is_empty());
        let all = all.collect::<Vec<_>>().join(",");
        let filter = EnvFilter::builder().with_regex(false).parse(all)?;
        self.handle.reload(filter)?;
        Ok(())
    }
}

/// Makes a list for the filter out of what people write. Strict: to the filter a word that
/// is no level is a target, whose lines would then all be shown.
fn directives(text: &str) -> Result<String, LevelError> {
    if text.len() > LONGEST {
        return Err(LevelError::Long);
    }
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    let items = items.map(|item| directive(item).ok_or_else(|| LevelError::Item(item.to_owned())));
    Ok(items.collect::<Result<Vec<_>, _>>()?.join(","))
}

fn directive(item: &str) -> Option<String> {
    if let Some(level) = level(item) {
        return Some(level.to_owned());
    }
    let (target, text) = item.rsplit_once(['=', ':'])?;
    let named = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ':');
    let target = (!target.is_empty() && !target.ends_with(':') && target.chars().all(named))
        .then_some(target)?;
    Some(format!("{target}={}", level(text)?))
}

/// Levels as `istioctl` calls them, too.
fn level(text: &str) -> Option<&'static str> {
    Some(match text.to_ascii_lowercase().as_str() {
        "off" => "off",
        "error" | "critical" => "error",
        "warn" | "warning" => "warn",
        "info" => "info",
        "debug" => "debug",
        "trace" => "trace",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_in_the_words_of_people() {
        let cases = [
            ("debug", Some("debug")),
            ("Warning", Some("warn")),
            ("access:debug,info", Some("access=debug,info")),
            ("ztunnel::proxy=trace", Some("ztunnel::proxy=trace")),
            ("ztunnel::proxy:trace", Some("ztunnel::proxy=trace")),
            (" a=off , b=critical,", Some("a=off,b=error")),
            ("", Some("")),
            ("loud", None),
            ("access", None),
            ("access=loud", None),
            ("ztunnel::info", None),
            ("a[span]=info", None),
            ("=info", None),
            ("a=b=info", None),
        ];
        for (text, expected) in cases {
            assert_eq!(directives(text).ok().as_deref(), expected, "{text}");
        }
        assert!(matches!(directives(&"a=info,".repeat(1000)), Err(LevelError::Long)));
    }

    #[test]
    fn a_change_keeps_the_rest_and_a_reset_forgets_it() {
        let filter = EnvFilter::builder().parse("info,hyper=warn").unwrap();
        let (_layer, levels) = Levels::new(filter);
        let sorted = || {
            let current = levels.current().unwrap();
            let mut items: Vec<_> = current.split(',').map(str::to_owned).collect();
            items.sort();
            items.join(",")
        };
        levels.change("access=debug").unwrap();
        assert_eq!(sorted(), "access=debug,hyper=warn,info");
        levels.change("error,hyper=off").unwrap();
        assert_eq!(sorted(), "access=debug,error,hyper=off");
        levels.change("nonsense").unwrap_err();
        assert_eq!(sorted(), "access=debug,error,hyper=off", "a mistake changes nothing");
        levels.reset("").unwrap();
        assert_eq!(sorted(), "hyper=warn,info");
        levels.reset("trace").unwrap();
        assert_eq!(sorted(), "hyper=warn,trace");
    }
}
