//! Sets of fields of an object, in the notation of `managedFields` (FieldsV1): `f:name` is a
//! field, `k:{"name":"app"}` an item of a keyed list, `v:"x"` a value in a set. PURE.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::schema::{ListKind, Types, key_default, list_kind};

/// The way from the top of an object to one field.
pub(crate) type Path = Vec<String>;
/// Some fields of an object.
pub(crate) type FieldSet = BTreeSet<Path>;

/// What the server fills in by itself; nobody owns it.
const SERVER_METADATA: [&str; 10] = [
    "name",
    "generateName",
    "namespace",
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "generation",
    "managedFields",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
];

/// The leaves of an object and their values: what managers can own. An item of a keyed list is
/// a leaf too (with the value null), beside its own fields.
pub(crate) fn leaves(object: &Value, types: Types) -> BTreeMap<Path, Value> {
    let mut found = BTreeMap::new();
    let Some(fields) = object.as_object() else {
        return found;
    };
    for (key, value) in fields {
        match (key.as_str(), value) {
            ("apiVersion" | "kind", _) => {}
            ("metadata", Value::Object(metadata)) => {
                for (key, value) in metadata {
                    if !SERVER_METADATA.contains(&key.as_str()) {
                        let mut path = vec!["f:metadata".to_owned()];
                        enter(key, value, types, &mut path, &mut found);
                    }
                }
            }
            _ => enter(key, value, types, &mut Vec::new(), &mut found),
        }
    }
    found
}

fn enter(
    key: &str,
    value: &Value,
    types: Types,
    path: &mut Path,
    found: &mut BTreeMap<Path, Value>,
) {
    path.push(format!("f:{key}"));
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (key, value) in fields {
                enter(key, value, types, path, found);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            enter_list(key, items, types, path, found);
        }
        _ => {
            found.insert(path.clone(), value.clone());
        }
    }
    path.pop();
}

fn enter_list(
    field: &str,
    items: &[Value],
    types: Types,
    path: &mut Path,
    found: &mut BTreeMap<Path, Value>,
) {
    let kind = list_kind(types, field);
    let segments: Option<Vec<String>> = items.iter().map(|item| segment(kind, item)).collect();
    let Some(segments) = segments else {
        found.insert(path.clone(), Value::Array(items.to_vec()));
        return;
    };
    for (item, segment) in items.iter().zip(segments) {
        path.push(segment);
        found.insert(path.clone(), Value::Null);
        for (key, value) in item.as_object().into_iter().flatten() {
            enter(key, value, types, path, found);
        }
        path.pop();
    }
}

/// How an item of a list is named in a path; `None` where the list is one value.
pub(crate) fn segment(kind: ListKind, item: &Value) -> Option<String> {
    match kind {
        ListKind::Atomic => None,
        ListKind::Set => Some(format!("v:{item}")),
        ListKind::Keyed(keys) => {
            let mut name = Map::new();
            for key in keys {
                let value = item.get(key).cloned().or(key_default(key).map(Value::from))?;
                name.insert((*key).to_owned(), value);
            }
            Some(format!("k:{}", Value::Object(name)))
        }
    }
}

/// What a write did to the fields of an object.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Comparison {
    pub(crate) set: FieldSet,
    pub(crate) removed: FieldSet,
}

/// The fields that were set or changed, and those that went away.
pub(crate) fn compare(before: Option<&Value>, after: &Value, types: Types) -> Comparison {
    let old = before.map(|object| leaves(object, types)).unwrap_or_default();
    let new = leaves(after, types);
    Comparison {
        set: new.iter().filter(|(p, v)| old.get(*p) != Some(v)).map(|(p, _)| p.clone()).collect(),
        removed: old.into_keys().filter(|path| !new.contains_key(path)).collect(),
    }
}

/// The set as FieldsV1.
pub(crate) fn to_json(set: &FieldSet) -> Value {
    let mut root = Value::Object(Map::new());
    for path in set {
        let mut node = &mut root;
        for segment in path {
            let Value::Object(children) = node else { break };
            node = children.entry(segment.clone()).or_insert_with(|| Value::Object(Map::new()));
        }
        if let Value::Object(children) = node {
            // Marks the item itself; pruned below where nothing else stands beside it.
            children.insert(".".to_owned(), Value::Object(Map::new()));
        }
    }
    prune_marks(&mut root);
    root
}

fn prune_marks(node: &mut Value) {
    let Value::Object(children) = node else {
        return;
    };
    if children.len() == 1 {
        children.remove(".");
    }
    children.values_mut().for_each(prune_marks);
}

/// Reads FieldsV1; what is not of that form is left out.
pub(crate) fn from_json(fields: &Value) -> FieldSet {
    let mut set = FieldSet::new();
    collect(fields, &mut Vec::new(), &mut set);
    set
}

