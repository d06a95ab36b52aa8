//! What every write is checked for before it changes anything. PURE.

use serde_json::Value;

use super::action::Place;
use super::kinds::namespaces;
use super::meta;
use super::names;
use super::resource::Resource;
use super::status::{Reason, Refusal};
use super::store::{Key, Store};

/// The body as a stored object of this resource, or what is wrong with its type.
pub(crate) fn typed(resource: &'static Resource, body: &Value) -> Result<Value, Refusal> {
    let mut object = body.clone();
    let Some(fields) = object.as_object_mut() else {
        return Err(Refusal::bad_request("the body is not an object"));
    };
    for (field, want) in
        [("apiVersion", resource.api_version()), ("kind", resource.kind.to_owned())]
    {
        meta::default_field(fields, field, want.as_str());
        if fields[field] != want {
            let why = format!("{field} of the body is {}, this path serves {want}", fields[field]);
            return Err(Refusal::bad_request(why));
        }
    }
    if fields.get("metadata").is_some_and(|metadata| !metadata.is_object()) {
        return Err(Refusal::bad_request("metadata of the body is not an object"));
    }
    Ok(resource.to_stored(&object))
}

/// The body and the path say different things.
pub(crate) fn mismatch(field: &str, body: &str, path: &str) -> Refusal {
    Refusal::bad_request(format!("{field} of the body is \"{body}\", the path says \"{path}\""))
}

/// The object belongs to the namespace of the path, which must be there to stay.
pub(crate) fn enter_namespace(
    store: &Store,
    place: &Place,
    object: &mut Value,
) -> Result<(), Refusal> {
    same_namespace(place, object)?;
    let Some(namespace) = &place.namespace else {
        return Ok(());
    };
    let key =
        Key { storage: namespaces::STORAGE, namespace: String::new(), name: namespace.clone() };
    let home =
        store.get(&key).ok_or_else(|| Refusal::not_found(&namespaces::NAMESPACES, namespace))?;
    if meta::is_terminating(home) {
        let why = format!("namespace \"{namespace}\" is being deleted and takes nothing new");
        return Err(Refusal::new(Reason::Forbidden, why).about(place.resource, meta::name(object)));
    }
    Ok(())
}

fn same_namespace(place: &Place, object: &mut Value) -> Result<(), Refusal> {
    let path = place.namespace.clone().unwrap_or_default();
    let own = meta::namespace(object);
    if !own.is_empty() && own != path {
        return Err(mismatch("metadata.namespace", own, &path));
    }
    let namespace = place.namespace.clone().map(Value::from);
    meta::set_or_remove(meta::metadata_mut(object), "namespace", namespace);
    Ok(())
}

/// The object by itself, and the change to it.
pub(crate) fn check(
    resource: &'static Resource,
    old: Option<&Value>,
    new: &Value,
) -> Result<(), Refusal> {
    let mut causes = names::metadata(new, resource.names);
    causes.extend((resource.check)(new));
    if let Some(old) = old {
        causes.extend((resource.check_change)(old, new));
    }
    if causes.is_empty() {
        return Ok(());
    }
    Err(Refusal::invalid(resource, meta::name(new), causes))
}

/// The new state is of the object that is there, as the client has read it.
pub(crate) fn preconditions(
    place: &Place,
    current: &Value,
    new: &mut Value,
) -> Result<(), Refusal> {
    let name = place.name.as_deref().unwrap_or_default();
    if meta::name(new) != name {
        return Err(mismatch("metadata.name", meta::name(new), name));
    }
    same_namespace(place, new)?;
    for (field, want, have) in [
        ("uid", meta::uid(new), meta::uid(current)),
        ("resourceVersion", meta::resource_version(new), meta::resource_version(current)),
    ] {
        if !want.is_empty() && want != have {
            let why = format!("its {field} is {have}, the request is about {want}; read it again");
            return Err(Refusal::conflict(place.resource, name, &why));
        }
    }
    Ok(())
}
