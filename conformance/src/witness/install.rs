//! Installs a witness as its users do, by Istio's own charts, and says what is left to ours.
//! Charts and images are what `scripts/cluster-tools istio` has made.

use std::path::Path;

use anyhow::Context;
use lab::cluster::harness::Tools;

use super::Witness;
use crate::helm::Helm;

/// Where Istio is.
const NAMESPACE: &str = "istio-system";
/// Another one than everybody's default: whoever goes by the default is found out.
const TRUST_DOMAIN: &str = "witness.test";
/// What `scripts/witness` calls our ztunnel's image that starts it by itself, as Istio's does.
const ZTUNNEL_IMAGE: &str = "image=sluice.test/ztunnel:dev";

/// What is left to our chart beside a witness.
pub(crate) struct Rest {
    /// Values, as `helm --set` takes them.
    pub values: Vec<String>,
    /// More words for helm.
    pub words: &'static [&'static str],
    /// What of it must get ready.
    pub ready: Vec<&'static str>,
}

/// Installs a witness. `None` when nothing is left to our chart.
pub(crate) async fn install(
    witness: Witness,
    helm: &Helm<'_>,
    ztunnel: Option<&Path>,
) -> anyhow::Result<Option<Rest>> {
    let version = version(helm.tools)?;
    match witness {
        Witness::Istiod => {
            let trusted =
                ["trustedZtunnelNamespace=sluice-system", "trustedZtunnelName=sluice-ztunnel"];
            istiod(helm, &version, &trusted).await?;
            Ok(Some(Rest {
                values: vec!["control.mode=istiod".to_owned(), domain("trustDomain")],
                // The definitions are Istio's.
                words: &["--skip-crds"],
                ready: vec!["daemonset/sluice-node-agent", "daemonset/sluice-ztunnel"],
            }))
        }
        Witness::IstioCni => {
            istio_cni(helm, &version).await?;
            Ok(Some(Rest {
                values: vec!["nodeAgent.enabled=false".to_owned()],
                words: &[],
                ready: vec!["deployment/sluice-control", "daemonset/sluice-ztunnel"],
            }))
        }
        Witness::Istio => {
            let ztunnel = ztunnel.context("our ztunnel needs an image of its own")?;
            helm.cluster.import(ztunnel, helm.patience).await?;
            istiod(helm, &version, &[]).await?;
            istio_cni(helm, &version).await?;
            let values = [ZTUNNEL_IMAGE, "imagePullPolicy=Never", &domain("env.TRUST_DOMAIN")];
            chart(helm, "ztunnel", "ztunnel", &values).await?;
            helm.wait_for(NAMESPACE, "daemonset/ztunnel").await?;
            Ok(None)
        }
    }
}

/// Waits for what gets ready only beside a ztunnel.
pub(crate) async fn settle(witness: Witness, helm: &Helm<'_>) -> anyhow::Result<()> {
    match witness {
        Witness::Istiod => Ok(()),
        Witness::IstioCni | Witness::Istio => {
            helm.wait_for(NAMESPACE, "daemonset/istio-cni-node").await
        }
    }
}

/// The version of Istio that was built.
pub(crate) fn version(tools: &Tools) -> anyhow::Result<String> {
    tools
        .version("istio")
        .context("Istio's parts are not built; add `istio` to scripts/cluster-tools")
}

fn domain(setting: &str) -> String {
    format!("{setting}={TRUST_DOMAIN}")
}

async fn istiod(helm: &Helm<'_>, version: &str, more: &[&str]) -> anyhow::Result<()> {
    helm.import("istio", "pilot.tar").await?;
    chart(helm, "istio-base", "base", &[]).await?;
    let image = format!("image=sluice.test/istio/pilot:{version}");
    let domain = domain("meshConfig.trustDomain");
    let mut values = vec![
        image.as_str(),
        &domain,
        "global.imagePullPolicy=Never",
        "autoscaleEnabled=false",
        "resources.requests.cpu=50m",
        "resources.requests.memory=128Mi",
        // Its webhooks are asked by an API server that is in no pod network here.
        "global.configValidation=false",
    ];
    values.extend(more);
    chart(helm, "istiod", "istio-control/istio-discovery", &values).await?;
    helm.wait_for(NAMESPACE, "deployment/istiod").await
}

async fn istio_cni(helm: &Helm<'_>, version: &str) -> anyhow::Result<()> {
    helm.import("istio", "install-cni.tar").await?;
    let image = format!("image=sluice.test/istio/install-cni:{version}");
    chart(helm, "istio-cni", "istio-cni", &[&image, "pullPolicy=Never"]).await
}

/// As Istio's documentation has it for ambient mode.
async fn chart(helm: &Helm<'_>, name: &str, path: &str, values: &[&str]) -> anyhow::Result<()> {
    let folder = helm.tools.folder().join("istio/charts").join(path);
    let folder = folder.display().to_string();
    let mut all = vec!["profile=ambient"];
    all.extend(values);
    helm.install(name, &folder, NAMESPACE, &all, &[]).await
}
