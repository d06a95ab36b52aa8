//! Who owns which field, and what server-side apply makes of that. PURE.
//!
//! Every write is recorded in `metadata.managedFields`. An apply says all that its manager
//! wants: fields it stops naming, and that nobody else owns, go away; fields that others own
//! with another value are a conflict unless the apply is forced.

use serde_json::{Map, Value, json};

use super::fields::{self, FieldSet};
use super::schema::{ListKind, Types, list_kind};
use super::status::Cause;

/// Who writes, through which path, when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Manager {
    pub(crate) name: String,
    pub(crate) api_version: String,
    /// Empty, or the subresource written through.
    pub(crate) subresource: &'static str,
    /// RFC 3339.
    pub(crate) time: String,
}

/// Whether an apply may take fields from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Force {
    No,
    Yes,
}

#[derive(Debug, Clone, PartialEq)]
struct Entry {
    manager: Manager,
    operation: String,
    fields: FieldSet,
}

impl Entry {
    fn is(&self, manager: &Manager, operation: &str) -> bool {
        self.manager.name == manager.name
            && self.manager.subresource == manager.subresource
            && self.operation == operation
    }

    fn json(&self) -> Value {
        let mut entry = json!({
            "manager": self.manager.name, "operation": self.operation,
            "apiVersion": self.manager.api_version, "time": self.manager.time,
            "fieldsType": "FieldsV1", "fieldsV1": fields::to_json(&self.fields),
        });
        if !self.manager.subresource.is_empty() {
            entry["subresource"] = json!(self.manager.subresource);
        }
        entry
    }
}

fn entries(object: Option<&Value>) -> Vec<Entry> {
    let list = object.and_then(|o| o.pointer("/metadata/managedFields"));
    list.and_then(Value::as_array).into_iter().flatten().map(read_entry).collect()
}

fn read_entry(raw: &Value) -> Entry {
    let text = |field: &str| raw[field].as_str().unwrap_or_default().to_owned();
    Entry {
        manager: Manager {
            name: text("manager"),
            api_version: text("apiVersion"),
            subresource: if raw["subresource"] == "status" { "status" } else { "" },
            time: text("time"),
        },
        operation: text("operation"),
        fields: fields::from_json(&raw["fieldsV1"]),
    }
}

fn store_entries(object: &mut Value, entries: &[Entry]) {
    let kept: Vec<Value> =
        entries.iter().filter(|entry| !entry.fields.is_empty()).map(Entry::json).collect();
    if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
        if kept.is_empty() {
            metadata.remove("managedFields");
        } else {
            metadata.insert("managedFields".to_owned(), Value::Array(kept));
        }
    }
}

/// Records a create, update or patch: the writer owns what it changed, alone.
pub(crate) fn record_update(
    before: Option<&Value>,
    after: &mut Value,
    manager: &Manager,
    types: Types,
) {
    let change = fields::compare(before, after, types);
    let mut all = entries(before);
    if change != fields::Comparison::default() {
        let gone = |path: &fields::Path| change.set.contains(path) || change.removed.contains(path);
        all.iter_mut().for_each(|entry| entry.fields.retain(|path| !gone(path)));
        take_ownership(&mut all, manager, "Update", |own| {
            own.extend(change.set.iter().cloned());
        });
    }
    store_entries(after, &all);
}

fn take_ownership(
    all: &mut Vec<Entry>,
    manager: &Manager,
    operation: &str,
    change: impl FnOnce(&mut FieldSet),
) {
    let index = all.iter().position(|entry| entry.is(manager, operation)).unwrap_or_else(|| {
        let (manager, operation) = (manager.clone(), operation.to_owned());
        all.push(Entry { manager, operation, fields: FieldSet::new() });
        all.len() - 1
    });
    let own = &mut all[index];
    let before = own.fields.clone();
    change(&mut own.fields);
    if own.fields != before {
        own.manager = manager.clone();
    }
}

