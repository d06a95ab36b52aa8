//! What a peer says about a connection that came through a gateway of another network.
//!
//! Behind such a gateway the client's address says nothing, so logs and metrics take the
//! client's names from its baggage. Nothing in it is proved: no decision reads it, it is
//! believed only inside the namespace that the client's certificate proves, and it is
//! short.

use std::net::SocketAddr;
use std::sync::Arc;

use http::header::{FORWARDED, HeaderName};
use http::{HeaderMap, HeaderValue};
use mesh::{Identity, Locality, Network, Workload};

use super::{BAGGAGE, NETWORK};

/// Bytes of a header, and of all headers of one name together.
const LONGEST_HEADER: usize = 4096;

/// Members of a baggage; there are seven that we know.
const MOST_MEMBERS: usize = 64;

/// Bytes of one value: the longest name in Kubernetes.
const LONGEST_VALUE: usize = 253;

/// Why headers are not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::proxy) enum ClaimError {
    #[error("header {0} is longer than {LONGEST_HEADER} bytes")]
    Long(HeaderName),
    #[error("header {0} is given more than once")]
    Twice(HeaderName),
    #[error("header {0} holds bytes that it must not")]
    Bytes(HeaderName),
    #[error("baggage has more than {MOST_MEMBERS} members")]
    Members,
    #[error("baggage member {0} of the client is malformed")]
    Member(usize),
    #[error("baggage names {0} more than once")]
    TwiceNamed(&'static str),
    #[error("forwarded is not for=\"ip:port\"")]
    Forwarded,
    #[error("baggage is of another namespace than the certificate")]
    Namespace,
}

/// The client of a connection, as it calls itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::proxy) struct Baggage {
    cluster: Option<String>,
    namespace: Option<String>,
    workload: Option<String>,
    service: Option<String>,
    revision: Option<String>,
    region: Option<String>,
    zone: Option<String>,
}

/// A client in another network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::proxy) struct Claims {
    /// Where it says that it dialled from.
    pub(in crate::proxy) client: Option<SocketAddr>,
    /// Who it says that it is, apart from the identity, which is proved.
    pub(in crate::proxy) workload: Arc<Workload>,
}

/// What the headers say, if they say that the client is in another network than `own`.
/// `identity` is what its certificate proved.
pub(in crate::proxy) fn claims(
    headers: &HeaderMap,
    own: &Network,
    identity: &Identity,
) -> Result<Option<Claims>, ClaimError> {
    let Some(network) = only(headers, &NETWORK)? else { return Ok(None) };
    let network = text(&NETWORK, network)?;
    if network == &**own {
        return Ok(None);
    }
    if !network.bytes().all(plain) || network.len() > LONGEST_VALUE {
        return Err(ClaimError::Bytes(NETWORK));
    }
    let baggage = baggage(headers)?;
    let client = only(headers, &FORWARDED)?.map(forwarded).transpose()?;
    Ok(Some(Claims { client, workload: Arc::new(baggage.workload(network, identity)?) }))
}

impl Baggage {
    fn workload(self, network: &str, identity: &Identity) -> Result<Workload, ClaimError> {
        if self.namespace.is_some_and(|namespace| namespace != identity.namespace()) {
            return Err(ClaimError::Namespace);
        }
        let text = |value: Option<String>| -> Arc<str> { value.unwrap_or_default().into() };
        let name = text(self.workload);
        let locality =
            Locality { region: text(self.region), zone: text(self.zone), ..Locality::default() };
        let mut workload = Workload::new("", identity.namespace(), &name, identity.clone());
        workload.network = network.into();
        workload.locality = Arc::new(locality);
        workload.cluster = text(self.cluster);
        workload.canonical_name = text(self.service);
        workload.canonical_revision = text(self.revision);
        workload.owner = name;
        Ok(workload)
    }
}

