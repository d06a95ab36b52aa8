//! Which connections of a pod are older than its capture: they have both ends outside of
//! ztunnel, although the rules would lead such a connection to it.
//!
//! ```text
//! app ─────────────────────────────► server    older, or excluded
//! app ─► (redirect) ztunnel:15001              proxied: ztunnel's end names the app's
//! client ─► ztunnel:15006, ztunnel ─► app      proxied: the other end is in the pod, too
//! ```
//!
//! Told from what `ss` lists, because conntrack need not know a connection that was there
//! before any rule, and forgets.

use std::collections::HashSet;
use std::net::SocketAddr;

use capture::{Inbound, Options};

/// A connected socket, as `ss` prints it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Ends {
    /// Its own address.
    pub(super) local: SocketAddr,
    /// Whom it is connected to.
    pub(super) peer: SocketAddr,
}

/// The sockets of one pod.
#[derive(Debug)]
pub(super) struct Sockets {
    /// Connected sockets of applications. To be listed before those of ztunnel: whoever is
    /// in this list has its counterpart in that one.
    pub(super) applications: Vec<Ends>,
    /// Connected sockets of ztunnel.
    pub(super) ztunnel: Vec<Ends>,
    /// Ports that somebody accepts connections at.
    pub(super) accepting: HashSet<u16>,
}

/// The sockets in what `ss -tnH` printed; lines that are none are left out.
pub(super) fn parse(listing: &str) -> Vec<Ends> {
    listing.lines().filter_map(ends).collect()
}

/// The ports in what `ss -ltnH` printed.
pub(super) fn ports(listing: &str) -> HashSet<u16> {
    let port = |line: &str| line.split_whitespace().nth_back(1)?.rsplit_once(':')?.1.parse().ok();
    listing.lines().filter_map(port).collect()
}

/// Connections that the rules of `options` would lead to ztunnel, but that it does not
/// have. What stays within the pod is not among them.
pub(super) fn older(sockets: &Sockets, options: &Options) -> Vec<Ends> {
    let applications: HashSet<Ends> = sockets.applications.iter().map(canonical).collect();
    let ztunnel: HashSet<Ends> = sockets.ztunnel.iter().map(canonical).collect();
    let redirected: HashSet<SocketAddr> = ztunnel
        .iter()
        .filter(|ends| [options.ports.outbound, options.ports.dns].contains(&ends.local.port()))
        .map(|ends| ends.peer)
        .collect();
    let is_older = |given: &Ends| {
        let ends = canonical(given);
        let other = Ends { local: ends.peer, peer: ends.local };
        let within = ends.local.ip().is_loopback()
            || ends.peer.ip().is_loopback()
            || applications.contains(&other)
            || ztunnel.contains(&other);
        !within
            && !redirected.contains(&ends.local)
            && !excluded(&ends, sockets.origin(&ends), options)
    };
    sockets.applications.iter().filter(|ends| is_older(ends)).copied().collect()
}

/// Who opened a connection of an application's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// The application.
    Dialled,
    /// Its peer.
    Accepted,
}

impl Sockets {
    fn origin(&self, ends: &Ends) -> Origin {
        let accepted = self.accepting.contains(&ends.local.port());
        if accepted { Origin::Accepted } else { Origin::Dialled }
    }
}

/// Whether a new connection like this one would be direct, too.
fn excluded(ends: &Ends, origin: Origin, options: &Options) -> bool {
    let Ends { local, peer } = ends;
    if origin == Origin::Dialled {
        return options.out_skip.iter().any(|range| range.contains(peer.port()))
            || options.out_skip_cidrs.iter().any(|network| network.contains(peer.ip()));
    }
    let probes = &options.probes;
    let probe = probes.sources.contains(&peer.ip());
    options.inbound == Inbound::Bypass
        || options.in_skip.iter().any(|range| range.contains(local.port()))
        || probe && probes.ports.contains(&local.port())
}

/// A filter for `ss` with exactly these sockets, of one family as it prints them.
pub(super) fn filter(ends: &[Ends]) -> String {
    let one = |ends: &Ends| format!("( src {} and dst {} )", ends.local, ends.peer);
    ends.iter().map(one).collect::<Vec<_>>().join(" or ")
}

fn ends(line: &str) -> Option<Ends> {
    let mut words = line.split_whitespace().rev();
    let peer = address(words.next()?)?;
    Some(Ends { local: address(words.next()?)?, peer })
}

