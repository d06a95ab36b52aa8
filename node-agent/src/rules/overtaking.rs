//! PURE. Others' policy rules that come before ours: whether one may lead the packets that
//! ours is for elsewhere, and how `ip rule` would print it.
//!
//! Those packets are an application's answers to ztunnel, which carry our mark: TCP, made in
//! the pod, by a socket that is bound to no device. (To one that is bound, our own route does
//! not apply either.) From whom to whom they go, nobody knows beforehand. A rule that leads
//! them elsewhere makes captured connections fail, and lets what is answered on open ones
//! out in clear text. It is not ours to be removed, and the kernel lets nobody be before
//! everybody else.

use rtnetlink::packet_route::IpProtocol;
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};

/// The pod's own addresses.
const LOCAL: u32 = 255;
const NAMED: [(u32, &str); 3] = [(LOCAL, "local"), (254, "main"), (253, "default")];

/// Whether a rule takes the packets that ours is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Takes {
    None,
    Some,
    All,
}

/// Whether a rule that comes before ours may lead its packets elsewhere.
pub(super) fn may_lead_elsewhere(rule: &RuleMessage) -> bool {
    let elsewhere = match rule.header.action {
        RuleAction::ToTable => {
            // The pod's own addresses are reached as before, and our table is where they go.
            ![LOCAL, zds::ROUTE.table].contains(&table(rule))
        }
        RuleAction::Goto => goto(rule).is_some_and(|target| target > zds::ROUTE.preference),
        RuleAction::Blackhole | RuleAction::Unreachable | RuleAction::Prohibit => true,
        _ => false,
    };
    elsewhere && takes(rule) != Takes::None
}

fn takes(rule: &RuleMessage) -> Takes {
    let header = &rule.header;
    let some_have = header.src_len > 0 || header.dst_len > 0 || header.tos > 0;
    let mut takes = if some_have { Takes::Some } else { Takes::All };
    for selected in rule.attributes.iter().filter_map(selects).chain([marked(rule)]) {
        takes = match (takes, selected) {
            (Takes::None, _) | (_, Takes::None) => Takes::None,
            (Takes::Some, _) | (_, Takes::Some) => Takes::Some,
            (Takes::All, Takes::All) => Takes::All,
        };
    }
    match takes {
        Takes::None if header.flags.contains(RuleFlags::Invert) => Takes::All,
        Takes::All if header.flags.contains(RuleFlags::Invert) => Takes::None,
        takes => takes,
    }
}

/// What one attribute selects; `None` is no selector. Marks are looked at as a whole.
fn selects(attribute: &RuleAttribute) -> Option<Takes> {
    use RuleAttribute::{
        DestinationPortRange, Iifname, IpProtocol as Protocol, L3MDev, Oifname, Other,
        SourcePortRange, TunId, UidRange,
    };
    match attribute {
        // What is made in the pod comes in by its loopback.
        Iifname(name) if name == "lo" => Some(Takes::All),
        Protocol(IpProtocol::Tcp) => Some(Takes::All),
        Iifname(_) | Oifname(_) | L3MDev(true) | Protocol(_) => Some(Takes::None),
        SourcePortRange(_) | DestinationPortRange(_) | TunId(_) | UidRange(_) | Other(_) => {
            Some(Takes::Some)
        }
        _ => None,
    }
}

/// Of the packet's mark only the bits within our mask are known.
fn marked(rule: &RuleMessage) -> Takes {
    let (value, mask) = mark(rule);
    let ours = zds::CONNMARK;
    if (value ^ ours.value) & mask & ours.mask != 0 {
        Takes::None
    } else if mask & !ours.mask != 0 {
        Takes::Some
    } else {
        Takes::All
    }
}

