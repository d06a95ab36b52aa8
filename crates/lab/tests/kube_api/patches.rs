//! All four kinds of patches over HTTP.

use http::Method;
use serde_json::{Value, json};

use crate::client::*;

#[tokio::test]
async fn each_kind_of_patch_works() {
    let api = Api::start().await;
    let path = format!("{PODS}/web");
    api.create(PODS, &labelled("web", "web")).await;
    let label = |object: &Value| object["metadata"]["labels"]["x"].clone();

    let merge = json!({"metadata": {"labels": {"x": "1"}}});
    assert_eq!(label(&api.patch(&path, MERGE, &merge).await.1), "1");
    let operations = json!([
        {"op": "test", "path": "/metadata/labels/x", "value": "1"},
        {"op": "replace", "path": "/metadata/labels/x", "value": "2"},
    ]);
    assert_eq!(label(&api.patch(&path, JSON_PATCH, &operations).await.1), "2");
    let (code, refused) = api.patch(&path, JSON_PATCH, &operations).await;
    assert_eq!((code, &refused["reason"]), (422, &json!("Invalid")));
    let strategic = json!({
        "metadata": {"labels": {"x": null}},
        "spec": {"containers": [{"name": "app", "image": "app:2"}]},
    });
    let (code, patched) = api.patch(&path, STRATEGIC, &strategic).await;
    assert_eq!((code, label(&patched)), (200, Value::Null));
    assert_eq!(patched["spec"]["containers"], json!([{"name": "app", "image": "app:2"}]));
    assert_eq!(patched["metadata"]["generation"], 2);
}

#[tokio::test]
async fn a_patch_with_a_stale_version_or_uid_is_a_conflict() {
    let api = Api::start().await;
    let path = format!("{PODS}/web");
    let created = api.create(PODS, &pod("web")).await;
    let (_, changed) = api.patch(&path, MERGE, &json!({"metadata": {"labels": {"a": "1"}}})).await;
    for (field, stale) in
        [("resourceVersion", &created["metadata"]["resourceVersion"]), ("uid", &json!("x"))]
    {
        let patch = json!({"metadata": {field: stale, "labels": {"a": "2"}}});
        let (code, refused) = api.patch(&path, MERGE, &patch).await;
        assert_eq!((code, &refused["reason"]), (409, &json!("Conflict")), "{field}");
    }
    let fresh = json!({"metadata": {"resourceVersion": changed["metadata"]["resourceVersion"], "labels": {"a": "2"}}});
    assert_eq!(api.patch(&path, MERGE, &fresh).await.0, 200);
    assert_eq!(api.patch(&format!("{PODS}/none"), MERGE, &fresh).await.0, 404);
}

fn config(labels: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": labels}})
}

#[tokio::test]
async fn server_side_apply_creates_shares_removes_and_conflicts() {
    let api = Api::start().await;
    let path = |manager: &str| format!("/api/v1/namespaces/shop?fieldManager={manager}");
    let (code, created) = api.patch(&path("a"), APPLY, &config(json!({"x": "1", "y": "1"}))).await;
    assert_eq!(code, 201, "{created}");
    assert_eq!(created["metadata"]["managedFields"][0]["manager"], "a");
    assert_eq!(created["metadata"]["managedFields"][0]["operation"], "Apply");

    let (code, refused) = api.patch(&path("b"), APPLY, &config(json!({"x": "2"}))).await;
    assert_eq!((code, &refused["reason"]), (409, &json!("Conflict")));
    assert_eq!(refused["details"]["causes"][0]["reason"], "FieldManagerConflict");
    assert_eq!(refused["details"]["causes"][0]["field"], ".metadata.labels.x");

    let forced = format!("{}&force=true", path("b"));
    let (code, taken) = api.patch(&forced, APPLY, &config(json!({"x": "2"}))).await;
    assert_eq!((code, &taken["metadata"]["labels"]["x"]), (200, &json!("2")));
    let (_, dropped) = api.patch(&path("a"), APPLY, &config(json!({}))).await;
    assert_eq!(dropped["metadata"]["labels"].get("y"), None);
    assert_eq!(dropped["metadata"]["labels"]["x"], "2");
    let (_, again) = api.patch(&path("a"), APPLY, &config(json!({}))).await;
    assert_eq!(again["metadata"]["resourceVersion"], dropped["metadata"]["resourceVersion"]);
}

