//! PURE. How the values of options are written. Each reader says what is wrong with a text
//! in words that go into an Event; what is allowed is said by [`Key::allowed`].
//!
//! [`Key::allowed`]: super::Key::allowed

use std::collections::BTreeSet;
use std::time::Duration;

use capture::{Dns, Inbound, PortRange, Uncaptured};
use ipnetwork::IpNetwork;

use super::Older;

/// Items that one list may have. Far more than anybody needs; a list goes into the rules of
/// its pod, and into a reference beside them.
pub(super) const MOST_ITEMS: usize = 64;
/// The longest name of an interface that the kernel takes.
const LONGEST_INTERFACE: usize = 15;
/// Longer is as good as for ever.
const LONGEST_KEPT: Duration = Duration::from_secs(30 * 24 * 3600);

/// Why a text means nothing.
pub(super) type Wrong = String;

/// Ports and ranges of ports, separated by commas. None of the mesh's own.
pub(super) fn ports(text: &str) -> Result<BTreeSet<PortRange>, Wrong> {
    items(text)?.into_iter().map(port_range).collect()
}

fn port_range(item: &str) -> Result<PortRange, Wrong> {
    let (first, last) = item.split_once('-').unwrap_or((item, item));
    let range = PortRange { first: port(first)?, last: port(last)? };
    if range.first > range.last {
        return Err(format!("{item:?} ends before it begins"));
    }
    let own = [zds::port::OUTBOUND, zds::port::INBOUND_PLAIN, zds::port::INBOUND_HBONE];
    match own.into_iter().chain([zds::port::DNS]).find(|&own| range.contains(own)) {
        Some(own) => Err(format!("{own} is a port of the mesh itself")),
        None => Ok(range),
    }
}

fn port(text: &str) -> Result<u16, Wrong> {
    // Unlike the parser of numbers, nobody expects a sign here.
    let digits = text.trim().bytes().all(|byte| byte.is_ascii_digit());
    let port = digits.then(|| text.trim().parse().ok()).flatten();
    port.filter(|&port| port != 0).ok_or_else(|| format!("{:?} is no port", shortened(text)))
}

/// Networks or single addresses, separated by commas.
pub(super) fn networks(text: &str) -> Result<BTreeSet<IpNetwork>, Wrong> {
    items(text)?.into_iter().map(network).collect()
}

fn network(item: &str) -> Result<IpNetwork, Wrong> {
    // An IPv4 address in IPv6 clothes is on no wire, so it would exclude nothing.
    let mapped = |network: &IpNetwork| match network {
        IpNetwork::V4(_) => false,
        IpNetwork::V6(network) => network.ip().to_ipv4_mapped().is_some(),
    };
    let network = item.parse().ok().filter(|network| !mapped(network));
    network.ok_or_else(|| format!("{:?} is neither network nor address", shortened(item)))
}

/// Names of interfaces, separated by commas. Not the pod's own: what arrives there is
/// inbound.
pub(super) fn interfaces(text: &str) -> Result<BTreeSet<String>, Wrong> {
    items(text)?.into_iter().map(interface).collect()
}

fn interface(item: &str) -> Result<String, Wrong> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let named = item.len() <= LONGEST_INTERFACE && item.bytes().all(fits);
    match item {
        "lo" | "eth0" => Err(format!("{item} is the pod's own, no guest is behind it")),
        "." | ".." => Err(format!("{item:?} is no name of an interface")),
        _ if named => Ok(item.to_owned()),
        _ => Err(format!("{:?} is no name of an interface", shortened(item))),
    }
}

/// What Istio takes for a truth value.
fn truth(text: &str) -> Result<bool, Wrong> {
    match text {
        "1" | "t" | "T" | "true" | "True" | "TRUE" => Ok(true),
        "0" | "f" | "F" | "false" | "False" | "FALSE" => Ok(false),
        _ => Err("it is neither true nor false".to_owned()),
    }
}

pub(super) fn dns(text: &str) -> Result<Dns, Wrong> {
    truth(text).map(|on| if on { Dns::On } else { Dns::Off })
}

pub(super) fn inbound(text: &str) -> Result<Inbound, Wrong> {
    truth(text).map(|bypass| if bypass { Inbound::Bypass } else { Inbound::Capture })
}

pub(super) fn uncaptured(text: &str) -> Result<Uncaptured, Wrong> {
    match text {
        "pass" => Ok(Uncaptured::Pass),
        "block" => Ok(Uncaptured::Block),
        _ => Err("it is neither pass nor block".to_owned()),
    }
}

pub(super) fn older(text: &str) -> Result<Older, Wrong> {
    match (text, text.strip_prefix("keep-for=")) {
        ("keep", _) => Ok(Older::Keep),
        ("reset", _) => Ok(Older::Reset),
        (_, Some(time)) => duration(time).map(Older::KeepFor),
        _ => Err("it is neither keep nor reset nor keep-for=<time>".to_owned()),
    }
}

fn duration(text: &str) -> Result<Duration, Wrong> {
    let wrong = || format!("{:?} is no time of at most 30 days", shortened(text));
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(digits);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let time = number.checked_mul(seconds).map(Duration::from_secs);
    time.filter(|time| *time <= LONGEST_KEPT).ok_or_else(wrong)
}

/// The items of a list; an empty text has none. Empty items are left out, as after a comma
/// at the end.
fn items(text: &str) -> Result<Vec<&str>, Wrong> {
    let items: Vec<_> = text.split(',').map(str::trim).filter(|item| !item.is_empty()).collect();
    if items.len() > MOST_ITEMS {
        return Err(format!("it has {} items, {MOST_ITEMS} are the most", items.len()));
    }
    Ok(items)
}

/// As much of a text as fits into an Event.
pub(super) fn shortened(text: &str) -> String {
    const MOST: usize = 100;
    match text.char_indices().nth(MOST) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text.to_owned(),
    }
}
