//! Of which file our list is made.

use std::time::Duration;

use super::super::list::List;
use super::{Candidate, GRACE, Past, first_unread, usable};

/// The answer.
pub(super) enum Choice<'a, 'b> {
    /// Of this one.
    Take(&'a str, &'b List<'a>),
    /// Nothing changes: a file is gone or broken, and may come back.
    Keep { doubt: Duration, again: Option<Duration> },
    /// There is none.
    Nobody,
    /// The runtime takes this one, which we cannot read.
    Blind { file: &'a str, doubt: Duration, waits: bool },
}

/// Runtimes take the first file. One of them (containerd) has no network while that one is
/// broken, another (CRI-O) takes the next; we wait a while, and take the next.
pub(super) fn choose<'a, 'b>(
    candidates: &'b [Candidate<'a>],
    past: &Past,
    now: Duration,
) -> Choice<'a, 'b> {
    let first = usable(candidates).next();
    if let Some(blind) = blind(candidates, past, now) {
        return blind;
    }
    let take = |(name, list)| Choice::Take(name, list);
    let doubt = past.doubt.unwrap_or(now);
    let (sure, patient) = match (&past.source, first) {
        // The same, or one that comes before it.
        (Some(source), Some((name, _))) if name <= source.as_str() => (true, true),
        (Some(source), Some((name, _))) => (stem(source) == stem(name), true),
        (None, Some((name, _))) => (candidates.first().is_some_and(|it| it.name == name), true),
        (Some(source), None) => {
            // While it is there it may become whole, and there is no other to take.
            (false, !candidates.iter().any(|it| it.name == source))
        }
        (None, None) => return Choice::Nobody,
    };
    let waited = now.saturating_sub(doubt);
    match first {
        Some(first) if sure || waited >= GRACE => take(first),
        None if patient && waited >= GRACE => Choice::Nobody,
        _ => Choice::Keep { doubt, again: patient.then(|| GRACE.saturating_sub(waited)) },
    }
}

/// What we know of another network is no reason to put it before the one that the runtime
/// reads; nor is there one to keep every pod waiting, once the file may have come right.
fn blind<'a, 'b>(
    candidates: &'b [Candidate<'a>],
    past: &Past,
    now: Duration,
) -> Option<Choice<'a, 'b>> {
    let file = first_unread(candidates)?.name;
    let doubt = past.doubt.unwrap_or(now);
    let is_there = past.source.as_ref().is_some_and(|it| candidates.iter().any(|c| c.name == it));
    let waits = is_there || now.saturating_sub(doubt) < GRACE;
    Some(Choice::Blind { file, doubt, waits })
}

/// An owner that goes from `10-x.conf` to `10-x.conflist` stays the same owner.
fn stem(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
}
