//! The real kubectl. Each test's name begins with `kubectl_`, so that a machine without one
//! can leave them out by name and count them as skipped; where they run, they need it.

use std::process::{Output, Stdio};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::client::*;

/// What stands in the failure where there is no kubectl.
const NEEDED: &str = "kubectl runs; without one on PATH, leave out what begins with kubectl_";

/// One server, and one home folder for kubectl's caches.
struct Kubectl {
    api: Api,
    home: tempfile::TempDir,
}

impl Kubectl {
    async fn new() -> Kubectl {
        Kubectl { api: Api::start().await, home: tempfile::tempdir().unwrap() }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut kubectl = command("kubectl");
        kubectl
            .env("HOME", self.home.path())
            .env("KUBECONFIG", "/dev/null")
            .arg(format!("--server=http://{}", self.api.address))
            .args(arguments)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        kubectl
    }

    async fn output(&self, arguments: &[&str]) -> Output {
        let output = tokio::time::timeout(PATIENCE, self.command(arguments).output());
        output.await.unwrap_or_else(|_| panic!("kubectl {arguments:?} does not end")).expect(NEEDED)
    }

    /// What it prints when it succeeds.
    async fn run(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments).await;
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "kubectl {arguments:?}\n{out}\n{err}");
        out
    }

    /// What it complains of when it fails.
    async fn fails(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments).await;
        assert!(!output.status.success(), "kubectl {arguments:?}: {}", text(&output.stdout));
        text(&output.stderr)
    }

    async fn json(&self, arguments: &[&str]) -> Value {
        let out = self.run(&[arguments, &["-o", "json"]].concat()).await;
        serde_json::from_str(&out).unwrap()
    }

    fn file(&self, content: &Value) -> String {
        let path = self.home.path().join("object.json");
        std::fs::write(&path, content.to_string()).unwrap();
        path.display().to_string()
    }

    async fn apply(&self, content: &Value, more: &[&str]) -> String {
        let file = self.file(content);
        self.run(&[&["apply", "--validate=false", "-f", &file], more].concat()).await
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

#[expect(clippy::disallowed_methods, reason = "these tests are about the real kubectl")]
fn command(program: &str) -> Command {
    Command::new(program)
}

async fn running(api: &Api, name: &str) {
    api.create(PODS, &on_node(name, "n1")).await;
    let status = json!({"status": {
        "phase": "Running", "podIP": "10.0.0.7",
        "containerStatuses": [{"name": "app", "ready": true, "restartCount": 0}],
    }});
    api.patch(&format!("{PODS}/{name}/status"), MERGE, &status).await;
}

#[tokio::test]
async fn kubectl_gets_pods_in_every_form() {
    let kubectl = Kubectl::new().await;
    running(&kubectl.api, "web").await;
    kubectl.api.create("/api/v1/namespaces/kube-system/pods", &labelled("dns", "dns")).await;

    let table = kubectl.run(&["get", "pods"]).await;
    let lines: Vec<_> = table.lines().collect();
    assert_eq!(words(lines[0]), ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]);
    assert_eq!(words(lines[1])[..4], ["web", "1/1", "Running", "0"]);
    let wide = kubectl.run(&["get", "po", "-o", "wide"]).await;
    assert_eq!(words(wide.lines().next().unwrap())[5..], ["IP", "NODE"]);
    assert_eq!(words(wide.lines().nth(1).unwrap())[5..], ["10.0.0.7", "n1"]);
    let all = kubectl.run(&["get", "pods", "-A"]).await;
    assert_eq!(words(all.lines().next().unwrap())[..2], ["NAMESPACE", "NAME"]);
    assert_eq!(all.lines().count(), 3);
    let selected = kubectl.run(&["get", "pods", "-A", "-l", "app=dns", "-o", "name"]).await;
    assert_eq!(selected.trim(), "pod/dns");
    let object = kubectl.json(&["get", "pod", "web"]).await;
    assert_eq!((&object["kind"], &object["status"]["podIP"]), (&json!("Pod"), &json!("10.0.0.7")));
    assert_eq!(kubectl.json(&["get", "pods"]).await["items"][0]["metadata"]["name"], "web");
    assert!(kubectl.run(&["get", "pod", "web", "-o", "yaml"]).await.contains("nodeName: n1"));
    let empty = kubectl.output(&["get", "pods", "-l", "app=none"]).await;
    assert!(text(&empty.stderr).contains("No resources found"));
    assert!(kubectl.fails(&["get", "pod", "none"]).await.contains("NotFound"));
    assert!(kubectl.fails(&["get", "secrets"]).await.contains("secrets"));
    let namespaces = kubectl.run(&["get", "ns"]).await;
    assert_eq!(words(namespaces.lines().nth(1).unwrap())[..2], ["default", "Active"]);
}

