//! JSON merge patch (RFC 7386) and JSON patch (RFC 6902). PURE.

use serde_json::{Map, Value};

/// How much the copies of one JSON patch may add, in bytes: a copy of a copy of a copy doubles
/// an object with every operation.
const COPIES_LIMIT: usize = 3 * 1024 * 1024;
/// How many operations one JSON patch may have.
const OPERATIONS_LIMIT: usize = 1000;
/// How deep an object may become: as deep as one that is read from JSON. Values are walked
/// recursively, so depth is stack.
const DEPTH_LIMIT: usize = 120;

/// Why a patch was not applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PatchError {
    /// The patch is not one of its kind.
    #[error("malformed patch: {0}")]
    Malformed(String),
    /// The patch is well formed and does not fit this object.
    #[error("operation {index} ({op} {path}) cannot be done: {why}")]
    DoesNotFit { index: usize, op: String, path: String, why: String },
}

/// What merge patch makes of `target`: objects merge, `null` removes, all else replaces.
pub(crate) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(fields) = target.as_object_mut() else {
        return;
    };
    for (key, change) in changes {
        if change.is_null() {
            fields.remove(key);
        } else {
            merge(fields.entry(key.clone()).or_insert(Value::Null), change);
        }
    }
}

/// What the operations make of `document`, all of them or none.
pub(crate) fn json_patch(document: &Value, patch: &Value) -> Result<Value, PatchError> {
    let Value::Array(operations) = patch else {
        return Err(PatchError::Malformed("a JSON patch is a list of operations".to_owned()));
    };
    if operations.len() > OPERATIONS_LIMIT {
        let why = format!("a JSON patch has at most {OPERATIONS_LIMIT} operations");
        return Err(PatchError::Malformed(why));
    }
    let mut result = document.clone();
    let mut copied = 0;
    for (index, operation) in operations.iter().enumerate() {
        let operation = Operation::parse(index, operation)?;
        copied += operation.copies(&mut result);
        if copied > COPIES_LIMIT {
            return Err(operation.misfit(format!("the copies are over {COPIES_LIMIT} bytes")));
        }
        operation.run(&mut result).map_err(|why| operation.misfit(why))?;
        if deeper_than(&result, DEPTH_LIMIT) {
            return Err(operation.misfit(format!("the object is over {DEPTH_LIMIT} levels deep")));
        }
    }
    Ok(result)
}

fn deeper_than(value: &Value, limit: usize) -> bool {
    let deeper = |inside: &Value| limit == 0 || deeper_than(inside, limit - 1);
    match value {
        Value::Object(fields) => fields.values().any(deeper),
        Value::Array(items) => items.iter().any(deeper),
        _ => false,
    }
}

struct Operation<'a> {
    index: usize,
    op: &'a str,
    path: &'a str,
    from: Option<&'a str>,
    value: Option<&'a Value>,
}

