//! Tokens: asked for, bound to a pod, judged.

use serde_json::{Value, json};

use crate::client::*;

const ACCOUNT: &str = "/api/v1/namespaces/default/serviceaccounts/default/token";
const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";

async fn review(api: &Api, token: &Value, audiences: Value) -> Value {
    let body = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
        "spec": {"token": token, "audiences": audiences},
    });
    api.create(REVIEWS, &body).await["status"].clone()
}

async fn bound_token(api: &Api, pod: &Value) -> Value {
    let request = json!({"spec": {
        "audiences": ["istio-ca"], "expirationSeconds": 3600,
        "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]},
    }});
    let answer = api.create(ACCOUNT, &request).await;
    assert_eq!(answer["kind"], "TokenRequest");
    assert!(answer["status"]["expirationTimestamp"].as_str().unwrap().ends_with('Z'));
    answer["status"]["token"].clone()
}

#[tokio::test]
async fn a_bound_token_says_who_where_and_ends_with_its_pod() {
    let api = Api::start().await;
    let node = api.create("/api/v1/nodes", &json!({"metadata": {"name": "n1"}})).await;
    let pod = api.create(PODS, &on_node("ztunnel", "n1")).await;
    let token = bound_token(&api, &pod).await;
    assert_eq!(token.as_str().unwrap().split('.').count(), 3);

    let status = review(&api, &token, json!(["other", "istio-ca"])).await;
    assert_eq!(status["authenticated"], true, "{status}");
    assert_eq!(status["audiences"], json!(["istio-ca"]));
    assert_eq!(status["user"]["username"], "system:serviceaccount:default:default");
    assert!(
        status["user"]["groups"]
            .as_array()
            .unwrap()
            .contains(&json!("system:serviceaccounts:default"))
    );
    let extra = &status["user"]["extra"];
    assert_eq!(extra["authentication.kubernetes.io/pod-name"], json!(["ztunnel"]));
    assert_eq!(extra["authentication.kubernetes.io/pod-uid"], json!([pod["metadata"]["uid"]]));
    assert_eq!(extra["authentication.kubernetes.io/node-name"], json!(["n1"]));
    assert_eq!(extra["authentication.kubernetes.io/node-uid"], json!([node["metadata"]["uid"]]));

    // The same name again is another pod.
    api.delete(&format!("{PODS}/ztunnel?gracePeriodSeconds=0")).await;
    api.create(PODS, &on_node("ztunnel", "n1")).await;
    let status = review(&api, &token, json!(["istio-ca"])).await;
    assert_eq!(status["authenticated"], false);
    assert!(status["error"].as_str().unwrap().contains("ztunnel"), "{status}");
}

#[tokio::test]
async fn tokens_that_are_not_good_here() {
    let api = Api::start().await;
    let pod = api.create(PODS, &pod("web")).await;
    let token = bound_token(&api, &pod).await;
    let mut forged = token.as_str().unwrap().to_owned();
    let last = if forged.pop() == Some('A') { 'B' } else { 'A' };
    forged.push(last);
    for (token, audiences) in [
        (token.clone(), json!(["other"])),
        (token.clone(), json!(null)),
        (json!(forged), json!(["istio-ca"])),
        (json!("nonsense"), json!(["istio-ca"])),
    ] {
        let status = review(&api, &token, audiences.clone()).await;
        assert_eq!(status["authenticated"], false, "{token} {audiences}");
        assert!(status["error"].is_string(), "{status}");
    }
    let (code, _) = api.post(REVIEWS, &json!({"spec": {}})).await;
    assert_eq!(code, 400);
}

#[tokio::test]
async fn a_token_without_an_audience_is_for_the_api_and_ends_with_its_account() {
    let api = Api::start().await;
    let path = "/api/v1/namespaces/default/serviceaccounts";
    api.create(path, &json!({"metadata": {"name": "a"}})).await;
    let answer = api.create(&format!("{path}/a/token"), &json!({"spec": {}})).await;
    let token = &answer["status"]["token"];
    assert_eq!(review(&api, token, json!([])).await["authenticated"], true);
    api.delete(&format!("{path}/a")).await;
    assert_eq!(review(&api, token, json!([])).await["authenticated"], false);
}

#[tokio::test]
async fn requests_for_tokens_that_are_refused() {
    let api = Api::start().await;
    let pod = api.create(PODS, &pod("web")).await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    api.create(accounts, &json!({"metadata": {"name": "other"}})).await;
    let bound = |name: &str, uid: &Value| json!({"spec": {"boundObjectRef": {"kind": "Pod", "name": name, "uid": uid}}});
    let uid = &pod["metadata"]["uid"];
    for (account, body, code, names) in [
        ("default", bound("none", uid), 404, "none"),
        ("default", bound("web", &json!("another")), 409, "uid"),
        ("other", bound("web", uid), 422, "spec.boundObjectRef.name"),
        ("nobody", json!({"spec": {}}), 404, "nobody"),
        ("default", json!([1]), 400, "TokenRequest"),
        ("default", json!({"kind": "Pod"}), 400, "TokenRequest"),
        ("default", json!({"spec": "a"}), 422, "spec"),
        ("default", json!({"spec": {"expirationSeconds": 10}}), 422, "spec.expirationSeconds"),
        ("default", json!({"spec": {"audiences": "istio-ca"}}), 422, "spec.audiences"),
        (
            "default",
            json!({"spec": {"boundObjectRef": {"kind": "Secret", "name": "s"}}}),
            422,
            "spec.boundObjectRef.kind",
        ),
    ] {
        let (found, status) = api.post(&format!("{accounts}/{account}/token"), &body).await;
        assert_eq!(found, code, "{account} {body}: {status}");
        assert!(status["message"].as_str().unwrap().contains(names), "{status}");
    }
}
