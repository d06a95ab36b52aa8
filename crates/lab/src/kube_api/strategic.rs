//! Strategic merge patch: a merge patch that merges the lists it knows item by item, with the
//! directives `$patch`, `$retainKeys`, `$setElementOrder/…` and `$deleteFromPrimitiveList/…`.
//! PURE.

use serde_json::{Map, Value};

use super::patch::PatchError;
use super::schema::{ListKind, Types, list_kind};

const ORDER: &str = "$setElementOrder/";
const DROP: &str = "$deleteFromPrimitiveList/";

/// Applies `patch` to `target`.
pub(crate) fn merge(types: Types, target: &mut Value, patch: &Value) -> Result<(), PatchError> {
    let Value::Object(changes) = patch else {
        return Err(malformed("a strategic merge patch is an object"));
    };
    merge_object(types, target, changes)
}

fn malformed(why: impl Into<String>) -> PatchError {
    PatchError::Malformed(why.into())
}

fn merge_object(
    types: Types,
    target: &mut Value,
    changes: &Map<String, Value>,
) -> Result<(), PatchError> {
    match changes.get("$patch").map(Value::as_str) {
        None | Some(Some("merge")) => {}
        Some(Some("replace")) => {
            *target = plain(changes);
            return Ok(());
        }
        Some(Some("delete")) => {
            *target = Value::Object(Map::new());
            return Ok(());
        }
        Some(other) => return Err(malformed(format!("$patch cannot be {other:?}"))),
    }
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(fields) = target.as_object_mut() else {
        return Ok(());
    };
    retain(fields, changes)?;
    for (key, change) in changes.iter().filter(|(key, _)| !key.starts_with('$')) {
        merge_field(types, fields, key, change)?;
    }
    for (key, values) in changes {
        if let Some(field) = key.strip_prefix(DROP) {
            drop_values(fields, field, items_of(key, values)?);
        }
    }
    for (key, order) in changes {
        if let Some(field) = key.strip_prefix(ORDER) {
            reorder(types, fields, field, items_of(key, order)?);
        }
    }
    Ok(())
}

fn items_of<'a>(key: &str, value: &'a Value) -> Result<&'a [Value], PatchError> {
    value.as_array().map(Vec::as_slice).ok_or_else(|| malformed(format!("{key} is not a list")))
}

fn retain(fields: &mut Map<String, Value>, changes: &Map<String, Value>) -> Result<(), PatchError> {
    if let Some(keys) = changes.get("$retainKeys") {
        let keys = items_of("$retainKeys", keys)?;
        fields.retain(|field, _| keys.iter().any(|key| key == field));
    }
    Ok(())
}

fn merge_field(
    types: Types,
    fields: &mut Map<String, Value>,
    key: &str,
    change: &Value,
) -> Result<(), PatchError> {
    match change {
        Value::Null => {
            fields.remove(key);
        }
        Value::Object(changes) if changes.get("$patch").is_some_and(|d| d == "delete") => {
            fields.remove(key);
        }
        Value::Object(changes) => {
            merge_object(types, fields.entry(key).or_insert(Value::Null), changes)?;
        }
        Value::Array(changes) => {
            let current = fields.entry(key).or_insert_with(|| Value::Array(Vec::new()));
            let items = match current.take() {
                Value::Array(items) => items,
                _ => Vec::new(),
            };
            *current = Value::Array(merge_list(types, key, items, changes)?);
        }
        _ => {
            fields.insert(key.to_owned(), change.clone());
        }
    }
    Ok(())
}

fn merge_list(
    types: Types,
    field: &str,
    mut items: Vec<Value>,
    changes: &[Value],
) -> Result<Vec<Value>, PatchError> {
    match list_kind(types, field) {
        ListKind::Atomic => Ok(changes.to_vec()),
        ListKind::Set => {
            for value in changes {
                if !items.contains(value) {
                    items.push(value.clone());
                }
            }
            Ok(items)
        }
        ListKind::Keyed(keys) => merge_keyed(types, (field, keys[0]), items, changes),
    }
}

fn merge_keyed(
    types: Types,
    (field, key): (&str, &str),
    mut items: Vec<Value>,
    changes: &[Value],
) -> Result<Vec<Value>, PatchError> {
    let whole = |change: &&Value| change.get("$patch").is_some_and(|d| d == "replace");
    if changes.iter().any(|change| whole(&change)) {
        // One item says that the list is not merged: the others are the new list.
        let rest = changes.iter().filter(|change| !whole(change) || change.get(key).is_some());
        return Ok(rest.filter_map(Value::as_object).map(plain).collect());
    }
    for change in changes {
        let (Some(wanted), Some(fields)) = (change.get(key), change.as_object()) else {
            return Err(malformed(format!("an item of {field} has no {key} to merge by")));
        };
        let found = items.iter().position(|item| item.get(key) == Some(wanted));
        let delete = change.get("$patch").is_some_and(|directive| directive == "delete");
        match (found, delete) {
            (Some(index), true) => {
                items.remove(index);
            }
            (None, true) => {}
            (Some(index), false) => merge_object(types, &mut items[index], fields)?,
            (None, false) => {
                let mut item = Value::Object(Map::new());
                merge_object(types, &mut item, fields)?;
                items.push(item);
            }
        }
    }
    Ok(items)
}

