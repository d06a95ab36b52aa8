//! The story of one label, told with what was observed.

mod narrator;
mod steps;

use std::time::Duration;

use anyhow::{Context, bail};
use lab::{Family, Lab, Options, Subject};

use crate::world::World;
use narrator::Narrator;

/// A step that has not shown its result by then has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// What happens when the story is told.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Afterwards {
    /// Everything is removed at once.
    TearDown,
    /// Everything stays until Ctrl-C.
    Keep,
}

/// The demo.
pub(crate) struct Demo {
    subject: Subject,
    afterwards: Afterwards,
}

impl Demo {
    pub(crate) fn new(subject: Subject, afterwards: Afterwards) -> Self {
        Self {
            subject,
            afterwards,
        }
    }

    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let narrator = Narrator::default();
        let mut terminate =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        let mut world = None;
        let outcome = tokio::select! {
            outcome = self.tell(&narrator, &mut world) => outcome,
            _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
            _ = terminate.recv() => Err(anyhow::anyhow!("terminated")),
        };
        if let Some(world) = world {
            tear_down(&narrator, world).await?;
        }
        outcome
    }

    async fn tell(&self, narrator: &Narrator, world: &mut Option<World>) -> anyhow::Result<()> {
        narrator.chapter("Two nodes, a control plane, and on each node an agent and a ztunnel");
        let options = Options {
            family: Family::V4,
            subject: Some(self.subject.clone()),
            patience: PATIENCE,
            ..Options::default()
        };
        let lab = narrator
            .wait("network and Kubernetes API", Lab::start(options))
            .await
            .context("bring up the lab")?;
        let world = world.insert(World::new(lab, PATIENCE));
        narrator
            .wait("node agents and ztunnels", world.lab.start_mesh())
            .await?;
        let _server = steps::tell(narrator, world).await?;
        if self.afterwards == Afterwards::Keep {
            steps::invite(narrator, world);
            // Ends by a signal, in `run`.
            std::future::pending::<()>().await;
        }
        Ok(())
    }
}

async fn tear_down(narrator: &Narrator, world: World) -> anyhow::Result<()> {
    narrator.chapter("Everything is removed");
    let leftovers = narrator.quietly("teardown", world.lab.teardown()).await;
    if leftovers.is_clean() {
        narrator.saw("no namespace, link, rule, mount or process is left");
        return Ok(());
    }
    bail!("left behind: {leftovers}")
}
