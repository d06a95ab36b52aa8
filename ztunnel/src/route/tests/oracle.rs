//! Random meshes of one service, decided about by `route` and by a slow list of everything
//! that may be decided.

use mesh::{
    Health, HealthPolicy, IpFamilies, LoadBalancing, Locality, Mode, Preference, Visibility,
};
use proptest::prelude::*;
use proptest::sample::select;

use super::*;

const VIP: &str = "10.96.0.1";

/// What there is besides the client.
#[derive(Clone, Debug)]
struct Mesh {
    cart: Option<Service>,
    /// `a` and `b` behind the service, `way` the waypoint, `gate` the other network's.
    workloads: Vec<Workload>,
    /// Last bytes of addresses in 10.0.1.0/24 of which a version was rejected.
    rejected: Option<u8>,
}

fn gateways() -> impl Strategy<Value = Option<Gateway>> {
    let unknown = || at("", "10.0.9.9", 15008);
    select(vec![None, None, Some(at("", "10.0.2.1", 15008)), Some(unknown())])
}

fn carts() -> impl Strategy<Value = Service> {
    use Preference::{Network, Node, Region, Zone};
    let modes = vec![Mode::Unspecified, Mode::Strict, Mode::Failover, Mode::Passthrough];
    let preferences = vec![vec![], vec![Network, Zone], vec![Region, Zone, Node]];
    let balancing = (
        select(modes),
        select(preferences),
        select(vec![HealthPolicy::OnlyHealthy, HealthPolicy::AllowAll]),
    );
    let families = select(vec![IpFamilies::Automatic, IpFamilies::V4, IpFamilies::V6]);
    let weighted = prop::collection::vec((gateways(), 0..3_u32), 0..3);
    let target = select(vec![0, 8080]);
    let rest = (families, target, any::<bool>());
    (balancing, rest, gateways(), weighted).prop_map(|(balancing, rest, waypoint, weighted)| {
        let (mode, preferences, health) = balancing;
        let (ip_families, target_port, hidden) = rest;
        let named = |(gateway, weight): (Option<Gateway>, u32)| Some((gateway?, weight));
        Service {
            ports: [ServicePort { service_port: 80, target_port }].into(),
            load_balancing: LoadBalancing { mode, preferences, health },
            ip_families,
            waypoint,
            weighted_waypoints: weighted.into_iter().filter_map(named).collect(),
            visibility: if hidden { Visibility::Namespace } else { Visibility::Public },
            ..service("shop/cart", VIP)
        }
    })
}

/// One, or so many alike that not all of them are looked at.
fn members(name: &'static str, last: u8) -> impl Strategy<Value = Vec<Workload>> {
    let (four, six) = (format!("10.0.1.{last}"), format!("fd00:1::{last}"));
    let addresses =
        vec![vec![], vec![four.clone()], vec![six.clone()], vec![four.clone(), six], vec![four]];
    let place = (select(addresses), select(vec!["", "", "", "far"]), any::<bool>());
    let state = (any::<[bool; 3]>(), 0..3_u32, gateways());
    let ports = select(vec![vec![], vec![(80, 9090)], vec![(80, 0)], vec![(81, 9091)]]);
    let near =
        select(vec![["n1", "z1", "r"], ["n1", "z1", "r2"], ["n2", "z1", "r"], ["n2", "z2", "r"]]);
    let crowd = prop::bool::weighted(0.1);
    let built = (place, state, ports, near, crowd);
    let built = built.prop_map(move |(place, state, ports, near, crowd)| {
        let (addresses, network, gated) = place;
        let ([meshed, healthy, named], capacity, waypoint) = state;
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        let locality =
            Locality { region: near[2].into(), zone: near[1].into(), subzone: "".into() };
        let locality = Arc::new(locality);
        let one = |uid: String| {
            mapping(backend(&uid, &addresses, "shop/cart"), &ports).with(|it| {
                it.rename(name);
                it.identity = Identity::new("", "shop", name).unwrap();
                it.network = network.into();
                it.network_gateway = gated.then(|| at("far", "192.0.2.1", 15010).into());
                it.protocol = if meshed { Protocol::Hbone } else { Protocol::Plain };
                it.health = if healthy { Health::Healthy } else { Health::Unhealthy };
                it.hostname = if named { "x.test".into() } else { "".into() };
                it.capacity = capacity;
                it.waypoint = waypoint.clone().map(Box::new);
                it.node = near[0].into();
                it.locality = Arc::clone(&locality);
            })
        };
        let alike = if crowd { 70 } else { 1 };
        (0..alike).map(|number| one(format!("{name}-{number}"))).collect()
    });
    prop::option::weighted(0.8, built).prop_map(Option::unwrap_or_default)
}