fn mark(rule: &RuleMessage) -> (u32, u32) {
    let (mut value, mut mask) = (None, None);
    for attribute in &rule.attributes {
        match attribute {
            RuleAttribute::FwMark(mark) => value = Some(*mark),
            RuleAttribute::FwMask(bits) => mask = Some(*bits),
            _ => {}
        }
    }
    let any = if value.is_some() { u32::MAX } else { 0 };
    (value.unwrap_or(0), mask.unwrap_or(any))
}

fn table(rule: &RuleMessage) -> u32 {
    let named = rule.attributes.iter().find_map(|attribute| match attribute {
        RuleAttribute::Table(table) => Some(*table),
        _ => None,
    });
    named.unwrap_or(rule.header.table.into())
}

fn goto(rule: &RuleMessage) -> Option<u32> {
    // The kernel passes over one whose target is not there.
    let resolved = !rule.header.flags.contains(RuleFlags::Unresolved);
    let mut attributes = rule.attributes.iter().filter(|_| resolved);
    attributes.find_map(|attribute| match attribute {
        RuleAttribute::Goto(target) => Some(*target),
        _ => None,
    })
}

/// The rule in the words of `ip rule`, but for what hardly anybody uses.
pub(super) fn text(rule: &RuleMessage) -> String {
    use RuleAttribute::{Destination, Iifname, IpProtocol, Oifname, Priority, Source};
    use RuleAttribute::{DestinationPortRange, SourcePortRange, SuppressPrefixLen, UidRange};
    let header = &rule.header;
    let (mut preference, mut from, mut to) = (0, "all".to_owned(), None);
    let (mut selectors, mut suppress) = (Vec::new(), None);
    for attribute in &rule.attributes {
        match attribute {
            Priority(number) => preference = *number,
            Source(network) => from = format!("{network}/{}", header.src_len),
            Destination(network) => to = Some(format!("to {network}/{}", header.dst_len)),
            Iifname(name) => selectors.push(format!("iif {name}")),
            Oifname(name) => selectors.push(format!("oif {name}")),
            IpProtocol(it) => selectors.push(format!("ipproto {it:?}").to_lowercase()),
            SourcePortRange(it) => selectors.push(format!("sport {}-{}", it.start, it.end)),
            DestinationPortRange(it) => selectors.push(format!("dport {}-{}", it.start, it.end)),
            UidRange(it) => selectors.push(format!("uidrange {}-{}", it.start, it.end)),
            // All ones are none.
            SuppressPrefixLen(most) if *most != u32::MAX => {
                suppress = Some(format!("suppress_prefixlength {most}"));
            }
            _ => {}
        }
    }
    let (value, mask) = mark(rule);
    let masked = if mask == u32::MAX { String::new() } else { format!("/{mask:#x}") };
    let fwmark = (mask != 0).then(|| format!("fwmark {value:#x}{masked}"));
    let tos = (header.tos != 0).then(|| format!("tos {:#x}", header.tos));
    let not = header.flags.contains(RuleFlags::Invert).then(|| "not".to_owned());
    let words = not.into_iter().chain([format!("from {from}")]).chain(to).chain(tos).chain(fwmark);
    let words = words.chain(selectors).chain([deed(rule)]).chain(suppress);
    format!("{preference}: {}", words.collect::<Vec<_>>().join(" "))
}

