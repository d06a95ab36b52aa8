//! What changes while a pod is served: its listeners, and whether it has a name server.

use std::sync::Arc;

use super::ProxyError;
use super::listen::{self, GivenListener, NameServer};
use super::pod::PodProxy;

impl PodProxy {
    /// Serves on these listeners too. Ours stay: a connection may wait there. A name server
    /// that is not wanted any more ends, one that is wanted now begins.
    ///
    /// # Errors
    /// [`ProxyError::Listen`], [`ProxyError::Dns`].
    pub async fn adopt(
        &mut self,
        given: Vec<GivenListener>,
        name_server: NameServer,
    ) -> Result<(), ProxyError> {
        let opened = listen::open_given(&self.not_served(given), &self.home);
        let opened = opened.map_err(|error| error.of(&self.shared.name()))?;
        opened.into_iter().for_each(|listener| self.serve(listener));
        self.adopt_name_server(name_server).await
    }

    async fn adopt_name_server(&mut self, wanted: NameServer) -> Result<(), ProxyError> {
        let Some(dns) = &self.dns else { return Ok(()) };
        let wanted = match wanted {
            NameServer::AsConfigured => return Ok(()),
            NameServer::None => {
                dns.close();
                return Ok(());
            }
            // Ours will do.
            NameServer::On(given) if given.is_empty() && !dns.is_closed() => return Ok(()),
            NameServer::On(given) if given.is_empty() => NameServer::On(given),
            NameServer::On(given) => match self.not_served(given) {
                new if new.is_empty() => return Ok(()),
                new => NameServer::On(new),
            },
        };
        let (context, name) = (Arc::clone(&self.shared.context), self.shared.name());
        let opened = dns.open(&context, (&name, &self.home), &wanted).await?;
        opened.into_iter().for_each(|listener| self.serve(listener));
        Ok(())
    }

    fn not_served(&self, given: Vec<GivenListener>) -> Vec<GivenListener> {
        given.into_iter().filter(|given| !self.served.has(given)).collect()
    }
}
