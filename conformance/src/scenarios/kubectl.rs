//! The real kubectl against the lab's Kubernetes API.

use lab::{KubectlError, Ran};

use crate::observe;
use crate::scenario::{Scenario, Skip, expect, scenario};
use crate::world::{MODE_LABEL, World};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!("kubectl-label", "kubectl label captures a running pod and releases it", label),
        scenario!("kubectl-apply", "kubectl apply brings a policy into force", apply),
    ]
}

async fn label(world: &World) -> anyhow::Result<()> {
    let pods = world.couple("kubectl").await?;
    let set = format!("{MODE_LABEL}=ambient");
    kubectl(world, &["-n", "kubectl", "label", "pod", "client", "server", &set]).await?;
    world.until_redirection(&pods.client, Some("enabled")).await?;
    world.until_redirection(&pods.server, Some("enabled")).await?;
    observe::tunnelled(world, &pods.client, &pods.server).await?;
    let listed = kubectl(world, &["-n", "kubectl", "get", "pods", "-o", "wide"]).await?.stdout;
    expect("both pods listed as running", &listed, |text| {
        ["client", "server", "Running", "node1", "node2"].iter().all(|word| text.contains(word))
    })?;
    let unset = format!("{MODE_LABEL}-");
    kubectl(world, &["-n", "kubectl", "label", "pod", "client", &unset]).await?;
    world.until_redirection(&pods.client, None).await
}

const POLICY: &str = r#"
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: nobody
  namespace: kubectl-apply
spec:
  action: DENY
  rules:
  - from:
    - source:
        principals: ["cluster.local/ns/kubectl-apply/sa/client"]
"#;

async fn apply(world: &World) -> anyhow::Result<()> {
    let pods = world.captured_couple("kubectl-apply").await?;
    let file = world.lab.folder().join("policy.yaml");
    std::fs::write(&file, POLICY)?;
    let file = file.display().to_string();
    kubectl(world, &["apply", "--validate=false", "-f", &file]).await?;
    observe::refused(world, &pods.client, &pods.server).await?;
    let again = kubectl(world, &["apply", "--validate=false", "-f", &file]).await?.stdout;
    expect("unchanged", again, |text| text.contains("unchanged"))?;
    kubectl(world, &["delete", "-f", &file]).await?;
    observe::tunnelled(world, &pods.client, &pods.server).await
}

/// Runs kubectl; without one on this machine the scenario is skipped.
async fn kubectl(world: &World, args: &[&str]) -> anyhow::Result<Ran> {
    let ran = match world.lab.kubectl(args).await {
        Err(KubectlError::NotInstalled) => {
            return Err(Skip("kubectl is not installed".into()).into());
        }
        other => other?,
    };
    expect("kubectl succeeds", format!("{args:?}: {}", ran.stderr), |_| ran.ok())?;
    Ok(ran)
}