fn deed(rule: &RuleMessage) -> String {
    match rule.header.action {
        RuleAction::ToTable => {
            let number = table(rule);
            let name = NAMED.iter().find(|(named, _)| *named == number);
            name.map_or_else(|| format!("lookup {number}"), |(_, name)| format!("lookup {name}"))
        }
        RuleAction::Goto => goto(rule).map_or("goto".to_owned(), |to| format!("goto {to}")),
        RuleAction::Blackhole => "blackhole".to_owned(),
        RuleAction::Unreachable => "unreachable".to_owned(),
        RuleAction::Prohibit => "prohibit".to_owned(),
        _ => "nop".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use netns::Fence;
    use tokio::runtime::Handle;

    use super::super::Rules;
    use crate::testing::{ScratchPod, options, programs};

    /// As `ip rule add` takes them, and as they are told of; none where nothing is told.
    const RULES: [(&str, Option<&str>); 24] = [
        ("fwmark 0x111/0xfff lookup main", Some("from all fwmark 0x111/0xfff lookup main")),
        ("fwmark 0x1/0xf lookup 77", Some("from all fwmark 0x1/0xf lookup 77")),
        ("fwmark 0x8111 lookup main", Some("from all fwmark 0x8111 lookup main")),
        ("lookup main", Some("from all lookup main")),
        ("from 10.9.0.0/16 lookup 77", Some("from 10.9.0.0/16 lookup 77")),
        ("to 10.9.1.2 lookup 77", Some("from all to 10.9.1.2/32 lookup 77")),
        ("iif lo lookup main", Some("from all iif lo lookup main")),
        ("ipproto tcp sport 80 lookup 77", Some("from all sport 80-80 ipproto tcp lookup 77")),
        ("uidrange 0-99 lookup 77", Some("from all uidrange 0-99 lookup 77")),
        ("not fwmark 0x222/0xfff lookup 77", Some("not from all fwmark 0x222/0xfff lookup 77")),
        ("not to 10.0.0.0/8 lookup 77", Some("not from all to 10.0.0.0/8 lookup 77")),
        (
            "lookup main suppress_prefixlength 0",
            Some("from all lookup main suppress_prefixlength 0"),
        ),
        ("blackhole", Some("from all blackhole")),
        ("goto 32766", Some("from all goto 32766")),
        // Other marks, and what is made elsewhere or is no answer.
        ("fwmark 0x222/0xfff lookup main", None),
        ("fwmark 0x2/0xf lookup main", None),
        ("fwmark 0x539 lookup main", None),
        ("iif eth0 lookup main", None),
        ("oif eth0 lookup main", None),
        ("ipproto udp lookup main", None),
        ("not fwmark 0x111/0xfff lookup main", None),
        // It takes them, but not elsewhere.
        ("lookup local", None),
        ("lookup 1337", None),
        ("goto 9", None),
    ];

    #[tokio::test]
    async fn who_may_lead_answers_elsewhere_is_named() {
        let rules = Rules::new(programs(), Fence::new(2).unwrap(), Handle::current());
        let pod = ScratchPod::new();
        rules.apply(&pod.netns(), &options()).await.unwrap();
        pod.run("ip rule add pref 9 nop");
        pod.run("ip rule add pref 14 lookup main");
        assert_eq!(rules.overtaken(&pod.netns()).await.unwrap(), [""; 0], "after ours");
        for (rule, told) in RULES {
            pod.run(&format!("ip rule add pref 7 {rule}"));
            let found = rules.overtaken(&pod.netns()).await.unwrap();
            let named = format!("IPv4 policy rule \"7: {}\"", told.unwrap_or_default());
            let expected: Vec<_> = told.map(|_| named).into_iter().collect();
            assert_eq!(found, expected, "{rule}");
            pod.run("ip rule del pref 7");
        }
    }

    #[tokio::test]
    async fn among_equals_the_first_counts_and_without_ours_nobody_is_before_it() {
        let rules = Rules::new(programs(), Fence::new(2).unwrap(), Handle::current());
        let pod = ScratchPod::new();
        pod.run("ip -6 rule add pref 13 lookup main");
        rules.apply(&pod.netns(), &options()).await.unwrap();
        pod.run("ip rule add pref 13 lookup main");
        let found = rules.overtaken(&pod.netns()).await.unwrap();
        assert_eq!(found, ["IPv6 policy rule \"13: from all lookup main\""]);
        pod.run("ip -6 rule del pref 13 fwmark 0x111/0xfff lookup 1337");
        assert_eq!(rules.overtaken(&pod.netns()).await.unwrap(), [""; 0], "missing is a drift");
    }
}
