//! What fuzz targets and benches reach of this room: the texts of strangers.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::HeaderMap;
use mesh::{Identity, Network, View, Workload};

use super::context::AppTunnel;
use super::headers;
use super::inbound::destination::Arrival;
use super::target::asked;

/// Reads the authority of a CONNECT that came in on `local`, at a pod that stands for
/// nobody but itself, and tells what is dialled for it.
///
/// # Errors
/// The name of the refusal.
pub fn target(authority: Option<&str>, local: IpAddr) -> Result<SocketAddr, &'static str> {
    let identity = Identity::new("", "fuzz", "pod").map_err(|_| "identity")?;
    let (view, own) = (View::default(), Workload::new("pod", "fuzz", "pod", identity));
    let app_tunnel = AppTunnel::Loopback;
    let arrival = Arrival { view: &view, own: &own, local, client_namespace: "fuzz", app_tunnel };
    let led = asked(authority).and_then(|asked| arrival.destination(&asked));
    led.map(|to| to.app).map_err(|refusal| refusal.name())
}

/// Where a client says that it dialled from, and who it says that it is.
pub type Claimed = (Option<SocketAddr>, Arc<Workload>);

/// Reads what a peer says about a client in another network than `own`: where it dialled
/// from, and who it is.
///
/// # Errors
/// Why the headers are not believed.
pub fn claims(
    headers: &HeaderMap,
    own: &Network,
    identity: &Identity,
) -> Result<Option<Claimed>, String> {
    let found = headers::claims(headers, own, identity).map_err(|error| error.to_string())?;
    Ok(found.map(|claims| (claims.client, claims.workload)))
}