#[tokio::test]
async fn server_side_apply_reads_yaml_and_says_what_it_needs() {
    let api = Api::start().await;
    let yaml = b"apiVersion: v1\nkind: Pod\nmetadata:\n  name: web\nspec:\n  containers:\n  - name: app\n    image: app:1\n";
    let path = format!("{PODS}/web");
    let with_manager = format!("{path}?fieldManager=me");
    let (code, created) = api.call(Method::PATCH, &with_manager, yaml, APPLY).await;
    assert_eq!((code, &created["spec"]["containers"][0]["image"]), (201, &json!("app:1")));
    for (path, body, names) in [
        (path.as_str(), &yaml[..], "fieldManager"),
        (&with_manager, b"kind: Pod\n", "apiVersion"),
        (&with_manager, b"{: :", "YAML"),
        (&with_manager, b"apiVersion: v1\nkind: Node\n", "kind"),
    ] {
        let (code, refused) = api.call(Method::PATCH, path, body, APPLY).await;
        assert_eq!(code, 400, "{refused}");
        assert!(refused["message"].as_str().unwrap().contains(names), "{refused}");
    }
}

#[tokio::test]
async fn an_annotation_applied_by_metadata_alone_as_kube_rs_does_it() {
    let api = Api::start().await;
    api.create(PODS, &pod("web")).await;
    let body = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"annotations": {"sluice.dev/observed": "captured"}}});
    let request = http::Request::patch(format!("{PODS}/web?&force=true&fieldManager=agent"))
        .header("accept", "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1")
        .header("content-type", APPLY)
        .body(body.to_string().into())
        .unwrap();
    let (code, answer) = whole(api.send(request).await).await;
    assert_eq!((code, &answer["kind"]), (200, &json!("PartialObjectMetadata")));
    assert_eq!(answer["metadata"]["annotations"]["sluice.dev/observed"], "captured");
}

#[tokio::test]
async fn a_kubelet_may_apply_the_status_of_a_pod_it_did_not_create() {
    let api = Api::start().await;
    api.create(PODS, &pod("web")).await;
    let path = format!("{PODS}/web/status?fieldManager=kubelet");
    let status = json!({"phase": "Running", "podIP": "10.0.0.1"});
    let body = json!({"apiVersion": "v1", "kind": "Pod", "status": status});
    let (code, applied) = api.patch(&path, APPLY, &body).await;
    assert_eq!((code, &applied["status"]), (200, &status), "{applied}");
    let managers = applied["metadata"]["managedFields"].as_array().unwrap();
    assert_eq!((managers.len(), &managers[1]["subresource"]), (2, &json!("status")));
}

#[tokio::test]
async fn custom_resources_have_no_strategic_merge() {
    let api = Api::start().await;
    let path = "/apis/security.istio.io/v1/namespaces/default/authorizationpolicies";
    let policy = json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": {"name": "deny"}, "spec": {"action": "DENY", "rules": [{}]},
    });
    api.create(path, &policy).await;
    let one = format!("{path}/deny");
    assert_eq!(api.patch(&one, STRATEGIC, &json!({"spec": {}})).await.0, 415);
    let (code, patched) = api.patch(&one, MERGE, &json!({"spec": {"action": "ALLOW"}})).await;
    assert_eq!((code, &patched["metadata"]["generation"]), (200, &json!(2)));
    let (code, refused) = api.patch(&one, MERGE, &json!({"spec": {"rules": [{"form": []}]}})).await;
    assert_eq!(
        (code, &refused["details"]["causes"][0]["field"]),
        (422, &json!("spec.rules[0].form"))
    );
}
