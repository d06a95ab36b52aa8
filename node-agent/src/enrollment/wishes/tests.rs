use super::*;
use crate::testing::options;

fn said(key: Key, text: &str) -> BTreeMap<Key, String> {
    [(key, text.to_owned())].into()
}

fn hear(key: Key, text: &str) -> (Options, Vec<Mistake>) {
    let (wishes, mistakes) = Wishes::default().hear(&said(key, text));
    (wishes.options(&options()), mistakes)
}

fn ranges(ranges: &[(u16, u16)]) -> BTreeSet<PortRange> {
    ranges.iter().map(|&(first, last)| PortRange { first, last }).collect()
}

#[test]
fn lists_of_ports() {
    let most = (1..=64).map(|port| port.to_string()).collect::<Vec<_>>().join(",");
    let all_of_most: Vec<_> = (1..=64).map(|port| (port, port)).collect();
    let good: [(&str, &[(u16, u16)]); 9] = [
        ("22", &[(22, 22)]),
        ("22,80", &[(22, 22), (80, 80)]),
        (" 22 , 80 ,", &[(22, 22), (80, 80)]),
        ("22,22", &[(22, 22)]),
        ("8000-8010,1-3", &[(1, 3), (8000, 8010)]),
        ("8000 - 8010", &[(8000, 8010)]),
        ("1-15000,15009-15052,15054-65535", &[(1, 15000), (15009, 15052), (15054, 65535)]),
        ("", &[]),
        (&most, &all_of_most),
    ];
    let bad = [
        "http",
        "-1",
        "+1",
        "0",
        "65536",
        "22;80",
        "22 80",
        "80-",
        "-80",
        "90-80",
        "1-2-3",
        "*",
        "15001",
        "15006",
        "15008",
        "15053",
        "1-65535",
        "15000-15001",
        "1.5",
        "0x16",
        "99999999999",
    ];
    let too_many = format!("{most},65");
    for key in [Key::ExcludeInboundPorts, Key::ExcludeOutboundPorts] {
        let of = |options: Options| match key {
            Key::ExcludeInboundPorts => options.in_skip,
            _ => options.out_skip,
        };
        for (text, expected) in good {
            let (options, mistakes) = hear(key, text);
            assert_eq!((of(options), mistakes), (ranges(expected), vec![]), "{text:?}");
        }
        for text in bad.into_iter().chain([too_many.as_str()]) {
            let (heard, mistakes) = hear(key, text);
            assert_eq!((heard, mistakes.len()), (options(), 1), "{text:?}");
        }
    }
}

#[test]
fn lists_of_networks() {
    let key = Key::ExcludeOutboundCidrs;
    for (text, expected) in [
        ("10.0.0.0/8", &["10.0.0.0/8"][..]),
        ("10.0.0.1", &["10.0.0.1/32"]),
        ("10.1.2.3/8, fd00::/8,", &["10.1.2.3/8", "fd00::/8"]),
        ("fd00::1", &["fd00::1/128"]),
        ("0.0.0.0/0,::/0", &["0.0.0.0/0", "::/0"]),
        ("", &[]),
    ] {
        let expected = expected.iter().map(|network| network.parse().unwrap()).collect();
        let (options, mistakes) = hear(key, text);
        assert_eq!((options.out_skip_cidrs, mistakes), (expected, vec![]), "{text:?}");
    }
    let bad = ["10.0.0.0/33", "10.0.0", "::/129", "example.org", "10.0.0.0-10.0.0.9", "*"];
    for text in bad.into_iter().chain(["::ffff:10.0.0.1", "10.0.0.1 10.0.0.2", "10.0.0.0/-1"]) {
        let (heard, mistakes) = hear(key, text);
        assert_eq!((heard, mistakes.len()), (options(), 1), "{text:?}");
    }
}

#[test]
fn lists_of_interfaces() {
    let key = Key::RerouteVirtualInterfaces;
    for (text, expected) in [
        ("k6t-eth0", &["k6t-eth0"][..]),
        ("vnet1, docker0,", &["docker0", "vnet1"]),
        ("eth0.100", &["eth0.100"]),
        ("fifteen-letters", &["fifteen-letters"]),
        ("", &[]),
    ] {
        let expected = expected.iter().map(ToString::to_string).collect();
        let (options, mistakes) = hear(key, text);
        assert_eq!((options.guests, mistakes), (expected, vec![]), "{text:?}");
    }
    for text in
        ["lo", "eth0", "vnet1,eth0", "sixteen-letters-", "a b", "vnet*", "a/b", "..", "\"x\"", "ä"]
    {
        let (heard, mistakes) = hear(key, text);
        assert_eq!((heard, mistakes.len()), (options(), 1), "{text:?}");
    }
}

