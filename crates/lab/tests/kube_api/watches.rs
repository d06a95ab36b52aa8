//! Watches.

use std::time::Duration;

use lab::kube_api::Limits;
use serde_json::{Value, json};

use crate::client::*;

fn version(object: &Value) -> &str {
    object["metadata"]["resourceVersion"].as_str().unwrap()
}

fn told(kind: &str, name: &str) -> (String, String) {
    (kind.to_owned(), name.to_owned())
}

#[tokio::test]
async fn a_watch_after_a_list_tells_each_change_once() {
    let api = Api::start().await;
    api.create(PODS, &pod("old")).await;
    let (_, list) = api.get(PODS).await;
    let mut watch =
        api.watch(&format!("{PODS}?watch=true&resourceVersion={}", version(&list))).await;
    api.create(PODS, &pod("new")).await;
    let changed = json!({"metadata": {"labels": {"a": "1"}}});
    let (_, patched) = api.patch(&format!("{PODS}/new"), MERGE, &changed).await;
    api.patch(&format!("{PODS}/new"), MERGE, &changed).await;
    api.create("/api/v1/nodes", &json!({"metadata": {"name": "n1"}})).await;
    api.delete(&format!("{PODS}/new")).await;
    assert_eq!(watch.told().await, told("ADDED", "new"));
    let modified = watch.next().await.unwrap();
    assert_eq!((&modified["type"], &modified["object"]), (&json!("MODIFIED"), &patched));
    let deleted = watch.next().await.unwrap();
    assert_eq!(deleted["type"], "DELETED");
    let (at, before): (u64, u64) =
        (version(&deleted["object"]).parse().unwrap(), version(&patched).parse().unwrap());
    assert!(at > before, "{at} > {before}");
}

#[tokio::test]
async fn a_watch_without_a_version_begins_with_what_is_there() {
    let api = Api::start().await;
    api.create(PODS, &pod("a")).await;
    let mut watch = api.watch("/api/v1/pods?watch=1").await;
    assert_eq!(watch.told().await, told("ADDED", "a"));
    api.create(PODS, &pod("b")).await;
    assert_eq!(watch.told().await, told("ADDED", "b"));
}

#[tokio::test]
async fn selectors_decide_what_is_added_and_deleted() {
    let api = Api::start().await;
    let mut mesh = api.watch("/api/v1/pods?watch=true&labelSelector=mode%3Dambient").await;
    let mut node = api.watch("/api/v1/pods?watch=true&fieldSelector=spec.nodeName%3Dn1").await;
    api.create(PODS, &on_node("elsewhere", "n2")).await;
    api.create(PODS, &on_node("web", "n1")).await;
    let path = format!("{PODS}/web");
    let mode = |value: Value| json!({"metadata": {"labels": {"mode": value}}});
    api.patch(&path, MERGE, &mode(json!("ambient"))).await;
    api.patch(&path, MERGE, &mode(json!(null))).await;
    assert_eq!(mesh.told().await, told("ADDED", "web"));
    let left = mesh.next().await.unwrap();
    assert_eq!(
        (&left["type"], &left["object"]["metadata"]["labels"]["mode"]),
        (&json!("DELETED"), &json!("ambient"))
    );
    for kind in ["ADDED", "MODIFIED", "MODIFIED"] {
        assert_eq!(node.told().await, told(kind, "web"));
    }
}

#[tokio::test]
async fn one_object_can_be_watched() {
    let api = Api::start().await;
    api.create(PODS, &pod("a")).await;
    api.create(PODS, &pod("b")).await;
    let mut watch = api.watch(&format!("{PODS}/b?watch=true")).await;
    assert_eq!(watch.told().await, told("ADDED", "b"));
    api.delete(&format!("{PODS}/a")).await;
    api.delete(&format!("{PODS}/b")).await;
    assert_eq!(watch.told().await, told("DELETED", "b"));
}

