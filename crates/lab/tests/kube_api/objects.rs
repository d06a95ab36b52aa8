//! Creating, reading, listing and replacing.

use http::Method;
use lab::kube_api::KubeApi;
use serde_json::{Value, json};

use crate::client::*;

#[tokio::test]
async fn a_created_object_has_what_the_server_fills_in() {
    let api = Api::start().await;
    let created = api.create(PODS, &pod("web")).await;
    let metadata = &created["metadata"];
    assert_eq!(metadata["namespace"], "default");
    assert_eq!(metadata["uid"].as_str().unwrap().len(), 36);
    assert!(metadata["creationTimestamp"].as_str().unwrap().ends_with('Z'));
    assert!(metadata["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap() > 1);
    assert_eq!(metadata["generation"], 1);
    assert_eq!(created["spec"]["serviceAccountName"], "default");
    assert_eq!(created["status"]["phase"], "Pending");
    assert_eq!(api.get(&format!("{PODS}/web")).await, (200, created));

    let mut generated = pod("");
    generated["metadata"] = json!({"generateName": "web-"});
    let (one, two) = (api.create(PODS, &generated).await, api.create(PODS, &generated).await);
    assert!(one["metadata"]["name"].as_str().unwrap().starts_with("web-"));
    assert_ne!(one["metadata"]["name"], two["metadata"]["name"]);
}

#[tokio::test]
async fn a_namespace_comes_with_its_label_and_service_account() {
    let api = Api::start().await;
    let namespace = json!({"metadata": {"name": "shop"}});
    let created = api.create("/api/v1/namespaces", &namespace).await;
    assert_eq!(created["metadata"]["labels"]["kubernetes.io/metadata.name"], "shop");
    assert_eq!(created["status"]["phase"], "Active");
    let (code, account) = api.get("/api/v1/namespaces/shop/serviceaccounts/default").await;
    assert_eq!((code, &account["metadata"]["name"]), (200, &json!("default")));
    let (_, all) = api.get("/api/v1/namespaces").await;
    assert_eq!(names(&all), ["default", "kube-system", "shop"]);
}

#[tokio::test]
async fn lists_are_selected() {
    let api = Api::start().await;
    api.create("/api/v1/namespaces", &json!({"metadata": {"name": "shop"}})).await;
    for (name, app, node) in [("a", "web", "n1"), ("b", "db", "n1"), ("c", "web", "n2")] {
        let mut pod = labelled(name, app);
        pod["spec"]["nodeName"] = json!(node);
        api.create(PODS, &pod).await;
    }
    api.create("/api/v1/namespaces/shop/pods", &labelled("d", "web")).await;
    for (path, want) in [
        (PODS.to_owned(), vec!["a", "b", "c"]),
        ("/api/v1/pods".to_owned(), vec!["a", "b", "c", "d"]),
        (format!("{PODS}?labelSelector=app%3Dweb"), vec!["a", "c"]),
        ("/api/v1/pods?labelSelector=app+in+(web),!x".to_owned(), vec!["a", "c", "d"]),
        ("/api/v1/pods?fieldSelector=spec.nodeName%3Dn1".to_owned(), vec!["a", "b"]),
        ("/api/v1/pods?fieldSelector=metadata.namespace!=default".to_owned(), vec!["d"]),
        (format!("{PODS}?fieldSelector=metadata.name=b"), vec!["b"]),
        (format!("{PODS}?fieldSelector=status.phase=Running"), vec![]),
    ] {
        let (code, list) = api.get(&path).await;
        assert_eq!((code, names(&list)), (200, want), "{path}");
        assert_eq!(list["kind"], "PodList");
    }
}

#[tokio::test]
async fn pages_of_a_list_are_of_one_moment() {
    let api = Api::start().await;
    for name in ["a", "b", "c"] {
        api.create(PODS, &pod(name)).await;
    }
    let (_, first) = api.get(&format!("{PODS}?limit=2&resourceVersion=0")).await;
    assert_eq!(names(&first), ["a", "b"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 1);
    let token = first["metadata"]["continue"].as_str().unwrap();

    api.create(PODS, &pod("d")).await;
    api.delete(&format!("{PODS}/c")).await;
    let (_, second) = api.get(&format!("{PODS}?limit=2&continue={token}")).await;
    assert_eq!(names(&second), ["c"]);
    assert_eq!(second["metadata"].get("continue"), None);
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    let (code, refused) = api.get(&format!("{PODS}?limit=2&continue=zzz")).await;
    assert_eq!((code, &refused["reason"]), (400, &json!("BadRequest")));
}

#[tokio::test]
async fn versions_of_reads_are_kept() {
    let api = Api::start().await;
    let version = api.create(PODS, &pod("a")).await["metadata"]["resourceVersion"].clone();
    let version = version.as_str().unwrap().to_owned();
    api.delete(&format!("{PODS}/a")).await;
    let exact = format!("{PODS}?resourceVersion={version}&resourceVersionMatch=Exact");
    assert_eq!(names(&api.get(&exact).await.1), ["a"]);
    let later = format!("{PODS}?resourceVersion={version}&resourceVersionMatch=NotOlderThan");
    assert!(names(&api.get(&later).await.1).is_empty());
    let (code, future) = api.get(&format!("{PODS}?resourceVersion=99999")).await;
    assert_eq!((code, &future["reason"]), (504, &json!("Timeout")));
}

#[tokio::test]
async fn replacing_needs_the_version_that_was_read() {
    let api = Api::start().await;
    let path = format!("{PODS}/web");
    let created = api.create(PODS, &pod("web")).await;
    let mut changed = created.clone();
    changed["metadata"]["labels"] = json!({"a": "1"});
    let (code, updated) = api.put(&path, &changed).await;
    assert_eq!((code, &updated["metadata"]["labels"]["a"]), (200, &json!("1")));
    assert_ne!(updated["metadata"]["resourceVersion"], created["metadata"]["resourceVersion"]);

    let (code, stale) = api.put(&path, &changed).await;
    assert_eq!((code, &stale["reason"]), (409, &json!("Conflict")));
    let (_, same) = api.put(&path, &updated).await;
    assert_eq!(same, updated, "writing what is there takes no version");

    let mut other = updated.clone();
    other["metadata"]["uid"] = json!("another");
    assert_eq!(api.put(&path, &other).await.0, 409);
    assert_eq!(api.put(&format!("{PODS}/none"), &pod("none")).await.0, 404);
}

#[tokio::test]
async fn status_is_written_through_its_own_path_only() {
    let api = Api::start().await;
    let mut with_status = pod("web");
    with_status["status"] = json!({"phase": "Running"});
    assert_eq!(api.create(PODS, &with_status).await["status"]["phase"], "Pending");
    let path = format!("{PODS}/web");
    let running = json!({"status": {"phase": "Running", "podIP": "10.0.0.1"}, "metadata": {"labels": {"a": "b"}}});
    let (_, main) = api.patch(&path, MERGE, &running).await;
    assert_eq!(
        (&main["status"]["phase"], &main["metadata"]["labels"]["a"]),
        (&json!("Pending"), &json!("b"))
    );
    let (code, status) = api.patch(&format!("{path}/status"), MERGE, &running).await;
    assert_eq!((code, &status["status"]["podIP"]), (200, &json!("10.0.0.1")));
    let wrong = json!({"status": {"phase": "Jogging"}});
    let (code, refused) = api.patch(&format!("{path}/status"), MERGE, &wrong).await;
    assert_eq!((code, &refused["details"]["causes"][0]["field"]), (422, &json!("status.phase")));
}

#[tokio::test]
async fn metadata_and_tables_on_request() {
    let api = Api::start().await;
    api.create(PODS, &labelled("web", "web")).await;
    let partial = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
    let object = api.get_as(&format!("{PODS}/web"), partial).await;
    assert_eq!((&object["kind"], object.get("spec")), (&json!("PartialObjectMetadata"), None));
    let list = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    let listed = api.get_as("/api/v1/pods", list).await;
    assert_eq!(listed["kind"], "PartialObjectMetadataList");
    assert_eq!(listed["items"][0]["metadata"]["labels"]["app"], "web");
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let table = api.get_as(PODS, table).await;
    assert_eq!((&table["kind"], &table["apiVersion"]), (&json!("Table"), &json!("meta.k8s.io/v1")));
    assert_eq!(table["rows"][0]["cells"][0], "web");
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
}

#[tokio::test]
async fn a_dry_run_leaves_nothing() {
    let api = Api::start().await;
    assert_eq!(api.post(&format!("{PODS}?dryRun=All"), &pod("web")).await.0, 201);
    assert_eq!(api.get(&format!("{PODS}/web")).await.0, 404);
    api.create(PODS, &pod("web")).await;
    assert_eq!(api.delete(&format!("{PODS}/web?dryRun=All")).await.0, 200);
    assert_eq!(api.get(&format!("{PODS}/web")).await.0, 200);
}

#[tokio::test]
async fn events_are_seen_in_both_versions() {
    let api = Api::start().await;
    let event = json!({
        "metadata": {"generateName": "web."}, "note": "captured", "reason": "Captured",
        "type": "Normal", "action": "Capture", "reportingController": "sluice", "reportingInstance": "n1",
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "regarding": {"kind": "Pod", "name": "web", "namespace": "default", "uid": "u"},
    });
    let path = "/apis/events.k8s.io/v1/namespaces/default/events";
    let created = api.create(path, &event).await;
    assert_eq!(
        (&created["note"], &created["apiVersion"]),
        (&json!("captured"), &json!("events.k8s.io/v1"))
    );
    let core = "/api/v1/namespaces/default/events?fieldSelector=involvedObject.name%3Dweb";
    let (_, core) = api.get(core).await;
    assert_eq!(
        (&core["items"][0]["message"], &core["items"][0]["apiVersion"]),
        (&json!("captured"), &json!("v1"))
    );
    // As kube-rs counts a repeated event.
    let series = json!({"series": {"count": 2, "lastObservedTime": "2026-01-01T00:00:01.000000Z"}});
    let one = format!("{path}/{}", created["metadata"]["name"].as_str().unwrap());
    let (code, patched) = api.patch(&one, MERGE, &series).await;
    assert_eq!(
        (code, &patched["series"]["count"], &patched["note"]),
        (200, &json!(2), &json!("captured"))
    );
}

#[tokio::test]
async fn all_listeners_serve_the_same_objects() {
    let bind = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let server = KubeApi::start(vec![bind(), bind()]).await.unwrap();
    let [first, second] = server.addresses()[..] else { panic!("two addresses") };
    let one = Api { address: first, server };
    one.create(PODS, &pod("web")).await;
    let request = http::Request::get(format!("{PODS}/web")).body(Default::default()).unwrap();
    let (code, seen): (u16, Value) = whole(send(second, request).await).await;
    assert_eq!((code, &seen["metadata"]["name"]), (200, &json!("web")));
    one.server.shutdown().await;
    assert!(tokio::net::TcpStream::connect(second).await.is_err());
}

#[tokio::test]
async fn nodes_are_registered_and_report_their_status() {
    let api = Api::start().await;
    api.create("/api/v1/nodes", &json!({"metadata": {"name": "n1"}})).await;
    let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    let (code, node) = api.patch("/api/v1/nodes/n1/status", STRATEGIC, &ready).await;
    assert_eq!((code, &node["status"]["conditions"][0]["type"]), (200, &json!("Ready")));
    let (code, _) = api.call(Method::GET, "/api/v1/nodes/n1/status", b"", "").await;
    assert_eq!(code, 200);
}
