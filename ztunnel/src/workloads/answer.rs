//! What the manager answers the agent.

use tracing::warn;
use zds::link::LinkError;

use super::agent;
use super::event::Event;
use super::manager::Manager;
use crate::proxy::GivenListener;

impl Manager {
    pub(super) async fn ack(&mut self, result: Result<(), String>) {
        if let Err(error) = &result {
            warn!(error, "request of the node agent not carried out");
        }
        let Some(link) = &self.link else { return };
        let sent = agent::answer(link, result).await;
        self.answered(sent);
    }

    /// The agent was restarted and has no listeners: it gets duplicates of ours.
    pub(super) async fn give_back(&mut self, uid: &str) {
        let Some(link) = &self.link else { return };
        let sent = match self.proxies.get(uid) {
            Some(proxy) => agent::give_back(link, proxy).await,
            None => agent::answer(link, Err(format!("workload {uid} is not served here"))).await,
        };
        self.answered(sent);
    }

    /// The agent has other listeners than those that a pod is served on.
    pub(super) async fn adopt(&mut self, uid: &str, given: Vec<GivenListener>) {
        let result = match self.proxies.get_mut(uid) {
            Some(proxy) => proxy.adopt(given).map_err(|error| error.to_string()),
            None => Err(format!("workload {uid} is not served here")),
        };
        self.ack(result).await;
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
