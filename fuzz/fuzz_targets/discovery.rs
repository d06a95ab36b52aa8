#![no_main]
//! What a control plane says, in any order: each response is answered, and nothing is
//! left of what it took away.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use arbitrary::Arbitrary;
use bytes::Bytes;
use fuzz::mesh_parts::{Authorization, Service, Text, Workload};
use libfuzzer_sys::fuzz_target;
use mesh::proto::workload::{Address, address};
use mesh::proto::{ADDRESS_TYPE, AUTHORIZATION_TYPE};
use mesh::{Connection, Decision, Identity, View};
use prost::Message;
use ztunnel::source::state::State;
use ztunnel::source::wire::{Body, Envelope, Item};
use ztunnel::source::{MassRemoval, Rules, Scope};

const HOLD: Duration = Duration::from_secs(60);

#[derive(Debug, Arbitrary)]
struct Input {
    on_demand: bool,
    hold: bool,
    events: Vec<Event>,
}

#[derive(Debug, Arbitrary)]
enum Event {
    Response { policies: bool, resources: Vec<Resource>, removed: Vec<Text> },
    OtherType(String),
    Bytes(Vec<u8>),
    Reopen { claim_less: bool },
    Later(u8),
    /// As many workloads as make a large state.
    Crowd(u8),
}

#[derive(Debug, Arbitrary)]
struct Resource {
    body: Content,
    name: Option<Text>,
    version: Text,
    aliases: Vec<Text>,
}

#[derive(Debug, Arbitrary)]
enum Content {
    Workload(Workload),
    Service(Service),
    Policy(Authorization),
    Garbage(Vec<u8>),
    Nothing,
}

impl Resource {
    fn encode(&self) -> Item {
        let of_address = |it| Some((ADDRESS_TYPE, Address { r#type: Some(it) }.encode_to_vec()));
        let (key, body) = match &self.body {
            Content::Workload(it) => {
                (it.uid.string(), of_address(address::Type::Workload(it.message())))
            }
            Content::Service(it) => (it.key(), of_address(address::Type::Service(it.message()))),
            Content::Policy(it) => {
                (it.key(), Some((AUTHORIZATION_TYPE, it.message().encode_to_vec())))
            }
            Content::Garbage(bytes) => (String::new(), Some((ADDRESS_TYPE, bytes.clone()))),
            Content::Nothing => (String::new(), None),
        };
        Item {
            version: self.version.string(),
            body: body.map(|(url, value)| Body { type_url: url.into(), value: value.into() }),
            name: self.name.as_ref().map_or(key, Text::string),
            aliases: self.aliases.iter().map(Text::string).collect(),
        }
    }
}

struct World {
    state: State,
    now: Instant,
    responses: u32,
    /// Every name that there ever was, of addresses and of policies.
    names: [BTreeSet<String>; 2],
}

impl World {
    fn hear(&mut self, url: &str, resources: Vec<Bytes>, removed: Vec<String>) {
        self.responses += 1;
        let nonce = self.responses.to_string();
        let (type_url, own) = (url.to_owned(), nonce.clone());
        // Through its encoding, as it comes.
        let bytes = Envelope { resources, type_url, nonce, removed }.encode_to_vec();
        let envelope = Envelope::decode(&*bytes).expect("it was just encoded");
        self.apply(envelope, &own);
    }

    fn apply(&mut self, envelope: Envelope, nonce: &str) {
        let known = [ADDRESS_TYPE, AUTHORIZATION_TYPE].iter().position(|url| *url == envelope.type_url);
        if let Some(names) = known.map(|at| &mut self.names[at]) {
            let items = envelope.resources.iter();
            names.extend(items.filter_map(|it| Item::decode(it.clone()).ok()).map(|it| it.name));
        }
        let outcome = self.state.on(envelope, self.now);
        assert_eq!(outcome.reply.response_nonce, nonce);
        let complaint = !outcome.rejected.is_empty() || outcome.withheld > 0;
        assert_eq!(outcome.reply.error_detail.is_some(), complaint);
        for (url, count) in self.state.counts() {
            assert!(count.rejected <= count.held && count.withheld <= count.held, "{url}");
        }
    }

    fn on(&mut self, event: &Event) {
        match event {
            Event::Response { policies, resources, removed } => {
                let url = if *policies { AUTHORIZATION_TYPE } else { ADDRESS_TYPE };
                let items = resources.iter().map(|it| it.encode().encode_to_vec().into());
                self.hear(url, items.collect(), removed.iter().map(Text::string).collect());
            }
            Event::OtherType(url) => self.hear(url, Vec::new(), Vec::new()),
            Event::Bytes(bytes) => {
                if let Ok(envelope) = Envelope::decode(&**bytes) {
                    let nonce = envelope.nonce.clone();
                    self.apply(envelope, &nonce);
                }
            }
            Event::Reopen { claim_less } => {
                if *claim_less {
                    self.state.claim_less();
                }
                assert_eq!(self.state.opening(Default::default(), &[]).len(), 2);
            }
            Event::Later(seconds) => self.now += Duration::from_secs((*seconds).into()),
            Event::Crowd(many) => {
                let one = |number: u8| {
                    let uid = format!("crowd/{number}");
                    let message = mesh::proto::workload::Workload {
                        uid: uid.clone(),
                        namespace: "shop".to_owned(),
                        addresses: vec![vec![10, 1, 0, number]],
                        ..Default::default()
                    };
                    let address = Address { r#type: Some(address::Type::Workload(message)) };
                    let (type_url, value) = (ADDRESS_TYPE.into(), address.encode_to_vec().into());
                    let body = Some(Body { type_url, value });
                    Item { name: uid, body, ..Default::default() }.encode_to_vec().into()
                };
                self.hear(ADDRESS_TYPE, (0..*many).map(one).collect(), Vec::new());
            }
        }
    }

    /// Everything is removed, again when that is believed.
    fn empty(&mut self) {
        for url in [ADDRESS_TYPE, AUTHORIZATION_TYPE] {
            let all = |world: &Self| world.names[usize::from(url != ADDRESS_TYPE)].iter().cloned().collect();
            let names = all(self);
            self.hear(url, Vec::new(), names);
            self.now += 2 * HOLD;
            let names = all(self);
            self.hear(url, Vec::new(), names);
        }
    }
}

fuzz_target!(|input: Input| {
    let scope = if input.on_demand { Scope::OnDemand } else { Scope::Everything };
    let mass_removal = if input.hold { MassRemoval::Hold(HOLD) } else { MassRemoval::Apply };
    let state = State::new(Rules { scope, mass_removal }, View::default());
    let mut world = World { state, now: Instant::now(), responses: 0, names: Default::default() };
    input.events.iter().take(64).for_each(|event| world.on(event));
    world.empty();
    assert!(world.state.complete());
    let view = world.state.view();
    assert_eq!(view.workloads().count() + view.services().count() + view.policies().count(), 0);
    for (url, count) in world.state.counts() {
        assert_eq!((count.held, count.rejected, count.withheld), (0, 0, 0), "{url}");
    }
    // Nothing that was rejected is remembered either.
    let own = Identity::new("", "shop", "cart").expect("well formed");
    let connection = Connection {
        source: ([10, 0, 0, 1], 1).into(),
        identity: None,
        destination: ([10, 0, 0, 2], 80).into(),
    };
    let workload = mesh::Workload::new("u", "shop", "cart", own);
    assert_eq!(view.authorize(&workload, &connection), Decision::Allow);
});
