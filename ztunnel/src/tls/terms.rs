//! What holds for all connections between ztunnels.

use std::path::PathBuf;

use prometheus_client::registry::Registry;

use super::TlsError;
use super::provider::{Compliance, Cryptography, Versions};
use super::revocation::Revocation;

/// Settings of this room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Protocol versions.
    pub versions: Versions,
    /// Rules about cryptography.
    pub compliance: Compliance,
    /// A file with revocation lists.
    pub revocation_lists: Option<PathBuf>,
}

impl Settings {
    /// For operators, by the names of the environment.
    #[must_use]
    pub fn summary(&self) -> serde_json::Value {
        serde_json::json!({
            "tls12Enabled": self.versions == Versions::Tls12And13,
            "compliancePolicy": match self.compliance {
                Compliance::None => "",
                Compliance::PostQuantum => "pqc",
            },
            "crlPath": self.revocation_lists,
        })
    }
}

/// Cryptography and revocation. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// Suites, groups, versions.
    pub cryptography: Cryptography,
    /// Whom not to believe any more.
    pub revocation: Revocation,
}

impl Terms {
    /// Reads the revocation lists for the first time. [`Revocation::run`] keeps them
    /// fresh.
    ///
    /// # Errors
    /// [`TlsError::Compliance`], [`TlsError::Revocation`].
    pub fn new(settings: &Settings, registry: &mut Registry) -> Result<Self, TlsError> {
        let cryptography = Cryptography::new(settings.versions, settings.compliance)?;
        let revocation = match &settings.revocation_lists {
            Some(path) => Revocation::open(path, registry)?,
            None => Revocation::default(),
        };
        Ok(Self { cryptography, revocation })
    }
}
