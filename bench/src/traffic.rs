//! What traffic costs, captured and not, in turns.

use std::time::Duration;

use anyhow::Context;

use crate::Plan;
use crate::alone::count;
use crate::load::{Client, Work};
use crate::process;
use crate::report::{Report, median};
use crate::town::Town;

/// One kind of traffic.
struct Kind {
    name: &'static str,
    work: Work,
    at_once: usize,
    /// That many are named in the figures.
    per: f64,
    unit: &'static str,
}

const KINDS: [Kind; 6] = [
    Kind { name: "bulk, 1 stream", work: Work::Bulk, at_once: 1, per: 1e9, unit: "GB" },
    Kind { name: "bulk, 8 streams", work: Work::Bulk, at_once: 8, per: 1e9, unit: "GB" },
    Kind { name: "1 KiB there and back, 1", work: Work::Talk, at_once: 1, per: 1e5, unit: "100k" },
    Kind {
        name: "1 KiB there and back, 32",
        work: Work::Talk,
        at_once: 32,
        per: 1e5,
        unit: "100k",
    },
    Kind { name: "connect, 1 byte, 1", work: Work::Connect, at_once: 1, per: 1e5, unit: "100k" },
    Kind { name: "connect, 1 byte, 8", work: Work::Connect, at_once: 8, per: 1e5, unit: "100k" },
];

/// What the rounds of one kind showed.
#[derive(Default)]
struct Seen {
    proxies: Vec<f64>,
    /// All CPU, captured to plain.
    cost: Vec<f64>,
    /// Units per second, captured to plain.
    speed: Vec<f64>,
    captured: Vec<f64>,
    plain: Vec<f64>,
}

/// One turn.
struct Turn {
    per_second: f64,
    /// CPU seconds of both ztunnels, for [`Kind::per`] units.
    proxies: f64,
    /// CPU seconds of everybody.
    all: f64,
}

pub(crate) async fn measure(town: &Town, plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let mut seen: [Seen; 6] = Default::default();
    for round in 0..plan.rounds {
        for (kind, seen) in KINDS.iter().zip(&mut seen) {
            // In turns also within a round: what drifts hits both.
            let (plain, captured) = if round % 2 == 0 {
                let plain = turn(town, &town.plain.client, kind, plan.span).await?;
                (plain, turn(town, &town.captured.client, kind, plan.span).await?)
            } else {
                let captured = turn(town, &town.captured.client, kind, plan.span).await?;
                (turn(town, &town.plain.client, kind, plan.span).await?, captured)
            };
            seen.proxies.push(captured.proxies);
            seen.cost.push(captured.all / plain.all);
            seen.speed.push(captured.per_second / plain.per_second);
            seen.captured.push(captured.per_second);
            seen.plain.push(plain.per_second);
        }
    }
    report.chapter(&format!("Traffic between two nodes, medians of {} rounds", plan.rounds));
    for (kind, mut seen) in KINDS.iter().zip(seen) {
        let name = kind.name;
        let unit = format!("CPU s/{}", kind.unit);
        report.add(&format!("{name}: both ztunnels"), median(&mut seen.proxies), &unit);
        let (least, most) = (seen.proxies.first(), seen.proxies.last());
        report.add(&format!("{name}: the least"), least.copied().unwrap_or(0.0), &unit);
        report.add(&format!("{name}: the most"), most.copied().unwrap_or(0.0), &unit);
        report.add(&format!("{name}: all CPU, to plain TCP"), median(&mut seen.cost), "times");
        report.add(&format!("{name}: speed, to plain TCP"), median(&mut seen.speed), "times");
        let per = if kind.work == Work::Bulk { (1e6, "MB/s") } else { (1.0, "per s") };
        report.add(&format!("{name}: captured"), median(&mut seen.captured) / per.0, per.1);
        report.add(&format!("{name}: plain"), median(&mut seen.plain) / per.0, per.1);
    }
    Ok(())
}

async fn turn(town: &Town, client: &Client, kind: &Kind, span: Duration) -> anyhow::Result<Turn> {
    let ztunnels = town.ztunnels().await?;
    let cpu = || -> anyhow::Result<(f64, f64)> {
        let proxies = process::cpu(ztunnels[0])? + process::cpu(ztunnels[1])?;
        Ok((proxies.as_secs_f64(), process::own_cpu()?.as_secs_f64()))
    };
    let before = cpu()?;
    let done = tokio::task::block_in_place(|| client.work(kind.work, kind.at_once, span))
        .with_context(|| kind.name)?;
    let after = cpu()?;
    let units = count(done.units) / kind.per;
    let proxies = (after.0 - before.0) / units;
    let applications = (after.1 - before.1) / units;
    Ok(Turn {
        per_second: count(done.units) / done.took.as_secs_f64(),
        proxies,
        all: proxies + applications,
    })
}
