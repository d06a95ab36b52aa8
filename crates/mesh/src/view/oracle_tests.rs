//! Random stories, told to a view and to lists that are searched from end to end.

use std::cmp::Reverse;
use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::{Identity, Membership, ServiceAddress, Visibility};

const ADDRESSES: [&str; 4] = ["10.0.0.1", "10.0.0.2", "10.9.0.1", "fd00::1"];
const RANGES: [&str; 7] =
    ["10.0.0.1", "10.0.0.2", "fd00::1", "10.0.0.0/30", "10.0.0.0/8", "::/0", "10.9.0.0/16"];
const NETWORKS: [&str; 2] = ["", "far"];
const NAMESPACES: [&str; 2] = ["shop", "bank"];
const SERVICES: [&str; 4] = ["shop/a", "bank/a", "shop/b", "bank/b"];

#[derive(Clone, Debug)]
enum Event {
    Workload {
        uid: usize,
        workload: Box<Workload>,
    },
    NoWorkload(usize),
    Service(Box<Service>),
    NoService(usize),
    /// A clone is made, to be looked at in the end.
    Publish,
}

/// The last told of are last.
#[derive(Clone, Debug, Default)]
struct Lists {
    workloads: Vec<Workload>,
    services: Vec<Service>,
}

/// Some are of the form that pods have, of two clusters.
fn uid(number: usize) -> String {
    match number {
        0 | 1 => format!("cluster-{number}//Pod/shop/x"),
        _ => format!("uid-{number}"),
    }
}

fn key(number: usize) -> ServiceKey {
    ServiceKey::parse(SERVICES[number]).unwrap()
}

fn workloads() -> impl Strategy<Value = Event> {
    let addresses = prop::collection::vec(0..ADDRESSES.len(), 0..3);
    let services = prop::collection::btree_set(0..SERVICES.len(), 0..3);
    let rest = (0..5_usize, 0..2_usize, 0..2_usize, any::<[bool; 2]>());
    (rest, addresses, services).prop_map(|((number, name, network, flags), addresses, services)| {
        let identity = Identity::new("", "shop", "cart").unwrap();
        let member = |number| Membership { service: key(number), ports: Box::default() };
        let workload = Workload::new(&uid(number), "shop", ["x", "y"][name], identity).with(|it| {
            it.network = NETWORKS[network].into();
            it.addresses = addresses.into_iter().map(|it| ADDRESSES[it].parse().unwrap()).collect();
            it.protocol = if flags[0] { Protocol::Hbone } else { Protocol::Plain };
            it.host_network = flags[1];
            it.services = services.into_iter().map(member).collect();
        });
        Event::Workload { uid: number, workload: Box::new(workload) }
    })
}

fn services() -> impl Strategy<Value = Event> {
    let places = prop::collection::vec((0..NETWORKS.len(), 0..RANGES.len()), 0..4);
    (0..SERVICES.len(), places, any::<[bool; 2]>()).prop_map(|(number, places, flags)| {
        let place = |(network, net): (usize, usize)| ServiceAddress {
            network: NETWORKS[network].into(),
            net: RANGES[net].parse().unwrap(),
        };
        Event::Service(Box::new(Service {
            addresses: places.into_iter().map(place).collect(),
            canonical: flags[0],
            visibility: if flags[1] { Visibility::Namespace } else { Visibility::Public },
            ..Service::new(key(number))
        }))
    })
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        4 => workloads(),
        2 => (0..5_usize).prop_map(Event::NoWorkload),
        3 => services(),
        1 => (0..SERVICES.len()).prop_map(Event::NoService),
        1 => Just(Event::Publish),
    ];
    prop::collection::vec(event, 0..40)
}

impl Lists {
    fn hear(&mut self, event: &Event) {
        match event {
            Event::Workload { uid, workload } => {
                self.hear(&Event::NoWorkload(*uid));
                self.workloads.push(Workload::clone(workload));
            }
            Event::NoWorkload(number) => self.workloads.retain(|it| **it.uid() != *uid(*number)),
            Event::Service(service) => {
                self.services.retain(|it| it.key != service.key);
                self.services.push(Service::clone(service));
            }
            Event::NoService(number) => self.services.retain(|it| it.key != key(*number)),
            Event::Publish => {}
        }
    }

