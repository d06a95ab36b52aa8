//! Lists: at a version, selected, page by page. No IO.

use std::ops::Bound;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::action::{At, ListOptions, Place};
use super::status::{Reason, Refusal};
use super::store::{Key, OutOfReach, Store};

/// One page.
#[derive(Debug)]
pub(crate) struct Listing {
    /// The version of the whole list, the same on each of its pages.
    pub(crate) version: u64,
    pub(crate) items: Vec<Arc<Value>>,
    /// The token for the next page.
    pub(crate) next: Option<String>,
    /// How many come after this page, where that is known without looking at them.
    pub(crate) remaining: Option<usize>,
}

/// Where the next page begins; opaque to clients.
#[derive(Debug, Serialize, Deserialize)]
struct Continue {
    version: u64,
    namespace: String,
    name: String,
}

impl Continue {
    fn parse(token: &str) -> Result<Continue, Refusal> {
        let bytes = URL_SAFE_NO_PAD.decode(token).ok();
        bytes
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .ok_or_else(|| Refusal::bad_request("the continue token is not one of this API"))
    }

    fn token(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }
}

/// Why a version cannot be served, in the API's words.
pub(crate) fn out_of_reach(version: u64, why: OutOfReach) -> Refusal {
    match why {
        OutOfReach::TooOld { oldest } => Refusal::expired(format!(
            "resourceVersion {version} is too old: the history kept here begins at {oldest}; list again"
        )),
        OutOfReach::TooNew { newest } => Refusal::new(
            Reason::Timeout,
            format!("resourceVersion {version} has not come yet: the newest is {newest}"),
        ),
    }
}

/// Refuses a read that must not be older than a version which has not come.
pub(crate) fn fresh_enough(store: &Store, at: At) -> Result<(), Refusal> {
    match at {
        At::NotOlderThan(version) if version > store.version() => {
            Err(out_of_reach(version, OutOfReach::TooNew { newest: store.version() }))
        }
        _ => Ok(()),
    }
}

/// The objects that were asked for.
pub(crate) fn list(
    store: &Store,
    place: &Place,
    options: &ListOptions,
) -> Result<Listing, Refusal> {
    fresh_enough(store, options.at)?;
    let from = options.continue_token.as_deref().map(Continue::parse).transpose()?;
    let version = match (&from, options.at) {
        (Some(from), _) => from.version,
        (None, At::Exactly(version)) => version,
        (None, At::Latest | At::NotOlderThan(_)) => store.version(),
    };
    let storage = place.resource.storage;
    let snapshot = store
        .snapshot(storage, place.namespace.as_deref(), version)
        .map_err(|why| out_of_reach(version, why))?;
    let start = match from {
        None => Bound::Unbounded,
        Some(from) => Bound::Excluded(Key { storage, namespace: from.namespace, name: from.name }),
    };
    let mut selected = snapshot
        .range((start, Bound::Unbounded))
        .filter(|(_, object)| options.selection.matches(object));
    let limit = options.limit.unwrap_or(usize::MAX);
    let page: Vec<_> = selected.by_ref().take(limit).collect();
    let rest = selected.count();
    let next = page.last().filter(|_| rest > 0).map(|(key, _)| {
        Continue { version, namespace: key.namespace.clone(), name: key.name.clone() }.token()
    });
    Ok(Listing {
        version,
        items: page.into_iter().map(|(_, object)| Arc::clone(object)).collect(),
        next,
        remaining: (rest > 0 && options.selection.is_empty()).then_some(rest),
    })
}