fn collect(node: &Value, path: &mut Path, set: &mut FieldSet) {
    let Value::Object(children) = node else {
        return;
    };
    if children.is_empty() && !path.is_empty() {
        set.insert(path.clone());
    }
    for (segment, child) in children {
        if segment == "." {
            set.insert(path.clone());
            continue;
        }
        path.push(segment.clone());
        collect(child, path, set);
        path.pop();
    }
}

/// The set with each list item in it of which somebody owns a part: such an item stays.
pub(crate) fn with_items(set: &FieldSet) -> FieldSet {
    let mut closed = set.clone();
    for path in set {
        for (end, segment) in path.iter().enumerate() {
            if segment.starts_with("k:") {
                closed.insert(path[..=end].to_vec());
            }
        }
    }
    closed
}

/// Removes the fields from the object, and the maps and lists that this leaves empty.
pub(crate) fn remove(object: &mut Value, set: &FieldSet, types: Types) {
    for path in set {
        remove_path(object, "", path, types);
    }
}

fn remove_path(node: &mut Value, field: &str, path: &[String], types: Types) {
    let Some((head, rest)) = path.split_first() else {
        return;
    };
    match node {
        Value::Object(fields) => {
            let Some(key) = head.strip_prefix("f:") else {
                return;
            };
            let Some(child) = fields.get_mut(key) else {
                return;
            };
            remove_path(child, key, rest, types);
            let emptied = child.as_object().is_some_and(Map::is_empty)
                || child.as_array().is_some_and(Vec::is_empty);
            if rest.is_empty() || emptied {
                fields.remove(key);
            }
        }
        Value::Array(items) => {
            let kind = list_kind(types, field);
            let found = items.iter().position(|item| segment(kind, item).as_ref() == Some(head));
            let Some(index) = found else { return };
            if rest.is_empty() {
                items.remove(index);
            } else {
                remove_path(&mut items[index], field, rest, types);
            }
        }
        _ => {}
    }
}

/// The path as messages show it: `.spec.containers[name="app"].image`.
pub(crate) fn display(path: &Path) -> String {
    let mut text = String::new();
    for segment in path {
        if let Some(field) = segment.strip_prefix("f:") {
            text.push('.');
            text.push_str(field);
        } else if let Some(item) = segment.strip_prefix("k:").or(segment.strip_prefix("v:")) {
            text.push('[');
            text.push_str(item);
            text.push(']');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod() -> Value {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "p", "labels": {"a": "1"}, "finalizers": ["x/y"]},
            "spec": {"containers": [{"name": "app", "args": ["1"], "ports": [{"containerPort": 80}]}]},
        })
    }

    #[test]
    fn leaves_are_written_and_read_as_fields_v1() {
        let set: FieldSet = leaves(&pod(), Types::BuiltIn).into_keys().collect();
        let fields = to_json(&set);
        assert_eq!(
            fields,
            json!({
                "f:metadata": {"f:labels": {"f:a": {}}, "f:finalizers": {"v:\"x/y\"": {}}},
                "f:spec": {"f:containers": {"k:{\"name\":\"app\"}": {
                    ".": {}, "f:name": {}, "f:args": {},
                    "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}},
                }}},
            })
        );
        assert_eq!(from_json(&fields), set);
    }

    #[test]
    fn a_comparison_tells_set_from_removed() {
        let mut after = pod();
        after["metadata"]["labels"] = json!({"b": "2"});
        let comparison = compare(Some(&pod()), &after, Types::BuiltIn);
        let path = |l: &str| vec!["f:metadata".to_owned(), "f:labels".to_owned(), format!("f:{l}")];
        assert_eq!(comparison.set, FieldSet::from([path("b")]));
        assert_eq!(comparison.removed, FieldSet::from([path("a")]));
    }

    #[test]
    fn removing_fields_removes_what_became_empty() {
        let mut object = pod();
        let labels = FieldSet::from([vec!["f:metadata".into(), "f:labels".into(), "f:a".into()]]);
        remove(&mut object, &labels, Types::BuiltIn);
        assert_eq!(object["metadata"], json!({"name": "p", "finalizers": ["x/y"]}));
        let all: FieldSet = leaves(&object, Types::BuiltIn).into_keys().collect();
        remove(&mut object, &all, Types::BuiltIn);
        assert_eq!(object, json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}}));
    }

    #[test]
    fn lists_of_custom_resources_are_one_value() {
        let policy = json!({"spec": {"rules": [{"from": []}]}});
        let paths: Vec<_> = leaves(&policy, Types::Custom).into_keys().collect();
        assert_eq!(paths, vec![vec!["f:spec".to_owned(), "f:rules".to_owned()]]);
    }
}
