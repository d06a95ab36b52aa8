//! How a service is named.

use std::fmt;
use std::sync::Arc;

/// `namespace/hostname` of a service. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceKey {
    namespace: Arc<str>,
    hostname: Arc<str>,
}

impl ServiceKey {
    /// Puts a key together; `None` when a part cannot be one: the hostname is empty, or
    /// either holds the slash that separates them.
    #[must_use]
    pub fn new(namespace: &str, hostname: &str) -> Option<Self> {
        let fine = !hostname.is_empty() && !hostname.contains('/') && !namespace.contains('/');
        fine.then(|| Self { namespace: namespace.into(), hostname: hostname.into() })
    }

    /// Reads `namespace/hostname`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (namespace, hostname) = text.split_once('/')?;
        Self::new(namespace, hostname)
    }

    /// The namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The name that clients resolve.
    #[must_use]
    pub fn hostname(&self) -> &str {
        &self.hostname
    }

    /// Both parts, to be replaced by equal ones.
    pub(crate) fn parts_mut(&mut self) -> [&mut Arc<str>; 2] {
        [&mut self.namespace, &mut self.hostname]
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.hostname)
    }
}
