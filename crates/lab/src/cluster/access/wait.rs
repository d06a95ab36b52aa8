//! Waiting for objects; who waited in vain is told why.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::{AccessError, Cluster, paths};

/// Pause between two looks: short beside the start of a container, long enough for the API
/// server not to notice.
const PAUSE: Duration = Duration::from_millis(200);

impl Cluster {
    /// Waits until `check` holds for the object at `path`, and gives the object. Absence and
    /// failed requests count as "not yet".
    ///
    /// # Errors
    /// [`AccessError::TimedOut`] with the object's last state and its events.
    pub async fn wait(
        &self,
        path: &str,
        what: &str,
        patience: Duration,
        check: impl Fn(&Value) -> bool,
    ) -> Result<Value, AccessError> {
        let until = Instant::now() + patience;
        loop {
            let last = match self.get(path).await {
                Ok(object) if check(&object) => return Ok(object),
                Ok(object) => in_short(&object),
                Err(error) => error.to_string(),
            };
            if Instant::now() >= until {
                let what = format!("{path}: {what}");
                let events = self.events_of(path).await;
                return Err(AccessError::TimedOut { what, patience, last, events });
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Waits until the object at `path` is gone.
    ///
    /// # Errors
    /// [`AccessError::TimedOut`].
    pub async fn wait_gone(&self, path: &str, patience: Duration) -> Result<(), AccessError> {
        let until = Instant::now() + patience;
        loop {
            let last = match self.find(path).await {
                Ok(None) => return Ok(()),
                Ok(Some(object)) => in_short(&object),
                Err(error) => error.to_string(),
            };
            if Instant::now() >= until {
                let what = format!("{path}: gone");
                return Err(AccessError::TimedOut { what, patience, last, events: String::new() });
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Waits until a pod is ready, and gives it.
    ///
    /// # Errors
    /// [`AccessError::TimedOut`] with the pod's events.
    pub async fn wait_ready(
        &self,
        namespace: &str,
        name: &str,
        patience: Duration,
    ) -> Result<Value, AccessError> {
        self.wait(&paths::pod(namespace, name), "ready", patience, is_ready).await
    }

    /// The events of the pod at `path`, a line each, oldest first; empty for other objects
    /// and where they cannot be read.
    pub async fn events_of(&self, path: &str) -> String {
        let Some((namespace, name)) =
            path.strip_prefix("/api/v1/namespaces/").and_then(|rest| rest.split_once("/pods/"))
        else {
            return String::new();
        };
        let selector = format!("involvedObject.name={name}");
        let query = [("fieldSelector", selector.as_str())];
        let path = paths::with_query(&paths::core(namespace, "events"), &query);
        let events = self.list(&path).await.unwrap_or_default();
        events.iter().map(event_line).collect()
    }
}

/// Whether a pod's condition `Ready` is true, and nobody has asked it to end.
#[must_use]
fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    pod["metadata"]["deletionTimestamp"].is_null()
        && conditions.is_some_and(|conditions| {
            conditions.iter().any(|one| one["type"] == "Ready" && one["status"] == "True")
        })
}

fn event_line(event: &Value) -> String {
    let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
    let count = event["count"].as_u64().filter(|count| *count > 1);
    let times = count.map(|count| format!(" (x{count})")).unwrap_or_default();
    format!("\n    event {} {}{times}: {}", text("type"), text("reason"), text("message"))
}

/// The phase of an object and why its containers wait.
fn in_short(object: &Value) -> String {
    let status = &object["status"];
    let mut words = vec![status["phase"].as_str().unwrap_or("no phase").to_owned()];
    for key in ["initContainerStatuses", "containerStatuses"] {
        for container in status[key].as_array().into_iter().flatten() {
            let name = container["name"].as_str().unwrap_or_default();
            let Some(state) = container["state"].as_object().and_then(|state| state.iter().next())
            else {
                continue;
            };
            let why = state.1["reason"].as_str().unwrap_or_default();
            let ready = if container["ready"] == true { "ready" } else { "not ready" };
            words.push(format!("{name} {} {why} {ready}", state.0));
        }
    }
    if let Some(since) = object["metadata"]["deletionTimestamp"].as_str() {
        words.push(format!("deleted at {since}"));
    }
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ready_means_ready_and_not_ending() {
        let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        assert!(is_ready(&ready));
        let mut ending = ready.clone();
        ending["metadata"] = json!({"deletionTimestamp": "2026-01-01T00:00:00Z"});
        assert!(!is_ready(&ending));
        let not = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}});
        assert!(!is_ready(&not) && !is_ready(&json!({})));
    }

    #[test]
    fn a_waiting_container_is_told_with_its_reason() {
        let pod = json!({"status": {"phase": "Pending", "containerStatuses": [
            {"name": "app", "ready": false, "state": {"waiting": {"reason": "ErrImagePull"}}},
        ]}});
        assert_eq!(in_short(&pod), "Pending, app waiting ErrImagePull not ready");
        let event = json!({"type": "Warning", "reason": "Failed", "count": 3, "message": "no"});
        assert_eq!(event_line(&event), "\n    event Warning Failed (x3): no");
    }
}
