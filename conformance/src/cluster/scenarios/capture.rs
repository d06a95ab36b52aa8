//! Capture and release of pods.

use crate::cluster::exchange::{Seen, Target};
use crate::cluster::ground::Ground;
use crate::cluster::pods::{Couple, Distance, MODE_LABEL};
use crate::cluster::scenario::{Scenario, scenario};
use crate::scenario::expect;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(
            "label-captures-cross-node",
            &[3, 4, 24],
            "a label moves running pods of two nodes from clear text into the tunnel, and back",
            cross_node
        ),
        scenario!(
            "label-captures-same-node",
            &[3, 4],
            "the same for two pods of one node",
            same_node
        ),
        scenario!(
            "source-address-cross-node",
            &[4],
            "a captured server sees the address of a captured client on another node",
            source_cross_node
        ),
        scenario!(
            "source-address-same-node",
            &[4],
            "a captured server sees the address of a captured client on its node",
            source_same_node
        ),
        scenario!(
            "namespace-label-and-opt-out",
            &[28],
            "a namespace's label captures its pods, but for one that opts out",
            precedence
        ),
    ]
}

async fn cross_node(ground: &Ground) -> anyhow::Result<()> {
    label_and_back(ground, Distance::CrossNode).await
}

async fn same_node(ground: &Ground) -> anyhow::Result<()> {
    label_and_back(ground, Distance::SameNode).await
}

/// The first half shows that the observers see what they must not see in the second.
async fn label_and_back(ground: &Ground, distance: Distance) -> anyhow::Result<()> {
    let Couple { client, server, .. } = ground.couple("label", distance, &[]).await?;
    ground.until_direct(&client, &server).await?;
    ground.set_mode(&client, Some("ambient")).await?;
    ground.set_mode(&server, Some("ambient")).await?;
    ground.until_captured(&client, &server).await?;
    for _ in 0..3 {
        let seen = ground.exchange(&client, &Target::pod(&server)).await?;
        expect("the tunnel, and no clear text", seen, Seen::is_captured)?;
    }
    ground.set_mode(&client, None).await?;
    ground.set_mode(&server, None).await?;
    ground.until_direct(&client, &server).await.map(drop)
}

async fn source_cross_node(ground: &Ground) -> anyhow::Result<()> {
    source(ground, Distance::CrossNode).await
}

async fn source_same_node(ground: &Ground) -> anyhow::Result<()> {
    source(ground, Distance::SameNode).await
}

async fn source(ground: &Ground, distance: Distance) -> anyhow::Result<()> {
    let Couple { client, server, .. } = ground.captured_couple("source", distance).await?;
    let seen = ground.exchange(&client, &Target::pod(&server)).await?;
    expect("the tunnel, and no clear text", seen.clone(), Seen::is_captured)?;
    let expected = format!("the server sees the client's own address, {}", client.ip());
    expect(&expected, seen.answers, |answers| answers.peers == [client.ip()])
}

async fn precedence(ground: &Ground) -> anyhow::Result<()> {
    let namespace = ground.namespace("modes", &[(MODE_LABEL, "ambient")]).await?;
    let client = ground.spec(&namespace, "client", 1)?;
    let server = ground.spec(&namespace, "server", 1)?;
    let out = ground.spec(&namespace, "out", 1)?.label(MODE_LABEL, "none");
    let (client, server, out) =
        tokio::try_join!(ground.pod(&client), ground.pod(&server), ground.pod(&out))?;
    ground.until_redirection(&client, Some("enabled")).await?;
    ground.until_redirection(&server, Some("enabled")).await?;
    ground.until_captured(&client, &server).await?;
    ground.until_direct(&client, &out).await?;
    ground.expect_redirection(&out, None).await?;
    // The namespace's label goes; a pod's own stays in force.
    ground.cluster.label(&client.path(), MODE_LABEL, Some("ambient")).await?;
    let path = lab::cluster::access::paths::namespace(&namespace);
    ground.cluster.label(&path, MODE_LABEL, None).await?;
    ground.until_redirection(&server, None).await?;
    ground.until_direct(&client, &server).await?;
    ground.expect_redirection(&client, Some("enabled")).await
}