#[tokio::test]
async fn kubectl_makes_shows_changes_and_deletes_services() {
    let kubectl = Kubectl::new().await;
    kubectl.run(&["create", "service", "clusterip", "shop", "--tcp=80:8080"]).await;
    kubectl.run(&["create", "svc", "clusterip", "quiet", "--clusterip=None"]).await;
    let table = kubectl.run(&["get", "svc"]).await;
    let lines: Vec<_> = table.lines().map(words).collect();
    assert_eq!(lines[0], ["NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE"]);
    assert_eq!(lines[1][..3], ["quiet", "ClusterIP", "None"]);
    assert_eq!(lines[2][..5], ["shop", "ClusterIP", "10.96.0.1", "<none>", "80/TCP"]);
    let applied = |target: u16| {
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "bank"},
            "spec": {"selector": {"app": "bank"}, "ports": [
                {"name": "http", "port": 80, "targetPort": target},
                {"name": "admin", "port": 81, "targetPort": "admin"},
            ]},
        })
    };
    kubectl.apply(&applied(8080), &[]).await;
    kubectl.apply(&applied(9090), &[]).await;
    let bank = kubectl.json(&["get", "service", "bank"]).await;
    assert_eq!(bank["spec"]["clusterIP"], "10.96.0.2", "it keeps its address");
    let ports = bank["spec"]["ports"].as_array().unwrap();
    assert_eq!(ports.len(), 2, "merged by port: {ports:?}");
    assert_eq!((&ports[0]["targetPort"], &ports[1]["targetPort"]), (&json!(9090), &json!("admin")));
    kubectl.run(&["delete", "svc", "shop", "bank"]).await;
    assert_eq!(kubectl.run(&["get", "svc", "-o", "name"]).await.trim(), "service/quiet");
}

#[tokio::test]
async fn kubectl_labels_and_annotates() {
    let kubectl = Kubectl::new().await;
    running(&kubectl.api, "web").await;
    const KEY: &str = "istio.io/dataplane-mode";
    let label =
        async || kubectl.json(&["get", "pod", "web"]).await["metadata"]["labels"][KEY].clone();

    kubectl.run(&["label", "pod", "web", &format!("{KEY}=ambient")]).await;
    assert_eq!(label().await, "ambient");
    let refused = kubectl.fails(&["label", "pod", "web", &format!("{KEY}=none")]).await;
    assert!(refused.contains("overwrite"), "{refused}");
    kubectl.run(&["label", "pod", "web", "--overwrite", &format!("{KEY}=none")]).await;
    assert_eq!(label().await, "none");
    kubectl.run(&["label", "pod", "web", &format!("{KEY}-")]).await;
    assert_eq!(label().await, Value::Null);

    kubectl.run(&["label", "namespace", "default", &format!("{KEY}=ambient")]).await;
    kubectl.run(&["annotate", "pods", "--all", "note=yes"]).await;
    let pod = kubectl.json(&["get", "pod", "web"]).await;
    assert_eq!(pod["metadata"]["annotations"]["note"], "yes");
    kubectl.run(&["annotate", "pod", "web", "note-"]).await;
}

