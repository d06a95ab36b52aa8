//! What the mesh knows about a hostname, as one client may see it. Pure.

use std::net::IpAddr;
use std::sync::Arc;

use mesh::{Health, Network, Service, ServiceAddress, View, Workload};

use super::answer::Facts;
use super::host::{Derivation, aliases, wildcards};
use super::wire::kind;
use crate::proxy::Ipv6;

/// The service that a name means.
pub(super) struct Found {
    pub(super) service: Arc<Service>,
    /// The name under which the client is to know it, if not the one it asked for.
    pub(super) rename: Option<String>,
}

/// The service that `host` means to this client. The name as it was asked goes before
/// every other reading of it, wildcards included.
pub(super) fn find(view: &View, facts: &Facts<'_>, host: &str) -> Option<Found> {
    aliases(host, facts.namespace, facts.domain).into_iter().find_map(|alias| {
        let exact = best(view, facts, &alias.host);
        let found = exact.or_else(|| wildcards(&alias.host).find_map(|it| best(view, facts, &it)));
        let service = Arc::clone(found?);
        let rename = (alias.by == Derivation::SearchStripped).then_some(alias.host);
        Some(Found { service, rename })
    })
}

/// Of several namespaces with the same hostname the client's own, then the preferred one,
/// then the one with the canonical service; at last the first by name, so that the answer
/// does not change from one time to the next.
fn best<'a>(view: &'a View, facts: &Facts<'_>, host: &str) -> Option<&'a Arc<Service>> {
    let candidates = view
        .services_named(host)
        .filter(|service| service.visible_to(facts.namespace) && is_answerable(service, facts));
    candidates.min_by_key(|service| {
        let rank = match service.key.namespace() {
            own if own == facts.namespace => 0,
            preferred if Some(preferred) == facts.preferred_namespace => 1,
            _ if service.canonical => 2,
            _ => 3,
        };
        (rank, service.key.clone())
    })
}

/// Services without an address of their own are answered for when they are the cluster's,
/// that is headless. Others (an external name, networks of addresses) are somebody else's
/// to answer for.
fn is_answerable(service: &Service, facts: &Facts<'_>) -> bool {
    let rest = service.key.hostname().strip_suffix(facts.domain);
    rest.is_some_and(|rest| rest.ends_with(".svc.")) || own_addresses(service).next().is_some()
}

/// Its addresses with their networks, without those that stand for a whole range.
fn own_addresses(service: &Service) -> impl Iterator<Item = (&Network, IpAddr)> {
    let alone = |address: &&ServiceAddress| match address.net.ip() {
        IpAddr::V4(_) => address.net.prefix() == 32,
        IpAddr::V6(_) => address.net.prefix() == 128,
    };
    service.addresses.iter().filter(alone).map(|it| (&it.network, it.net.ip()))
}

/// The service's addresses of the family that `wanted` asks for, in the order of the
/// answer.
pub(super) fn addresses(
    view: &View,
    facts: &Facts<'_>,
    service: &Service,
    wanted: u16,
) -> Vec<IpAddr> {
    if facts.ipv6 == Ipv6::Disabled && wanted == kind::AAAA {
        return Vec::new();
    }
    // A service of one family has no addresses of the other, but its workloads may.
    let is_wanted =
        |ip: &IpAddr| ip.is_ipv4() == (wanted == kind::A) && service.ip_families.allow(*ip);
    let mut random = fastrand::Rng::with_seed(facts.random);
    if own_addresses(service).next().is_none() {
        return endpoints(view, facts, service, is_wanted, &mut random);
    }
    let near = own_addresses(service).filter(|(network, _)| *network == facts.network);
    let mut found: Vec<IpAddr> = near.map(|(_, ip)| ip).filter(is_wanted).collect();
    random.shuffle(&mut found);
    found
}

/// One address of each endpoint that the client can reach directly; the healthy ones come
/// first, for clients that try one after another.
fn endpoints(
    view: &View,
    facts: &Facts<'_>,
    service: &Service,
    is_wanted: impl Fn(&IpAddr) -> bool,
    random: &mut fastrand::Rng,
) -> Vec<IpAddr> {
    let near = view.endpoints(&service.key).filter(|it| it.network == *facts.network);
    let mut found: Vec<(&Arc<Workload>, IpAddr)> =
        near.filter_map(|it| Some((it, *it.addresses.iter().find(|ip| is_wanted(ip))?))).collect();
    random.shuffle(&mut found);
    found.sort_by_key(|(workload, _)| workload.health != Health::Healthy);
    found.into_iter().map(|(_, ip)| ip).collect()
}