fn meshes() -> impl Strategy<Value = Mesh> {
    let way = (any::<bool>(), any::<bool>()).prop_map(|(far, known)| {
        let network = if far { "far" } else { "" };
        let way = pod("way", &["10.0.2.1"], Protocol::Hbone);
        known.then(|| way.with(|it| it.network = network.into()))
    });
    let gate = any::<bool>().prop_map(|known| {
        let gate = pod("gate", &["192.0.2.1"], Protocol::Hbone);
        known.then(|| gate.with(|it| it.network = "far".into()))
    });
    let cart = prop::option::weighted(0.9, carts());
    let rejected = prop::option::weighted(0.2, 1..4_u8);
    (cart, members("a", 1), members("b", 2), way, gate, rejected).prop_map(
        |(cart, a, b, way, gate, rejected)| {
            let single = [way, gate].into_iter().flatten();
            let workloads = a.into_iter().chain(b).chain(single).collect();
            Mesh { cart, workloads, rejected }
        },
    )
}

/// Everything that may become of what `source` dials; a refusal by its name.
struct Oracle<'a> {
    mesh: &'a Mesh,
    source: &'a Workload,
    dst: SocketAddr,
}

impl Oracle<'_> {
    fn outcomes(&self) -> Vec<String> {
        let own = self.source.addresses.contains(&self.dst.ip());
        if own && self.dst.port() == 15001 {
            return vec!["refuse proxy_port".into()];
        }
        if own {
            return vec![format!("pass {} OwnAddress", self.dst)];
        }
        // The client is of the service's namespace, so that it always sees it.
        if let Some(cart) = self.mesh.cart.as_ref().filter(|_| self.dst.ip().to_string() == VIP) {
            return self.service(cart);
        }
        match self.at("", self.dst.ip()) {
            Some(peer) => self.workload(peer),
            None => self.clear(self.dst, "UnknownDestination"),
        }
    }

    fn service(&self, cart: &Service) -> Vec<String> {
        let drawn: Vec<_> = cart.weighted_waypoints.iter().filter(|it| it.1 > 0).collect();
        let waypoints: Vec<&Gateway> = if drawn.is_empty() {
            cart.waypoint.iter().collect()
        } else {
            drawn.iter().map(|it| &it.0).collect()
        };
        let all = cart.weighted_waypoints.iter().map(|it| &it.0).filter(|_| !drawn.is_empty());
        let from_it = all.chain(waypoints.iter().copied()).any(|it| self.is_source(it));
        if !waypoints.is_empty() && !from_it {
            return waypoints.iter().flat_map(|it| self.waypoint(it)).collect();
        }
        if cart.load_balancing.mode == Mode::Passthrough {
            return match self.at("", self.dst.ip()) {
                Some(peer) => self.workload(peer),
                None => self.clear(self.dst, "PassthroughService"),
            };
        }
        let usable: Vec<_> = ["a", "b"].iter().filter_map(|it| self.usable(cart, it)).collect();
        let best = usable.iter().map(|it| it.0).max();
        let chosen = usable.iter().filter(|it| Some(it.0) == best);
        let found: Vec<_> =
            chosen.flat_map(|(_, peer, port)| self.endpoint(cart, peer, *port)).collect();
        match (found.is_empty(), self.dst.port()) {
            (false, _) => found,
            (true, 80) => vec!["refuse no_endpoint".into()],
            (true, _) => vec!["refuse unknown_service_port".into()],
        }
    }

    fn usable(&self, cart: &Service, name: &str) -> Option<(usize, &Workload, u16)> {
        let peer = self.mesh.workloads.iter().find(|it| it.name() == name)?;
        let sick = peer.health == Health::Unhealthy;
        if sick && cart.load_balancing.health == HealthPolicy::OnlyHealthy || peer.capacity == 0 {
            return None;
        }
        let mapped = peer.services[0].ports.iter().find(|it| it.service_port == self.dst.port());
        let port = match mapped.map_or(0, |it| it.target_port) {
            0 if self.dst.port() == 80 => cart.ports[0].target_port,
            port => port,
        };
        let far = &*peer.network == "far";
        let addressed = peer.addresses.iter().any(|it| cart.ip_families.allow(*it));
        let reachable = if far {
            peer.network_gateway.is_some()
        } else {
            addressed || !peer.hostname.is_empty()
        };
        if port == 0 || !reachable {
            return None;
        }
        let matches = |preference: &&Preference| match preference {
            Preference::Region => self.source.locality.region == peer.locality.region,
            Preference::Zone => self.source.locality.zone == peer.locality.zone,
            Preference::Node => self.source.node == peer.node,
            Preference::Network => !far,
            Preference::Subzone | Preference::Cluster => true,
        };
        let wanted = &cart.load_balancing.preferences;
        let rank = wanted.iter().position(|it| !matches(&it)).unwrap_or(wanted.len());
        match cart.load_balancing.mode {
            Mode::Strict if rank < wanted.len() => None,
            Mode::Strict | Mode::Failover => Some((rank, peer, port)),
            Mode::Unspecified | Mode::Passthrough => Some((0, peer, port)),
        }
    }

    fn endpoint(&self, cart: &Service, peer: &Workload, port: u16) -> Vec<String> {
        if &*peer.network == "far" {
            return self.far(peer);
        }
        let allowed: Vec<_> =
            peer.addresses.iter().copied().filter(|it| cart.ip_families.allow(*it)).collect();
        let same = allowed.iter().find(|it| it.is_ipv4() == self.dst.is_ipv4());
        let place = match same.or(allowed.first()) {
            Some(ip) => SocketAddr::new(*ip, port).to_string(),
            None => format!("{}:{port}", peer.hostname),
        };
        match (peer.protocol, place.parse()) {
            (Protocol::Hbone, _) => vec![format!("tunnel {} {place}", peer.name())],
            (Protocol::Plain, Ok(addr)) => self.clear(addr, "PlainWorkload"),
            (Protocol::Plain, Err(_)) => vec![format!("pass {place} PlainWorkload")],
        }
    }

    fn workload(&self, peer: &Workload) -> Vec<String> {
        match (&peer.waypoint, peer.protocol) {
            (Some(waypoint), _) if !self.is_source(waypoint) => self.waypoint(waypoint),
            (_, Protocol::Hbone) => vec![format!("tunnel {} {}", peer.name(), self.dst)],
            (_, Protocol::Plain) => self.clear(self.dst, "PlainWorkload"),
        }
    }

    fn waypoint(&self, waypoint: &Gateway) -> Vec<String> {
        let GatewayDestination::Address { ip, .. } = waypoint.destination else { unreachable!() };
        // It is named in the client's network.
        let outcome = match self.at("", ip) {
            Some(way) => format!("tunnel {} {}", way.name(), self.dst),
            None => "refuse unknown_waypoint".to_owned(),
        };
        vec![outcome]
    }

    fn far(&self, peer: &Workload) -> Vec<String> {
        let known = self.at("far", "192.0.2.1".parse().unwrap()).is_some();
        let name = format!("tunnel {} cart:{}", peer.name(), self.dst.port());
        vec![if known { name } else { "refuse unknown_network_gateway".into() }]
    }

    /// Clear text to `to`, unless something unknown might be there.
    fn clear(&self, to: SocketAddr, reason: &str) -> Vec<String> {
        let bad = self.mesh.rejected.map(|last| IpAddr::from([10, 0, 1, last]));
        if bad.is_some_and(|bad| bad == to.ip() || bad == self.dst.ip()) {
            return vec!["refuse rejected_destination".into()];
        }
        vec![format!("pass {to} {reason}")]
    }

    fn at(&self, network: &str, ip: IpAddr) -> Option<&Workload> {
        let here = |it: &&Workload| *it.network == *network && it.addresses.contains(&ip);
        self.mesh.workloads.iter().find(here)
    }

    fn is_source(&self, gateway: &Gateway) -> bool {
        let GatewayDestination::Address { ip, .. } = gateway.destination else { unreachable!() };
        self.at("", ip).is_some_and(|it| it.uid() == self.source.uid())
    }
}

