//! What the manager answers the agent.

use netns::PodNetns;
use tokio::time::timeout;
use tracing::warn;
use zds::GiveBack;
use zds::link::LinkError;

use super::agent;
use super::event::{Event, Pod};
use super::manager::Manager;
use crate::proxy::Listeners;

impl Manager {
    pub(super) async fn ack(&mut self, result: Result<(), String>) {
        if let Err(error) = &result {
            warn!(error, "request of the node agent not carried out");
        }
        let Some(link) = &self.link else { return };
        let sent = agent::answer(link, result).await;
        self.answered(sent);
    }

    /// The agent was restarted and lacks listeners: it gets duplicates of ours.
    pub(super) async fn give_back(&mut self, uid: &str, asked: GiveBack) {
        let Some(link) = &self.link else { return };
        let sent = match self.proxies.get(uid) {
            Some(proxy) => agent::give_back(link, proxy, asked).await,
            None => agent::answer(link, Err(format!("workload {uid} is not served here"))).await,
        };
        self.answered(sent);
    }

    /// The agent has other listeners than those that a pod is served on, or says what becomes
    /// of its lookups.
    pub(super) async fn adopt(&mut self, pod: Pod<PodNetns>, asked: GiveBack) {
        let Pod { uid, listeners, name_server, .. } = pod;
        let given = match listeners {
            Listeners::Given(given) => given,
            Listeners::ToBind(_) => Vec::new(),
        };
        let deadline = self.start_deadline();
        let result = match self.proxies.get_mut(&uid) {
            Some(proxy) => match timeout(deadline, proxy.adopt(given, name_server)).await {
                Ok(result) => result.map_err(|error| error.to_string()),
                Err(_) => Err(format!("workload {uid} was not changed within {deadline:?}")),
            },
            None => Err(format!("workload {uid} is not served here")),
        };
        match (result, asked) {
            (Ok(()), GiveBack::Proxy | GiveBack::Lookups | GiveBack::All) => {
                self.give_back(&uid, asked).await;
            }
            (result, _) => self.ack(result).await,
        }
    }

    fn answered(&mut self, sent: Result<(), LinkError>) {
        if let Err(error) = sent {
            warn!(%error, "connection to the node agent given up; its pods stay served");
            self.disconnect();
            // The session has no actions for this.
            self.session.on(Event::Disconnected);
        }
    }
}
