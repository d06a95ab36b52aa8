//! What is wrong is refused with a `Status` that says what.

use std::time::Duration;

use http::Method;
use lab::kube_api::Limits;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::*;

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one table of cases")]
async fn requests_that_are_refused() {
    let api = Api::start().await;
    api.create(PODS, &pod("web")).await;
    let with = |pointer: &str, value: Value| {
        let mut pod = pod("new");
        *pod.pointer_mut(pointer).unwrap() = value;
        pod
    };
    let other_account = {
        let mut pod = pod("new");
        pod["spec"]["serviceAccountName"] = json!("nobody");
        pod
    };
    let cases = [
        ("POST", PODS, pod("web"), 409, "AlreadyExists", "web"),
        ("POST", "/api/v1/namespaces/none/pods", pod("new"), 404, "NotFound", "none"),
        (
            "POST",
            PODS,
            with("/metadata", json!({"name": "x", "namespace": "y"})),
            400,
            "BadRequest",
            "namespace",
        ),
        ("POST", PODS, with("/metadata/name", json!("Web!")), 422, "Invalid", "metadata.name"),
        ("POST", PODS, with("/metadata", json!({})), 422, "Invalid", "metadata.name"),
        (
            "POST",
            PODS,
            with("/metadata", json!({"name": "x", "labels": {"a": "b c"}})),
            422,
            "Invalid",
            "metadata.labels.a",
        ),
        (
            "POST",
            PODS,
            with("/metadata", json!({"name": "x", "resourceVersion": "7"})),
            400,
            "BadRequest",
            "resourceVersion",
        ),
        ("POST", PODS, with("/metadata", json!([])), 400, "BadRequest", "metadata"),
        ("POST", PODS, with("/kind", json!("Node")), 400, "BadRequest", "kind"),
        ("POST", PODS, with("/spec", json!({})), 422, "Invalid", "spec.containers"),
        ("POST", PODS, other_account, 403, "Forbidden", "nobody"),
        ("POST", PODS, json!([1]), 400, "BadRequest", "object"),
        (
            "POST",
            "/api/v1/namespaces",
            json!({"metadata": {"name": "a.b"}}),
            422,
            "Invalid",
            "metadata.name",
        ),
        ("GET", "/api/v1/secrets", Value::Null, 501, "NotImplemented", "secrets"),
        (
            "GET",
            "/api/v1/namespaces/default/pods/web/log",
            Value::Null,
            501,
            "NotImplemented",
            "pods/log",
        ),
        ("GET", "/openapi/v3", Value::Null, 501, "NotImplemented", "validate=false"),
        ("POST", "/api/v1/pods", pod("new"), 405, "MethodNotAllowed", "POST"),
        (
            "GET",
            "/apis/authentication.k8s.io/v1/tokenreviews",
            Value::Null,
            405,
            "MethodNotAllowed",
            "create",
        ),
        (
            "GET",
            "/api/v1/pods?fieldSelector=spec.hostname=x",
            Value::Null,
            400,
            "BadRequest",
            "spec.hostname",
        ),
        ("GET", "/api/v1/pods?labelSelector=a+like+b", Value::Null, 400, "BadRequest", "a like b"),
        ("GET", "/api/v1/namespaces/default/pods/none", Value::Null, 404, "NotFound", "none"),
        ("GET", "/apis/apps/v1", Value::Null, 404, "NotFound", "apps/v1"),
    ];
    for (method, path, body, code, reason, names) in cases {
        let bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let method: Method = method.parse().unwrap();
        let (found, status) = api.call(method, path, &bytes, "application/json").await;
        assert_eq!(
            (found, status["reason"].as_str()),
            (code, Some(reason)),
            "{path} {body}: {status}"
        );
        assert_eq!((&status["kind"], &status["code"]), (&json!("Status"), &json!(code)), "{path}");
        assert!(status["message"].as_str().unwrap().contains(names), "{path} {body}: {status}");
    }
}

#[tokio::test]
async fn the_spec_of_a_pod_does_not_change() {
    let api = Api::start().await;
    api.create(PODS, &pod("web")).await;
    let (code, refused) =
        api.patch(&format!("{PODS}/web"), MERGE, &json!({"spec": {"nodeName": "n1"}})).await;
    assert_eq!((code, &refused["details"]["causes"][0]["field"]), (422, &json!("spec")));
    let (code, _) =
        api.patch(&format!("{PODS}/web"), MERGE, &json!({"metadata": {"name": "x"}})).await;
    assert_eq!(code, 400);
}

#[tokio::test]
async fn bodies_that_cannot_be_read() {
    let limits = Limits { body: 64 * 1024, ..Limits::default() };
    let api = Api::start_with(limits).await;
    let (code, status) = api.call(Method::POST, PODS, b"{\"kind\": ", "application/json").await;
    assert_eq!(code, 400);
    assert!(status["message"].as_str().unwrap().contains("not JSON"), "{status}");
    let (code, _) = api.call(Method::POST, PODS, b"", "application/json").await;
    assert_eq!(code, 400);
    let (code, _) = api.call(Method::POST, PODS, b"k8s\0", "application/cbor").await;
    assert_eq!(code, 415);
    let deep = "[".repeat(50_000);
    assert_eq!(api.call(Method::POST, PODS, deep.as_bytes(), "application/json").await.0, 400);
    let large = vec![b' '; 100 * 1024];
    let (code, status) = api.call(Method::POST, PODS, &large, "application/json").await;
    assert_eq!((code, &status["reason"]), (413, &json!("RequestEntityTooLarge")));
    // And the server still answers.
    api.create(PODS, &pod("web")).await;
}

#[tokio::test]
async fn a_body_that_does_not_come_has_a_deadline() {
    let limits = Limits { read_deadline: Duration::from_millis(50), ..Limits::default() };
    let api = Api::start_with(limits).await;
    let mut stream = tokio::net::TcpStream::connect(api.address).await.unwrap();
    let head = format!("POST {PODS} HTTP/1.1\r\nhost: lab\r\ncontent-length: 100\r\n\r\n{{");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 12];
    let read = tokio::time::timeout(PATIENCE, stream.read_exact(&mut answer));
    read.await.expect("an answer in time").unwrap();
    assert_eq!(answer, b"HTTP/1.1 504");
}

#[tokio::test]
async fn headers_that_do_not_come_have_a_deadline() {
    let limits = Limits { idle_deadline: Duration::from_millis(50), ..Limits::default() };
    let api = Api::start_with(limits).await;
    let mut stream = tokio::net::TcpStream::connect(api.address).await.unwrap();
    stream.write_all(b"GET /version HTTP/1.1\r\nhost:").await.unwrap();
    let mut rest = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest));
    read.await.expect("the connection is closed in time").unwrap();
    assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 408"), "{rest:?}");
}

#[tokio::test]
async fn a_malformed_policy_names_its_field_and_changes_nothing() {
    let api = Api::start().await;
    let path = "/apis/security.istio.io/v1/namespaces/default/authorizationpolicies";
    let policy = json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": {"name": "deny"},
        "spec": {"action": "DENY", "rules": [{"from": [{"source": {"principal": ["x"]}}]}]},
    });
    let (code, refused) = api.post(path, &policy).await;
    assert_eq!((code, &refused["details"]["kind"]), (422, &json!("AuthorizationPolicy")));
    assert_eq!(refused["details"]["causes"][0]["field"], "spec.rules[0].from[0].source.principal");
    assert!(names(&api.get(path).await.1).is_empty());
}
