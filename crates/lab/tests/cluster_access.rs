//! The cluster's API as the suite uses it, against the embedded Kubernetes API: requests, waits
//! and their failures. Commands in pods need a kubelet and are shown by the suite itself.

#![expect(clippy::unwrap_used, reason = "what is not there fails the test")]

use std::net::TcpListener;
use std::time::Duration;

use lab::cluster::access::{AccessError, Cluster, PodSpec, paths};
use lab::kube_api::{KubeApi, Limits};
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(20);

/// A server, and the cluster that its kubeconfig leads to.
async fn cluster() -> (KubeApi, Cluster, tempfile::TempDir) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = KubeApi::start_with(vec![listener], Limits::default()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kubeconfig");
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": format!("http://{}", server.addresses()[0])}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    });
    std::fs::write(&file, config.to_string()).unwrap();
    let cluster = Cluster::connect(&file).await.unwrap();
    (server, cluster, folder)
}

#[tokio::test]
async fn a_pod_is_made_labelled_waited_for_and_gone() {
    let (_server, cluster, _folder) = cluster().await;
    cluster.create_namespace("ns", &[("run", "1")]).await.unwrap();
    let spec = PodSpec::new("ns", "client", "image:1", &["app"]).account("client");
    cluster.create_pod(&spec).await.unwrap();
    cluster.ensure_service_account("ns", "client").await.unwrap();

    let path = paths::pod("ns", "client");
    cluster.label(&path, "mode", Some("on")).await.unwrap();
    let is_on = |pod: &serde_json::Value| pod["metadata"]["labels"]["mode"] == "on";
    let pod = cluster.wait(&path, "mode=on", PATIENCE, is_on).await.unwrap();
    assert_eq!(pod["spec"]["serviceAccountName"], "client");
    cluster.label(&path, "mode", None).await.unwrap();
    assert!(!is_on(&cluster.get(&path).await.unwrap()));

    cluster.delete(&path).await.unwrap();
    cluster.wait_gone(&path, PATIENCE).await.unwrap();
    cluster.delete(&path).await.unwrap();
    assert_eq!(cluster.find(&path).await.unwrap(), None);
}

#[tokio::test]
async fn refusals_and_vain_waits_say_what_and_why() {
    let (_server, cluster, _folder) = cluster().await;
    let path = paths::pod("nowhere", "nobody");
    let error = cluster.get(&path).await.unwrap_err();
    assert_eq!(error.code(), Some(404), "{error}");

    cluster.create_namespace("ns", &[]).await.unwrap();
    let spec = PodSpec::new("ns", "waiting", "image:1", &["app"]);
    cluster.create_pod(&spec).await.unwrap();
    let event = json!({
        "metadata": {"name": "e1", "namespace": "ns"},
        "involvedObject": {"kind": "Pod", "namespace": "ns", "name": "waiting"},
        "type": "Warning", "reason": "FailedCreatePodSandBox", "message": "no agent",
    });
    cluster.create(&paths::core("ns", "events"), &event).await.unwrap();
    let error = cluster.wait_ready("ns", "waiting", Duration::ZERO).await.unwrap_err();
    assert!(matches!(error, AccessError::TimedOut { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("event Warning FailedCreatePodSandBox: no agent"), "{text}");
    assert!(text.contains("/api/v1/namespaces/ns/pods/waiting: ready"), "{text}");
}

#[tokio::test]
async fn a_file_that_is_no_kubeconfig_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("not-there");
    let error = Cluster::connect(&file).await.unwrap_err();
    assert!(error.to_string().contains("not-there"), "{error}");
}
