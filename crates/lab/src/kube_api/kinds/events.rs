//! Events: one set of objects, served in the core form and in that of `events.k8s.io`.

use serde_json::{Map, Value, json};

use crate::kube_api::meta;
use crate::kube_api::resource::{
    ALL_VERBS, Form, NameRule, Resource, Scope, StatusWrites, any_change, any_place, no_check,
    no_defaults,
};
use crate::kube_api::schema::Types;
use crate::kube_api::table::{Column, NAME, Row};

pub(crate) const CORE: Resource = Resource {
    group: "",
    version: "v1",
    plural: "events",
    singular: "event",
    kind: "Event",
    short_names: &["ev"],
    scope: Scope::Namespaced,
    verbs: ALL_VERBS,
    subresources: &[],
    storage: "events",
    form: None,
    status: StatusWrites::Plain,
    names: NameRule::Subdomain,
    types: Types::BuiltIn,
    fields: &[
        "involvedObject.kind",
        "involvedObject.name",
        "involvedObject.namespace",
        "involvedObject.uid",
        "reason",
        "type",
    ],
    columns: COLUMNS,
    defaults: no_defaults,
    check: no_check,
    check_change: any_change,
    admit: any_place,
};

pub(crate) const EVENTS_V1: Resource = Resource {
    group: "events.k8s.io",
    form: Some(Form { show, store }),
    fields: &["reason", "type"],
    ..CORE
};

/// Core name, `events.k8s.io` name. Fields not listed have the same name in both.
const RENAMED: [(&str, &str); 7] = [
    ("message", "note"),
    ("involvedObject", "regarding"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

fn show(stored: &Value) -> Value {
    rename(stored, "events.k8s.io/v1", |key| {
        RENAMED.iter().find(|(core, _)| *core == key).map(|(_, new)| *new)
    })
}

fn store(shown: &Value) -> Value {
    rename(shown, "v1", |key| RENAMED.iter().find(|(_, new)| *new == key).map(|(core, _)| *core))
}

fn rename(event: &Value, version: &str, to: impl Fn(&str) -> Option<&'static str>) -> Value {
    let Some(fields) = event.as_object() else {
        return event.clone();
    };
    let renamed = |key: &str| to(key).unwrap_or(key).to_owned();
    let mut event: Map<String, Value> =
        fields.iter().map(|(key, value)| (renamed(key), value.clone())).collect();
    if event.contains_key("apiVersion") {
        event.insert("apiVersion".to_owned(), json!(version));
    }
    Value::Object(event)
}

const COLUMNS: &[Column] = &[
    Column::text("Last Seen", 0, last_seen),
    Column::text("Type", 0, |row| meta::text(row.object, "/type").into()),
    Column::text("Reason", 0, |row| meta::text(row.object, "/reason").into()),
    Column::text("Object", 0, about),
    Column::text("Message", 0, |row| meta::text(row.object, "/message").trim().into()),
    NAME.wide(),
];

fn last_seen(row: &Row) -> Value {
    let times =
        ["/series/lastObservedTime", "/lastTimestamp", "/eventTime", "/metadata/creationTimestamp"];
    let seen = times.iter().find_map(|at| row.object.pointer(at)?.as_str());
    row.age_of(seen.unwrap_or_default())
}

fn about(row: &Row) -> Value {
    let kind = meta::text(row.object, "/involvedObject/kind").to_lowercase();
    json!(format!("{kind}/{}", meta::text(row.object, "/involvedObject/name")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_an_event_hold_the_same() {
        let shown = json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e"},
            "note": "captured", "regarding": {"kind": "Pod", "name": "p"}, "reason": "Captured",
            "reportingController": "sluice", "reportingInstance": "n1", "type": "Normal",
        });
        let stored = store(&shown);
        assert_eq!(stored["message"], "captured");
        assert_eq!(stored["involvedObject"]["name"], "p");
        assert_eq!(stored["apiVersion"], "v1");
        assert_eq!(show(&stored), shown);
    }
}
