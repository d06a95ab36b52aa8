#![no_main]
//! Questions of applications: what is answered is a message that answers them, and fits.

use std::sync::OnceLock;

use arbitrary::Arbitrary;
use fuzz::run;
use fuzz::wire::{End, Monologue};
use hickory_proto::op::Message;
use libfuzzer_sys::fuzz_target;
use mesh::{Network, View};
use ztunnel::dns::fuzzing::{answers, failure, frames, is_transfer};
use ztunnel::dns::{Facts, Outcome, Transport, answer};
use ztunnel::proxy::Ipv6;
use ztunnel::source::local::{Origin, load};

#[derive(Debug, Arbitrary)]
struct Input {
    message: Shape,
    tcp: bool,
    ipv6: bool,
    ready: bool,
    piece: u16,
}

#[derive(Debug, Arbitrary)]
enum Shape {
    Bytes(Vec<u8>),
    Question { id: u16, flags: u16, labels: Vec<Label>, kind: Kind, class: u8, edns: Option<Edns>, rest: Vec<u8> },
}

#[derive(Debug, Arbitrary)]
enum Label {
    Cart,
    Many,
    Shop,
    Svc,
    Cluster,
    Local,
    Other(Vec<u8>),
}

#[derive(Debug, Arbitrary)]
enum Kind {
    A,
    Aaaa,
    Zone,
    Other(u16),
}

#[derive(Debug, Arbitrary)]
struct Edns {
    payload: u16,
    flags: u32,
    data: Vec<u8>,
}

impl Shape {
    fn bytes(&self) -> Vec<u8> {
        let Self::Question { id, flags, labels, kind, class, edns, rest } = self else {
            let Self::Bytes(bytes) = self else { return Vec::new() };
            return bytes.clone();
        };
        let mut out = Vec::new();
        let more = u16::from(edns.is_some());
        for number in [*id, *flags, 1, 0, 0, more] {
            out.extend(number.to_be_bytes());
        }
        for label in labels {
            let text: &[u8] = match label {
                Label::Cart => b"cart",
                Label::Many => b"mAny",
                Label::Shop => b"shop",
                Label::Svc => b"svc",
                Label::Cluster => b"cluster",
                Label::Local => b"local",
                Label::Other(text) => text,
            };
            out.push(text.len() as u8);
            out.extend(text);
        }
        let kind = match kind {
            Kind::A => 1,
            Kind::Aaaa => 28,
            Kind::Zone => 252,
            Kind::Other(kind) => *kind,
        };
        out.push(0);
        out.extend(kind.to_be_bytes());
        out.extend([0, 1 + class % 2]);
        if let Some(Edns { payload, flags, data }) = edns {
            out.extend([0, 0, 41]);
            out.extend(payload.to_be_bytes());
            out.extend(flags.to_be_bytes());
            out.extend((data.len() as u16).to_be_bytes());
            out.extend(data);
        }
        out.extend(rest);
        out
    }
}

/// A service with an address of each family, and one with very many.
fn view() -> &'static View {
    static VIEW: OnceLock<View> = OnceLock::new();
    VIEW.get_or_init(|| {
        let many: String = (0..200).map(|n| format!("/10.2.0.{n}, ")).collect();
        let text = format!(
            "services:
              - {{ name: cart, namespace: shop, hostname: cart.shop.svc.cluster.local,
                   vips: [/10.96.0.10, \"/fd00:96::10\"], ports: {{ 80: 80 }} }}
              - {{ name: many, namespace: shop, hostname: many.shop.svc.cluster.local,
                   vips: [{many}], ports: {{ 80: 80 }} }}"
        );
        load(&Origin::Inline(text)).expect("a good mesh")
    })
}

fuzz_target!(|input: Input| {
    let message = input.message.bytes();
    let network = Network::from("");
    let facts = Facts {
        view: input.ready.then(view),
        namespace: "shop",
        network: &network,
        domain: "cluster.local",
        preferred_namespace: Some("bank"),
        ipv6: if input.ipv6 { Ipv6::Enabled } else { Ipv6::Disabled },
        transport: if input.tcp { Transport::Tcp } else { Transport::Udp },
        random: 7,
    };
    if let Outcome::Answer(reply) = answer(&message, &facts) {
        assert!(answers(&reply, &message), "it does not answer the question");
        let read = Message::from_vec(&reply).expect("it is a message");
        assert!(read.answers.len() <= 400);
        let limit = Message::from_vec(&message).expect("it was understood").edns;
        let limit = limit.map_or(512, |edns| usize::from(edns.max_payload()).max(512));
        assert!(input.tcp || reply.len() <= limit, "{} bytes do not fit", reply.len());
    }
    if let Some(reply) = failure(&message) {
        assert!(answers(&reply, &message));
    }
    let _ = is_transfer(&message);
    let all = run(frames(Monologue::new(&message, input.piece, End::Eof)));
    assert!(all.iter().map(|it| it.len() + 2).sum::<usize>() <= message.len());
});
