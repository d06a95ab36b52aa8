//! Destinations that were dialled by a workload's own address, or by a stranger's.

use super::*;

fn mesh_of_pods() -> View {
    let mut view = view(
        Vec::new(),
        vec![
            client(),
            pod("server", &["10.0.1.1", "fd00:1::1"], Protocol::Hbone),
            pod("plain", &["10.0.1.2"], Protocol::Plain),
            pod("other", &["10.0.1.6"], Protocol::Plain),
            pod("far", &["10.0.1.3"], Protocol::Hbone).with(|it| it.network = "other".into()),
            pod("host", &["10.0.1.4"], Protocol::Hbone).with(|it| it.host_network = true),
        ],
    );
    for last in [1, 2, 5] {
        reject(&mut view, &format!("bad{last}"), [10, 0, 1, last]);
    }
    view
}

/// Who dials an address of its own does so from that address.
fn decide_as_dialled(dst: &str) -> String {
    let dst: SocketAddr = dst.parse().unwrap();
    let source = client();
    let own = source.addresses.iter().copied().find(|ip| *ip == dst.ip());
    decide_from(own.unwrap_or(source.addresses[0]), dst)
}

fn decide_from(client: IpAddr, dst: SocketAddr) -> String {
    let (source, view) = (super::client(), mesh_of_pods());
    let sample = Sample::default();
    line(route(&Request { source: &source, client, dst: OrigDst(dst), view: &view, sample }))
}

#[test]
fn table() {
    let rejected = |uid| {
        format!(
            "refuse rejected_destination: what the control plane sent about {uid} was rejected: \
             it may want a tunnel"
        )
    };
    let proxy = "refuse proxy_port: destination is one of the proxy's own ports, which \
                 applications must not dial";
    let (bad2, bad5) = (rejected("bad2"), rejected("bad5"));
    let cases = [
        ("10.0.1.1:80", "tunnel server 10.0.1.1:80 via 10.0.1.1:15008"),
        ("[fd00:1::1]:80", "tunnel server [fd00:1::1]:80 via [fd00:1::1]:15008"),
        ("[::ffff:10.0.1.1]:80", "tunnel server 10.0.1.1:80 via 10.0.1.1:15008"),
        // The peer refuses its own ports itself.
        ("10.0.1.1:15008", "tunnel server 10.0.1.1:15008 via 10.0.1.1:15008"),
        ("10.0.1.6:80", "pass 10.0.1.6:80 other PlainWorkload"),
        // Of these, and of 10.0.1.1, a version was rejected.
        ("10.0.1.2:80", &bad2),
        ("10.0.1.5:80", &bad5),
        // Addresses of other networks and of hosts mean somebody else here.
        ("10.0.1.3:80", "pass 10.0.1.3:80 - UnknownDestination"),
        ("10.0.1.4:80", "pass 10.0.1.4:80 - UnknownDestination"),
        ("192.0.2.1:443", "pass 192.0.2.1:443 - UnknownDestination"),
        ("192.0.2.1:15008", "pass 192.0.2.1:15008 - UnknownDestination"),
        ("10.0.0.1:80", "pass 10.0.0.1:80 client OwnAddress"),
        ("[fd00::1]:80", "pass [fd00::1]:80 client OwnAddress"),
        ("10.0.0.1:15001", proxy),
        ("10.0.0.1:15006", proxy),
        ("10.0.0.1:15008", proxy),
        ("[fd00::1]:15008", proxy),
        ("127.0.0.1:15001", proxy),
        ("127.0.0.9:15053", proxy),
        ("[::1]:15008", proxy),
        ("[::ffff:127.0.0.1]:15008", proxy),
        ("0.0.0.0:15001", proxy),
    ];
    for (dst, expected) in cases {
        assert_eq!(decide_as_dialled(dst), expected, "{dst}");
    }
}

#[test]
fn an_address_of_an_earlier_pod_of_the_name_is_not_our_own() {
    let (present, earlier) = ("10.0.0.99", "10.0.0.1:80");
    let decision = decide_from(present.parse().unwrap(), earlier.parse().unwrap());
    assert_eq!(decision, "tunnel client 10.0.0.1:80 via 10.0.0.1:15008");
}

#[test]
fn a_known_address_of_ours_is_not_a_service() {
    let view = view(vec![service("shop/wide", "10.0.0.0/8")], vec![client()]);
    assert_eq!(decide("10.0.0.1:80", &view), "pass 10.0.0.1:80 client OwnAddress");
}
