//! The fence, and the privileges that a ztunnel cannot do without.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use netns::{Dial, Fence, FenceError, NetnsError, PodNetns, dial_socket};

use super::AppError;

/// Threads that make sockets inside pods. A job takes tens of microseconds.
const FENCE_WORKERS: usize = 4;

/// Marks and foreign addresses. Before Linux 5.17 only the first allows marks.
const CAPABILITY: &str = "CAP_NET_ADMIN or CAP_NET_RAW";

/// Proves at start what would otherwise fail at the first pod.
pub(super) fn build_fence() -> Result<Fence, AppError> {
    let fence = Fence::new(FENCE_WORKERS)?;
    let home = PodNetns::current().map_err(capability_to_enter)?;
    fence.run(&home, || ()).map_err(|error| capability_to_enter(error.into()))?;
    let marked = Dial {
        to: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1),
        mark: Some(zds::PACKET_MARK.value),
        from: None,
    };
    let spoofed = Dial {
        mark: None,
        from: Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0)),
        ..marked
    };
    let probes = [
        ("mark a socket", CAPABILITY, marked),
        ("keep a client's address (IP_TRANSPARENT)", CAPABILITY, spoofed),
    ];
    for (step, capability, dial) in probes {
        dial_socket(&dial).map_err(|source| AppError::Capability { step, capability, source })?;
    }
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
