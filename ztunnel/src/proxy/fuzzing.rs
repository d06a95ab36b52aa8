//! What fuzz targets reach of this room: the texts of strangers.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::HeaderMap;
use mesh::{Identity, Network, Workload};

use super::{headers, target as room};

/// Reads the authority of a CONNECT that came in on `local`.
///
/// # Errors
/// The name of the refusal.
pub fn target(authority: Option<&str>, local: IpAddr) -> Result<SocketAddr, &'static str> {
    room::target(authority, local).map_err(|refusal| refusal.name())
}

/// Reads what a peer says about a client in another network than `own`: where it dialled
/// from, and who it is.
///
/// # Errors
/// Why the headers are not believed.
pub fn claims(
    headers: &HeaderMap,
    own: &Network,
    identity: &Identity,
) -> Result<Option<(Option<SocketAddr>, Arc<Workload>)>, String> {
    let found = headers::claims(headers, own, identity).map_err(|error| error.to_string())?;
    Ok(found.map(|claims| (claims.client, claims.workload)))
}
