//! Labels come and go while pods talk.

use crate::cluster::exchange::expect_whole;
use crate::cluster::ground::Ground;
use crate::cluster::pods::{APP_PORT, Distance, MODE_LABEL};
use crate::cluster::scenario::{Scenario, scenario};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(
            "label-under-load",
            &[24],
            "server and client are labelled while they talk, and no connection fails",
            label
        ),
        scenario!(
            "un-label-under-load",
            &[26],
            "both labels are taken off while they talk, and no connection fails",
            un_label
        ),
        scenario!("label-flips", &[27], "after many flips of the label the last one counts", flips),
    ]
}

async fn label(ground: &Ground) -> anyhow::Result<()> {
    let pods = ground.couple("load-on", Distance::CrossNode, &[]).await?;
    ground.until_direct(&pods.client, &pods.server).await?;
    let work = async {
        ground.set_mode(&pods.server, Some("ambient")).await?;
        ground.set_mode(&pods.client, Some("ambient")).await?;
        ground.until_captured(&pods.client, &pods.server).await
    };
    // The exchange that shows it is one among those of the load, so it cannot ask for "only the
    // tunnel" while older ones may still end in clear text: it is tried until they have.
    let (_, answers) =
        ground.under_load(&pods.client, (pods.server.addr(APP_PORT), &[]), work).await?;
    expect_whole(&answers)
}

async fn un_label(ground: &Ground) -> anyhow::Result<()> {
    let pods = ground.captured_couple("load-off", Distance::CrossNode).await?;
    let work = async {
        ground.set_mode(&pods.client, None).await?;
        ground.set_mode(&pods.server, None).await?;
        ground.until_direct(&pods.client, &pods.server).await
    };
    let (_, answers) =
        ground.under_load(&pods.client, (pods.server.addr(APP_PORT), &[]), work).await?;
    expect_whole(&answers)
}

async fn flips(ground: &Ground) -> anyhow::Result<()> {
    let pods = ground.couple("flips", Distance::CrossNode, &[]).await?;
    ground.set_mode(&pods.server, Some("ambient")).await?;
    for flip in 0..50 {
        let mode = (flip % 2 == 0).then_some("ambient");
        ground.cluster.label(&pods.client.path(), MODE_LABEL, mode).await?;
    }
    ground.set_mode(&pods.client, Some("ambient")).await?;
    ground.until_captured(&pods.client, &pods.server).await?;
    ground.set_mode(&pods.client, None).await?;
    ground.until_direct(&pods.client, &pods.server).await.map(drop)
}
