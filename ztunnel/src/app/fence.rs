//! The fence, and the privileges that a ztunnel cannot do without.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use netns::{Dial, Fence, FenceError, NetnsError, PodNetns, dial_socket};
use nix::unistd::geteuid;

use super::AppError;
use crate::config::{Config, Mode};
use crate::proxy::SourceAddress;

/// Threads that make sockets inside pods. A job takes tens of microseconds.
const FENCE_WORKERS: usize = 4;

/// Marks and foreign addresses. Before Linux 5.17 only the first allows marks.
const CAPABILITY: &str = "CAP_NET_ADMIN or CAP_NET_RAW";

/// Proves at start what would otherwise fail at the first pod, or at the first connection of
/// the machine. Who serves a machine stays where it is and needs, as such, nothing.
pub(super) fn build_fence(config: &Config) -> Result<Fence, AppError> {
    let fence = match config.mode {
        Mode::Shared(_) => enterable()?,
        Mode::Dedicated(_) => {
            warn_of_loops(config);
            Fence::closed()
        }
    };
    let (mark, loopback) = (config.proxy.packet_mark, IpAddr::V4(Ipv4Addr::LOCALHOST));
    if mark.is_some() {
        probe("mark a socket (PACKET_MARK)", &Dial { mark, ..plain(loopback) })?;
    }
    if config.proxy.source_address == SourceAddress::Client {
        let from = Some(SocketAddr::new(loopback, 0));
        let step = "keep a client's address (ENABLE_ORIG_SRC, IP_TRANSPARENT)";
        probe(step, &Dial { from, ..plain(loopback) })?;
    }
    Ok(fence)
}

/// The machine's rules are not ours and may be fine, but nothing obvious makes them so.
fn warn_of_loops(config: &Config) {
    if config.proxy.packet_mark.is_none() && geteuid().is_root() {
        tracing::warn!(
            "rules that capture this machine's traffic cannot tell ztunnel's from that of other \
             programs of root: run it as a user of its own, or set PACKET_MARK"
        );
    }
}

fn plain(ip: IpAddr) -> Dial {
    Dial { to: SocketAddr::new(ip, 1), mark: None, from: None }
}

fn probe(step: &'static str, dial: &Dial) -> Result<(), AppError> {
    let failed = |source| AppError::Capability { step, capability: CAPABILITY, source };
    dial_socket(dial).map(drop).map_err(failed)
}

/// A fence that gets in and home again.
fn enterable() -> Result<Fence, AppError> {
    let fence = Fence::new(FENCE_WORKERS)?;
    let home = PodNetns::current().map_err(capability_to_enter)?;
    fence.run(&home, || ()).map_err(|error| capability_to_enter(error.into()))?;
    Ok(fence)
}

fn capability_to_enter(error: NetnsError) -> AppError {
    match error {
        NetnsError::Fence(FenceError::Enter(source)) => AppError::Capability {
            step: "enter a network namespace",
            capability: "CAP_SYS_ADMIN",
            source,
        },
        other => other.into(),
    }
}