/// What the apply of `config` makes of `live`, with `managedFields` brought up to date.
///
/// # Errors
/// One cause for each field that somebody else owns with another value.
pub(crate) fn apply(
    live: Option<&Value>,
    config: &Value,
    manager: &Manager,
    force: Force,
    types: Types,
) -> Result<Value, Vec<Cause>> {
    let wanted: FieldSet = fields::leaves(config, types).into_keys().collect();
    let mut merged = live.cloned().unwrap_or_else(|| Value::Object(Map::new()));
    merge("", &mut merged, config, types);

    let mut all = entries(live);
    let mut contested = fields::compare(live, &merged, types).set;
    contested.retain(|path| wanted.contains(path));
    let is_other = |entry: &&Entry| !entry.is(manager, "Apply");
    if force == Force::No {
        let conflicts: Vec<Cause> = all
            .iter()
            .filter(is_other)
            .flat_map(|entry| {
                entry.fields.intersection(&contested).map(|path| conflict(entry, path))
            })
            .collect();
        if !conflicts.is_empty() {
            return Err(conflicts);
        }
    }
    let others = all.iter().filter(is_other).flat_map(|entry| entry.fields.iter().cloned());
    let kept = fields::with_items(&others.chain(wanted.iter().cloned()).collect());
    let mine = all.iter().find(|entry| entry.is(manager, "Apply")).map(|entry| &entry.fields);
    let abandoned: FieldSet = mine.into_iter().flatten().cloned().collect();
    fields::remove(&mut merged, &abandoned.difference(&kept).cloned().collect(), types);

    for entry in all.iter_mut().filter(|entry| !entry.is(manager, "Apply")) {
        entry.fields.retain(|path| !contested.contains(path));
    }
    take_ownership(&mut all, manager, "Apply", |own| *own = wanted);
    store_entries(&mut merged, &all);
    Ok(merged)
}

fn conflict(entry: &Entry, path: &fields::Path) -> Cause {
    let (name, operation) = (&entry.manager.name, &entry.operation);
    Cause {
        reason: "FieldManagerConflict",
        field: fields::display(path),
        message: format!("owned by \"{name}\" ({operation})"),
    }
}

