//! What becomes of a connection that a pod opens. Pure.
//!
//! ```text
//! (source, OrigDst, view) ──► Tunnel       the destination is in the mesh
//!                        ├──► Passthrough  it is not, and the view says so
//!                        └──► Refuse       it must not be reached through us
//! ```
//!
//! Whoever calls has waited for a complete view and for the source workload to be in it:
//! without either there is no decision, and the connection is refused.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use mesh::{Identity, Protocol, Uid, View, Workload};
use netns::OrigDst;

/// The decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// Through a tunnel to the peer that serves the destination.
    Tunnel(Tunnel),
    /// Unchanged.
    Passthrough(Passthrough),
    /// Not at all.
    Refuse(Refusal),
}

/// Where a tunnel goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// The destination.
    pub peer: Arc<Workload>,
    /// What the application dialled, and the peer is asked for.
    pub authority: SocketAddr,
    /// Where the peer listens.
    pub hbone_addr: SocketAddr,
    /// Who may answer there.
    pub expected: Vec<Identity>,
}

/// Where a connection goes on in clear text, and why that is right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passthrough {
    /// The original destination.
    pub dst: SocketAddr,
    /// The destination, where it is a workload.
    pub peer: Option<Arc<Workload>>,
    /// Why not through a tunnel.
    pub reason: PassthroughReason,
}

/// See [`Passthrough`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PassthroughReason {
    /// A complete view does not know the destination: it is outside the mesh.
    UnknownDestination,
    /// The destination is a workload that does not speak HBONE.
    PlainWorkload,
    /// The pod dialled itself.
    OwnAddress,
}

/// Why a connection is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// One of ztunnel's in-pod ports, which would lead back to itself.
    #[error("destination is one of the proxy's own ports, which applications must not dial")]
    ProxyPort,
    /// A workload that might want a tunnel: its resource could not be used.
    #[error("what the control plane sent about {0} was rejected: it may want a tunnel")]
    RejectedDestination(Uid),
}