/// `10.0.0.5:80`, `[fd00::5]:80`, and either with `%eth0` before the port.
fn address(text: &str) -> Option<SocketAddr> {
    let (host, port) = text.rsplit_once(':')?;
    let host = host.split_once('%').map_or(host, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Some(SocketAddr::new(host.parse().ok()?, port.parse().ok()?))
}

fn canonical(ends: &Ends) -> Ends {
    let of = |at: SocketAddr| SocketAddr::new(at.ip().to_canonical(), at.port());
    Ends { local: of(ends.local), peer: of(ends.peer) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::options;

    const POD: &str = "10.9.0.5";

    fn sockets(applications: &[&str], ztunnel: &[&str]) -> Sockets {
        let list = |lines: &[&str]| {
            let lines: Vec<_> = lines.iter().map(|line| format!("ESTAB 0 0 {line}")).collect();
            let parsed = parse(&lines.join("\n"));
            assert_eq!(parsed.len(), lines.len(), "{lines:?}");
            parsed
        };
        let accepting = [8080, 15001, 15006].into();
        Sockets { applications: list(applications), ztunnel: list(ztunnel), accepting }
    }

    fn check(what: &str, found: &Sockets, change: impl FnOnce(&mut Options), expected: usize) {
        let mut options = options();
        change(&mut options);
        assert_eq!(older(found, &options).len(), expected, "{what}");
    }

    #[test]
    fn what_ztunnel_has_no_part_in_is_older() {
        let same = |_: &mut Options| {};
        for (what, applications, ztunnel, expected) in [
            ("dialled", &["10.9.0.5:4000 10.9.1.2:80"][..], &[][..], 1),
            ("accepted", &["10.9.0.5:8080 10.9.1.2:4000"], &[], 1),
            ("dialled by IPv6", &["[fd00::5]:4000 [fd00::9]:80"], &[], 1),
            ("in IPv6 clothes", &["[::ffff:10.9.0.5]:4000 [::ffff:10.9.1.2]:80"], &[], 1),
            ("bound to a device", &["10.9.0.5%eth0:4000 10.9.1.2:80"], &[], 1),
            ("redirected", &["10.9.0.5:4000 10.9.1.2:80"], &["127.0.0.1:15001 10.9.0.5:4000"], 0),
            (
                "redirected, seen through IPv6",
                &["10.9.0.5:4000 10.9.1.2:80"],
                &["[::ffff:127.0.0.1]:15001 [::ffff:10.9.0.5]:4000"],
                0,
            ),
            (
                "dialled by ztunnel with the client's address",
                &["10.9.0.5:8080 10.9.1.2:4000"],
                &["10.9.1.2:4000 10.9.0.5:8080"],
                0,
            ),
            (
                "another port's redirect",
                &["10.9.0.5:4000 10.9.1.2:80"],
                &["127.0.0.1:15001 10.9.0.5:4001"],
                1,
            ),
        ] {
            check(what, &sockets(applications, ztunnel), same, expected);
        }
    }

    #[test]
    fn what_stays_in_the_pod_is_not_touched() {
        for connection in [
            ["127.0.0.1:4000 127.0.0.1:9000", "127.0.0.1:9000 127.0.0.1:4000"],
            ["[::1]:4000 [::1]:9000", "[::1]:9000 [::1]:4000"],
            ["10.9.0.5:4000 10.9.0.5:8080", "10.9.0.5:8080 10.9.0.5:4000"],
            ["[::ffff:10.9.0.5]:4000 [::ffff:10.9.0.5]:8080", "10.9.0.5:8080 10.9.0.5:4000"],
        ] {
            check(connection[0], &sockets(&connection, &[]), |_| {}, 0);
        }
    }

    #[test]
    fn what_is_excluded_is_direct_and_no_older_for_it() {
        let dialled = sockets(&["10.9.0.5:4000 10.9.1.2:80"], &[]);
        let accepted = sockets(&["10.9.0.5:8080 10.9.1.2:80"], &[]);
        check("port", &dialled, |o| o.out_skip = [80.into()].into(), 0);
        check(
            "network",
            &dialled,
            |o| o.out_skip_cidrs = ["10.9.1.0/24".parse().unwrap()].into(),
            0,
        );
        check("about others", &dialled, |o| o.in_skip = [80.into()].into(), 1);
        check("gateways dial like others", &dialled, |o| o.inbound = Inbound::Bypass, 1);
        check("gateway", &accepted, |o| o.inbound = Inbound::Bypass, 0);
        check("inbound port", &accepted, |o| o.in_skip = [8080.into()].into(), 0);
        check("the client's port", &accepted, |o| o.out_skip = [80.into()].into(), 1);
        check(
            "the client's network",
            &accepted,
            |o| {
                o.out_skip_cidrs = ["10.9.1.0/24".parse().unwrap()].into();
            },
            1,
        );
        let probe = sockets(&["10.9.0.5:8080 169.254.7.127:4000"], &[]);
        check("probe", &probe, |o| o.probes.ports = [8080].into(), 0);
        check("probe of a port that is not declared", &probe, |_| {}, 1);
    }

    #[test]
    fn a_filter_names_sockets_as_they_were_printed() {
        let lines =
            "ESTAB 0 0 10.9.0.5%eth0:1 10.9.1.2:80\nESTAB 0 0 [fd00::5]:2 [fd00::9]:80\nodd";
        let parsed = parse(lines);
        assert_eq!(
            filter(&parsed),
            format!(
                "( src {POD}:1 and dst 10.9.1.2:80 ) or ( src [fd00::5]:2 and dst [fd00::9]:80 )"
            )
        );
        assert_eq!(
            ports("LISTEN 0 128 0.0.0.0:22 0.0.0.0:*\nLISTEN 0 1 *:80 *:*"),
            [22, 80].into()
        );
    }
}
