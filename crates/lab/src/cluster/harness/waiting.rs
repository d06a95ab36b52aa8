//! Waiting for the parts of a cluster, with the reason and the log of the part that is late.

use std::cell::RefCell;
use std::fs;
use std::path::Path;
use std::time::Duration;

use super::errors::UpError;
use super::machine::Machine;
use super::plan::CONTROL_PLANE;
use super::{Cluster, ClusterOptions};
use crate::patience::eventually;
use crate::process;

/// Lines of a log that an error quotes.
const QUOTED: usize = 12;

pub(super) async fn wait_for_api(
    cluster: &Cluster,
    options: &ClusterOptions,
) -> Result<(), UpError> {
    let ready = async || {
        let asked = ["get", "--raw", "/readyz"];
        match cluster.kubectl(&options.tools, &asked, Vec::new(), process::LOOK).await {
            Ok(ran) if ran.ok() => Ok(()),
            Ok(ran) => Err(ran.stderr),
            Err(error) => Err(error.to_string()),
        }
    };
    let machine = Machine::new(CONTROL_PLANE, cluster.folder.join(CONTROL_PLANE));
    let log = machine.log("kube-apiserver");
    settled("the Kubernetes API being ready", &log, options.patience, ready).await
}

pub(super) async fn wait_for_nodes(
    cluster: &Cluster,
    options: &ClusterOptions,
) -> Result<(), UpError> {
    let words = [
        "get",
        "nodes",
        "-o",
        r#"jsonpath={range .items[*]}{.metadata.name}={.status.conditions[?(@.type=="Ready")].status}:{.status.conditions[?(@.type=="Ready")].message}{"\n"}{end}"#,
    ];
    let all = usize::from(options.nodes);
    let ready = async || {
        let ran = cluster.kubectl(&options.tools, &words, Vec::new(), process::LOOK).await;
        let seen = ran.map_err(|error| error.to_string())?.stdout;
        let ready = seen.lines().filter(|line| line.contains("=True:")).count();
        if ready == all { Ok(()) } else { Err(format!("{ready} of {all} are ready: {seen}")) }
    };
    let machine = Machine::new("node1", cluster.folder.join("node1"));
    settled("the nodes being ready", &machine.log("kubelet"), options.patience, ready).await
}

/// Waits until `probe` succeeds; why it did not is in the error, with the end of `log`.
pub(super) async fn settled<T, F, Fut>(
    what: &str,
    log: &Path,
    patience: Duration,
    mut probe: F,
) -> Result<T, UpError>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, String>>,
{
    let last = RefCell::new(String::new());
    let look = || {
        let looked = probe();
        async { looked.await.map_err(|why| *last.borrow_mut() = why).ok() }
    };
    eventually(what, patience, look).await.map_err(|late| UpError::Late {
        late,
        last: last.borrow().trim().to_owned(),
        quoted: quote(log),
    })
}

fn quote(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(QUOTED)..];
    format!("{} ends:\n{}", log.display(), last.join("\n"))
}
