//! PURE. Where a runtime's own words about a sandbox say that its network namespace is.
//!
//! Containerd and CRI-O both answer with one entry `info`: JSON with the pid of the
//! sandbox's first process and the OCI specification it was started from. The path in the
//! specification comes first: it outlives the process. CRI-O may run no process for a
//! sandbox at all.

use std::collections::HashMap;
use std::path::PathBuf;

use serde_json::Value;

/// Where a sandbox's network namespace can be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// At this path of the node.
    Path(PathBuf),
    /// At the node's process of this number.
    Pid(u32),
}

/// Why a runtime's words lead nowhere.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InfoError {
    /// It says nothing.
    #[error("the runtime tells nothing of its own about the sandbox")]
    Absent,
    /// It says something that is no JSON.
    #[error("what the runtime tells about the sandbox is no JSON")]
    NotJson,
    /// Neither path nor process.
    #[error("the runtime names neither path nor process of the sandbox's network namespace")]
    NoPlace,
    /// The namespace is gone.
    #[error("the runtime has closed the sandbox's network namespace")]
    Closed,
}

/// Reads where the namespace is.
///
/// # Errors
/// Any [`InfoError`].
pub fn place(info: &HashMap<String, String>) -> Result<Place, InfoError> {
    let text = info.get("info").ok_or(InfoError::Absent)?;
    let info: Value = serde_json::from_str(text).map_err(|_| InfoError::NotJson)?;
    if info["netNamespaceClosed"] == true {
        return Err(InfoError::Closed);
    }
    path(&info).or_else(|| pid(&info)).ok_or(InfoError::NoPlace)
}

fn path(info: &Value) -> Option<Place> {
    let namespaces = info.pointer("/runtimeSpec/linux/namespaces")?.as_array()?;
    let network = namespaces.iter().find(|namespace| namespace["type"] == "network")?;
    let path = PathBuf::from(network["path"].as_str()?);
    path.is_absolute().then_some(Place::Path(path))
}

fn pid(info: &Value) -> Option<Place> {
    let pid = info["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok())?;
    (pid > 0).then_some(Place::Pid(pid))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn said(info: &Value) -> Result<Place, InfoError> {
        place(&HashMap::from([("info".to_owned(), info.to_string())]))
    }

    fn spec(namespaces: &Value) -> Value {
        json!({ "linux": { "namespaces": namespaces } })
    }

    #[test]
    fn a_path_comes_before_a_process() {
        let namespaces =
            json!([{"type": "ipc"}, {"type": "network", "path": "/var/run/netns/cni-1"}]);
        let info = json!({"pid": 42, "runtimeSpec": spec(&namespaces)});
        assert_eq!(said(&info), Ok(Place::Path("/var/run/netns/cni-1".into())));
    }

    #[test]
    fn without_a_path_that_can_be_one_the_process_counts() {
        for namespaces in [
            json!([{"type": "network"}]),
            json!([{"type": "network", "path": ""}]),
            json!([{"type": "network", "path": "relative"}]),
            json!([{"type": "network", "path": 7}]),
            json!([{"type": "ipc", "path": "/var/run/ipc"}]),
            json!({"type": "network", "path": "/x"}),
        ] {
            let info = json!({"pid": 42, "runtimeSpec": spec(&namespaces)});
            assert_eq!(said(&info), Ok(Place::Pid(42)), "{namespaces}");
        }
    }

    #[test]
    fn words_that_lead_nowhere() {
        for (info, error) in [
            (json!({}), InfoError::NoPlace),
            (json!([]), InfoError::NoPlace),
            (json!("yes"), InfoError::NoPlace),
            (json!({"pid": 0}), InfoError::NoPlace),
            (json!({"pid": -1}), InfoError::NoPlace),
            (json!({"pid": "42"}), InfoError::NoPlace),
            (json!({"pid": 4_294_967_296_u64}), InfoError::NoPlace),
            (json!({"pid": 42, "netNamespaceClosed": true}), InfoError::Closed),
        ] {
            assert_eq!(said(&info), Err(error), "{info}");
        }
        assert_eq!(place(&HashMap::new()), Err(InfoError::Absent));
        let garbage = HashMap::from([("info".to_owned(), "{\"pid\":".to_owned())]);
        assert_eq!(place(&garbage), Err(InfoError::NotJson));
    }
}
