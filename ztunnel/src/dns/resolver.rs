//! ztunnel's own lookups, for workloads that are known by name only.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use tokio::time::timeout;

use super::answer::Transport;
use super::forward::{ForwardError, Forwarder, Origin};
use super::metrics::Metrics;
use super::{host, wire};

/// CNAMEs that are followed; more are a mistake, or a circle.
const CHAIN: usize = 16;

/// What a lookup may take, also when it has to be made again over TCP: a connection waits
/// for it.
const DEADLINE: Duration = Duration::from_secs(5);

/// Which addresses are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Why a hostname has no address.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// No such name can be asked for.
    #[error("{host:?} is no hostname")]
    Malformed {
        /// The text.
        host: String,
    },
    /// Nobody answered.
    #[error("look up {host}: {source}")]
    Forward {
        /// The name.
        host: String,
        /// Why not.
        source: ForwardError,
    },
    /// The resolver refused, or failed itself.
    #[error("look up {host}: the resolver answered {code}")]
    Refused {
        /// The name.
        host: String,
        /// Its response code.
        code: ResponseCode,
    },
    /// The resolver's answer cannot be read.
    #[error("look up {host}: the resolver's answer cannot be read: {reason}")]
    Answer {
        /// The name.
        host: String,
        /// What is wrong.
        reason: String,
    },
    /// The name exists, or not, but has no such address.
    #[error("look up {host}: it has no address")]
    NoAddress {
        /// The name.
        host: String,
    },
}

/// Looks hostnames up through one pod's namespace, at ztunnel's own resolvers. Every call
/// asks anew.
#[derive(Clone, Debug)]
pub struct Resolver {
    forwarder: Arc<Forwarder>,
    metrics: Metrics,
}

impl Resolver {
    /// Sends its questions with `forwarder`.
    #[must_use]
    pub fn new(forwarder: Arc<Forwarder>, metrics: Metrics) -> Self {
        Self { forwarder, metrics }
    }

    /// All addresses of one family, in the resolver's order; never none. `host` is a whole
    /// name: no search domain is appended.
    ///
    /// # Errors
    /// [`ResolveError`], within five seconds.
    pub async fn resolve(&self, host: &str, family: Family) -> Result<Vec<IpAddr>, ResolveError> {
        self.metrics.looked_up();
        let malformed = || ResolveError::Malformed { host: host.to_owned() };
        let checked = host::encode(host).ok_or_else(malformed)?;
        let name = Name::from_labels(labels(&checked)).map_err(|_| malformed())?;
        let query = question(&name, family).map_err(|_| malformed())?;
        let failed = |source| ResolveError::Forward { host: host.to_owned(), source };
        let answer = timeout(DEADLINE, self.ask(&query)).await;
        let answer = answer.unwrap_or(Err(ForwardError::Deadline)).map_err(failed)?;
        read(&answer, host, name, family)
    }

    async fn ask(&self, query: &[u8]) -> Result<Vec<u8>, ForwardError> {
        let forward = |transport| self.forwarder.forward(query, Origin::Own, transport);
        let answer = forward(Transport::Udp).await?;
        if wire::Message::read(&answer).is_some_and(wire::Message::is_truncated) {
            return forward(Transport::Tcp).await;
        }
        Ok(answer)
    }
}

fn labels(name: &[u8]) -> Vec<&[u8]> {
    let mut labels = Vec::new();
    let mut rest = name;
    while let Some((length, tail)) = rest.split_first().filter(|(length, _)| **length > 0) {
        let (label, tail) = tail.split_at(usize::from(*length));
        labels.push(label);
        rest = tail;
    }
    labels
}

/// The id is replaced when it is sent.
fn question(name: &Name, family: Family) -> Result<Vec<u8>, hickory_proto::ProtoError> {
    let mut message = Message::new(0, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name.clone(), family.record_type()));
    message.to_vec()
}

impl Family {
    fn record_type(self) -> RecordType {
        match self {
            Self::V4 => RecordType::A,
            Self::V6 => RecordType::AAAA,
        }
    }
}

pub(super) fn read(
    answer: &[u8],
    host: &str,
    mut name: Name,
    family: Family,
) -> Result<Vec<IpAddr>, ResolveError> {
    let host = host.to_owned();
    let answer = match Message::from_vec(answer) {
        Ok(answer) => answer,
        Err(error) => return Err(ResolveError::Answer { host, reason: error.to_string() }),
    };
    match answer.metadata.response_code {
        ResponseCode::NoError | ResponseCode::NXDomain => {}
        code => return Err(ResolveError::Refused { host, code }),
    }
    for _ in 0..CHAIN {
        let of_name = || answer.answers.iter().filter(|record| record.name == name);
        let found: Vec<IpAddr> = of_name()
            .filter(|record| record.record_type() == family.record_type())
            .filter_map(|record| record.data.ip_addr())
            .collect();
        if !found.is_empty() {
            return Ok(found);
        }
        let target = of_name().find_map(|record| match &record.data {
            RData::CNAME(target) => Some(target.0.clone()),
            _ => None,
        });
        match target {
            Some(target) => name = target,
            None => break,
        }
    }
    Err(ResolveError::NoAddress { host })
}
