//! The options of a request, from its query. PURE.

use std::time::Duration;

use super::action::{
    Action, At, Bookmarks, DeleteOptions, ListOptions, PatchKind, Persist, Place, Start,
    WatchOptions,
};
use super::query::Query;
use super::selector::{FieldSelector, LabelSelector, Selection};
use super::status::Refusal;

/// How long a watch lasts that does not say how long.
const WATCH_TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// The longest a watch may ask for.
const WATCH_TIMEOUT_LIMIT: u64 = 24 * 60 * 60;

/// The selectors; the name in a path selects too.
pub(crate) fn selection(query: &Query, place: &Place) -> Result<Selection, Refusal> {
    let labels = LabelSelector::parse(query.get("labelSelector").unwrap_or_default())?;
    let text = query.get("fieldSelector").unwrap_or_default();
    let fields = FieldSelector::parse(text, place.resource.fields)?;
    let fields = match &place.name {
        Some(name) => fields.and_name(name),
        None => fields,
    };
    Ok(Selection { labels, fields })
}

fn version(query: &Query) -> Result<Option<u64>, Refusal> {
    query.number("resourceVersion")
}

/// Which state to read.
pub(crate) fn at(query: &Query) -> Result<At, Refusal> {
    let version = version(query)?;
    match (query.get("resourceVersionMatch"), version) {
        (None, None | Some(0)) => Ok(At::Latest),
        (None | Some("NotOlderThan"), Some(version)) => Ok(At::NotOlderThan(version)),
        (Some("Exact"), Some(version)) if version > 0 => Ok(At::Exactly(version)),
        (Some("Exact" | "NotOlderThan"), None) => {
            Err(Refusal::bad_request("resourceVersionMatch needs a resourceVersion"))
        }
        (Some(other), _) => {
            let why = format!("resourceVersionMatch={other} does not go with this resourceVersion");
            Err(Refusal::bad_request(why))
        }
    }
}

/// Which state of one object to read.
pub(crate) fn at_of_one(query: &Query) -> Result<At, Refusal> {
    match at(query)? {
        At::Exactly(_) => Err(Refusal::bad_request("resourceVersionMatch is for lists only")),
        at => Ok(at),
    }
}

/// What to list.
pub(crate) fn list(query: &Query, place: &Place) -> Result<ListOptions, Refusal> {
    if query.get("sendInitialEvents").is_some() {
        return Err(Refusal::bad_request("sendInitialEvents is for watches only"));
    }
    let continue_token = query.get("continue").map(str::to_owned);
    if continue_token.is_some() && version(query)?.is_some_and(|version| version > 0) {
        return Err(Refusal::bad_request("a continued list has its version in the token"));
    }
    let limit = query.number::<usize>("limit")?.filter(|limit| *limit > 0);
    let at = if continue_token.is_some() { At::Latest } else { at(query)? };
    Ok(ListOptions { selection: selection(query, place)?, limit, continue_token, at })
}

/// What to watch.
pub(crate) fn watch(query: &Query, place: &Place) -> Result<WatchOptions, Refusal> {
    let version = version(query)?.unwrap_or(0);
    let start = match (query.switch("sendInitialEvents")?, query.get("resourceVersionMatch")) {
        (None, None) if version == 0 => Start::State,
        (None, None) => Start::After(version),
        (Some(true), Some("NotOlderThan")) => Start::StateAndMark(version),
        (Some(false), Some("NotOlderThan")) if version == 0 => Start::Now,
        (Some(false), Some("NotOlderThan")) => Start::After(version),
        (Some(_), _) => {
            let why = "sendInitialEvents needs resourceVersionMatch=NotOlderThan";
            return Err(Refusal::bad_request(why));
        }
        (None, Some(_)) => {
            let why = "resourceVersionMatch of a watch needs sendInitialEvents";
            return Err(Refusal::bad_request(why));
        }
    };
    let seconds = query.number::<u64>("timeoutSeconds")?.filter(|seconds| *seconds > 0);
    let timeout =
        seconds.map_or(WATCH_TIMEOUT, |s| Duration::from_secs(s.min(WATCH_TIMEOUT_LIMIT)));
    let bookmarks = match query.switch("allowWatchBookmarks")? {
        Some(true) => Bookmarks::Yes,
        _ => Bookmarks::No,
    };
    Ok(WatchOptions { selection: selection(query, place)?, start, bookmarks, timeout })
}

/// How to delete. How dependents go (`propagationPolicy`) does not matter: there are none here.
pub(crate) fn delete(query: &Query) -> Result<DeleteOptions, Refusal> {
    let grace_seconds = query.number("gracePeriodSeconds")?;
    Ok(DeleteOptions { grace_seconds, ..DeleteOptions::default() })
}

/// Whether the write stays.
pub(crate) fn persist(query: &Query) -> Result<Persist, Refusal> {
    match query.get("dryRun") {
        None => Ok(Persist::Yes),
        Some("All") => Ok(Persist::DryRun),
        Some(other) => Err(Refusal::bad_request(format!("dryRun={other} is not All"))),
    }
}

/// Who owns the fields that are written: as the client says, else the program it is.
pub(crate) fn manager(query: &Query, agent: &str, action: &Action) -> Result<String, Refusal> {
    if let Some(name) = query.get("fieldManager") {
        if name.len() > 128 || name.chars().any(char::is_control) {
            return Err(Refusal::bad_request("fieldManager is longer than 128 printable bytes"));
        }
        return Ok(name.to_owned());
    }
    if matches!(action, Action::Patch(_, PatchKind::Apply(_))) {
        return Err(Refusal::bad_request("server-side apply needs a fieldManager"));
    }
    let program = agent.split('/').next().unwrap_or_default();
    let program: String = program.chars().filter(|c| !c.is_control()).take(128).collect();
    Ok(if program.is_empty() { "unknown".to_owned() } else { program })
}