impl<'a> Operation<'a> {
    fn parse(index: usize, raw: &'a Value) -> Result<Operation<'a>, PatchError> {
        let text = |field: &str| raw.get(field).and_then(Value::as_str);
        let missing = |field: &str| {
            PatchError::Malformed(format!("operation {index} needs a string in \"{field}\""))
        };
        let operation = Operation {
            index,
            op: text("op").ok_or_else(|| missing("op"))?,
            path: text("path").ok_or_else(|| missing("path"))?,
            from: text("from"),
            value: raw.get("value"),
        };
        let complete = match operation.op {
            "add" | "replace" | "test" => operation.value.is_some(),
            "move" | "copy" => operation.from.is_some(),
            "remove" => true,
            other => {
                let why = format!("operation {index} is \"{other}\", which is none of RFC 6902");
                return Err(PatchError::Malformed(why));
            }
        };
        if complete { Ok(operation) } else { Err(missing("value\" or \"from")) }
    }

    fn run(&self, document: &mut Value) -> Result<(), String> {
        match (self.op, self.value, self.from) {
            ("add", Some(value), _) => add(document, self.path, value.clone()),
            ("replace", Some(value), _) => {
                *find(document, self.path)? = value.clone();
                Ok(())
            }
            ("test", Some(value), _) => {
                let found = find(document, self.path)?;
                if found == value { Ok(()) } else { Err(format!("the value is {found}")) }
            }
            ("remove", _, _) => remove(document, self.path).map(drop),
            ("copy", _, Some(from)) => {
                let value = find(document, from)?.clone();
                add(document, self.path, value)
            }
            ("move", _, Some(from)) => {
                if self.path.starts_with(&format!("{from}/")) {
                    return Err("a value cannot move into itself".to_owned());
                }
                let value = remove(document, from)?;
                add(document, self.path, value)
            }
            _ => Err("the operation is incomplete".to_owned()),
        }
    }

    /// How many bytes this operation is going to copy.
    fn copies(&self, document: &mut Value) -> usize {
        match (self.op, self.from) {
            ("copy", Some(from)) => find(document, from).map_or(0, |value| value.to_string().len()),
            _ => 0,
        }
    }

    fn misfit(&self, why: String) -> PatchError {
        let (op, path) = (self.op.to_owned(), self.path.to_owned());
        PatchError::DoesNotFit { index: self.index, op, path, why }
    }
}

fn tokens(pointer: &str) -> Result<Vec<String>, String> {
    if pointer.is_empty() {
        return Ok(Vec::new());
    }
    let rest = pointer
        .strip_prefix('/')
        .ok_or_else(|| format!("the pointer {pointer} does not begin with a slash"))?;
    Ok(rest.split('/').map(|token| token.replace("~1", "/").replace("~0", "~")).collect())
}

fn position(token: &str, limit: usize) -> Result<usize, String> {
    let plain = token == "0" || !token.starts_with(['0', '+']);
    match token.parse::<usize>() {
        Ok(index) if plain && index < limit => Ok(index),
        _ => Err(format!("{token} is no position in a list of this length")),
    }
}

fn step<'a>(value: &'a mut Value, token: &str) -> Result<&'a mut Value, String> {
    match value {
        Value::Object(fields) => {
            fields.get_mut(token).ok_or_else(|| format!("there is no field {token}"))
        }
        Value::Array(items) => {
            let index = position(token, items.len())?;
            Ok(&mut items[index])
        }
        _ => Err(format!("{token} is looked for in a plain value")),
    }
}

fn find<'a>(document: &'a mut Value, pointer: &str) -> Result<&'a mut Value, String> {
    tokens(pointer)?.iter().try_fold(document, |value, token| step(value, token))
}

fn parent<'a>(
    document: &'a mut Value,
    pointer: &str,
) -> Result<Option<(&'a mut Value, String)>, String> {
    let mut path = tokens(pointer)?;
    let Some(last) = path.pop() else {
        return Ok(None);
    };
    let holder = path.iter().try_fold(document, |value, token| step(value, token))?;
    Ok(Some((holder, last)))
}

fn add(document: &mut Value, pointer: &str, value: Value) -> Result<(), String> {
    match parent(document, pointer)? {
        None => *document = value,
        Some((Value::Object(fields), last)) => {
            fields.insert(last, value);
        }
        Some((Value::Array(items), last)) if last == "-" => items.push(value),
        Some((Value::Array(items), last)) => {
            let index = position(&last, items.len() + 1)?;
            items.insert(index, value);
        }
        Some((_, last)) => return Err(format!("{last} cannot be added to a plain value")),
    }
    Ok(())
}

