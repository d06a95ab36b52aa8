//! Pods that come into the mesh and leave it while their applications open connections.

use crate::load::{self, Load};
use crate::observe;
use crate::scenario::{Scenario, expect, scenario};
use crate::world::World;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![scenario!(
        "capture-and-release-under-load",
        "client and server come into the mesh and leave it, and no connection between them fails",
        come_and_go
    )]
}

/// In every order in which two pods can come and go.
async fn come_and_go(world: &World) -> anyhow::Result<()> {
    let pods = world.couple("coming").await?;
    let (client, server) = (&*pods.client, &*pods.server);
    for [first, second] in [[client, server], [server, client]] {
        let marker = format!("coming-marker-{}-end", first.name());
        let work = Box::pin(async {
            world.enrol(first).await?;
            world.enrol(second).await?;
            observe::tunnelled(world, client, server).await?;
            world.release(first).await?;
            world.release(second).await?;
            observe::until_empty(world, first).await?;
            observe::until_empty(world, second).await
        });
        let ((), load) = load::during(&pods, &marker, work).await?;
        expect("no connection failed", load, Load::is_whole)?;
    }
    Ok(())
}
