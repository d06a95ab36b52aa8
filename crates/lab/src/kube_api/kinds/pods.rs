//! Pods: what is filled in, what must be there, and what may change later.

use serde_json::{Value, json};

use crate::kube_api::meta;
use crate::kube_api::resource::{ALL_VERBS, NameRule, Resource, Scope, StatusWrites, status_of};
use crate::kube_api::schema::Types;
use crate::kube_api::shape::{self, Shape};
use crate::kube_api::status::{Cause, Reason, Refusal};
use crate::kube_api::store::{Key, Store};
use crate::kube_api::table::{AGE, Column, NAME, Row};

use super::service_accounts;

/// What the store files pods under.
pub(crate) const STORAGE: &str = "pods";
/// How long a pod may take to end when nobody says otherwise, in seconds.
const GRACE: i64 = 30;

pub(crate) const PODS: Resource = Resource {
    group: "",
    version: "v1",
    plural: "pods",
    singular: "pod",
    kind: "Pod",
    short_names: &["po"],
    scope: Scope::Namespaced,
    verbs: ALL_VERBS,
    subresources: &[status_of("Pod")],
    storage: STORAGE,
    form: None,
    status: StatusWrites::Subresource,
    names: NameRule::Subdomain,
    types: Types::BuiltIn,
    fields: &["spec.nodeName", "status.phase"],
    columns: COLUMNS,
    defaults,
    check,
    check_change,
    admit,
};

fn defaults(pod: &mut Value) {
    pod["status"] = json!({ "phase": "Pending" });
    let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) else {
        return;
    };
    let account = spec.get("serviceAccount").cloned().unwrap_or_else(|| json!("default"));
    meta::default_field(spec, "serviceAccountName", account);
    meta::default_field(spec, "restartPolicy", "Always");
    meta::default_field(spec, "dnsPolicy", "ClusterFirst");
    meta::default_field(spec, "terminationGracePeriodSeconds", GRACE);
}

const CONTAINER: Shape = Shape::Open(&[
    ("name", Shape::Text),
    ("image", Shape::Text),
    ("env", Shape::List(&Shape::Open(&[("name", Shape::Text)]))),
    ("ports", Shape::List(&Shape::Open(&[("containerPort", Shape::Port)]))),
    ("args", Shape::Texts),
    ("command", Shape::Texts),
]);

const SHAPE: Shape = Shape::Open(&[
    (
        "spec",
        Shape::Open(&[
            ("containers", Shape::List(&CONTAINER)),
            ("initContainers", Shape::List(&CONTAINER)),
            ("nodeName", Shape::Text),
            ("serviceAccountName", Shape::Text),
            ("hostNetwork", Shape::Flag),
            ("nodeSelector", Shape::TextMap),
            ("terminationGracePeriodSeconds", Shape::Number),
        ]),
    ),
    (
        "status",
        Shape::Open(&[
            ("phase", Shape::OneOf(&["Pending", "Running", "Succeeded", "Failed", "Unknown"])),
            ("podIP", Shape::Text),
            ("hostIP", Shape::Text),
            ("podIPs", Shape::List(&Shape::Open(&[("ip", Shape::Text)]))),
            ("conditions", Shape::List(&Shape::Open(&[("type", Shape::Text)]))),
            ("containerStatuses", Shape::List(&Shape::Open(&[("name", Shape::Text)]))),
        ]),
    ),
]);

fn check(pod: &Value) -> Vec<Cause> {
    let mut causes = shape::check(&SHAPE, pod);
    let containers = pod.pointer("/spec/containers").and_then(Value::as_array);
    let containers = containers.map(Vec::as_slice).unwrap_or_default();
    if containers.is_empty() {
        causes.push(Cause::required("spec.containers", "at least one container is needed"));
    }
    for (index, container) in containers.iter().enumerate() {
        for field in ["name", "image"] {
            if container[field].as_str().unwrap_or_default().is_empty() {
                let field = format!("spec.containers[{index}].{field}");
                causes.push(Cause::required(field, "must not be empty"));
            }
        }
        if containers[..index].iter().any(|other| other["name"] == container["name"]) {
            let field = format!("spec.containers[{index}].name");
            causes.push(Cause::invalid(field, "is the name of an earlier container too"));
        }
    }
    causes
}

/// A pod's spec is what was scheduled: only images, tolerations and two deadlines may change.
fn check_change(old: &Value, new: &Value) -> Vec<Cause> {
    let fixed = |pod: &Value| {
        let mut spec = pod["spec"].clone();
        if let Some(fields) = spec.as_object_mut() {
            for field in ["tolerations", "activeDeadlineSeconds", "terminationGracePeriodSeconds"] {
                fields.remove(field);
            }
        }
        for list in ["containers", "initContainers"] {
            let containers = spec.get_mut(list).and_then(Value::as_array_mut);
            containers.into_iter().flatten().filter_map(Value::as_object_mut).for_each(|c| {
                c.remove("image");
            });
        }
        spec
    };
    if fixed(old) == fixed(new) {
        return Vec::new();
    }
    let why = "only images, tolerations, activeDeadlineSeconds and \
               terminationGracePeriodSeconds of a pod may change";
    vec![Cause::forbidden("spec", why)]
}

