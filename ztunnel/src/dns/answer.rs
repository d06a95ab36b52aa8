//! From a question and the mesh to an answer. Pure, and safe for any bytes.

use std::net::IpAddr;

use hickory_proto::op;
use mesh::{Network, View};

use super::directory::{addresses, find};
use super::host::{encode, host};
use super::wire::{self, HEADER, IN, Message, Question, flag, kind};
use crate::proxy::Ipv6;

/// How long clients may remember an address, in seconds; as Istio's ztunnel says.
const TTL: u32 = 30;

/// What a client without EDNS takes over UDP (RFC 1035, 4.2.1).
const PLAIN_UDP: usize = 512;
/// What fits in a UDP datagram over IPv4.
const MOST_UDP: usize = 65_507;
/// What we say that we take over UDP. Nothing between us and the client is smaller.
const OUR_PAYLOAD: u16 = 4096;
/// Length of an OPT record without options.
const OPT: usize = 11;
/// Length of a record without its name and data.
const RECORD: usize = 10;
/// Points at the question's name.
const QUESTION_NAME: u16 = 0xc000 | HEADER as u16;

/// How a message came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// As a datagram.
    Udp,
    /// On a connection.
    Tcp,
}

/// What an answer is made of.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The mesh; `None` until it was known completely for the first time.
    pub view: Option<&'a View>,
    /// The client's namespace.
    pub namespace: &'a str,
    /// The client's network.
    pub network: &'a Network,
    /// The cluster's domain, in lower case.
    pub domain: &'a str,
    /// The namespace that is preferred after the client's own.
    pub preferred_namespace: Option<&'a str>,
    /// Without it nobody is told of IPv6 addresses.
    pub ipv6: Ipv6,
    /// How the question came.
    pub transport: Transport,
    /// Decides the order of addresses.
    pub random: u64,
}

/// What is to be done with a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Send this back.
    Answer(Vec<u8>),
    /// Send it on as it is: it is not about the mesh.
    Forward,
    /// It may be about the mesh, of which nothing is known yet.
    AwaitView,
    /// Do nothing: it is no question, and an answer could make two servers talk for ever.
    Ignore,
}

/// Decides on one message.
#[must_use]
pub fn answer(message: &[u8], facts: &Facts<'_>) -> Outcome {
    match Message::read(message) {
        None => Outcome::Ignore,
        Some(header) if header.is_response() => Outcome::Ignore,
        Some(header) => decide(message, header, facts).unwrap_or(Outcome::Forward),
    }
}

/// `None` for what is not ours to answer.
fn decide(message: &[u8], header: Message<'_>, facts: &Facts<'_>) -> Option<Outcome> {
    let question = header.question()?;
    let ours = header.opcode() == 0
        && question.class == IN
        && matches!(question.kind, kind::A | kind::AAAA);
    let host = host(question.name).filter(|_| ours)?;
    let Some(view) = facts.view else { return Some(Outcome::AwaitView) };
    let found = find(view, facts, &host)?;
    // Whatever follows the question must make sense too: somebody else may understand it.
    let edns = op::Message::from_vec(message).ok()?.edns;
    if edns.as_ref().is_some_and(|edns| edns.version() != 0) {
        return None;
    }
    let reply = Reply {
        header,
        question,
        rename: found.rename.as_deref().map(|target| encode(target).ok_or(())).transpose().ok()?,
        addresses: addresses(view, facts, &found.service, question.kind),
        edns: edns
            .map(|edns| Edns { dnssec_ok: edns.flags().dnssec_ok, payload: edns.max_payload() }),
    };
    Some(Outcome::Answer(reply.encode(facts.transport)))
}

/// What the client said with its OPT record (RFC 6891).
struct Edns {
    dnssec_ok: bool,
    payload: u16,
}

struct Reply<'a> {
    header: Message<'a>,
    question: Question<'a>,
    /// The name that the addresses are of, when it is not the one that was asked for.
    rename: Option<Vec<u8>>,
    addresses: Vec<IpAddr>,
    edns: Option<Edns>,
}

impl Reply<'_> {
    /// The question is repeated as it was written, because some clients mix the case of
    /// its letters and expect to see that again.
    fn encode(&self, transport: Transport) -> Vec<u8> {
        let mut out = Vec::with_capacity(PLAIN_UDP);
        out.extend([0; HEADER]);
        out.extend(self.question.bytes);
        let mut owner = QUESTION_NAME;
        let mut answers = 0;
        if let Some(target) = self.rename.as_deref().filter(|_| !self.addresses.is_empty()) {
            record(&mut out, owner, kind::CNAME, target);
            // The question is the only thing before it, so this is far below 16384.
            let at = out.len() - target.len();
            owner = 0xc000 | u16::try_from(at).expect("a header, a question and a record");
            answers += 1;
        }
        let kept = self.fitting(out.len(), transport);
        for address in kept {
            match address {
                IpAddr::V4(ip) => record(&mut out, owner, kind::A, &ip.octets()),
                IpAddr::V6(ip) => record(&mut out, owner, kind::AAAA, &ip.octets()),
            }
        }
        if let Some(edns) = &self.edns {
            opt(&mut out, edns);
        }
        answers += kept.len();
        let cut = transport == Transport::Udp && kept.len() < self.addresses.len();
        self.head(&mut out, answers, if cut { flag::TRUNCATED } else { 0 });
        out
    }

    /// The addresses that fit behind `used` bytes. A client over UDP learns that there are
    /// more and asks again over TCP; there, some thousand will do.
    fn fitting(&self, used: usize, transport: Transport) -> &[IpAddr] {
        let limit = match (transport, &self.edns) {
            (Transport::Tcp, _) => usize::from(u16::MAX),
            (Transport::Udp, None) => PLAIN_UDP,
            (Transport::Udp, Some(edns)) => usize::from(edns.payload).clamp(PLAIN_UDP, MOST_UDP),
        };
        let data = if self.question.kind == kind::A { 4 } else { 16 };
        let reserved = used + if self.edns.is_some() { OPT } else { 0 };
        let room = limit.saturating_sub(reserved) / (2 + RECORD + data);
        &self.addresses[..self.addresses.len().min(room)]
    }

    fn head(&self, out: &mut [u8], answers: usize, truncated: u8) {
        let [first, second] = self.header.flags();
        let answers = u16::try_from(answers).expect("a record is longer than a byte");
        out[..2].copy_from_slice(&self.header.id().to_be_bytes());
        out[2] = flag::RESPONSE | flag::AUTHORITATIVE | truncated | first & flag::RECURSION_DESIRED;
        out[3] = flag::RECURSION_AVAILABLE | second & flag::CHECKING_DISABLED;
        out[5] = 1;
        out[6..8].copy_from_slice(&answers.to_be_bytes());
        out[11] = u8::from(self.edns.is_some());
    }
}

fn record(out: &mut Vec<u8>, owner: u16, kind: u16, data: &[u8]) {
    let length = u16::try_from(data.len()).expect("an address or a name");
    out.extend(owner.to_be_bytes());
    out.extend(kind.to_be_bytes());
    out.extend(wire::IN.to_be_bytes());
    out.extend(TTL.to_be_bytes());
    out.extend(length.to_be_bytes());
    out.extend(data);
}

fn opt(out: &mut Vec<u8>, edns: &Edns) {
    out.push(0);
    out.extend(kind::OPT.to_be_bytes());
    out.extend(OUR_PAYLOAD.to_be_bytes());
    out.extend([0, 0, if edns.dnssec_ok { 0x80 } else { 0 }, 0]);
    out.extend([0, 0]);
}
