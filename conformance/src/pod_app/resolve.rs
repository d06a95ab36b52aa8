//! Looking up a name as a resolver does, with the transport chosen: enough of RFC 1035 to
//! ask for the addresses of one name (RFC 3596 for IPv6), or for its services (RFC 2782).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The question's number; there is one per socket.
const ID: u16 = 0x5ca1;
const TYPE_A: u16 = 1;
const TYPE_AAAA: u16 = 28;
const TYPE_SRV: u16 = 33;
/// Names that point at each other end here.
const LABELS: usize = 32;

/// What to look up.
#[derive(Debug, Args)]
pub(crate) struct Resolve {
    /// The name, fully qualified.
    name: String,
    /// The server; by default the first of `/etc/resolv.conf`.
    #[arg(long)]
    server: Option<IpAddr>,
    /// Ask over TCP.
    #[arg(long)]
    tcp: bool,
    /// Ask for IPv6 addresses instead of IPv4 ones.
    #[arg(long, conflicts_with = "srv")]
    v6: bool,
    /// Ask for services instead of addresses.
    #[arg(long)]
    srv: bool,
    /// How long to wait, in seconds.
    #[arg(long, default_value_t = 10)]
    deadline: u64,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Resolved {
    /// RFC 1035's response code: 0 is fine, 3 is "no such name".
    pub code: u8,
    /// The addresses.
    pub ips: Vec<IpAddr>,
    /// Port and name of each service.
    pub services: Vec<(u16, String)>,
}

impl fmt::Display for Resolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { code, ips, services } = self;
        write!(f, "response code {code}, addresses {ips:?}, services {services:?}")
    }
}

impl Resolve {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let server = match self.server {
            Some(server) => server,
            None => configured(&std::fs::read_to_string("/etc/resolv.conf")?)
                .context("/etc/resolv.conf names no server")?,
        };
        let to = SocketAddr::new(server, 53);
        let kind = match (self.srv, self.v6) {
            (true, _) => TYPE_SRV,
            (false, true) => TYPE_AAAA,
            (false, false) => TYPE_A,
        };
        let question = question(&self.name, kind).context("that is no name")?;
        let deadline = Duration::from_secs(self.deadline);
        let answer = if self.tcp {
            let asked = tokio::time::timeout(deadline, over_tcp(to, &question)).await;
            asked.with_context(|| format!("no answer from {to} within {deadline:?}"))??
        } else {
            lab::here::ask(to, &question, deadline).await?
        };
        match read(&answer) {
            Some(resolved) => super::tell(&resolved),
            None => bail!("the answer of {to} is not one: {answer:?}"),
        }
    }
}

async fn over_tcp(to: SocketAddr, question: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(to).await?;
    let length = u16::try_from(question.len())?.to_be_bytes();
    stream.write_all(&[&length, question].concat()).await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

fn configured(text: &str) -> Option<IpAddr> {
    text.lines().find_map(|line| line.strip_prefix("nameserver")?.trim().parse().ok())
}

fn question(name: &str, kind: u16) -> Option<Vec<u8>> {
    let mut message = Vec::new();
    // Recursion desired; one question.
    for word in [ID, 0x0100, 1, 0, 0, 0] {
        message.extend(word.to_be_bytes());
    }
    for label in name.trim_end_matches('.').split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..64).contains(length))?;
        message.push(length);
        message.extend(label.as_bytes());
    }
    // Root; type; class IN.
    message.push(0);
    message.extend([kind, 1].map(u16::to_be_bytes).concat());
    Some(message)
}

