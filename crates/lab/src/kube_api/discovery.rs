//! What clients ask before they ask for objects: versions, groups and resources. PURE.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::action::Document;
use super::resource::{RESOURCES, Resource, Subresource, Verb, group_version};
use super::status::{Reason, Refusal};

/// The version of Kubernetes whose API this one follows.
const MINOR: &str = "32";

/// The document.
pub(crate) fn document(document: &Document) -> Result<Value, Refusal> {
    match document {
        Document::Version => Ok(version()),
        Document::CoreVersions => Ok(json!({
            "kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [],
        })),
        Document::Groups => {
            let groups: Vec<Value> = groups().into_iter().map(group).collect();
            Ok(json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups }))
        }
        Document::Group(name) if groups().contains(name.as_str()) => {
            let mut document = group(name);
            document["kind"] = json!("APIGroup");
            document["apiVersion"] = json!("v1");
            Ok(document)
        }
        Document::Group(name) => Err(missing(name)),
        Document::Resources { group, version } => resources(group, version),
    }
}

fn missing(what: &str) -> Refusal {
    // A 404 here means "no such group" to every client: nothing to confuse it with.
    Refusal::new(Reason::NotFound, format!("there is no API {what} here"))
}

fn version() -> Value {
    json!({
        "major": "1", "minor": MINOR, "gitVersion": format!("v1.{MINOR}.0-sluice.lab"),
        "gitCommit": "", "gitTreeState": "", "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "", "compiler": "rustc", "platform": "linux",
    })
}

fn groups() -> BTreeSet<&'static str> {
    RESOURCES.iter().map(|resource| resource.group).filter(|group| !group.is_empty()).collect()
}

fn group(name: &str) -> Value {
    let versions: BTreeSet<&str> =
        RESOURCES.iter().filter(|r| r.group == name).map(|r| r.version).collect();
    let versions: Vec<Value> = versions
        .into_iter()
        .map(|v| json!({ "groupVersion": group_version(name, v), "version": v }))
        .collect();
    json!({ "name": name, "preferredVersion": versions.first(), "versions": versions })
}

fn resources(group: &str, version: &str) -> Result<Value, Refusal> {
    let served: Vec<&Resource> =
        RESOURCES.iter().filter(|r| r.group == group && r.version == version).collect();
    if served.is_empty() {
        return Err(missing(&group_version(group, version)));
    }
    let entries: Vec<Value> = served
        .into_iter()
        .flat_map(|resource| {
            let below = resource.subresources.iter().map(|sub| subresource(resource, sub));
            std::iter::once(entry(resource)).chain(below).collect::<Vec<_>>()
        })
        .collect();
    Ok(json!({
        "kind": "APIResourceList", "apiVersion": "v1",
        "groupVersion": group_version(group, version), "resources": entries,
    }))
}

fn words(verbs: &[Verb]) -> Vec<&'static str> {
    verbs.iter().map(|verb| verb.word()).collect()
}

fn entry(resource: &Resource) -> Value {
    let mut entry = json!({
        "name": resource.plural, "singularName": resource.singular, "kind": resource.kind,
        "namespaced": resource.namespaced(), "verbs": words(resource.verbs),
    });
    if !resource.short_names.is_empty() {
        entry["shortNames"] = json!(resource.short_names);
    }
    entry
}

fn subresource(resource: &Resource, sub: &Subresource) -> Value {
    let mut entry = json!({
        "name": format!("{}/{}", resource.plural, sub.name), "singularName": "", "kind": sub.kind,
        "namespaced": resource.namespaced(), "verbs": words(sub.verbs),
    });
    if let Some((group, version)) = sub.group_version {
        entry["group"] = json!(group);
        entry["version"] = json!(version);
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn discovery_lists_the_table() {
        let groups = document(&Document::Groups).unwrap();
        let names: Vec<_> =
            groups["groups"].as_array().unwrap().iter().map(|g| &g["name"]).collect();
        assert_eq!(
            names,
            ["authentication.k8s.io", "discovery.k8s.io", "events.k8s.io", "security.istio.io"]
        );

        let core = resources("", "v1").unwrap();
        let pods = &core["resources"][0];
        assert_eq!(pods["name"], "pods");
        assert_eq!(pods["shortNames"], json!(["po"]));
        assert!(pods["verbs"].as_array().unwrap().contains(&json!("watch")));
        assert_eq!(core["resources"][1]["name"], "pods/status");
        assert!(resources("apps", "v1").is_err());
    }
}
