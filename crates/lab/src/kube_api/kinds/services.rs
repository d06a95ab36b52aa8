//! Services: which addresses they get, and what may change later.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde_json::{Map, Value, json};

use crate::kube_api::meta;
use crate::kube_api::resource::{ALL_VERBS, NameRule, Resource, Scope, StatusWrites, status_of};
use crate::kube_api::schema::Types;
use crate::kube_api::shape::{self, Shape};
use crate::kube_api::status::{Cause, Refusal};
use crate::kube_api::store::Store;
use crate::kube_api::table::{AGE, Column, NAME, Row};

/// What the store files services under.
pub(crate) const STORAGE: &str = "services";
/// The address of a service that has none.
pub(crate) const HEADLESS: &str = "None";

pub(crate) const SERVICES: Resource = Resource {
    group: "",
    version: "v1",
    plural: "services",
    singular: "service",
    kind: "Service",
    short_names: &["svc"],
    scope: Scope::Namespaced,
    verbs: ALL_VERBS,
    subresources: &[status_of("Service")],
    storage: STORAGE,
    form: None,
    status: StatusWrites::Subresource,
    names: NameRule::Label,
    types: Types::Services,
    fields: &["spec.type", "spec.clusterIP"],
    columns: COLUMNS,
    defaults,
    check,
    check_change,
    admit: give_addresses,
};

fn defaults(service: &mut Value) {
    service["status"] = json!({ "loadBalancer": {} });
    let spec = meta::map_mut(meta::map_mut(service).entry("spec").or_insert(Value::Null));
    meta::default_field(spec, "type", "ClusterIP");
    meta::default_field(spec, "sessionAffinity", "None");
    if spec["type"] != "ExternalName" {
        meta::default_field(spec, "internalTrafficPolicy", "Cluster");
    }
    let ports = spec.get_mut("ports").and_then(Value::as_array_mut);
    for port in ports.into_iter().flatten().filter_map(Value::as_object_mut) {
        meta::default_field(port, "protocol", "TCP");
        let number = port.get("port").cloned().unwrap_or(Value::Null);
        meta::default_field(port, "targetPort", number);
    }
}

const PORT: Shape = Shape::Open(&[
    ("name", Shape::Text),
    ("port", Shape::Port),
    ("protocol", Shape::OneOf(&["TCP", "UDP", "SCTP"])),
]);

const SHAPE: Shape = Shape::Open(&[(
    "spec",
    Shape::Open(&[
        ("type", Shape::OneOf(&["ClusterIP", "ExternalName", "NodePort", "LoadBalancer"])),
        ("clusterIP", Shape::Text),
        ("clusterIPs", Shape::Texts),
        ("ipFamilies", Shape::List(&Shape::OneOf(&["IPv4", "IPv6"]))),
        ("ipFamilyPolicy", Shape::OneOf(&["SingleStack", "PreferDualStack", "RequireDualStack"])),
        ("selector", Shape::TextMap),
        ("ports", Shape::List(&PORT)),
        ("publishNotReadyAddresses", Shape::Flag),
        ("internalTrafficPolicy", Shape::OneOf(&["Cluster", "Local"])),
        ("trafficDistribution", Shape::OneOf(&["PreferClose", "PreferSameZone", "PreferSameNode"])),
    ]),
)]);

fn check(service: &Value) -> Vec<Cause> {
    let mut causes = shape::check(&SHAPE, service);
    if ["NodePort", "LoadBalancer"].contains(&meta::text(service, "/spec/type")) {
        causes.push(Cause::invalid("spec.type", "is not offered by the lab"));
    }
    let ports = ports(service);
    let headless = meta::text(service, "/spec/clusterIP") == HEADLESS;
    if ports.is_empty() && !headless && meta::text(service, "/spec/type") != "ExternalName" {
        causes.push(Cause::required("spec.ports", "at least one port is needed"));
    }
    for (index, port) in ports.iter().enumerate() {
        let field = |name: &str| format!("spec.ports[{index}].{name}");
        if port["port"].is_null() {
            causes.push(Cause::required(field("port"), "must not be empty"));
        }
        if ports.len() > 1 && port["name"].as_str().unwrap_or_default().is_empty() {
            causes.push(Cause::required(field("name"), "several ports need names"));
        }
        let target = &port["targetPort"];
        if !target.is_string() && !target.as_u64().is_some_and(|it| (1..=65535).contains(&it)) {
            causes.push(Cause::invalid(field("targetPort"), "must be a port number or a name"));
        }
    }
    causes
}

pub(crate) fn ports(service: &Value) -> &[Value] {
    let ports = service.pointer("/spec/ports").and_then(Value::as_array);
    ports.map(Vec::as_slice).unwrap_or_default()
}

/// A service keeps its addresses: who has resolved its name goes on using them.
fn check_change(old: &Value, new: &Value) -> Vec<Cause> {
    let fixed = ["clusterIP", "clusterIPs"].into_iter();
    let changed = fixed.filter(|field| old["spec"][field] != new["spec"][field]);
    changed.map(|field| Cause::invalid(format!("spec.{field}"), "cannot be changed")).collect()
}

