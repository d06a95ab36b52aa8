//! What all tests of the process need.

use std::time::{Duration, Instant};

pub const PATIENCE: Duration = Duration::from_secs(30);

/// Nobody listens on the discard port.
pub const KUBECONFIG: &str = r#"{
    "apiVersion": "v1", "kind": "Config", "current-context": "x",
    "clusters": [{"name": "x", "cluster": {"server": "http://127.0.0.1:9"}}],
    "users": [{"name": "x", "user": {}}],
    "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}]
}"#;

/// Waits for something observable.
pub fn eventually(what: &str, mut look: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !look() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