#[tokio::test]
async fn kubectl_applies_and_deletes_files() {
    let kubectl = Kubectl::new().await;
    let policy = |action: &str| {
        json!({
            "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
            "metadata": {"name": "server", "namespace": "default"},
            "spec": {"action": action, "rules": [{"to": [{"operation": {"ports": ["8080"]}}]}]},
        })
    };
    for object in [policy("DENY"), labelled("web", "web")] {
        assert!(kubectl.apply(&object, &[]).await.contains("created"));
        assert!(kubectl.apply(&object, &[]).await.contains("unchanged"));
    }
    assert!(kubectl.apply(&policy("ALLOW"), &[]).await.contains("configured"));
    let table = kubectl.run(&["get", "authorizationpolicies"]).await;
    assert_eq!(words(table.lines().nth(1).unwrap())[..2], ["server", "ALLOW"]);

    let mut changed = labelled("web", "shop");
    changed["spec"]["containers"][0]["image"] = json!("app:2");
    assert!(kubectl.apply(&changed, &[]).await.contains("configured"));
    let pod = kubectl.json(&["get", "pod", "web"]).await;
    assert_eq!(pod["spec"]["containers"][0]["image"], "app:2");
    assert_eq!(pod["metadata"]["labels"]["app"], "shop");
    let last = "kubectl.kubernetes.io/last-applied-configuration";
    assert!(pod["metadata"]["annotations"][last].as_str().unwrap().contains("app:2"));

    let mut wrong = policy("DENY");
    wrong["spec"]["rules"] = json!([{"form": []}]);
    let file = kubectl.file(&wrong);
    let refused = kubectl.fails(&["apply", "--validate=false", "-f", &file]).await;
    assert!(refused.contains("spec.rules[0].form"), "{refused}");

    let file = kubectl.file(&policy("DENY"));
    assert!(kubectl.run(&["delete", "-f", &file]).await.contains("deleted"));
    assert!(kubectl.run(&["delete", "pod", "web"]).await.contains("deleted"));
    assert_eq!(kubectl.api.get(&format!("{PODS}/web")).await.0, 404);
}

#[tokio::test]
async fn kubectl_applies_on_the_server() {
    let kubectl = Kubectl::new().await;
    const SERVER: &[&str] = &["--server-side"];
    assert!(kubectl.apply(&labelled("web", "web"), SERVER).await.contains("serverside-applied"));
    let mut without = pod("web");
    without["metadata"]["labels"] = json!({"tier": "front"});
    kubectl.apply(&without, SERVER).await;
    let pod = kubectl.json(&["get", "pod", "web"]).await;
    assert_eq!(pod["metadata"]["labels"], json!({"tier": "front"}));

    kubectl.run(&["label", "pod", "web", "--overwrite", "tier=back"]).await;
    let file = kubectl.file(&without);
    let conflict =
        kubectl.fails(&["apply", "--validate=false", "--server-side", "-f", &file]).await;
    assert!(conflict.contains("tier"), "{conflict}");
    kubectl.apply(&without, &["--server-side", "--force-conflicts"]).await;
    let pod = kubectl.json(&["get", "pod", "web"]).await;
    assert_eq!(pod["metadata"]["labels"]["tier"], "front");
}

#[tokio::test]
async fn kubectl_creates_and_deletes_namespaces_and_mints_tokens() {
    let kubectl = Kubectl::new().await;
    kubectl.run(&["create", "namespace", "shop"]).await;
    kubectl.run(&["create", "serviceaccount", "buyer", "-n", "shop"]).await;
    let accounts = kubectl.run(&["get", "sa", "-n", "shop", "-o", "name"]).await;
    assert_eq!(words(&accounts), ["serviceaccount/buyer", "serviceaccount/default"]);
    // `create token` came with kubectl 1.24; this is what it posts.
    let wanted = kubectl.file(&json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": {"audiences": ["istio-ca"]},
    }));
    let path = "/api/v1/namespaces/shop/serviceaccounts/buyer/token";
    let minted = kubectl.run(&["create", "--raw", path, "-f", &wanted]).await;
    let minted: Value = serde_json::from_str(&minted).unwrap();
    let review = json!({"spec": {
        "token": minted["status"]["token"], "audiences": ["istio-ca"],
    }});
    let review = kubectl.api.create("/apis/authentication.k8s.io/v1/tokenreviews", &review).await;
    assert_eq!(review["status"]["user"]["username"], "system:serviceaccount:shop:buyer");
    kubectl.run(&["delete", "namespace", "shop"]).await;
    assert!(kubectl.fails(&["get", "namespace", "shop"]).await.contains("NotFound"));
}

