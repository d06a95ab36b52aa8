//! Deleting objects: at once, gracefully (pods), after finalizers, with all content (namespaces).

use std::sync::Arc;

use serde_json::Value;
use time::{Duration, OffsetDateTime};

use super::action::{DeleteOptions, Place};
use super::kinds::{namespaces, pods};
use super::meta;
use super::status::{Reason, Refusal};
use super::store::{Key, Store};
use super::writes::existing;

/// What is left after a deletion.
#[derive(Debug)]
pub(crate) enum Deleted {
    /// Nothing; the uid of what was there.
    Gone { uid: String },
    /// The object, marked: somebody still has to end it.
    Going(Arc<Value>),
}

/// Deletes one object.
pub(crate) fn delete(
    store: &mut Store,
    now: OffsetDateTime,
    place: &Place,
    options: &DeleteOptions,
) -> Result<Deleted, Refusal> {
    let current = Arc::clone(existing(store, place)?);
    let name = meta::name(&current);
    for (field, want, have) in [
        ("uid", &options.uid, meta::uid(&current)),
        ("resourceVersion", &options.resource_version, meta::resource_version(&current)),
    ] {
        if want.as_ref().is_some_and(|want| want != have) {
            let why = format!("the deletion is for {field} {want:?}, this one has {have}");
            return Err(Refusal::conflict(place.resource, name, &why));
        }
    }
    let key = place.key(name);
    if key.storage == namespaces::STORAGE && namespaces::LASTING.contains(&name) {
        let why = format!("namespace \"{name}\" is part of every cluster and is not deleted");
        return Err(Refusal::new(Reason::Forbidden, why).about(place.resource, name));
    }
    remove(store, now, &key, options.grace_seconds);
    Ok(match store.get(&key) {
        Some(left) => Deleted::Going(Arc::clone(left)),
        None => Deleted::Gone { uid: meta::uid(&current).to_owned() },
    })
}

/// Marks the object for deletion, and removes it when nobody has to be waited for.
fn remove(store: &mut Store, now: OffsetDateTime, key: &Key, asked: Option<i64>) {
    let Some(current) = store.get(key).cloned() else {
        return;
    };
    let grace = if key.storage == pods::STORAGE { pods::grace(&current, asked) } else { 0 };
    let waits = grace > 0 || meta::has_finalizers(&current) || key.storage == namespaces::STORAGE;
    if !waits {
        store.remove(key);
        leave_namespace(store, &key.namespace);
        return;
    }
    mark(store, now, key, &current, grace);
    if key.storage == namespaces::STORAGE {
        for inside in store.content(&key.name) {
            remove(store, now, &inside, None);
        }
    }
    settle(store, key);
}

fn mark(store: &mut Store, now: OffsetDateTime, key: &Key, current: &Value, grace: i64) {
    let earlier = current.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_i64);
    if meta::is_terminating(current) && earlier.is_none_or(|earlier| earlier <= grace) {
        // A second deletion may only shorten the wait.
        return;
    }
    let mut marked = current.clone();
    let end = now.checked_add(Duration::seconds(grace)).unwrap_or(now);
    let metadata = meta::metadata_mut(&mut marked);
    metadata.insert("deletionTimestamp".to_owned(), meta::timestamp(end).into());
    metadata.insert("deletionGracePeriodSeconds".to_owned(), grace.into());
    if key.storage == namespaces::STORAGE {
        marked["status"]["phase"] = "Terminating".into();
    }
    store.put(key.clone(), marked);
}

/// Removes an object that is marked for deletion and that nothing holds any longer.
pub(crate) fn settle(store: &mut Store, key: &Key) {
    let Some(object) = store.get(key) else { return };
    let grace = object.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_i64);
    let held = !meta::is_terminating(object)
        || meta::has_finalizers(object)
        || grace.is_some_and(|seconds| seconds > 0)
        || (key.storage == namespaces::STORAGE && !store.content(&key.name).is_empty());
    if !held {
        store.remove(key);
        leave_namespace(store, &key.namespace);
    }
}

/// A namespace that is being deleted goes when the last object in it has gone.
fn leave_namespace(store: &mut Store, namespace: &str) {
    if namespace.is_empty() {
        return;
    }
    let key =
        Key { storage: namespaces::STORAGE, namespace: String::new(), name: namespace.to_owned() };
    settle(store, &key);
}
