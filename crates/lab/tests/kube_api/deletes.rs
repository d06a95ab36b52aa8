//! Deletions: at once, gracefully, with conditions, of namespaces and of many objects.

use http::Method;
use serde_json::{Value, json};

use crate::client::*;

async fn delete_with(api: &Api, path: &str, body: Value) -> (u16, Value) {
    api.call(Method::DELETE, path, body.to_string().as_bytes(), "application/json").await
}

#[tokio::test]
async fn a_pod_with_a_node_goes_when_its_kubelet_says_so() {
    let api = Api::start().await;
    let path = format!("{PODS}/web");
    api.create(PODS, &on_node("web", "n1")).await;
    let (code, going) = api.delete(&path).await;
    assert_eq!((code, &going["kind"]), (200, &json!("Pod")));
    assert_eq!(going["metadata"]["deletionGracePeriodSeconds"], 30);
    assert!(going["metadata"]["deletionTimestamp"].is_string());
    let (_, again) = api.delete(&path).await;
    assert_eq!(again["metadata"]["resourceVersion"], going["metadata"]["resourceVersion"]);
    let (_, sooner) = delete_with(&api, &path, json!({"gracePeriodSeconds": 5})).await;
    assert_eq!(sooner["metadata"]["deletionGracePeriodSeconds"], 5);
    let (code, gone) = api.delete(&format!("{path}?gracePeriodSeconds=0")).await;
    assert_eq!((code, &gone["status"]), (200, &json!("Success")));
    assert_eq!(gone["details"]["uid"], going["metadata"]["uid"]);
    assert_eq!(api.get(&path).await.0, 404);
    assert_eq!(api.delete(&path).await.0, 404);
}

#[tokio::test]
async fn a_pod_without_a_node_goes_at_once() {
    let api = Api::start().await;
    api.create(PODS, &pod("web")).await;
    api.delete(&format!("{PODS}/web")).await;
    assert_eq!(api.get(&format!("{PODS}/web")).await.0, 404);
}

#[tokio::test]
async fn preconditions_are_kept() {
    let api = Api::start().await;
    let path = format!("{PODS}/web");
    let created = api.create(PODS, &pod("web")).await;
    for precondition in [json!({"uid": "other"}), json!({"resourceVersion": "1"})] {
        let (code, refused) =
            delete_with(&api, &path, json!({"preconditions": precondition})).await;
        assert_eq!((code, &refused["reason"]), (409, &json!("Conflict")));
    }
    let right = json!({"preconditions": {"uid": created["metadata"]["uid"]}});
    assert_eq!(delete_with(&api, &path, right).await.0, 200);
}

#[tokio::test]
async fn finalizers_hold_an_object() {
    let api = Api::start().await;
    let path = "/api/v1/namespaces/default/serviceaccounts";
    let account = json!({"metadata": {"name": "a", "finalizers": ["sluice.dev/wait"]}});
    api.create(path, &account).await;
    let one = format!("{path}/a");
    let (_, held) = api.delete(&one).await;
    assert!(held["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(api.get(&one).await.0, 200);
    let (code, _) = api.patch(&one, MERGE, &json!({"metadata": {"finalizers": null}})).await;
    assert_eq!(code, 200);
    assert_eq!(api.get(&one).await.0, 404);
}

#[tokio::test]
async fn a_namespace_goes_with_its_content() {
    let api = Api::start().await;
    api.create("/api/v1/namespaces", &json!({"metadata": {"name": "shop"}})).await;
    let pods = "/api/v1/namespaces/shop/pods";
    api.create(pods, &on_node("slow", "n1")).await;
    api.create(pods, &pod("fast")).await;
    let (_, going) = api.delete("/api/v1/namespaces/shop").await;
    assert_eq!(going["status"]["phase"], "Terminating");
    assert_eq!(names(&api.get(pods).await.1), ["slow"]);
    let (code, refused) = api.post(pods, &pod("late")).await;
    assert_eq!((code, &refused["reason"]), (403, &json!("Forbidden")));
    api.delete(&format!("{pods}/slow?gracePeriodSeconds=0")).await;
    assert_eq!(api.get("/api/v1/namespaces/shop").await.0, 404);

    api.create("/api/v1/namespaces", &json!({"metadata": {"name": "empty"}})).await;
    let (_, gone) = api.delete("/api/v1/namespaces/empty").await;
    assert_eq!(gone["status"], "Success");
    assert_eq!(api.get("/api/v1/namespaces/empty/serviceaccounts/default").await.0, 404);
    assert_eq!(api.delete("/api/v1/namespaces/default").await.0, 403);
}

#[tokio::test]
async fn a_collection_is_deleted_by_selector() {
    let api = Api::start().await;
    for (name, app) in [("a", "web"), ("b", "db"), ("c", "web")] {
        api.create(PODS, &labelled(name, app)).await;
    }
    let (code, deleted) = api.delete(&format!("{PODS}?labelSelector=app%3Dweb")).await;
    assert_eq!((code, names(&deleted)), (200, vec!["a", "c"]));
    assert_eq!(names(&api.get(PODS).await.1), ["b"]);
    assert_eq!(api.delete("/api/v1/pods").await.0, 405);
}
