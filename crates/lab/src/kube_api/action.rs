//! What a request asks for, typed. PURE.

use std::time::Duration;

use super::apply::Force;
use super::negotiate::{BodyFormat, View};
use super::resource::Resource;
use super::selector::Selection;
use super::store::Key;

/// Where a request points.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Place {
    pub(crate) resource: &'static Resource,
    /// `None`: all namespaces, or a resource of the whole cluster.
    pub(crate) namespace: Option<String>,
    /// `None`: the collection.
    pub(crate) name: Option<String>,
}

impl Place {
    /// Where an object of that name is filed.
    pub(crate) fn key(&self, name: &str) -> Key {
        Key {
            storage: self.resource.storage,
            namespace: self.namespace.clone().unwrap_or_default(),
            name: name.to_owned(),
        }
    }
}

/// Which part of an object a write is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Main,
    Status,
}

/// How a patch is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PatchKind {
    Merge,
    Json,
    Strategic,
    Apply(Force),
}

/// Which state a read may show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum At {
    Latest,
    NotOlderThan(u64),
    Exactly(u64),
}

/// What a list is to show.
#[derive(Debug, PartialEq)]
pub(crate) struct ListOptions {
    pub(crate) selection: Selection,
    pub(crate) limit: Option<usize>,
    pub(crate) continue_token: Option<String>,
    pub(crate) at: At,
}

/// Where a watch begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// With the changes after a version.
    After(u64),
    /// With the changes from now on.
    Now,
    /// With all there is, as additions.
    State,
    /// With all there is, not older than a version, and a bookmark that ends it.
    StateAndMark(u64),
}

/// Whether versions are announced between changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bookmarks {
    No,
    Yes,
}

/// What a watch is to show.
#[derive(Debug, PartialEq)]
pub(crate) struct WatchOptions {
    pub(crate) selection: Selection,
    pub(crate) start: Start,
    pub(crate) bookmarks: Bookmarks,
    pub(crate) timeout: Duration,
}

/// How an object is to be deleted; the body may say the same and wins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct DeleteOptions {
    pub(crate) grace_seconds: Option<i64>,
    pub(crate) uid: Option<String>,
    pub(crate) resource_version: Option<String>,
}

/// Whether a write stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Persist {
    Yes,
    DryRun,
}

/// What is to be done.
#[derive(Debug, PartialEq)]
pub(crate) enum Action {
    Get(At),
    List(ListOptions),
    Watch(WatchOptions),
    Create,
    Update(Part),
    Patch(Part, PatchKind),
    Delete(DeleteOptions),
    DeleteCollection(DeleteOptions, Selection),
    MintToken,
    ReviewToken,
}

/// A request for objects.
#[derive(Debug, PartialEq)]
pub(crate) struct ApiRequest {
    pub(crate) place: Place,
    pub(crate) action: Action,
    pub(crate) view: View,
    pub(crate) persist: Persist,
    /// Who owns the fields this request writes.
    pub(crate) manager: String,
    pub(crate) body: BodyFormat,
}

/// What discovery is asked for.
#[derive(Debug, PartialEq)]
pub(crate) enum Document {
    Version,
    CoreVersions,
    Groups,
    Group(String),
    Resources { group: String, version: String },
}

/// What a request is.
#[derive(Debug, PartialEq)]
pub(crate) enum Route {
    Document(Document),
    Api(Box<ApiRequest>),
}
