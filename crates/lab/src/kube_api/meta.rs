//! Reading and writing the metadata every object has. PURE.

use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::StaticFormatDescription;
use time::macros::format_description;

const RFC3339: StaticFormatDescription =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");

/// A moment as the API writes it: UTC, whole seconds.
pub(crate) fn timestamp(moment: OffsetDateTime) -> String {
    moment.to_offset(time::UtcOffset::UTC).format(RFC3339).unwrap_or_default()
}

/// Reads a moment the API wrote, with or without parts of a second.
pub(crate) fn parse_timestamp(text: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339).ok()
}

/// A string somewhere in the object; empty when it is not there.
pub(crate) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

pub(crate) fn name(object: &Value) -> &str {
    text(object, "/metadata/name")
}

pub(crate) fn namespace(object: &Value) -> &str {
    text(object, "/metadata/namespace")
}

pub(crate) fn uid(object: &Value) -> &str {
    text(object, "/metadata/uid")
}

pub(crate) fn resource_version(object: &Value) -> &str {
    text(object, "/metadata/resourceVersion")
}

/// Whether the object is on its way out.
pub(crate) fn is_terminating(object: &Value) -> bool {
    object.pointer("/metadata/deletionTimestamp").is_some()
}

/// Whether somebody still has to agree before the object may go.
pub(crate) fn has_finalizers(object: &Value) -> bool {
    let finalizers = object.pointer("/metadata/finalizers").and_then(Value::as_array);
    finalizers.is_some_and(|list| !list.is_empty())
}

/// The metadata as a map. Anything else in its place is replaced by an empty map.
pub(crate) fn metadata_mut(object: &mut Value) -> &mut Map<String, Value> {
    map_mut(map_mut(object).entry("metadata").or_insert(Value::Null))
}

/// The value as a map. Anything else in its place is replaced by an empty map.
pub(crate) fn map_mut(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut().expect("it was made a map one line above")
}

/// Copies these metadata fields from one object to the other, absence included.
pub(crate) fn carry_over(from: &Value, to: &mut Value, fields: &[&str]) {
    for field in fields {
        let value = from.get("metadata").and_then(|metadata| metadata.get(field)).cloned();
        set_or_remove(metadata_mut(to), field, value);
    }
}

/// Sets the field, or removes it when there is no value.
pub(crate) fn set_or_remove(map: &mut Map<String, Value>, field: &str, value: Option<Value>) {
    match value {
        Some(value) => map.insert(field.to_owned(), value),
        None => map.remove(field),
    };
}

/// Fills in a field that the client left out.
pub(crate) fn default_field(map: &mut Map<String, Value>, field: &str, value: impl Into<Value>) {
    let current = map.entry(field).or_insert(Value::Null);
    if current.is_null() {
        *current = value.into();
    }
}