fn read(answer: &[u8]) -> Option<Resolved> {
    let header = answer.first_chunk::<12>()?;
    if u16::from_be_bytes([header[0], header[1]]) != ID || header[2] & 0x80 == 0 {
        return None;
    }
    let (questions, records) = (header[5], u16::from_be_bytes([header[6], header[7]]));
    let mut rest = answer.get(12..)?;
    for _ in 0..questions {
        rest = after_name(rest)?.get(4..)?;
    }
    let (mut ips, mut services) = (Vec::new(), Vec::new());
    for _ in 0..records {
        let fields = after_name(rest)?.split_first_chunk::<10>()?;
        let kind = u16::from_be_bytes([fields.0[0], fields.0[1]]);
        let length = usize::from(u16::from_be_bytes([fields.0[8], fields.0[9]]));
        let (data, after) = fields.1.split_at_checked(length)?;
        if kind == TYPE_A {
            ips.push(Ipv4Addr::from(*data.first_chunk::<4>()?).into());
        }
        if kind == TYPE_AAAA {
            ips.push(Ipv6Addr::from(*data.first_chunk::<16>()?).into());
        }
        if kind == TYPE_SRV {
            let (fixed, target) = data.split_first_chunk::<6>()?;
            services.push((u16::from_be_bytes([fixed[4], fixed[5]]), name_at(answer, target)?));
        }
        rest = after;
    }
    Some(Resolved { code: header[3] & 0x0f, ips, services })
}

/// The name that begins there, wherever its parts are.
fn name_at<'a>(message: &'a [u8], mut rest: &'a [u8]) -> Option<String> {
    let mut labels = Vec::new();
    for _ in 0..LABELS {
        let (&length, after) = rest.split_first()?;
        if length == 0 {
            return Some(labels.join("."));
        }
        if length >= 192 {
            let at = u16::from_be_bytes([length & 0x3f, *after.first()?]);
            rest = message.get(usize::from(at)..)?;
            continue;
        }
        let (label, next) = after.split_at_checked(usize::from(length))?;
        labels.push(String::from_utf8_lossy(label).into_owned());
        rest = next;
    }
    None
}

/// What follows a name, whose last part may be a pointer.
fn after_name(mut rest: &[u8]) -> Option<&[u8]> {
    loop {
        let (&length, after) = rest.split_first()?;
        match length {
            0 => return Some(after),
            192.. => return after.get(1..),
            _ => rest = after.get(usize::from(length)..)?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_with_an_alias_is_read() {
        let mut answer = question("web.shop.svc.cluster.local", TYPE_A).unwrap();
        answer[2] = 0x85;
        answer[7] = 3;
        // An alias, then an address of each family, all of the name at offset 12.
        answer.extend([0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 9, 0, 3, 1, b'x', 0]);
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 10, 96, 0, 10]);
        let v6: Ipv6Addr = "fd00:96::a".parse().unwrap();
        answer.extend([0xc0, 12, 0, 28, 0, 1, 0, 0, 0, 9, 0, 16]);
        answer.extend(v6.octets());
        let resolved = read(&answer).unwrap();
        assert_eq!(
            resolved,
            Resolved { code: 0, ips: vec![[10, 96, 0, 10].into(), v6.into()], services: vec![] }
        );
        for length in 0..answer.len() {
            let _ = read(&answer[..length]);
        }
        answer[0] = 0;
        assert_eq!(read(&answer), None);
    }

    #[test]
    fn a_service_is_read_with_its_port_and_name() {
        let mut answer = question("_lines._tcp.web.local", TYPE_SRV).unwrap();
        answer[2] = 0x84;
        answer[7] = 1;
        // The target is `one.` and what stands at offset 24, `web.local`.
        answer.extend([0xc0, 12, 0, 33, 0, 1, 0, 0, 0, 9, 0, 12, 0, 0, 0, 100, 0x1f, 0x90]);
        answer.extend([3, b'o', b'n', b'e', 0xc0, 24]);
        let resolved = read(&answer).unwrap();
        assert_eq!(resolved.services, [(8080, "one.web.local".to_owned())]);
        // A name that points at itself is none.
        let end = answer.len() - 1;
        answer[end] = u8::try_from(end - 1).unwrap();
        assert_eq!(read(&answer), None);
    }

    #[test]
    fn names_and_servers() {
        assert!(question("a..b", TYPE_A).is_none() && question(&"x".repeat(64), TYPE_A).is_none());
        assert!(question("a.b.", TYPE_A).is_some());
        let text = "search a.b\nnameserver 10.96.0.10\nnameserver 1.1.1.1\n";
        assert_eq!(configured(text), Some([10, 96, 0, 10].into()));
        assert_eq!(configured("search a\n"), None);
    }
}
