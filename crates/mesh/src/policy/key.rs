//! How a policy is named.

use std::fmt;
use std::sync::Arc;

/// `namespace/name` of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PolicyKey {
    namespace: Arc<str>,
    name: Arc<str>,
}

impl PolicyKey {
    /// Puts a key together; `None` when a part cannot be one: the name is empty, or
    /// either holds the slash that separates them.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Option<Self> {
        let fine = !name.is_empty() && !name.contains('/') && !namespace.contains('/');
        fine.then(|| Self { namespace: namespace.into(), name: name.into() })
    }

    /// Reads `namespace/name`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (namespace, name) = text.split_once('/')?;
        Self::new(namespace, name)
    }

    /// The namespace; a control plane may leave it empty for policies of the whole mesh.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for PolicyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}
