//! What is kept of a failure: the pods, their events and logs, the logs of the mesh's parts on
//! their nodes, and the packets that observers told of.

use std::collections::BTreeSet;
use std::path::Path;

use lab::cluster::access::paths;
use serde_json::Value;

use super::ground::Ground;

/// Lines of a log.
const LINES: u32 = 2000;

/// Writes all that can be had; what cannot is said in the file that should hold it.
pub(super) async fn keep(ground: &Ground, folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)?;
    std::fs::write(folder.join("wire.txt"), ground.sightings().join("\n"))?;
    let mut nodes = BTreeSet::new();
    for namespace in ground.namespaces() {
        let pods = ground.cluster.list(&paths::core(&namespace, "pods")).await;
        for pod in pods.unwrap_or_default() {
            nodes.extend(pod["spec"]["nodeName"].as_str().map(str::to_owned));
            keep_pod(ground, &namespace, &pod, folder).await?;
        }
    }
    for node in nodes {
        for part in ground.parts.all() {
            for pod in part.pods_on(&ground.cluster, &node).await.unwrap_or_default() {
                let name = pod["metadata"]["name"].as_str().unwrap_or_default();
                let log = ground.cluster.logs(&part.namespace, name, None, LINES).await;
                let text = log.unwrap_or_else(|error| error.to_string());
                std::fs::write(folder.join(format!("{node}-{name}.log")), text)?;
            }
        }
    }
    Ok(())
}

async fn keep_pod(
    ground: &Ground,
    namespace: &str,
    pod: &Value,
    folder: &Path,
) -> anyhow::Result<()> {
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    let events = ground.cluster.events_of(&paths::pod(namespace, name)).await;
    let mut text = format!("{pod:#}\n\n# events{events}\n");
    for container in ["first", "app"] {
        if let Ok(log) = ground.cluster.logs(namespace, name, Some(container), LINES).await {
            text.push_str(&format!("\n# log of {container}\n{log}"));
        }
    }
    Ok(std::fs::write(folder.join(format!("pod-{namespace}-{name}.txt")), text)?)
}
