//! Services get addresses, and their slices are filled.

use serde_json::{Value, json};

use crate::client::*;

const SERVICES: &str = "/api/v1/namespaces/default/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";

fn service(name: &str, spec: &Value) -> Value {
    let mut service = json!({
        "metadata": { "name": name },
        "spec": { "selector": { "app": "web" }, "ports": [{ "port": 80, "targetPort": 8080 }] },
    });
    for (field, value) in spec.as_object().into_iter().flatten() {
        service["spec"][field] = value.clone();
    }
    service
}

async fn running(api: &Api, name: &str, ip: &str, ready: &str) {
    api.create(PODS, &labelled(name, "web")).await;
    let status = json!({ "status": {
        "phase": "Running", "podIP": ip, "podIPs": [{ "ip": ip }],
        "conditions": [{ "type": "Ready", "status": ready }],
    } });
    api.patch(&format!("{PODS}/{name}/status"), MERGE, &status).await;
}

/// Address and readiness of all endpoints in all slices.
async fn endpoints(api: &Api) -> Vec<(String, bool)> {
    let (_, list) = api.get(SLICES).await;
    let slices = list["items"].as_array().unwrap();
    let all = slices.iter().flat_map(|slice| slice["endpoints"].as_array().unwrap());
    let read = |it: &Value| {
        let ready = it["conditions"]["ready"].as_bool().unwrap();
        (it["addresses"][0].as_str().unwrap().to_owned(), ready)
    };
    all.map(read).collect()
}

#[tokio::test]
async fn services_get_addresses_of_their_own_and_keep_them() {
    let api = Api::start().await;
    let first = api.create(SERVICES, &service("a", &json!({}))).await;
    assert_eq!(first["spec"]["clusterIP"], "10.96.0.1");
    assert_eq!(first["spec"]["clusterIPs"], json!(["10.96.0.1"]));
    assert_eq!(first["spec"]["ipFamilies"], json!(["IPv4"]));
    assert_eq!(first["spec"]["ports"][0]["protocol"], "TCP");
    let second = api.create(SERVICES, &service("b", &json!({}))).await;
    assert_eq!(second["spec"]["clusterIP"], "10.96.0.2");
    let chosen = api.create(SERVICES, &service("c", &json!({ "clusterIP": "10.96.7.7" }))).await;
    assert_eq!(chosen["spec"]["clusterIPs"], json!(["10.96.7.7"]));
    let none = api.create(SERVICES, &service("d", &json!({ "clusterIP": "None" }))).await;
    assert_eq!(none["spec"]["clusterIPs"], json!(["None"]));
    for (name, spec) in [
        ("taken", json!({ "clusterIP": "10.96.7.7" })),
        ("outside", json!({ "clusterIP": "10.1.2.3" })),
        ("family", json!({ "ipFamilies": ["IPv6"] })),
        ("both", json!({ "ipFamilyPolicy": "RequireDualStack" })),
        ("portless", json!({ "ports": [] })),
        ("unnamed", json!({ "ports": [{ "port": 1 }, { "port": 2 }] })),
    ] {
        let (code, status) = api.post(SERVICES, &service(name, &spec)).await;
        assert_eq!((code, &status["reason"]), (422, &json!("Invalid")), "{name}: {status}");
    }
    let moved = json!({ "spec": { "clusterIP": "10.96.9.9" } });
    let (code, _) = api.patch(&format!("{SERVICES}/a"), MERGE, &moved).await;
    assert_eq!(code, 422);
}

#[tokio::test]
async fn slices_follow_the_pods_that_a_service_selects() {
    let api = Api::start().await;
    running(&api, "p1", "10.0.0.1", "True").await;
    api.create(SERVICES, &service("web", &json!({}))).await;
    running(&api, "p2", "10.0.0.2", "False").await;
    assert_eq!(endpoints(&api).await, [("10.0.0.1".into(), true), ("10.0.0.2".into(), false)]);
    let (_, slice) = api.get(&format!("{SLICES}/web-ipv4-0")).await;
    assert_eq!(slice["metadata"]["labels"]["kubernetes.io/service-name"], "web");
    assert_eq!(slice["ports"], json!([{ "name": "", "port": 8080, "protocol": "TCP" }]));
    assert_eq!(slice["endpoints"][0]["targetRef"]["name"], "p1");
    // Another label, another readiness, another slice that is somebody else's.
    let label = json!({ "metadata": { "labels": { "app": "other" } } });
    api.patch(&format!("{PODS}/p1"), MERGE, &label).await;
    let ready = json!({ "status": { "conditions": [{ "type": "Ready", "status": "True" }] } });
    api.patch(&format!("{PODS}/p2/status"), MERGE, &ready).await;
    assert_eq!(endpoints(&api).await, [("10.0.0.2".into(), true)]);
    let manual = json!({
        "metadata": { "name": "manual" }, "addressType": "IPv4",
        "endpoints": [{ "addresses": ["192.0.2.7"], "conditions": { "ready": true } }],
    });
    api.create(SLICES, &manual).await;
    api.delete(&format!("{SERVICES}/web")).await;
    assert_eq!(endpoints(&api).await, [("192.0.2.7".into(), true)]);
}
