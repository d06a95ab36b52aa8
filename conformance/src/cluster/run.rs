//! A run on a cluster: scenarios one after the other, told as they go, and the report.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use lab::cluster::access::Cluster;

use super::ground::{Allowed, Ground, UserCommand};
use super::room::Room;
use super::scenario::Scenario;
use super::{evidence, versions};
use crate::ending::Ending;
use crate::report::{self, Level, Mark, Outcome, Report, Source};
use crate::scenario::{NotImplemented, Skip};

/// A scenario that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(600);

/// What to run, and where.
pub(crate) struct ClusterRun {
    /// How to reach the cluster.
    pub kubeconfig: PathBuf,
    /// The image of test pods, which has this program.
    pub image: String,
    /// Only scenarios whose id contains one of these texts.
    pub only: Vec<String>,
    /// Where the evidence of failures goes.
    pub evidence: PathBuf,
    /// What to call the primary CNI plugin, with its version; found out otherwise.
    pub cni: Option<String>,
    /// Where scenarios may make things.
    pub room: Room,
    /// Whether the mesh's own pods may be ended.
    pub restarts: Restarts,
    /// A line of shell that removes the mesh from the cluster, to be judged last.
    pub uninstall: Option<String>,
    /// A line of shell that cuts the power of the node `$NODE` and starts it again.
    pub reboot: Option<String>,
    /// How far the results can be believed.
    pub source: Source,
}

/// Whether scenarios may end the mesh's own pods, which whoever uses the cluster notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Restarts {
    Allowed,
    Refused,
}

/// Runs the scenarios and removes what they made, also when asked to end before.
///
/// # Errors
/// When the cluster cannot be reached. Failed scenarios are in the report, and so is that the
/// run was interrupted.
pub(crate) async fn run_on_cluster(run: ClusterRun) -> anyhow::Result<Report> {
    let mut ending = Ending::watch().context("watch for signals")?;
    let cluster = Cluster::connect(&run.kubeconfig).await?;
    let versions_of = cluster.clone();
    let command = |line: &Option<String>| {
        let line = line.clone()?;
        Some(UserCommand { line, kubeconfig: run.kubeconfig.clone() })
    };
    let allowed = Allowed {
        room: run.room.clone(),
        restarts: run.restarts,
        removal: command(&run.uninstall),
        reboot: command(&run.reboot),
    };
    let ground = Ground::survey(cluster, &run.image, allowed).await?;
    let cni = run.cni.as_deref();
    let versions = versions::versions(&versions_of, &ground.nodes, &ground.parts, cni).await?;
    tell(&ground, &versions);
    let mut report = Report {
        level: Level::Cluster,
        source: run.source,
        date: report::now(),
        versions,
        witnessed: None,
        results: Vec::new(),
    };
    let interrupted = tokio::select! {
        () = run.scenarios(&ground, &mut report) => None,
        why = ending.asked() => Some(why),
    };
    if let Some(why) = interrupted {
        println!("\n{why}: removing what was made");
    }
    let started = Instant::now();
    let left = ground.leave().await;
    report.results.push(outcome(
        ("cluster/leaves-nothing", "the suite's own namespaces and changes are gone", &[]),
        &left,
        started.elapsed(),
    ));
    if let Err(error) = &left {
        println!("✘ cluster/leaves-nothing: {error:#}");
    }
    if let Some(why) = interrupted {
        report.results.push(Outcome::unfinished("cluster", why));
    }
    Ok(report)
}

