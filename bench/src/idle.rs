//! What connections cost on which nothing is said.

use std::time::Duration;

use anyhow::Context;

use crate::Plan;
use crate::alone::{count, mib, number};
use crate::process::{self, Holds};
use crate::report::Report;
use crate::town::{Town, until_quiet};

const SIDES: [&str; 2] = ["client's side", "server's side"];
/// Descriptors of this program that are no idle connections.
const OWN: usize = 1_000;
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) async fn measure(town: &Town, plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    report.chapter("Idle captured connections");
    until_quiet(&town.lab, PATIENCE).await?;
    let before = holds(town).await?;
    let mut kept = Vec::new();
    // Each takes two descriptors here, one at either end.
    let most = process::descriptor_limit().saturating_sub(OWN) / 2;
    for &wanted in plan.idle {
        let wanted = wanted.min(most);
        while kept.len() < wanted {
            let stream = tokio::task::block_in_place(|| town.captured.client.keep())
                .with_context(|| format!("idle connection {}", kept.len() + 1))?;
            kept.push(stream);
        }
        let now = holds(town).await?;
        for (side, (now, before)) in SIDES.iter().zip(now.iter().zip(&before)) {
            let name = format!("{wanted} connections, {side}");
            let each =
                |now: u64, before| count(now.saturating_sub(before)) * 1024.0 / number(wanted);
            report.add(&format!("{name}: resident"), mib(now.rss), "MiB");
            report.add(&format!("{name}: each"), each(now.rss, before.rss), "bytes");
            let anonymous = each(now.anonymous, before.anonymous);
            report.add(&format!("{name}: each, anonymous"), anonymous, "bytes");
        }
    }
    kept.clear();
    town.captured.applications.let_go();
    until_quiet(&town.lab, PATIENCE).await?;
    tokio::time::sleep(Duration::from_secs(12)).await;
    for (side, now) in SIDES.iter().zip(holds(town).await?) {
        report.add(&format!("12 s after they closed, {side}: resident"), mib(now.rss), "MiB");
    }
    Ok(())
}

async fn holds(town: &Town) -> anyhow::Result<[Holds; 2]> {
    let [client, server] = town.ztunnels().await?;
    Ok([Holds::of(client)?, Holds::of(server)?])
}