#[tokio::test]
async fn kubectl_patches_in_three_ways() {
    let kubectl = Kubectl::new().await;
    kubectl.api.create(PODS, &labelled("web", "web")).await;
    for (kind, patch) in [
        ("merge", r#"{"metadata":{"labels":{"merge":"1"}}}"#),
        ("json", r#"[{"op":"add","path":"/metadata/labels/json","value":"1"}]"#),
        ("strategic", r#"{"spec":{"containers":[{"name":"app","image":"app:3"}]}}"#),
    ] {
        kubectl.run(&["patch", "pod", "web", "--type", kind, "-p", patch]).await;
    }
    let pod = kubectl.json(&["get", "pod", "web"]).await;
    assert_eq!(pod["metadata"]["labels"], json!({"app": "web", "merge": "1", "json": "1"}));
    assert_eq!(pod["spec"]["containers"], json!([{"name": "app", "image": "app:3"}]));
}

#[tokio::test]
async fn kubectl_waits_for_the_kubelet_when_it_deletes_a_pod() {
    let kubectl = Kubectl::new().await;
    running(&kubectl.api, "web").await;
    let mut kubelet = kubectl.api.watch(&format!("{PODS}/web?watch=true")).await;
    let kubelet = async {
        loop {
            let event = kubelet.next().await.expect("the watch goes on");
            if event["object"]["metadata"]["deletionTimestamp"].is_string() {
                break kubectl.api.delete(&format!("{PODS}/web?gracePeriodSeconds=0")).await;
            }
        }
    };
    let (deleted, (code, _)) = tokio::join!(kubectl.run(&["delete", "pod", "web"]), kubelet);
    assert!(deleted.contains("deleted"));
    assert_eq!(code, 200);
}

#[tokio::test]
async fn kubectl_watches() {
    let kubectl = Kubectl::new().await;
    running(&kubectl.api, "web").await;
    let mut child = kubectl
        .command(&["get", "pods", "--watch", "--request-timeout=5s"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect(NEEDED);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut line = async || {
        let line = tokio::time::timeout(PATIENCE, lines.next_line());
        line.await.expect("a line in time").unwrap().unwrap_or_default()
    };
    assert_eq!(words(&line().await)[..2], ["NAME", "READY"]);
    assert_eq!(words(&line().await)[..3], ["web", "1/1", "Running"]);
    kubectl.api.create(PODS, &pod("new")).await;
    assert_eq!(words(&line().await)[..3], ["new", "0/1", "Pending"]);
    kubectl.api.delete(&format!("{PODS}/web")).await;
    assert_eq!(words(&line().await)[..3], ["web", "1/1", "Terminating"]);
    child.kill().await.unwrap();
}

#[tokio::test]
async fn kubectl_shows_events() {
    let kubectl = Kubectl::new().await;
    let event = json!({
        "metadata": {"name": "web.1"}, "note": "traffic goes through the mesh", "reason": "Captured",
        "type": "Normal", "reportingController": "sluice", "eventTime": "2026-01-01T00:00:00.000000Z",
        "regarding": {"kind": "Pod", "name": "web", "namespace": "default"},
    });
    kubectl.api.create("/apis/events.k8s.io/v1/namespaces/default/events", &event).await;
    let table = kubectl.run(&["get", "events"]).await;
    assert_eq!(
        words(table.lines().next().unwrap()),
        ["LAST", "SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"]
    );
    let row = words(table.lines().nth(1).unwrap());
    assert_eq!(row[1..4], ["Normal", "Captured", "pod/web"]);
}
