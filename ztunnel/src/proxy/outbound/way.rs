//! A route, and the addresses of those on it who are known by name only.

use std::net::{IpAddr, SocketAddr};

use mesh::IpFamilies;
use tokio::time::timeout;

use super::super::KNOWLEDGE_WAIT;
use super::super::context::Ipv6;
use super::super::pod::PodShared;
use super::super::refusal::Refusal;
use crate::dns::{Family, ResolveError};
use crate::route::{Authority, Passthrough, Place, Request, Route, Tunnel, route};

/// A route without names, and what is to be dialled first for it.
pub(super) enum Way {
    Tunnel(Tunnel, SocketAddr),
    Passthrough(Passthrough, SocketAddr),
}

/// Decides, and looks up what has to be looked up: every connection anew, because only
/// the resolver knows how long its answer is true.
pub(super) async fn way(pod: &PodShared, request: &Request<'_>) -> Result<Way, Refusal> {
    match route(request) {
        Route::Refuse(refusal) => Err(refusal.into()),
        Route::Tunnel(to) => {
            let addr = address(pod, request, to.place(), families(&to)).await?;
            Ok(Way::Tunnel(to.resolved(addr.ip()), addr))
        }
        Route::Passthrough(to) => {
            let allowed = to.service.as_ref().map(|service| service.ip_families);
            let addr = address(pod, request, &to.dst, allowed.unwrap_or_default()).await?;
            match to.resolved(addr.ip(), request) {
                Ok(to) => Ok(Way::Passthrough(to, addr)),
                Err(refusal) => Err(refusal.into()),
            }
        }
    }
}

/// What a service says about families is about its own workloads, not about a waypoint or
/// a gateway before them.
fn families(to: &Tunnel) -> IpFamilies {
    match (&to.authority, &to.service) {
        (Authority::Resolve { .. }, Some(service)) => service.ip_families,
        _ => IpFamilies::Automatic,
    }
}

async fn address(
    pod: &PodShared,
    request: &Request<'_>,
    place: &Place,
    allowed: IpFamilies,
) -> Result<SocketAddr, Refusal> {
    let (host, port) = match place {
        Place::Address(addr) => return Ok(*addr),
        Place::Resolve { hostname, port } => (hostname, *port),
    };
    let mut wanted = preference(request.dst.0.ip().to_canonical(), allowed);
    if pod.context.settings.ipv6 == Ipv6::Disabled {
        wanted.retain(|family| *family == Family::V4);
    }
    let ip = timeout(KNOWLEDGE_WAIT, look_up(pod, host, &wanted))
        .await
        .map_err(|_| Refusal::Unresolved(format!("look up {host}: no answer in time")))?
        .map_err(|error| Refusal::Unresolved(error.to_string()))?;
    Ok(SocketAddr::new(ip, port))
}

/// The family that was dialled comes first, then the other one.
fn preference(dialled: IpAddr, allowed: IpFamilies) -> Vec<Family> {
    let mut families = match dialled {
        IpAddr::V4(_) => vec![Family::V4, Family::V6],
        IpAddr::V6(_) => vec![Family::V6, Family::V4],
    };
    families.retain(|family| {
        matches!(
            (family, allowed),
            (_, IpFamilies::Automatic | IpFamilies::Dual)
                | (Family::V4, IpFamilies::V4)
                | (Family::V6, IpFamilies::V6)
        )
    });
    families
}

/// The first address that means the same in the pod as it does to the resolver.
async fn look_up(pod: &PodShared, host: &str, wanted: &[Family]) -> Result<IpAddr, ResolveError> {
    for family in wanted {
        match pod.resolver.resolve(host, *family).await {
            Ok(found) => {
                if let Some(ip) = found.into_iter().map(|ip| ip.to_canonical()).find(usable) {
                    return Ok(ip);
                }
            }
            // Only that there is none says something about the other family.
            Err(ResolveError::NoAddress { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Err(ResolveError::NoAddress { host: host.to_owned() })
}

/// A name must not lead into the pod itself, nor to whoever is nearest.
fn usable(ip: &IpAddr) -> bool {
    super::super::target::addressable(*ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_family_that_was_dialled_is_asked_for_first() {
        let cases = [
            ("10.0.0.1", IpFamilies::Automatic, vec![Family::V4, Family::V6]),
            ("fd00::1", IpFamilies::Dual, vec![Family::V6, Family::V4]),
            ("fd00::1", IpFamilies::V4, vec![Family::V4]),
            ("10.0.0.1", IpFamilies::V6, vec![Family::V6]),
        ];
        for (dialled, allowed, expected) in cases {
            assert_eq!(preference(dialled.parse().unwrap(), allowed), expected, "{dialled}");
        }
    }

    #[test]
    fn a_name_cannot_stand_for_the_pod_itself() {
        for (ip, expected) in [
            ("10.0.0.1", true),
            ("fd00::1", true),
            ("127.0.0.1", false),
            ("::1", false),
            ("0.0.0.0", false),
            ("169.254.169.254", false),
            ("fe80::1", false),
            ("224.0.0.1", false),
        ] {
            assert_eq!(usable(&ip.parse().unwrap()), expected, "{ip}");
        }
    }
}