/// A decision without what the oracle does not speak of.
fn outcome(route: Route) -> String {
    match route {
        Route::Tunnel(to) => format!("tunnel {} {}", to.peer.name(), to.authority),
        Route::Passthrough(to) => format!("pass {} {:?}", to.dst, to.reason),
        Route::Refuse(refusal) => format!("refuse {}", refusal.name()),
    }
}

fn sources(mesh: &Mesh) -> Vec<Workload> {
    let client = || {
        client().with(|it| {
            it.node = "n1".into();
            it.locality =
                Arc::new(Locality { region: "r".into(), zone: "z1".into(), subzone: "".into() });
        })
    };
    let near = mesh.workloads.iter().filter(|it| it.name() == "way" && it.network.is_empty());
    near.cloned().chain([client()]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2500, ..ProptestConfig::default() })]

    /// Each mesh is asked about 40 connections and more.
    #[test]
    fn what_is_decided_may_be_decided(mesh in meshes(), endpoint: u64, waypoint: u64) {
        let mut view = view(mesh.cart.iter().cloned().collect(), mesh.workloads.clone());
        if let Some(last) = mesh.rejected {
            reject(&mut view, "bad", [10, 0, 1, last]);
        }
        let dialled = [
            "10.96.0.1:80", "10.96.0.1:81", "10.0.1.1:80", "10.0.1.2:80", "10.0.1.3:80",
            "[fd00:1::1]:80", "192.0.2.7:443", "10.0.0.1:80", "10.0.0.1:15001", "10.0.2.1:80",
        ];
        for source in sources(&mesh) {
            for dst in dialled.map(|it| it.parse().unwrap()) {
                let allowed = Oracle { mesh: &mesh, source: &source, dst }.outcomes();
                for shift in [0, u64::MAX / 3, u64::MAX / 2, u64::MAX] {
                    let sample = Sample {
                        endpoint: endpoint.wrapping_add(shift),
                        waypoint: waypoint.wrapping_add(shift),
                        gateway: shift,
                    };
                    let client = source.addresses[0];
                    let request = Request { source: &source, client, dst: OrigDst(dst), view: &view, sample };
                    let found = outcome(route(&request));
                    prop_assert!(allowed.contains(&found), "{dst}: {found}, not one of {allowed:?}");
                }
            }
        }
    }
}
