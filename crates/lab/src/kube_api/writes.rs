//! Creating and replacing objects: what every write fills in. No IO but random bytes.

use std::sync::Arc;

use serde_json::Value;
use time::OffsetDateTime;

use super::action::{Part, Place};
use super::apply::{self, Manager};
use super::checks::{check, enter_namespace, mismatch, preconditions, typed};
use super::deletes;
use super::entropy::Entropy;
use super::kinds::{namespaces, service_accounts};
use super::meta;
use super::resource::{Resource, StatusWrites};
use super::status::Refusal;
use super::store::Store;

/// Metadata that clients send along and only the server sets.
pub(crate) const SERVER_SET: [&str; 5] =
    ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"];

/// Who writes and when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Writer<'a> {
    pub(crate) entropy: &'a Entropy,
    pub(crate) now: OffsetDateTime,
    /// Owns what is written, in `managedFields`.
    pub(crate) manager: &'a str,
}

impl Writer<'_> {
    /// The owner of what is written through this path.
    pub(crate) fn as_manager(&self, resource: &Resource, part: Part) -> Manager {
        Manager {
            name: self.manager.to_owned(),
            api_version: resource.api_version(),
            subresource: if part == Part::Status { "status" } else { "" },
            time: meta::timestamp(self.now),
        }
    }
}

/// Creates the object that `body` describes.
pub(crate) fn create(
    store: &mut Store,
    writer: Writer,
    place: &Place,
    body: &Value,
) -> Result<Arc<Value>, Refusal> {
    let mut object = typed(place.resource, body)?;
    name_it(writer, place, &mut object)?;
    insert(store, writer, place, object, Written::ByUpdate)
}

/// How the owners of the written fields are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    /// By comparing with what was there before.
    ByUpdate,
    /// The apply already said who owns what.
    ByApply,
}

/// Files a new object.
pub(crate) fn insert(
    store: &mut Store,
    writer: Writer,
    place: &Place,
    mut object: Value,
    written: Written,
) -> Result<Arc<Value>, Refusal> {
    let resource = place.resource;
    let key = place.key(meta::name(&object));
    enter_namespace(store, place, &mut object)?;
    let metadata = meta::metadata_mut(&mut object);
    SERVER_SET.iter().for_each(|field| drop(metadata.remove(*field)));
    metadata.insert("uid".to_owned(), writer.entropy.uuid()?.into());
    metadata.insert("creationTimestamp".to_owned(), meta::timestamp(writer.now).into());
    if object.get("spec").is_some() {
        meta::metadata_mut(&mut object).insert("generation".to_owned(), 1.into());
    }
    if resource.status != StatusWrites::Plain {
        meta::map_mut(&mut object).remove("status");
    }
    (resource.defaults)(&mut object);
    check(resource, None, &object)?;
    if store.get(&key).is_some() {
        return Err(Refusal::already_exists(resource, &key.name));
    }
    (resource.admit)(store, &key.namespace, &mut object)?;
    if written == Written::ByUpdate {
        meta::metadata_mut(&mut object).remove("managedFields");
        let manager = writer.as_manager(resource, Part::Main);
        // The first status is the server's, not the creator's.
        let given = (resource.status != StatusWrites::Plain)
            .then(|| serde_json::json!({ "status": object["status"] }));
        apply::record_update(given.as_ref(), &mut object, &manager, resource.types);
    }
    let created = store.put(key, object);
    if resource.storage == namespaces::STORAGE {
        furnish(store, writer, meta::name(&created))?;
    }
    Ok(created)
}

/// What a controller does in a cluster: each namespace has a service account `default`.
fn furnish(store: &mut Store, writer: Writer, namespace: &str) -> Result<(), Refusal> {
    let place = Place {
        resource: &service_accounts::SERVICE_ACCOUNTS,
        namespace: Some(namespace.to_owned()),
        name: None,
    };
    let account = serde_json::json!({ "metadata": { "name": "default" } });
    create(store, writer, &place, &account).map(drop)
}

/// The name from the path, the body or its prefix.
pub(crate) fn name_it(writer: Writer, place: &Place, object: &mut Value) -> Result<(), Refusal> {
    if !meta::resource_version(object).is_empty() {
        return Err(Refusal::bad_request("an object to be created has no resourceVersion yet"));
    }
    let prefix = meta::text(object, "/metadata/generateName").to_owned();
    if meta::name(object).is_empty() && !prefix.is_empty() {
        let name = format!("{prefix}{}", writer.entropy.suffix()?);
        meta::metadata_mut(object).insert("name".to_owned(), name.into());
    }
    match &place.name {
        Some(name) if meta::name(object) != name => {
            Err(mismatch("metadata.name", meta::name(object), name))
        }
        _ => Ok(()),
    }
}

/// The object at a place with a name, or that there is none.
pub(crate) fn existing<'a>(store: &'a Store, place: &Place) -> Result<&'a Arc<Value>, Refusal> {
    let name = place.name.as_deref().unwrap_or_default();
    store.get(&place.key(name)).ok_or_else(|| Refusal::not_found(place.resource, name))
}

/// Replaces the object (PUT).
pub(crate) fn update(
    store: &mut Store,
    writer: Writer,
    place: &Place,
    part: Part,
    body: &Value,
) -> Result<Arc<Value>, Refusal> {
    let current = Arc::clone(existing(store, place)?);
    replace(store, writer, place, part, &current, (body, Written::ByUpdate))
}

/// The end of every change of an existing object.
pub(crate) fn replace(
    store: &mut Store,
    writer: Writer,
    place: &Place,
    part: Part,
    current: &Arc<Value>,
    (body, written): (&Value, Written),
) -> Result<Arc<Value>, Refusal> {
    let resource = place.resource;
    let mut new = typed(resource, body)?;
    preconditions(place, current, &mut new)?;
    meta::carry_over(current, &mut new, &SERVER_SET);
    keep_other_part(resource, part, current, &mut new);
    if part == Part::Main && new.get("spec").is_some() && new.get("spec") != current.get("spec") {
        let generation = current.pointer("/metadata/generation").and_then(Value::as_i64);
        let next = generation.unwrap_or_default() + 1;
        meta::metadata_mut(&mut new).insert("generation".to_owned(), next.into());
    }
    check(resource, Some(current), &new)?;
    if written == Written::ByUpdate {
        let manager = writer.as_manager(resource, part);
        apply::record_update(Some(current), &mut new, &manager, resource.types);
    }
    meta::carry_over(current, &mut new, &["resourceVersion"]);
    if new == **current {
        // Writing what is there already is no change: no version, no event.
        return Ok(Arc::clone(current));
    }
    let key = place.key(meta::name(current));
    let written = store.put(key.clone(), new);
    deletes::settle(store, &key);
    Ok(written)
}

/// A write through one path leaves alone what belongs to the other.
fn keep_other_part(resource: &Resource, part: Part, current: &Value, new: &mut Value) {
    if resource.status == StatusWrites::Plain {
        return;
    }
    let (kept, taken) = match part {
        Part::Main => (current, None),
        Part::Status => (&*new, Some(current)),
    };
    let status = kept.get("status").cloned();
    if let Some(current) = taken {
        let managed = new.pointer("/metadata/managedFields").cloned();
        *new = current.clone();
        meta::set_or_remove(meta::metadata_mut(new), "managedFields", managed);
    }
    meta::set_or_remove(meta::map_mut(new), "status", status);
}