/// Reads all baggage headers (W3C Baggage): members that we know, once each.
pub(in crate::proxy) fn baggage(headers: &HeaderMap) -> Result<Baggage, ClaimError> {
    let (mut baggage, mut bytes, mut members) = (Baggage::default(), 0, 0);
    for value in headers.get_all(&BAGGAGE) {
        bytes += value.len();
        if bytes > LONGEST_HEADER {
            return Err(ClaimError::Long(BAGGAGE));
        }
        for member in text(&BAGGAGE, value)?.split(',') {
            members += 1;
            if members > MOST_MEMBERS {
                return Err(ClaimError::Members);
            }
            baggage.take(member).map_err(|error| error.unwrap_or(ClaimError::Member(members)))?;
        }
    }
    Ok(baggage)
}

impl Baggage {
    /// One member. Without a name in the error it is malformed.
    fn take(&mut self, member: &str) -> Result<(), Option<ClaimError>> {
        // Properties of a member, after a semicolon, are none of our business.
        let member = member.split(';').next().unwrap_or_default().trim();
        if member.is_empty() {
            return Ok(());
        }
        let (name, value) = member.split_once('=').ok_or(None)?;
        let (name, value) = (name.trim_end(), value.trim_start());
        if !value.bytes().all(plain) || value.len() > LONGEST_VALUE {
            return Err(None);
        }
        let (place, name) = match name {
            "k8s.cluster.name" => (&mut self.cluster, "k8s.cluster.name"),
            "k8s.namespace.name" => (&mut self.namespace, "k8s.namespace.name"),
            "k8s.deployment.name" | "k8s.cronjob.name" | "k8s.pod.name" | "k8s.job.name" => {
                (&mut self.workload, "a workload")
            }
            "service.name" => (&mut self.service, "service.name"),
            "service.version" => (&mut self.revision, "service.version"),
            "cloud.region" => (&mut self.region, "cloud.region"),
            "cloud.availability_zone" => (&mut self.zone, "cloud.availability_zone"),
            _ => return Ok(()),
        };
        if value.is_empty() {
            return Ok(());
        }
        match place.replace(value.to_owned()) {
            Some(_) => Err(Some(ClaimError::TwiceNamed(name))),
            None => Ok(()),
        }
    }
}

/// Bytes of a value in a baggage: visible ASCII but quote, comma, semicolon, backslash.
pub(super) fn plain(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'"' | b',' | b';' | b'\\')
}

/// Reads `for="ip:port"` and passes over the other parameters of the one element (RFC
/// 7239). More elements would be more hops, and there are none in a mesh.
fn forwarded(value: &HeaderValue) -> Result<SocketAddr, ClaimError> {
    let text = text(&FORWARDED, value)?;
    if text.contains(',') {
        return Err(ClaimError::Forwarded);
    }
    let mut client = None;
    for pair in text.split(';') {
        let (name, value) = pair.split_once('=').ok_or(ClaimError::Forwarded)?;
        if name.trim().eq_ignore_ascii_case("for") {
            let value = value.trim();
            let quoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
            let addr = quoted.unwrap_or(value);
            // A scope is of that other node only.
            let addr = addr.parse().ok().filter(|_| !addr.contains('%'));
            let addr: SocketAddr = addr.ok_or(ClaimError::Forwarded)?;
            if client.replace(addr).is_some() {
                return Err(ClaimError::Forwarded);
            }
        }
    }
    client.ok_or(ClaimError::Forwarded)
}

/// The service that the client says it dialled.
pub(in crate::proxy) fn service_named(headers: &HeaderMap) -> Option<&str> {
    let text = text(&FORWARDED, only(headers, &FORWARDED).ok()??).ok()?;
    let mut pairs = text.split(';').filter_map(|pair| pair.split_once('='));
    let host = pairs.find(|(name, _)| name.trim().eq_ignore_ascii_case("host"))?.1.trim();
    (host.len() <= LONGEST_VALUE && host.bytes().all(plain)).then_some(host)
}

/// The value of a header that must not be given twice.
fn only<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'a HeaderValue>, ClaimError> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (_, Some(_)) => Err(ClaimError::Twice(name.clone())),
        (value, None) => Ok(value),
    }
}

fn text<'a>(name: &HeaderName, value: &'a HeaderValue) -> Result<&'a str, ClaimError> {
    if value.len() > LONGEST_HEADER {
        return Err(ClaimError::Long(name.clone()));
    }
    value.to_str().map_err(|_| ClaimError::Bytes(name.clone()))
}

#[cfg(test)]
mod tests;
