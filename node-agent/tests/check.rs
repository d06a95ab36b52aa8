//! The check as a process, before an API server of a few answers.
#![expect(clippy::disallowed_methods, reason = "a test of the process starts processes")]
#![expect(clippy::unwrap_used, reason = "a test panics where something is not as expected")]

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output};

use serde_json::{Value, json};

/// Answers until the test ends.
fn serve(cilium: Value) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let cilium = cilium.clone();
            std::thread::spawn(move || answer(stream, &cilium));
        }
    });
    address
}

fn answer(mut stream: TcpStream, cilium: &Value) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let asked = lines.next().unwrap_or_default();
    lines.find(String::is_empty);
    let (status, body) = match asked.split([' ', '?']).nth(1).unwrap_or_default() {
        "/version" => (200, json!({"gitVersion": "v1.36.3"})),
        "/api/v1/configmaps" if asked.contains("cilium-config") => {
            (200, json!({"items": [cilium]}))
        }
        "/api/v1/nodes" => (403, json!({"kind": "Status", "status": "Failure", "code": 403})),
        path if path.starts_with("/api/v1/") => (200, json!({"items": []})),
        _ => (404, json!({"kind": "Status", "status": "Failure", "code": 404})),
    };
    let body = body.to_string();
    let head = "Content-Type: application/json\r\nConnection: close";
    let length = body.len();
    // Who asked may have gone.
    let _ =
        write!(stream, "HTTP/1.1 {status} x\r\n{head}\r\nContent-Length: {length}\r\n\r\n{body}");
}

fn check(api: SocketAddr, arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = folder.path().join("kubeconfig");
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "x",
        "clusters": [{"name": "x", "cluster": {"server": format!("http://{api}")}}],
        "users": [{"name": "x", "user": {}}],
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
    });
    std::fs::write(&kubeconfig, config.to_string()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_node-agent"));
    command.arg("check").args(arguments).env_remove("NODE_NAME").env("KUBECONFIG", kubeconfig);
    command.output().unwrap()
}

fn cilium(exclusive: &str) -> Value {
    let metadata = json!({"name": "cilium-config", "namespace": "kube-system"});
    json!({"metadata": metadata, "data": {"cni-exclusive": exclusive}})
}

#[test]
fn a_problem_is_told_with_its_setting_and_ends_with_one() {
    let output = check(serve(cilium("true")), &[]);
    let told = String::from_utf8(output.stdout).unwrap();
    let problem = told.lines().next().unwrap();
    assert!(problem.starts_with("problem  cilium-cni-exclusive: "), "{told}");
    assert!(problem.contains("change: Helm value cni.exclusive=false"), "{told}");
    let unread =
        "unknown  node-kernel: because the account may not list nodes: verb list is missing";
    assert!(told.lines().any(|line| line == unread), "{told}");
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn without_problems_it_ends_well_and_machines_can_read_it() {
    let output = check(serve(cilium("false")), &["--output", "json"]);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["problems"], 0, "{told:#}");
    let findings = told["findings"].as_array().unwrap();
    let exclusive = findings.iter().find(|it| it["id"] == "cilium-cni-exclusive").unwrap();
    assert_eq!(exclusive["severity"], "fine");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn an_api_that_does_not_answer_is_a_problem() {
    // Nobody listens on the discard port.
    let output = check("127.0.0.1:9".parse().unwrap(), &[]);
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(told.starts_with("problem  api: no API server: "), "{told}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn settings_that_mean_nothing_end_with_two() {
    let output = check("127.0.0.1:9".parse().unwrap(), &["--output", "xml"]);
    assert_eq!(output.status.code(), Some(2));
}
