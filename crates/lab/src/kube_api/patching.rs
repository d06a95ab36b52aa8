//! PATCH: four ways to say what the new state of an object is.

use std::sync::Arc;

use serde_json::Value;

use super::action::{Part, PatchKind, Place};
use super::apply::{self, Force};
use super::checks::typed;
use super::meta;
use super::patch::{self, PatchError};
use super::resource::StatusWrites;
use super::schema::Types;
use super::status::{Reason, Refusal};
use super::store::Store;
use super::strategic;
use super::writes::{SERVER_SET, Writer, Written, existing, insert, name_it, replace};

/// Changes the object (PATCH). Only an apply creates one that is not there.
pub(crate) fn patch(
    store: &mut Store,
    writer: Writer,
    place: &Place,
    part: Part,
    (kind, body): (PatchKind, &Value),
) -> Result<Arc<Value>, Refusal> {
    if let PatchKind::Apply(force) = kind {
        return apply_config(store, writer, place, part, (force, body));
    }
    if kind == PatchKind::Strategic && place.resource.types == Types::Custom {
        let why = format!(
            "strategic merge patch needs a built-in type, {} is a custom one",
            place.resource.qualified()
        );
        return Err(Refusal::new(Reason::UnsupportedMediaType, why));
    }
    let current = Arc::clone(existing(store, place)?);
    let shown = place.resource.show(&current);
    let types = place.resource.types;
    let patched =
        patched(types, &shown, kind, body).map_err(|error| patch_refusal(place, &error))?;
    replace(store, writer, place, part, &current, (&patched, Written::ByUpdate))
}

fn patched(
    types: Types,
    shown: &Value,
    kind: PatchKind,
    body: &Value,
) -> Result<Value, PatchError> {
    let mut result = shown.clone();
    match kind {
        PatchKind::Json => result = patch::json_patch(shown, body)?,
        PatchKind::Strategic => strategic::merge(types, &mut result, body)?,
        PatchKind::Merge | PatchKind::Apply(_) if body.is_object() => {
            patch::merge(&mut result, body);
        }
        PatchKind::Merge | PatchKind::Apply(_) => {
            return Err(PatchError::Malformed(
                "a merge patch of an object is an object".to_owned(),
            ));
        }
    }
    Ok(result)
}

fn patch_refusal(place: &Place, error: &PatchError) -> Refusal {
    let name = place.name.as_deref().unwrap_or_default();
    let reason = match error {
        PatchError::Malformed(_) => Reason::BadRequest,
        PatchError::DoesNotFit { .. } => Reason::Invalid,
    };
    Refusal::new(reason, error.to_string()).about(place.resource, name)
}

fn apply_config(
    store: &mut Store,
    writer: Writer,
    place: &Place,
    part: Part,
    (force, body): (Force, &Value),
) -> Result<Arc<Value>, Refusal> {
    let resource = place.resource;
    let name = place.name.as_deref().unwrap_or_default();
    let config = configuration(place, part, body)?;
    let current = store.get(&place.key(name)).cloned();
    if current.is_none() && part == Part::Status {
        return Err(Refusal::not_found(resource, name));
    }
    let manager = writer.as_manager(resource, part);
    let applied = apply::apply(current.as_deref(), &config, &manager, force, resource.types)
        .map_err(|causes| {
            let list: Vec<_> =
                causes.iter().map(|c| format!("{} is {}", c.field, c.message)).collect();
            Refusal::conflict(resource, name, &list.join("; ")).with_causes(causes)
        })?;
    match current {
        Some(current) => {
            let shown = resource.show(&applied);
            replace(store, writer, place, part, &current, (&shown, Written::ByApply))
        }
        None => {
            let mut object = applied;
            name_it(writer, place, &mut object)?;
            insert(store, writer, place, object, Written::ByApply)
        }
    }
}

/// What an apply wants, in stored form, without what it cannot change through this path.
fn configuration(place: &Place, part: Part, body: &Value) -> Result<Value, Refusal> {
    for field in ["/apiVersion", "/kind"] {
        if meta::text(body, field).is_empty() {
            let field = field.trim_start_matches('/');
            return Err(Refusal::bad_request(format!(
                "an applied configuration needs its {field}"
            )));
        }
    }
    let mut config = typed(place.resource, body)?;
    let fields = meta::map_mut(&mut config);
    match (part, place.resource.status) {
        (Part::Status, _) => fields.retain(|field, _| field != "spec"),
        (Part::Main, StatusWrites::Plain) => {}
        (Part::Main, _) => drop(fields.remove("status")),
    }
    let metadata = meta::metadata_mut(&mut config);
    if metadata.contains_key("managedFields") {
        return Err(Refusal::bad_request("an applied configuration has no managedFields"));
    }
    let name = place.name.clone().unwrap_or_default();
    meta::default_field(metadata, "name", name);
    SERVER_SET.iter().filter(|field| **field != "uid").for_each(|f| drop(metadata.remove(*f)));
    if part == Part::Status {
        let identity = ["name", "namespace", "uid", "resourceVersion"];
        metadata.retain(|field, _| identity.contains(&field.as_str()));
    }
    Ok(config)
}