fn remove(document: &mut Value, pointer: &str) -> Result<Value, String> {
    match parent(document, pointer)? {
        None => Err("the whole object cannot be removed".to_owned()),
        Some((Value::Object(fields), last)) => {
            fields.remove(&last).ok_or_else(|| format!("there is no field {last}"))
        }
        Some((Value::Array(items), last)) => {
            let index = position(&last, items.len())?;
            Ok(items.remove(index))
        }
        Some((_, last)) => Err(format!("{last} is looked for in a plain value")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn merge_patches() {
        let cases = [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b", "c": 1}), json!({"a": null}), json!({"c": 1})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (
                json!({"a": {"b": "c"}}),
                json!({"a": {"b": "d", "c": null}}),
                json!({"a": {"b": "d"}}),
            ),
            (json!({"a": [{"b": 1}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!({"a": "b"}), json!(["c"]), json!(["c"])),
            (json!({}), json!({"a": {"b": {"c": null}}}), json!({"a": {"b": {}}})),
            (json!([1, 2]), json!({"a": "b", "c": null}), json!({"a": "b"})),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
        ];
        for (mut target, patch, want) in cases {
            let before = target.clone();
            merge(&mut target, &patch);
            assert_eq!(target, want, "{before} + {patch}");
        }
    }

    #[test]
    fn json_patches_that_fit() {
        let cases = [
            (
                json!({"a": 1}),
                json!([{"op": "add", "path": "/b", "value": 2}]),
                json!({"a": 1, "b": 2}),
            ),
            (
                json!({"a": [1, 3]}),
                json!([{"op": "add", "path": "/a/1", "value": 2}]),
                json!({"a": [1, 2, 3]}),
            ),
            (
                json!({"a": [1]}),
                json!([{"op": "add", "path": "/a/-", "value": 2}]),
                json!({"a": [1, 2]}),
            ),
            (json!({"a": 1}), json!([{"op": "add", "path": "", "value": []}]), json!([])),
            (json!({"a": 1, "b": 2}), json!([{"op": "remove", "path": "/a"}]), json!({"b": 2})),
            (json!({"a": [1, 2]}), json!([{"op": "remove", "path": "/a/0"}]), json!({"a": [2]})),
            (
                json!({"a": 1}),
                json!([{"op": "replace", "path": "/a", "value": null}]),
                json!({"a": null}),
            ),
            (
                json!({"a": {"x": 1}}),
                json!([{"op": "move", "from": "/a/x", "path": "/y"}]),
                json!({"a": {}, "y": 1}),
            ),
            (
                json!({"a": 1}),
                json!([{"op": "copy", "from": "/a", "path": "/b"}]),
                json!({"a": 1, "b": 1}),
            ),
            (
                json!({"a/b": 1, "m~n": 2}),
                json!([{"op": "remove", "path": "/a~1b"}, {"op": "remove", "path": "/m~0n"}]),
                json!({}),
            ),
            (
                json!({"a": 1}),
                json!([{"op": "test", "path": "/a", "value": 1}, {"op": "replace", "path": "/a", "value": 2}]),
                json!({"a": 2}),
            ),
        ];
        for (document, patch, want) in cases {
            assert_eq!(json_patch(&document, &patch), Ok(want), "{document} + {patch}");
        }
    }

    #[test]
    fn json_patches_that_do_not_fit_change_nothing() {
        let cases = [
            json!([{"op": "test", "path": "/a", "value": 2}]),
            json!([{"op": "remove", "path": "/zzz"}]),
            json!([{"op": "replace", "path": "/b/2", "value": 0}]),
            json!([{"op": "add", "path": "/b/01", "value": 0}]),
            json!([{"op": "add", "path": "/b/+1", "value": 0}]),
            json!([{"op": "add", "path": "/b/9", "value": 0}]),
            json!([{"op": "add", "path": "/x/y", "value": 0}]),
            json!([{"op": "move", "from": "/c", "path": "/c/d"}]),
            json!([{"op": "remove", "path": ""}]),
            json!([{"op": "add", "path": "a", "value": 0}]),
        ];
        for patch in cases {
            let result = json_patch(&json!({"a": 1, "b": [1], "c": {}}), &patch);
            assert!(matches!(result, Err(PatchError::DoesNotFit { .. })), "{patch}: {result:?}");
        }
    }

    #[test]
    fn patches_that_grow_without_end_are_stopped() {
        let copy = |index| json!({"op": "copy", "from": "/a", "path": format!("/a/{index}")});
        let doubling = Value::Array((0..60).map(copy).collect());
        let nest = [
            json!({"op": "move", "from": "/a", "path": "/b/a"}),
            json!({"op": "move", "from": "/b", "path": "/a"}),
            json!({"op": "add", "path": "/b", "value": {}}),
        ];
        let nesting = Value::Array(nest.iter().cycle().take(600).cloned().collect());
        for (patch, why) in [(doubling, "bytes"), (nesting, "deep")] {
            let error = json_patch(&json!({"a": {"x": "y"}, "b": {}}), &patch).unwrap_err();
            assert!(error.to_string().contains(why), "{error}");
        }
        let many = Value::Array(vec![nest[2].clone(); OPERATIONS_LIMIT + 1]);
        assert!(json_patch(&json!({}), &many).is_err());
    }

    #[test]
    fn json_patches_that_are_none() {
        for patch in [
            json!({"a": 1}),
            json!([{"op": "add", "path": "/a"}]),
            json!([{"op": "move", "path": "/a"}]),
            json!([{"path": "/a"}]),
            json!([{"op": "increment", "path": "/a"}]),
            json!([7]),
        ] {
            let result = json_patch(&json!({"a": 1}), &patch);
            assert!(matches!(result, Err(PatchError::Malformed(_))), "{patch}: {result:?}");
        }
    }
}