#[test]
fn words() {
    for (text, expected) in [
        ("true", Some(true)),
        ("True", Some(true)),
        ("1", Some(true)),
        (" true ", Some(true)),
        ("false", Some(false)),
        ("FALSE", Some(false)),
        ("0", Some(false)),
        ("", None),
        ("yes", None),
        ("tRUE", None),
        ("2", None),
    ] {
        let (dns, mistakes) = hear(Key::DnsCapture, text);
        let on = if expected == Some(true) { Dns::On } else { Dns::Off };
        assert_eq!((dns.dns, mistakes.is_empty()), (on, expected.is_some()), "{text:?}");
        let (inbound, mistakes) = hear(Key::BypassInboundCapture, text);
        let bypass = if expected == Some(true) { Inbound::Bypass } else { Inbound::Capture };
        assert_eq!(
            (inbound.inbound, mistakes.is_empty()),
            (bypass, expected.is_some()),
            "{text:?}"
        );
    }
    for (text, expected, mistakes) in [
        ("pass", Uncaptured::Pass, 0),
        ("block", Uncaptured::Block, 0),
        ("Block", Uncaptured::Pass, 1),
        ("", Uncaptured::Pass, 1),
    ] {
        let (options, wrong) = hear(Key::UncapturedProtocols, text);
        assert_eq!((options.uncaptured, wrong.len()), (expected, mistakes), "{text:?}");
    }
}

#[test]
fn older_connections() {
    let seconds = |seconds| Some(Older::KeepFor(Duration::from_secs(seconds)));
    for (text, expected) in [
        ("keep", Some(Older::Keep)),
        ("reset", Some(Older::Reset)),
        ("keep-for=30s", seconds(30)),
        ("keep-for=5m", seconds(300)),
        ("keep-for=1h", seconds(3600)),
        ("keep-for=0s", seconds(0)),
        ("keep-for=720h", seconds(30 * 24 * 3600)),
        ("keep-for=721h", None),
        ("keep-for=", None),
        ("keep-for=5", None),
        ("keep-for=s", None),
        ("keep-for=-5s", None),
        ("keep-for=1.5s", None),
        ("keep-for=1d", None),
        ("keep-for=99999999999999999999s", None),
        ("keep-for 5s", None),
        ("keepfor=5s", None),
        ("Keep", None),
        ("", None),
    ] {
        let (wishes, mistakes) = Wishes::default().hear(&said(Key::OlderConnections, text));
        assert_eq!(wishes.older, expected, "{text:?}");
        assert_eq!(mistakes.is_empty(), expected.is_some(), "{text:?}");
        assert_eq!(wishes.older(Older::Reset), expected.unwrap_or(Older::Reset), "{text:?}");
    }
}

#[test]
fn what_means_nothing_leaves_what_was_said_before() {
    let first = Wishes::default();
    let (good, _) = first.hear(&said(Key::ExcludeOutboundPorts, "5432"));
    let (kept, mistakes) = good.hear(&said(Key::ExcludeOutboundPorts, "5432,http"));
    assert_eq!(kept, good);
    assert_eq!(
        mistakes[0].to_string(),
        "annotation sluice.dev/exclude-outbound-ports=\"5432,http\": \"http\" is no port; allowed: \
         at most 64 ports or ranges separated by commas, as 22,8000-8010; not 15001, 15006, \
         15008 or 15053; what it said before still counts"
    );
    // Still, and about one key only.
    let both = [(Key::ExcludeOutboundPorts, "http"), (Key::DnsCapture, "true")];
    let both: BTreeMap<_, _> = both.map(|(key, text)| (key, text.to_owned())).into();
    let (kept, _) = kept.hear(&both);
    let options = kept.options(&options());
    assert_eq!((options.out_skip, options.dns), (ranges(&[(5432, 5432)]), Dns::On));
    // Silence is a wish, and forgets.
    let (silent, _) = kept.hear(&BTreeMap::new());
    assert_eq!(silent, Wishes::default());
    let (fresh, mistakes) = silent.hear(&said(Key::ExcludeOutboundPorts, "http"));
    assert_eq!(fresh, Wishes::default());
    assert_eq!(mistakes[0].instead, Instead::Default);
}

#[test]
fn another_life_of_the_agent_hears_the_same_from_the_texts() {
    let (good, _) = Wishes::default().hear(&said(Key::ExcludeInboundPorts, "22"));
    let (kept, _) = good.hear(&said(Key::ExcludeInboundPorts, "ssh"));
    let (again, mistakes) = Wishes::default().hear(kept.texts());
    assert_eq!((again, mistakes), (kept, vec![]));
}

#[test]
fn a_pods_wish_takes_the_place_of_the_nodes() {
    let node = Options {
        in_skip: [22.into()].into(),
        dns: Dns::On,
        uncaptured: Uncaptured::Block,
        ..options()
    };
    assert_eq!(Wishes::default().options(&node), node);
    let texts = [(Key::ExcludeInboundPorts, ""), (Key::DnsCapture, "false")];
    let texts = texts.map(|(key, text)| (key, text.to_owned())).into();
    let own = Wishes::default().hear(&texts).0.options(&node);
    assert_eq!(own, Options { in_skip: [].into(), dns: Dns::Off, ..node });
}

#[test]
fn keys_are_found_by_their_annotation() {
    for key in Key::ALL {
        assert_eq!(Key::of(key.annotation()), Some(key));
        assert!(!key.allowed().is_empty());
    }
    assert_eq!(Key::of("traffic.sidecar.istio.io/excludeOutboundPorts"), None);
}

#[test]
fn a_long_value_is_shortened_for_people() {
    let (_, mistakes) = hear(Key::UncapturedProtocols, &"ä".repeat(5000));
    assert!(mistakes[0].value.chars().count() <= 101);
    let (_, mistakes) = hear(Key::ExcludeOutboundPorts, &"x".repeat(5000));
    assert!(mistakes[0].to_string().len() < 600);
}