/// Lays `config` over `target`: maps and keyed lists merge, all else is replaced.
fn merge(field: &str, target: &mut Value, config: &Value, types: Types) {
    match (target, config) {
        (Value::Object(fields), Value::Object(changes)) => {
            for (key, change) in changes.iter().filter(|(_, change)| !change.is_null()) {
                merge(key, fields.entry(key.clone()).or_insert(Value::Null), change, types);
            }
        }
        (Value::Array(items), Value::Array(changes))
            if list_kind(types, field) != ListKind::Atomic =>
        {
            let kind = list_kind(types, field);
            for change in changes {
                let wanted = fields::segment(kind, change);
                match items.iter_mut().find(|item| fields::segment(kind, item) == wanted) {
                    Some(item) => merge(field, item, change, types),
                    None => items.push(change.clone()),
                }
            }
        }
        (target, Value::Object(changes)) => {
            // Nothing to merge with, but nulls inside mean "not there" here too.
            *target = Value::Object(Map::new());
            if !changes.is_empty() {
                merge(field, target, config, types);
            }
        }
        (target, config) => *target = config.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(name: &str) -> Manager {
        Manager {
            name: name.to_owned(),
            api_version: "v1".to_owned(),
            subresource: "",
            time: "2026-01-01T00:00:00Z".to_owned(),
        }
    }

    #[expect(clippy::needless_pass_by_value, reason = "cases are written as values")]
    fn labels(labels: Value) -> Value {
        json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "p", "labels": labels } })
    }

    fn applied(live: Option<&Value>, config: &Value, name: &str) -> Value {
        apply(live, config, &who(name), Force::No, Types::BuiltIn).unwrap()
    }

    fn owners(object: &Value) -> Vec<(String, String)> {
        let names = entries(Some(object)).into_iter();
        names.map(|entry| (entry.manager.name, entry.operation)).collect()
    }

    #[test]
    fn what_a_manager_stops_naming_goes_away() {
        let first = applied(None, &labels(json!({"a": "1", "b": "2"})), "alice");
        let second = applied(Some(&first), &labels(json!({"a": "1"})), "alice");
        assert_eq!(second["metadata"]["labels"], json!({"a": "1"}));
    }

    #[test]
    fn what_another_manager_also_owns_stays() {
        let first = applied(None, &labels(json!({"a": "1", "b": "2"})), "alice");
        let shared = applied(Some(&first), &labels(json!({"b": "2"})), "bob");
        let second = applied(Some(&shared), &labels(json!({"a": "1"})), "alice");
        assert_eq!(second["metadata"]["labels"], json!({"a": "1", "b": "2"}));
        let third = applied(Some(&second), &labels(json!({})), "bob");
        assert_eq!(third["metadata"]["labels"], json!({"a": "1"}));
    }

    #[test]
    fn another_value_for_an_owned_field_is_a_conflict_unless_forced() {
        let first = applied(None, &labels(json!({"a": "1"})), "alice");
        let config = labels(json!({"a": "2"}));
        let causes =
            apply(Some(&first), &config, &who("bob"), Force::No, Types::BuiltIn).unwrap_err();
        assert_eq!(causes.len(), 1);
        assert_eq!(causes[0].field, ".metadata.labels.a");
        assert!(causes[0].message.contains("alice"), "{}", causes[0].message);

        let forced = apply(Some(&first), &config, &who("bob"), Force::Yes, Types::BuiltIn).unwrap();
        assert_eq!(forced["metadata"]["labels"]["a"], "2");
        assert_eq!(owners(&forced), vec![("bob".to_owned(), "Apply".to_owned())]);
    }

    #[test]
    fn an_update_takes_the_fields_it_changed() {
        let first = applied(None, &labels(json!({"a": "1", "b": "2"})), "alice");
        let mut second = first.clone();
        second["metadata"]["labels"] = json!({"a": "changed", "b": "2"});
        record_update(Some(&first), &mut second, &who("kubectl-label"), Types::BuiltIn);
        assert_eq!(owners(&second).len(), 2);
        // Alice no longer owns a: naming it again with another value is a conflict.
        let again = labels(json!({"a": "1", "b": "2"}));
        let causes =
            apply(Some(&second), &again, &who("alice"), Force::No, Types::BuiltIn).unwrap_err();
        assert!(
            causes[0].message.contains("kubectl-label (Update)")
                || causes[0].message.contains("\"kubectl-label\"")
        );
        // And not naming it leaves the other's value.
        let third = applied(Some(&second), &labels(json!({"b": "2"})), "alice");
        assert_eq!(third["metadata"]["labels"], json!({"a": "changed", "b": "2"}));
    }

    #[test]
    fn list_items_are_merged_and_removed_by_key() {
        let pod =
            |containers: Value| json!({ "metadata": {}, "spec": { "containers": containers } });
        let app = json!({"name": "app", "image": "a:1"});
        let log = json!({"name": "log", "image": "l:1"});
        let first = applied(None, &pod(json!([app, log])), "alice");
        let shared = applied(Some(&first), &pod(json!([{"name": "log", "tty": true}])), "bob");
        assert_eq!(
            shared["spec"]["containers"][1],
            json!({"name": "log", "image": "l:1", "tty": true})
        );
        let second = applied(Some(&shared), &pod(json!([app])), "alice");
        assert_eq!(second["spec"]["containers"], json!([app, {"name": "log", "tty": true}]));
        let third = applied(Some(&second), &pod(json!([])), "bob");
        assert_eq!(third["spec"]["containers"], json!([app]));
    }

    #[test]
    fn applying_the_same_again_changes_nothing() {
        let config = labels(json!({"a": "1"}));
        let first = applied(None, &config, "alice");
        let mut later = who("alice");
        later.time = "2027-01-01T00:00:00Z".to_owned();
        let second = apply(Some(&first), &config, &later, Force::No, Types::BuiltIn).unwrap();
        assert_eq!(second, first);
    }

    #[test]
    fn nulls_in_a_configuration_are_not_there() {
        let config = json!({"metadata": {"labels": null, "annotations": {"a": null, "b": "1"}}});
        let object = applied(None, &config, "alice");
        assert_eq!(object["metadata"]["annotations"], json!({"b": "1"}));
        assert_eq!(object["metadata"].get("labels"), None);
    }
}