/// Decides for a connection of `source` to `dst`. `client` is the address that the pod
/// has in truth: what the view says may be of an earlier pod of the same name, whose
/// addresses others may have by now.
#[must_use]
pub fn route(source: &Workload, client: IpAddr, dst: OrigDst, view: &View) -> Route {
    let ip = dst.0.ip().to_canonical();
    let dst = SocketAddr::new(ip, dst.0.port());
    let known = source.addresses.contains(&ip);
    let own = known && client.to_canonical() == ip;
    if (known || ip.is_loopback() || ip.is_unspecified()) && zds::PROXY_PORTS.contains(&dst.port())
    {
        return Route::Refuse(Refusal::ProxyPort);
    }
    let peer = view.by_address(&source.network, ip).cloned();
    let pass = |peer, reason| Route::Passthrough(Passthrough { dst, peer, reason });
    // A tunnel is safe, whatever a rejected version would have said; clear text is not.
    let clear = |peer, reason| match view.rejected_at(&source.network, ip) {
        Some(uid) => Route::Refuse(Refusal::RejectedDestination(Uid::clone(uid))),
        None => pass(peer, reason),
    };
    match peer {
        _ if own => pass(peer, PassthroughReason::OwnAddress),
        None => clear(None, PassthroughReason::UnknownDestination),
        Some(peer) => match peer.protocol {
            Protocol::Plain => clear(Some(peer), PassthroughReason::PlainWorkload),
            Protocol::Hbone => Route::Tunnel(Tunnel {
                authority: dst,
                hbone_addr: SocketAddr::new(ip, zds::port::INBOUND_HBONE),
                expected: vec![peer.identity.clone()],
                peer,
            }),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, addresses: &[&str], protocol: Protocol) -> Workload {
        let uid = format!("Kubernetes//Pod/shop/{name}");
        Workload {
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
            protocol,
            ..Workload::new(&uid, "shop", name, Identity::new("", "shop", name).unwrap())
        }
    }

    /// The decision in one line.
    fn decide(dst: &str) -> String {
        let dst: SocketAddr = dst.parse().unwrap();
        // Who dials an address of its own does so from that address.
        let source = ["10.0.0.1", "fd00::1"].map(|ip| ip.parse().unwrap());
        let client = source.into_iter().find(|ip: &IpAddr| *ip == dst.ip());
        decide_for(client.unwrap_or(source[0]), dst)
    }

    fn decide_for(client: IpAddr, dst: SocketAddr) -> String {
        let source = pod("client", &["10.0.0.1", "fd00::1"], Protocol::Hbone);
        let mut view = View::default();
        view.insert_workload(source.clone());
        view.insert_workload(pod("server", &["10.0.1.1", "fd00:1::1"], Protocol::Hbone));
        view.insert_workload(pod("plain", &["10.0.1.2"], Protocol::Plain));
        view.insert_workload(pod("other", &["10.0.1.6"], Protocol::Plain));
        view.insert_workload(Workload {
            network: "other".into(),
            ..pod("far", &["10.0.1.3"], Protocol::Hbone)
        });
        view.insert_workload(Workload {
            host_network: true,
            ..pod("host", &["10.0.1.4"], Protocol::Hbone)
        });
        for last in [1, 2, 5] {
            let message = mesh::proto::workload::Workload {
                addresses: vec![vec![10, 0, 1, last]],
                ..Default::default()
            };
            view.reject_workload(&format!("bad{last}"), &message);
        }
        match route(&source, client, OrigDst(dst), &view) {
            Route::Tunnel(Tunnel { peer, authority, hbone_addr, expected }) => {
                assert_eq!(expected, std::slice::from_ref(&peer.identity));
                format!("tunnel {} {authority} via {hbone_addr}", peer.name)
            }
            Route::Passthrough(Passthrough { dst, peer, reason }) => {
                format!("pass {dst} {} {reason:?}", peer.map_or("-".into(), |p| p.name.clone()))
            }
            Route::Refuse(reason) => format!("refuse {reason:?}"),
        }
    }

    #[test]
    fn table() {
        let cases = [
            ("10.0.1.1:80", "tunnel server 10.0.1.1:80 via 10.0.1.1:15008"),
            ("[fd00:1::1]:80", "tunnel server [fd00:1::1]:80 via [fd00:1::1]:15008"),
            ("[::ffff:10.0.1.1]:80", "tunnel server 10.0.1.1:80 via 10.0.1.1:15008"),
            // The peer refuses its own ports itself.
            ("10.0.1.1:15008", "tunnel server 10.0.1.1:15008 via 10.0.1.1:15008"),
            ("10.0.1.6:80", "pass 10.0.1.6:80 other PlainWorkload"),
            // Of these, and of 10.0.1.1, a version was rejected.
            ("10.0.1.2:80", "refuse RejectedDestination(\"bad2\")"),
            ("10.0.1.5:80", "refuse RejectedDestination(\"bad5\")"),
            // Addresses of other networks and of hosts mean somebody else here.
            ("10.0.1.3:80", "pass 10.0.1.3:80 - UnknownDestination"),
            ("10.0.1.4:80", "pass 10.0.1.4:80 - UnknownDestination"),
            ("192.0.2.1:443", "pass 192.0.2.1:443 - UnknownDestination"),
            ("192.0.2.1:15008", "pass 192.0.2.1:15008 - UnknownDestination"),
            ("10.0.0.1:80", "pass 10.0.0.1:80 client OwnAddress"),
            ("[fd00::1]:80", "pass [fd00::1]:80 client OwnAddress"),
            ("10.0.0.1:15001", "refuse ProxyPort"),
            ("10.0.0.1:15006", "refuse ProxyPort"),
            ("10.0.0.1:15008", "refuse ProxyPort"),
            ("[fd00::1]:15008", "refuse ProxyPort"),
            ("127.0.0.1:15001", "refuse ProxyPort"),
            ("127.0.0.9:15053", "refuse ProxyPort"),
            ("[::1]:15008", "refuse ProxyPort"),
            ("[::ffff:127.0.0.1]:15008", "refuse ProxyPort"),
            ("0.0.0.0:15001", "refuse ProxyPort"),
        ];
        for (dst, expected) in cases {
            assert_eq!(decide(dst), expected, "{dst}");
        }
    }

    #[test]
    fn an_address_of_an_earlier_pod_of_the_name_is_not_our_own() {
        let (present, earlier) = ("10.0.0.99", "10.0.0.1:80");
        let decision = decide_for(present.parse().unwrap(), earlier.parse().unwrap());
        assert_eq!(decision, "tunnel client 10.0.0.1:80 via 10.0.0.1:15008");
    }
}
