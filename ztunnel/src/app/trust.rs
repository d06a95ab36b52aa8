//! Keeps secrets in, and trust as the operator's files have it.

use std::io;
use std::path::PathBuf;

use tokio_util::sync::CancellationToken;

use super::AppError;
use crate::config::Config;
use crate::identity::{Certificates, follow_root};
use crate::tls::{RootSource, Terms};

/// Keys are in our memory: no core dumps, and no reading of it by others of our user.
pub(super) fn hide_memory() -> Result<(), AppError> {
    nix::sys::prctl::set_dumpable(false).map_err(|errno| AppError::Memory(io::Error::from(errno)))
}

/// Follows the root of the CA and the revocation lists.
pub(super) struct Trust {
    terms: Terms,
    certificates: Certificates,
    root: Option<PathBuf>,
}

impl Trust {
    pub(super) fn new(config: &Config, certificates: &Certificates, terms: &Terms) -> Self {
        let root = match &config.ca.root {
            RootSource::File(path) => Some(path.clone()),
            RootSource::Pem(_) | RootSource::System => None,
        };
        Self { terms: terms.clone(), certificates: certificates.clone(), root }
    }

    /// Until `stop`, also if there is nothing to follow.
    pub(super) async fn run(self, stop: CancellationToken) {
        let root = async {
            if let Some(file) = self.root {
                follow_root(self.certificates, file, stop.clone()).await;
            }
        };
        tokio::join!(root, self.terms.revocation.run(stop.clone()));
        stop.cancelled().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_else_reads_our_memory() {
        hide_memory().unwrap();
        assert!(!nix::sys::prctl::get_dumpable().unwrap());
    }
}