/// Settles families and addresses of a new service. The ranges of the cluster are in the
/// order in which a service prefers them.
fn give_addresses(store: &Store, _: &str, service: &mut Value) -> Result<(), Refusal> {
    let name = meta::name(service).to_owned();
    let invalid = |field: &str, why: String| {
        Refusal::invalid(&SERVICES, &name, vec![Cause::invalid(format!("spec.{field}"), why)])
    };
    let spec = meta::map_mut(meta::map_mut(service).entry("spec").or_insert(Value::Null));
    if spec.get("type").is_some_and(|kind| kind == "ExternalName") {
        return Ok(());
    }
    let ranges = ranges(store, spec).map_err(|why| invalid("ipFamilies", why))?;
    let asked = asked(spec);
    let families = ranges.iter().map(|range| if range.is_ipv4() { "IPv4" } else { "IPv6" });
    let addresses = if asked.iter().any(|text| text == HEADLESS) {
        vec![HEADLESS.to_owned()]
    } else {
        let taken = taken(store);
        let given = ranges.iter().enumerate().map(|(index, range)| match asked.get(index) {
            Some(text) => chosen(text, *range, &taken),
            None => free(*range, &taken),
        });
        let given: Result<Vec<_>, _> = given.collect();
        given.map_err(|why| invalid("clusterIPs", why))?
    };
    let policy = if ranges.len() > 1 { "RequireDualStack" } else { "SingleStack" };
    let families: Vec<_> = families.collect();
    meta::default_field(spec, "ipFamilyPolicy", policy);
    spec.insert("ipFamilies".to_owned(), json!(families));
    spec.insert("clusterIP".to_owned(), json!(addresses[0]));
    spec.insert("clusterIPs".to_owned(), json!(addresses));
    Ok(())
}

fn asked(spec: &Map<String, Value>) -> Vec<String> {
    let texts = |value: &Value| value.as_str().map(str::to_owned);
    let many = spec.get("clusterIPs").and_then(Value::as_array);
    let mut asked: Vec<_> = many.into_iter().flatten().filter_map(texts).collect();
    if asked.is_empty() {
        asked.extend(spec.get("clusterIP").and_then(texts).filter(|text| !text.is_empty()));
    }
    asked
}

/// The ranges that this service gets addresses of.
fn ranges(store: &Store, spec: &Map<String, Value>) -> Result<Vec<IpNetwork>, String> {
    let all = store.service_ranges();
    let named = spec.get("ipFamilies").and_then(Value::as_array).filter(|list| !list.is_empty());
    let mut ranges = Vec::new();
    for family in named.into_iter().flatten() {
        let range = all.iter().find(|range| range.is_ipv4() == (family == "IPv4"));
        ranges.push(*range.ok_or_else(|| format!("the cluster has no {family} addresses"))?);
    }
    if ranges.is_empty() {
        ranges.extend(all.first());
    }
    let policy = spec.get("ipFamilyPolicy").and_then(Value::as_str).unwrap_or_default();
    if ["PreferDualStack", "RequireDualStack"].contains(&policy) {
        let more: Vec<_> = all.iter().filter(|range| !ranges.contains(range)).copied().collect();
        ranges.extend(more);
    }
    if policy == "RequireDualStack" && ranges.len() < 2 {
        return Err("the cluster has addresses of one family only".to_owned());
    }
    if ranges.is_empty() {
        return Err("the cluster has no range of service addresses".to_owned());
    }
    Ok(ranges)
}

fn taken(store: &Store) -> BTreeSet<IpAddr> {
    let services = store.objects(STORAGE, None).map(|(_, service)| service);
    let addresses = services.filter_map(|it| it.pointer("/spec/clusterIPs")?.as_array());
    addresses.flatten().filter_map(|text| text.as_str()?.parse().ok()).collect()
}

fn chosen(text: &str, range: IpNetwork, taken: &BTreeSet<IpAddr>) -> Result<String, String> {
    let address: IpAddr = text.parse().map_err(|_| format!("{text:?} is not an address"))?;
    if !range.contains(address) {
        return Err(format!("{text} is not in the range {range}"));
    }
    if taken.contains(&address) {
        return Err(format!("{text} is another service's"));
    }
    Ok(address.to_string())
}

/// The first address is the network's own.
fn free(range: IpNetwork, taken: &BTreeSet<IpAddr>) -> Result<String, String> {
    let free = range.iter().skip(1).find(|address| !taken.contains(address));
    free.map(|address| address.to_string()).ok_or_else(|| format!("range {range} is used up"))
}

const COLUMNS: &[Column] = &[
    NAME,
    Column::text("Type", 0, |row| meta::text(row.object, "/spec/type").into()),
    Column::text("Cluster-IP", 0, |row| or_none(meta::text(row.object, "/spec/clusterIP"))),
    Column::text("External-IP", 0, |row| or_none(meta::text(row.object, "/spec/externalName"))),
    Column::text("Port(s)", 0, port_list),
    AGE,
];

fn or_none(text: &str) -> Value {
    json!(if text.is_empty() { "<none>" } else { text })
}

fn port_list(row: &Row) -> Value {
    let text = |port: &Value| format!("{}/{}", port["port"], meta::text(port, "/protocol"));
    let all: Vec<_> = ports(row.object).iter().map(text).collect();
    or_none(&all.join(","))
}