#[tokio::test]
async fn a_watch_ends_in_time_with_a_bookmark() {
    let api = Api::start().await;
    let (_, list) = api.get(PODS).await;
    let path = format!(
        "{PODS}?watch=true&allowWatchBookmarks=true&timeoutSeconds=1&resourceVersion={}",
        version(&list)
    );
    let mut watch = api.watch(&path).await;
    // A change of something else moves the version that the watcher may go on from.
    let node = api.create("/api/v1/nodes", &json!({"metadata": {"name": "n1"}})).await;
    let bookmark = watch.next().await.unwrap();
    assert_eq!(
        (&bookmark["type"], &bookmark["object"]["kind"]),
        (&json!("BOOKMARK"), &json!("Pod"))
    );
    assert_eq!(version(&bookmark["object"]), version(&node));
    assert_eq!(watch.next().await, None);
}

#[tokio::test]
async fn bookmarks_come_between_changes() {
    let limits = Limits { bookmark_interval: Duration::from_millis(20), ..Limits::default() };
    let api = Api::start_with(limits).await;
    let mut watch =
        api.watch(&format!("{PODS}?watch=true&allowWatchBookmarks=true&resourceVersion=0")).await;
    assert_eq!(watch.told().await, told("BOOKMARK", ""));
    assert_eq!(watch.told().await, told("BOOKMARK", ""));
}

#[tokio::test]
async fn a_streamed_list_ends_with_its_mark() {
    let api = Api::start().await;
    api.create(PODS, &pod("a")).await;
    let path = "/api/v1/pods?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&resourceVersion=0";
    let mut watch = api.watch(path).await;
    assert_eq!(watch.told().await, told("ADDED", "a"));
    let mark = watch.next().await.unwrap();
    assert_eq!(mark["type"], "BOOKMARK");
    assert_eq!(mark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    api.create(PODS, &pod("b")).await;
    assert_eq!(watch.told().await, told("ADDED", "b"));
}

#[tokio::test]
async fn a_version_that_is_no_longer_kept_is_gone() {
    let api = Api::start_with(Limits { history: 5, ..Limits::default() }).await;
    for index in 0..10 {
        api.create(PODS, &pod(&format!("p{index}"))).await;
    }
    for version in [2, 99_999] {
        let mut watch = api.watch(&format!("{PODS}?watch=true&resourceVersion={version}")).await;
        let error = watch.next().await.unwrap();
        assert_eq!(error["type"], "ERROR");
        assert_eq!(
            (&error["object"]["code"], &error["object"]["reason"]),
            (&json!(410), &json!("Expired"))
        );
        assert_eq!(watch.next().await, None);
    }
    let (code, old) =
        api.get(&format!("{PODS}?resourceVersion=2&resourceVersionMatch=Exact")).await;
    assert_eq!((code, &old["reason"]), (410, &json!("Expired")));
}

#[tokio::test]
async fn tables_can_be_watched() {
    let api = Api::start().await;
    api.create(PODS, &pod("web")).await;
    let request = http::Request::get(format!("{PODS}?watch=true&timeoutSeconds=1"))
        .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
        .body(Default::default())
        .unwrap();
    let body = http_body_util::BodyExt::collect(api.send(request).await.into_body());
    let bytes = tokio::time::timeout(PATIENCE, body).await.unwrap().unwrap().to_bytes();
    let event: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!((&event["type"], &event["object"]["kind"]), (&json!("ADDED"), &json!("Table")));
    assert_eq!(event["object"]["rows"][0]["cells"][0], "web");
}

#[tokio::test]
async fn shutdown_ends_open_watches() {
    let api = Api::start().await;
    let mut watch = api.watch(&format!("{PODS}?watch=true")).await;
    tokio::time::timeout(PATIENCE, api.server.shutdown()).await.expect("a shutdown in time");
    assert_eq!(watch.next().await, None);
}
