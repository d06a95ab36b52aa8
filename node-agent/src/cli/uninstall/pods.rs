//! Releases pods, after their peers were told. All pods leave together, so that one deadline
//! serves them all.

use std::time::Duration;

use capture::Options;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

use super::report::Report;
use super::thing::Thing;
use super::{Leave, Node, UninstallError};
use crate::pod_netns::NodePlace;
use crate::rules::RulesError;

/// Pods worked on at once: each step starts programs.
const AT_ONCE: usize = 8;
/// How often the connections of a leaving pod are counted.
const LOOK: Duration = Duration::from_millis(250);

impl Node {
    /// Releases these pods and looks that nothing of ours is left in them.
    pub(super) async fn release_all(
        &self,
        pods: Vec<NodePlace>,
        report: &mut Report,
    ) -> Result<(), UninstallError> {
        let (turns, mut leaving) = (&Semaphore::new(AT_ONCE), FuturesUnordered::new());
        for place in &pods {
            leaving.push(async move { (place, self.release(place, turns).await) });
        }
        while let Some((place, released)) = leaving.next().await {
            let line = Thing::Pod(place.clone()).to_string();
            report.outcome(&line, released.map_err(|error| error.to_string()))?;
        }
        Ok(())
    }

    /// What is left of a pod's connections is ended while NAT stands: applications would go
    /// on in clear text otherwise.
    async fn release(&self, place: &NodePlace, turns: &Semaphore) -> Result<(), RulesError> {
        if let Leave::Drained(deadline) = self.config.leave {
            self.drain(place, turns, deadline).await?;
        }
        // The semaphore is never closed.
        let _turn = turns.acquire().await;
        self.rules.end_connections(&place.netns).await?;
        self.rules.remove(&place.netns).await
    }

    /// As the agent has written them down.
    fn options(&self, place: &NodePlace) -> Options {
        let remembered = place.pods.iter().find_map(|uid| self.remembered.get(uid));
        let node = &self.config.options;
        remembered.map_or_else(|| node.clone(), |remembered| remembered.options(node))
    }

    /// A count that fails is no reason to wait less.
    async fn drain(
        &self,
        place: &NodePlace,
        turns: &Semaphore,
        deadline: Duration,
    ) -> Result<(), RulesError> {
        let turn = turns.acquire().await;
        self.rules.drain(&place.netns, &self.options(place)).await?;
        drop(turn);
        let end = Instant::now() + deadline;
        while Instant::now() < end {
            let turn = turns.acquire().await;
            let left = self.rules.proxied_connections(&place.netns).await;
            drop(turn);
            if matches!(left, Ok(0)) {
                break;
            }
            sleep(LOOK.min(end.saturating_duration_since(Instant::now()))).await;
        }
        Ok(())
    }
}
