//! What a pod of the node costs in memory, from the API's list to the table.
#![expect(clippy::unwrap_used, reason = "a test panics where something is not as expected")]

use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use kube::Client;
use kube::client::Body;
use node_agent::kube::{KubeApi, Metrics};
use node_agent::reconcile::{Fact, Table};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Many more than a node has, so that the allocator's own steps do not matter.
const PODS: usize = 20_000;
const PAGE: usize = 500;
/// What one may cost, with what the allocator keeps of the lists that went by.
const MOST: usize = 4_000;

/// As verbose as pods are: two containers, their environment, who wrote which field.
fn pod(number: usize) -> Value {
    let environment: Vec<_> = (0..10)
        .map(|at| json!({"name": format!("VARIABLE_{at}"), "value": "something or other"}))
        .collect();
    let container = |name: &str| {
        json!({
            "name": name, "image": format!("registry.example.com/team/{name}:v1.2.3"),
            "env": environment, "ports": [{"containerPort": 8080}],
            "resources": {"limits": {"cpu": "1", "memory": "1Gi"}},
        })
    };
    let fields: serde_json::Map<String, Value> =
        (0..60).map(|at| (format!("f:field-number-{at}"), json!({}))).collect();
    json!({
        "metadata": {
            "name": format!("web-7d4b9c6f5d-{number:05}"), "namespace": "shop",
            "uid": format!("00000000-0000-4000-8000-{number:012}"), "resourceVersion": "1",
            "labels": {
                "app": "web", "pod-template-hash": "7d4b9c6f5d",
                "istio.io/dataplane-mode": "ambient",
            },
            "annotations": {
                "ambient.istio.io/redirection": "enabled", "sluice.dev/observed": "captured",
                "kubectl.kubernetes.io/restartedAt": "2026-01-01T00:00:00Z",
            },
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web",
                                 "uid": "00000000-0000-4000-8000-000000000000"}],
            "managedFields": [{"manager": "kubelet", "operation": "Update", "apiVersion": "v1",
                               "fieldsType": "FieldsV1", "fieldsV1": fields}],
        },
        "spec": {
            "nodeName": "n1", "serviceAccountName": "web",
            "containers": [container("web"), container("helper")],
        },
        "status": {"phase": "Running", "podIP": "10.0.0.1",
                   "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]},
    })
}

/// An API that lists pods page by page.
fn client() -> Client {
    Client::new(
        tower::service_fn(|request: Request<Body>| async move {
            let query = request.uri().query().unwrap_or_default().to_owned();
            let from = query.split('&').find_map(|pair| pair.strip_prefix("continue="));
            let from: usize = from.map_or(0, |from| from.parse().unwrap());
            if query.contains("watch=") {
                std::future::pending::<()>().await;
            }
            let items: Vec<_> = (from..PODS.min(from + PAGE)).map(pod).collect();
            let more = (from + PAGE < PODS).then(|| (from + PAGE).to_string());
            let list = json!({
                "metadata": {"resourceVersion": "1", "continue": more}, "items": items,
            });
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(list.to_string()))))
        }),
        "default",
    )
}

/// Bytes of memory that are in use by this process.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

async fn listed(sender: mpsc::Sender<Fact>, mut facts: mpsc::Receiver<Fact>) -> Fact {
    let (api, stop) =
        (KubeApi::with_client(client(), "n1".into(), Metrics::default()), CancellationToken::new());
    tokio::select! {
        () = api.watch_pods(sender, stop) => panic!("it is never stopped"),
        fact = facts.recv() => fact.unwrap(),
    }
}

#[tokio::test]
async fn a_pod_costs_little_more_than_its_names() {
    let (sender, receiver) = mpsc::channel(1);
    let before = resident();
    let mut table = Table::default();
    table.observe(listed(sender, receiver).await);
    let grown = resident().saturating_sub(before) / PODS;
    let json = pod(0).to_string().len();
    println!("{grown} bytes of memory for a pod of {json} bytes of JSON");
    assert_eq!(table.pods().count(), PODS);
    assert!(grown < MOST, "{grown} bytes a pod");
}
