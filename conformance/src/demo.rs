//! The story of one label, told with what was observed.

mod narrator;
mod steps;

use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use lab::{Family, Lab, Options, Server, Subject};

use crate::ending::Ending;
use crate::world::World;
use narrator::Narrator;

/// A step that has not shown its result by then has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// Two stories at once would confuse those who read them.
const LOCK: &str = "/run/sluice-demo.lock";

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
        Self { subject, afterwards }
    }

    pub(crate) async fn run(self) -> anyhow::Result<()> {
        // Its name stays: a lock file that is removed could be held twice.
        let _lock = lock(Path::new(LOCK))?;
        let narrator = Narrator::default();
        let mut ending = Ending::watch().context("watch for signals")?;
        let mut world = None;
        let told = tokio::select! {
            told = self.tell(&narrator, &mut world) => told,
            why = ending.asked() => Err(anyhow::anyhow!(why)),
        };
        if let (Afterwards::Keep, Ok(_), Some(world)) = (self.afterwards, &told, &world) {
            steps::invite(&narrator, world);
            ending.asked().await;
        }
        // The server's application answers until here.
        let outcome = told.map(drop);
        let removed = match world {
            Some(world) => tear_down(&narrator, world).await,
            None => Ok(()),
        };
        if matches!((&outcome, self.afterwards), (Ok(()), Afterwards::TearDown)) {
            narrator.say("With --keep it all stays until Ctrl-C, to be played with.");
        }
        outcome.and(removed)
    }

    async fn tell(&self, narrator: &Narrator, world: &mut Option<World>) -> anyhow::Result<Server> {
        narrator.chapter("Two nodes, a control plane, and on each node an agent and a ztunnel");
        let options = Options {
            family: Family::V4,
            subject: Some(self.subject.clone()),
            patience: PATIENCE,
            ..Options::default()
        };
        let lab = narrator
            .wait("network and Kubernetes API are up", Box::pin(Lab::start(options)))
            .await
            .context("bring up the lab")?;
        let world = world.insert(World::new(lab, PATIENCE));
        narrator.wait("node agents and ztunnels are ready", world.lab.start_mesh()).await?;
        Box::pin(steps::tell(narrator, world)).await
    }
}

fn lock(path: &Path) -> anyhow::Result<File> {
    let file = File::create(path)
        .with_context(|| format!("open {}; the demo has to run as root", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            bail!("another demo is running on this machine; end it first")
        }
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("lock {}", path.display()))
        }
    }
}

async fn tear_down(narrator: &Narrator, world: World) -> anyhow::Result<()> {
    narrator.chapter("Everything is removed");
    let leftovers = narrator.quietly("teardown", world.lab.teardown()).await;
    if leftovers.is_clean() {
        narrator.saw("no namespace, link, rule, mount or process is left");
        return Ok(());
    }
    narrator.saw(format!("left behind: {leftovers}"));
    bail!("the demo left behind: {leftovers}")
}