/// The patch as a value: without the directives at its top.
fn plain(changes: &Map<String, Value>) -> Value {
    let kept = changes.iter().filter(|(key, value)| !key.starts_with('$') && !value.is_null());
    Value::Object(kept.map(|(key, value)| (key.clone(), value.clone())).collect())
}

fn drop_values(fields: &mut Map<String, Value>, field: &str, values: &[Value]) {
    if let Some(Value::Array(items)) = fields.get_mut(field) {
        items.retain(|item| !values.contains(item));
    }
}

/// Puts the items that `order` names into its order, within the places they hold now. Items it
/// does not name belong to others and stay where they are.
fn reorder(types: Types, fields: &mut Map<String, Value>, field: &str, order: &[Value]) {
    let Some(Value::Array(items)) = fields.get_mut(field) else {
        return;
    };
    let key = match list_kind(types, field) {
        ListKind::Keyed(keys) => Some(keys[0]),
        _ => None,
    };
    let same = |item: &Value, wanted: &Value| match key {
        Some(key) => item.get(key).is_some() && item.get(key) == wanted.get(key),
        None => item == wanted,
    };
    let mut ranked: Vec<(usize, usize)> = items
        .iter()
        .enumerate()
        .filter_map(|(at, item)| Some((order.iter().position(|o| same(item, o))?, at)))
        .collect();
    let mut places: Vec<usize> = ranked.iter().map(|(_, at)| *at).collect();
    ranked.sort_unstable();
    places.sort_unstable();
    let before = items.clone();
    for (place, (_, from)) in places.into_iter().zip(ranked) {
        items[place] = before[from].clone();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "cases are written as values")]
    fn check(target: Value, patch: Value, want: Value) {
        let mut result = target.clone();
        merge(Types::BuiltIn, &mut result, &patch).unwrap();
        assert_eq!(result, want, "{target} + {patch}");
    }

    #[test]
    fn maps_merge_and_null_removes() {
        let labels = |l: Value| json!({ "metadata": { "labels": l } });
        check(
            labels(json!({"a": "1", "b": "2"})),
            labels(json!({"b": null, "c": "3"})),
            labels(json!({"a": "1", "c": "3"})),
        );
        check(
            json!({"m": {"a": 1}}),
            json!({"m": {"$patch": "replace", "b": 2}}),
            json!({"m": {"b": 2}}),
        );
        check(json!({"m": {"a": 1}, "n": 1}), json!({"m": {"$patch": "delete"}}), json!({"n": 1}));
        check(
            json!({"volume": {"name": "v", "emptyDir": {}}}),
            json!({"volume": {"$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/"}}}),
            json!({"volume": {"name": "v", "hostPath": {"path": "/"}}}),
        );
    }

    #[test]
    fn keyed_lists_merge_by_their_key() {
        let app = json!({"name": "app", "image": "a:1", "env": [{"name": "X", "value": "1"}]});
        let log = json!({"name": "log", "image": "l:1"});
        check(
            json!({"containers": [app, log]}),
            json!({"containers": [{"name": "app", "image": "a:2", "env": [{"name": "Y", "value": "2"}]}]}),
            json!({"containers": [
                {"name": "app", "image": "a:2", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]},
                log,
            ]}),
        );
        check(
            json!({"containers": [app, log]}),
            json!({"containers": [{"name": "app", "$patch": "delete"}]}),
            json!({"containers": [log]}),
        );
        check(
            json!({"containers": [app]}),
            json!({"containers": [{"$patch": "replace"}, {"name": "log", "image": "l:1"}]}),
            json!({"containers": [log]}),
        );
        check(json!({}), json!({"containers": [log]}), json!({"containers": [log]}));
    }

    #[test]
    fn other_lists_are_replaced_and_sets_grow() {
        check(json!({"args": [1, 2]}), json!({"args": [3]}), json!({"args": [3]}));
        check(
            json!({"finalizers": ["a"]}),
            json!({"finalizers": ["a", "b"]}),
            json!({"finalizers": ["a", "b"]}),
        );
        check(
            json!({"finalizers": ["a", "b"]}),
            json!({"$deleteFromPrimitiveList/finalizers": ["a"]}),
            json!({"finalizers": ["b"]}),
        );
    }

    #[test]
    fn the_order_asked_for_is_kept_and_foreign_items_stay() {
        check(
            json!({"containers": [{"name": "a"}, {"name": "foreign"}, {"name": "b"}]}),
            json!({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}),
            json!({"containers": [{"name": "b"}, {"name": "foreign"}, {"name": "a"}]}),
        );
        check(
            json!({"finalizers": ["a", "b"]}),
            json!({"$setElementOrder/finalizers": ["c", "b", "a"], "finalizers": ["c"]}),
            json!({"finalizers": ["c", "b", "a"]}),
        );
    }

    #[test]
    fn malformed_patches_are_refused() {
        for patch in [
            json!([]),
            json!({"$patch": "shake"}),
            json!({"containers": [{"image": "x"}]}),
            json!({"$setElementOrder/containers": 7}),
            json!({"$retainKeys": "a"}),
        ] {
            let result = merge(Types::BuiltIn, &mut json!({"containers": []}), &patch);
            assert!(matches!(result, Err(PatchError::Malformed(_))), "{patch}: {result:?}");
        }
    }
}
