//! L4 authorization: who may reach a workload.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::identity::Identity;
use crate::proto::security as proto;
use crate::workload::Workload;

/// `namespace/name` of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PolicyKey {
    namespace: Arc<str>,
    name: Arc<str>,
}

impl PolicyKey {
    /// Reads `namespace/name`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (namespace, name) = text.split_once('/')?;
        (!name.is_empty() && !name.contains('/'))
            .then(|| Self { namespace: namespace.into(), name: name.into() })
    }
}

impl fmt::Display for PolicyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Which workloads a policy applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All.
    Global,
    /// Those of the policy's namespace.
    Namespace,
    /// Those that list it.
    Selected,
}

/// What a policy does with a connection that it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Let it through, and by that deny what no ALLOW policy matches.
    Allow,
    /// Refuse it, whatever others say.
    Deny,
}

/// A parsed policy.
#[derive(Clone, Debug)]
pub struct Policy {
    key: PolicyKey,
}

impl Policy {
    /// Its name.
    #[must_use]
    pub fn key(&self) -> &PolicyKey {
        &self.key
    }
}

/// What is wrong with a policy resource; only that resource is rejected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {}

impl TryFrom<proto::Authorization> for Policy {
    type Error = PolicyError;

    fn try_from(_message: proto::Authorization) -> Result<Self, Self::Error> {
        todo!()
    }
}

/// An inbound connection, as the destination's node sees it.
#[derive(Clone, Debug)]
pub struct Connection {
    /// The client's address.
    pub source: SocketAddr,
    /// Who the client proved to be; `None` for plaintext.
    pub identity: Option<Identity>,
    /// The workload's address and the application's port.
    pub destination: SocketAddr,
}

/// May a connection go on?
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Yes.
    Allow,
    /// No.
    Deny(Denial),
}

/// Why a connection was denied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// A DENY policy matches.
    #[error("denied by policy {0}")]
    Policy(PolicyKey),
    /// There are ALLOW policies and none matches.
    #[error("no ALLOW policy matches")]
    NotAllowed,
    /// The workload lists a policy that has not arrived: nobody knows what it forbids.
    #[error("policy {0} is not known yet")]
    Unknown(PolicyKey),
}

pub(crate) fn decide(
    _policies: &HashMap<PolicyKey, Arc<Policy>>,
    _destination: &Workload,
    _connection: &Connection,
) -> Decision {
    todo!()
}