    fn by_address(&self, network: &str, ip: IpAddr) -> Option<&Workload> {
        let here = |it: &&Workload| {
            *it.network == *network && !it.host_network && it.addresses.contains(&ip)
        };
        let meshed = |it: &&Workload| it.protocol == Protocol::Hbone;
        let all = || self.workloads.iter().rev().filter(here);
        all().find(meshed).or_else(|| all().next())
    }

    fn service_at(&self, client: &str, network: &str, ip: IpAddr) -> Option<&Service> {
        let rank = |service: &&Service| {
            let here = |it: &&ServiceAddress| *it.network == *network && it.net.contains(ip);
            let nets = service.addresses.iter().filter(here).map(|it| it.net);
            let longest = nets.map(|net| (net.ip() == ip && whole(net), net.prefix())).max()?;
            let near = service.key.namespace() == client;
            let hidden = service.visibility == Visibility::Namespace && !near;
            let order = (longest.0, near, longest.1, service.canonical);
            (!hidden).then_some((order, Reverse(service.key.clone())))
        };
        self.services.iter().filter(|it| rank(it).is_some()).max_by_key(rank)
    }

    fn local(&self, name: &str) -> Option<&Workload> {
        let so_named = || self.workloads.iter().rev().filter(|it| it.name() == name);
        let end = format!("/shop/{name}");
        so_named().find(|it| it.uid().ends_with(&end)).or_else(|| so_named().next())
    }

    fn endpoints(&self, service: &ServiceKey) -> Vec<&str> {
        let member = |it: &&Workload| it.membership(service).is_some();
        sorted(self.workloads.iter().filter(member).map(|it| &**it.uid()))
    }
}

fn whole(net: ipnetwork::IpNetwork) -> bool {
    net.prefix() == if net.is_ipv4() { 32 } else { 128 }
}

fn sorted<'a>(uids: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut uids: Vec<_> = uids.collect();
    uids.sort_unstable();
    uids
}

fn tell(view: &mut View, event: &Event) {
    match event {
        Event::Workload { workload, .. } => view.insert_workload(Workload::clone(workload)),
        Event::NoWorkload(number) => view.remove_workload(&uid(*number)),
        Event::Service(service) => view.insert_service(Service::clone(service)),
        Event::NoService(number) => view.remove_service(&key(*number)),
        Event::Publish => {}
    }
}

fn agree(view: &View, lists: &Lists) {
    assert_eq!(view.workloads().count(), lists.workloads.len());
    assert_eq!(view.services().count(), lists.services.len());
    for network in NETWORKS {
        let shared: Network = network.into();
        for ip in ADDRESSES.map(|it| it.parse().unwrap()) {
            let found = view.by_address(&shared, ip).map(|it| &**it);
            assert_eq!(found, lists.by_address(network, ip), "{network}/{ip}");
            for client in NAMESPACES {
                let found = view.service_at(client, &shared, ip).map(|it| &**it);
                let expected = lists.service_at(client, network, ip);
                assert_eq!(found, expected, "{network}/{ip} for {client}");
            }
        }
    }
    for name in ["x", "y"] {
        let pod = LocalWorkload { name, namespace: "shop", service_account: "cart" };
        assert_eq!(view.local(pod, &Home::default()).map(|it| &**it), lists.local(name));
    }
    for key in (0..SERVICES.len()).map(key) {
        let found = sorted(view.endpoints(&key).map(|it| &**it.uid()));
        assert_eq!(found, lists.endpoints(&key), "{key}");
        let expected = lists.services.iter().find(|it| it.key == key);
        assert_eq!(view.service(&key).map(|it| &**it), expected);
    }
    for hostname in ["a", "b"] {
        let expected = lists.services.iter().filter(|it| it.key.hostname() == hostname).count();
        assert_eq!(view.services_named(hostname).count(), expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn a_view_says_what_lists_say_and_clones_keep_saying_it(events in events()) {
        let (mut view, mut lists) = (View::default(), Lists::default());
        let mut published = Vec::new();
        for event in &events {
            tell(&mut view, event);
            lists.hear(event);
            if matches!(event, Event::Publish) {
                published.push((view.clone(), lists.clone()));
            }
        }
        published.push((view, lists));
        for (view, lists) in &published {
            agree(view, lists);
        }
    }
}