impl ClusterRun {
    async fn scenarios(&self, ground: &Ground, report: &mut Report) {
        let all = super::scenarios();
        let chosen: Vec<_> = all.iter().filter(|scenario| self.wants(scenario)).collect();
        for (number, scenario) in chosen.iter().enumerate() {
            progress(number + 1, chosen.len(), scenario);
            let started = Instant::now();
            let done = match tokio::time::timeout(LIMIT, (scenario.run)(ground)).await {
                Ok(Err(error)) if self.room.explains(&error) => {
                    Err(Skip(format!("needs a right: {error:#}")).into())
                }
                Ok(done) => done,
                Err(_) => Err(anyhow::anyhow!("hangs: not done after {LIMIT:?}")),
            };
            let name = name(scenario);
            let about = (name.as_str(), scenario.meaning, scenario.behaviours);
            let mut outcome = outcome(about, &done, started.elapsed());
            if outcome.mark == Mark::Failed {
                let folder = self.evidence.join(name.replace('/', "-"));
                if let Err(error) = evidence::keep(ground, &folder).await {
                    println!("  evidence is incomplete: {error:#}");
                }
                outcome.evidence = Some(folder);
            }
            print_outcome(&outcome);
            report.results.push(outcome);
            if let Err(error) = ground.clear().await {
                println!("  not all of it could be removed: {error:#}");
            }
        }
    }

    fn wants(&self, scenario: &Scenario) -> bool {
        let name = name(scenario);
        self.only.is_empty() || self.only.iter().any(|text| name.contains(text))
    }
}

fn name(scenario: &Scenario) -> String {
    format!("cluster/{}", scenario.id)
}

fn outcome(
    (id, meaning, behaviours): (&str, &str, &[u8]),
    done: &anyhow::Result<()>,
    took: Duration,
) -> Outcome {
    let mark = match done {
        Ok(()) => Mark::Passed,
        Err(error) if error.is::<Skip>() => Mark::Skipped,
        Err(error) if error.is::<NotImplemented>() => Mark::NotImplemented,
        Err(_) => Mark::Failed,
    };
    Outcome {
        id: id.to_owned(),
        meaning: meaning.to_owned(),
        behaviours: behaviours.to_vec(),
        mark,
        reason: done.as_ref().err().map(|error| format!("{error:#}")),
        seconds: took.as_secs_f32(),
        evidence: None,
    }
}

fn tell(ground: &Ground, versions: &report::Versions) {
    let unknown = "unknown".to_owned();
    println!(
        "Kubernetes {}, {}, kernel {}, {}",
        versions.kubernetes.as_ref().unwrap_or(&unknown),
        versions.cni.as_ref().map_or("CNI unknown", |cni| cni.as_str()),
        versions.kernel.as_ref().unwrap_or(&unknown),
        versions.runtime.as_ref().unwrap_or(&unknown),
    );
    let nodes: Vec<_> = ground.nodes.iter().map(|node| node.name.as_str()).collect();
    println!("nodes that take pods: {}", nodes.join(", "));
    for (what, part) in [("agent", &ground.parts.agent), ("ztunnel", &ground.parts.ztunnel)] {
        match part {
            Some(part) => println!(
                "{what}: DaemonSet {}/{}, {}",
                part.namespace,
                part.name,
                part.images.join(", ")
            ),
            None if ground.parts.hidden => println!("{what}: no right to look for its DaemonSet"),
            None => println!("{what}: no DaemonSet found; what needs it is skipped"),
        }
    }
    println!();
}

/// The running scenario, where somebody looks; it is written over by its outcome.
fn progress(number: usize, of: usize, scenario: &Scenario) {
    let mut out = std::io::stdout();
    if out.is_terminal() {
        print!("\r\x1b[K… [{number}/{of}] {}: {}", scenario.id, scenario.meaning);
        // Whoever closed the terminal does not look.
        let _ = out.flush();
    }
}

fn print_outcome(outcome: &Outcome) {
    if std::io::stdout().is_terminal() {
        print!("\r\x1b[K");
    }
    let Outcome { id, meaning, seconds, .. } = outcome;
    let reason = outcome.reason.as_deref().unwrap_or_default();
    match outcome.mark {
        Mark::Passed => println!("✔ {id} ({seconds:.1} s): {meaning}"),
        Mark::Skipped => println!("– {id}: skipped, {reason}"),
        Mark::NotImplemented => println!("○ {id}: not implemented, {reason}"),
        Mark::Failed => {
            println!("✘ {id} ({seconds:.1} s): {meaning}");
            reason.lines().for_each(|line| println!("    {line}"));
            if let Some(folder) = &outcome.evidence {
                println!("    evidence: {}", folder.display());
            }
        }
    }
}