/// As in a cluster, a pod of an unknown service account is not let in.
fn admit(store: &Store, namespace: &str, pod: &mut Value) -> Result<(), Refusal> {
    let account = meta::text(pod, "/spec/serviceAccountName");
    let key = Key {
        storage: service_accounts::STORAGE,
        namespace: namespace.to_owned(),
        name: account.to_owned(),
    };
    if store.get(&key).is_some() {
        return Ok(());
    }
    let name = meta::name(pod);
    let why = format!(
        "pod \"{name}\" is for service account {namespace}/{account}, which does not exist"
    );
    Err(Refusal::new(Reason::Forbidden, why).about(&PODS, name))
}

/// How long the pod may take to end, in seconds: 0 means that it is gone at once.
pub(crate) fn grace(pod: &Value, asked: Option<i64>) -> i64 {
    let scheduled = !meta::text(pod, "/spec/nodeName").is_empty();
    let ended = ["Succeeded", "Failed"].contains(&meta::text(pod, "/status/phase"));
    if !scheduled || ended {
        // Nobody runs it, so nobody would report that it ended.
        return 0;
    }
    let own = pod.pointer("/spec/terminationGracePeriodSeconds").and_then(Value::as_i64);
    asked.or(own).unwrap_or(GRACE).max(0)
}

const COLUMNS: &[Column] = &[
    NAME,
    Column::text("Ready", 0, ready),
    Column::text("Status", 0, status),
    Column::text("Restarts", 0, restarts),
    AGE,
    Column::text("IP", 1, |row| or_none(meta::text(row.object, "/status/podIP"))),
    Column::text("Node", 1, |row| or_none(meta::text(row.object, "/spec/nodeName"))),
];

fn or_none(text: &str) -> Value {
    if text.is_empty() { json!("<none>") } else { json!(text) }
}

fn container_statuses(pod: &Value) -> impl Iterator<Item = &Value> {
    pod.pointer("/status/containerStatuses").and_then(Value::as_array).into_iter().flatten()
}

fn ready(row: &Row) -> Value {
    let all = row.object.pointer("/spec/containers").and_then(Value::as_array).map_or(0, Vec::len);
    let ready = container_statuses(row.object).filter(|status| status["ready"] == true).count();
    json!(format!("{ready}/{all}"))
}

fn status(row: &Row) -> Value {
    if meta::is_terminating(row.object) {
        return json!("Terminating");
    }
    let waiting = container_statuses(row.object)
        .find_map(|status| status.pointer("/state/waiting/reason").and_then(Value::as_str));
    let reason = meta::text(row.object, "/status/reason");
    let phase = meta::text(row.object, "/status/phase");
    json!(waiting.unwrap_or(if reason.is_empty() { phase } else { reason }))
}

fn restarts(row: &Row) -> Value {
    let counts = container_statuses(row.object).filter_map(|s| s["restartCount"].as_i64());
    json!(counts.sum::<i64>().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Value {
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a", "image": "i"}]}})
    }

    #[test]
    fn a_malformed_pod_is_refused_by_field() {
        let cases = [
            (json!({}), "spec.containers"),
            (json!({"spec": {"containers": []}}), "spec.containers"),
            (json!({"spec": {"containers": [{"image": "i"}]}}), "spec.containers[0].name"),
            (json!({"spec": {"containers": [{"name": "a"}]}}), "spec.containers[0].image"),
            (
                json!({"spec": {"containers": [{"name": "a", "image": 7}]}}),
                "spec.containers[0].image",
            ),
            (json!({"spec": {"containers": "a"}}), "spec.containers"),
            (json!({"spec": 7}), "spec"),
        ];
        for (pod, field) in cases {
            let causes = check(&pod);
            assert!(causes.iter().any(|c| c.field == field), "{pod}: {causes:?}");
        }
        assert_eq!(check(&pod()), []);
    }

    #[test]
    fn only_images_may_change() {
        let mut new = pod();
        new["spec"]["containers"][0]["image"] = json!("i:2");
        assert_eq!(check_change(&pod(), &new), []);
        new["spec"]["nodeName"] = json!("n1");
        assert_eq!(check_change(&pod(), &new)[0].field, "spec");
    }

    #[test]
    fn grace_is_for_pods_that_somebody_runs() {
        let mut running = pod();
        assert_eq!(grace(&running, Some(9)), 0);
        running["spec"]["nodeName"] = json!("n1");
        assert_eq!(grace(&running, None), 30);
        assert_eq!(grace(&running, Some(9)), 9);
        running["spec"]["terminationGracePeriodSeconds"] = json!(5);
        assert_eq!(grace(&running, None), 5);
        running["status"] = json!({"phase": "Succeeded"});
        assert_eq!(grace(&running, None), 0);
    }
}
