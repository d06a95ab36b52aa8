//! Runs the scenarios, one lab per stage, and reports.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use lab::{Family, Lab, Options, Subject};

use crate::ending::Ending;
use crate::report::{self, Level, Mark, Outcome, Report, Source, Versions};
use crate::scenario::{Scenario, Skip};
use crate::scenarios::{self, Stage};
use crate::world::World;

/// A scenario that takes longer hangs.
const SCENARIO_LIMIT: Duration = Duration::from_secs(180);

/// A run of the suite.
pub(crate) struct Suite {
    pub subject: Subject,
    pub only: Vec<String>,
    pub evidence: PathBuf,
    /// How long anything observable may take before a scenario fails. A healthy mesh needs a
    /// fraction of it; a loaded machine should not make a test fail.
    pub patience: Duration,
    /// How far the results can be believed.
    pub source: Source,
}

impl Suite {
    pub(crate) async fn run(self) -> anyhow::Result<Report> {
        let mut results = Vec::new();
        let mut ending = Ending::watch().context("watch for signals")?;
        for stage in scenarios::stages() {
            let chosen: Vec<_> =
                stage.scenarios.iter().filter(|scenario| self.wants(&stage, scenario)).collect();
            if chosen.is_empty() {
                continue;
            }
            println!("== {}: {}", stage.name, stage.meaning);
            tokio::select! {
                () = self.run_stage(&stage, &chosen, &mut results) => {}
                why = ending.asked() => {
                    println!("\n{why}: the lab is removed");
                    results.push(Outcome::unfinished("namespaces", why));
                    break;
                }
            }
        }
        if results.is_empty() {
            bail!("no scenario matches --only {:?}", self.only);
        }
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").ok();
        let kernel = kernel.map(|text| text.trim().to_owned());
        let subject = vec![concat!("sluice ", env!("CARGO_PKG_VERSION")).to_owned()];
        Ok(Report {
            level: Level::Namespaces,
            source: self.source,
            date: report::now(),
            versions: Versions { kernel, subject, ..Versions::default() },
            witnessed: None,
            results,
        })
    }

    fn wants(&self, stage: &Stage, scenario: &Scenario) -> bool {
        let name = format!("{}/{}", stage.name, scenario.id);
        self.only.is_empty() || self.only.iter().any(|text| name.contains(text))
    }

    async fn run_stage(&self, stage: &Stage, chosen: &[&Scenario], results: &mut Vec<Outcome>) {
        let world = match self.start(stage.family).await {
            Ok(world) => world,
            Err(error) => {
                println!("FAIL {}/start: the lab did not come up: {error:#}", stage.name);
                results.push(of_stage(stage, "start", Some(format!("{error:#}"))));
                return;
            }
        };
        for scenario in chosen {
            self.run_scenario(stage, scenario, &world, results).await;
        }
        let leftovers = world.lab.teardown().await;
        if leftovers.is_clean() {
            println!("ok   {}/teardown", stage.name);
            results.push(of_stage(stage, "teardown", None));
        } else {
            println!("FAIL {}/teardown: left behind: {leftovers}", stage.name);
            results.push(of_stage(stage, "teardown", Some(format!("left behind: {leftovers}"))));
        }
    }

    async fn start(&self, family: Family) -> anyhow::Result<World> {
        let options = Options {
            family,
            subject: Some(self.subject.clone()),
            patience: self.patience,
            ..Options::default()
        };
        let lab = Lab::start(options).await.context("network, API and control plane")?;
        lab.start_mesh().await.context("node agents and ztunnels")?;
        Ok(World::new(lab, self.patience))
    }

    async fn run_scenario(
        &self,
        stage: &Stage,
        scenario: &Scenario,
        world: &World,
        results: &mut Vec<Outcome>,
    ) {
        let name = format!("{}/{}", stage.name, scenario.id);
        let started = Instant::now();
        let outcome = match tokio::time::timeout(SCENARIO_LIMIT, (scenario.run)(world)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(anyhow::anyhow!("hangs: not done after {SCENARIO_LIMIT:?}")),
        };
        let verdicts = world.verdicts().await;
        let took = started.elapsed().as_secs_f32();
        let mut result = Outcome {
            id: name.clone(),
            meaning: scenario.meaning.to_owned(),
            behaviours: scenario.behaviours.to_vec(),
            mark: Mark::Passed,
            reason: None,
            seconds: took,
            evidence: None,
        };
        match outcome.and(verdicts) {
            Ok(verdicts) => {
                println!("ok   {name} ({took:.1} s): {}", scenario.meaning);
                verdicts.iter().for_each(|verdict| println!("     {verdict}"));
            }
            Err(error) if error.is::<Skip>() => {
                println!("SKIP {name}: {error}");
                (result.mark, result.reason) = (Mark::Skipped, Some(error.to_string()));
            }
            Err(error) => {
                println!("FAIL {name} ({took:.1} s): {}\n{error:#}", scenario.meaning);
                (result.mark, result.reason) = (Mark::Failed, Some(format!("{error:#}")));
                let folder = self.evidence.join(name.replace('/', "-"));
                if let Err(error) = keep_evidence(world, &folder).await {
                    println!("     evidence is incomplete: {error:#}");
                }
                println!("     evidence: {}", folder.display());
                result.evidence = Some(folder);
                // One failure is to be one failure.
                match world.lab.restore_mesh().await {
                    Ok(helped) if helped.is_empty() => {}
                    Ok(helped) => println!("     started again: {}", helped.join(", ")),
                    Err(error) => println!("     the mesh is not as at the start: {error}"),
                }
            }
        }
        results.push(result);
        if let Err(error) = world.clear().await {
            println!("FAIL {name}/pods: {error:#}");
            let id = format!("{}/pods", scenario.id);
            results.push(of_stage(stage, &id, Some(format!("{error:#}"))));
        }
    }
}

/// What came of a step around the scenarios.
fn of_stage(stage: &Stage, step: &str, problem: Option<String>) -> Outcome {
    Outcome {
        id: format!("{}/{step}", stage.name),
        meaning: format!("{step}: {}", stage.meaning),
        behaviours: Vec::new(),
        mark: if problem.is_some() { Mark::Failed } else { Mark::Passed },
        reason: problem,
        seconds: 0.0,
        evidence: None,
    }
}

/// Rules, routes and sockets of every pod, and the logs of every node.
async fn keep_evidence(world: &World, folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)?;
    for pod in world.pods() {
        let mut text = String::new();
        for command in [
            &["nft", "list", "ruleset"][..],
            &["ip", "rule"],
            &["ip", "-6", "rule"],
            &["ip", "address"],
            &["ss", "-tanp"],
            &["conntrack", "-L"],
        ] {
            let ran = pod.run(command).await?;
            text.push_str(&format!("# {}\n{}{}\n", command.join(" "), ran.stdout, ran.stderr));
        }
        std::fs::write(folder.join(format!("pod-{}.txt", pod.name())), text)?;
    }
    for node in world.lab.nodes() {
        for part in node.parts() {
            let name = format!("{}-{}.log", node.name(), part.name());
            std::fs::write(folder.join(name), part.log_text())?;
        }
    }
    Ok(())
}
