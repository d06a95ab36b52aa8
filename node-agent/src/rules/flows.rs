//! Connections that pass through a pod's in-pod proxy: how many are left, ending them,
//! and what conntrack remembers of them.

use std::io;
use std::path::PathBuf;

use capture::Options;
use netns::PodNetns;
use zds::{CONNMARK, PACKET_MARK, port};

use super::command::{CommandError, Runner};
use super::older::{self, Ends, Sockets};
use crate::inside::inside;

/// A connection that carries bytes, in either direction.
const ALIVE: [&str; 4] = ["state", "synchronized", "exclude", "time-wait"];
/// Sockets that one filter names; the kernel takes a few hundred.
const AT_ONCE: usize = 64;

/// Names of the tables in the namespace of who reads.
const LEGACY_TABLES: [&str; 2] =
    ["/proc/thread-self/net/ip_tables_names", "/proc/thread-self/net/ip6_tables_names"];

/// Counts and ends connections of a pod.
#[derive(Clone, Debug)]
pub(super) struct Flows {
    pub(super) runner: Runner,
    pub(super) ss: PathBuf,
    pub(super) conntrack: PathBuf,
}

impl Flows {
    /// How many connections between the application and ztunnel live. Tunnels do not
    /// count: peers keep idle ones open.
    pub(super) async fn count(&self, netns: &PodNetns) -> Result<usize, CommandError> {
        let listing = self.ss(netns, &[&["-tnH"], &ALIVE[..]].concat(), &proxied()).await?;
        Ok(listing.lines().filter(|line| !line.trim().is_empty()).count())
    }

    /// Ends every socket of ztunnel in the pod but its listeners. The applications' ends
    /// are reset as long as NAT stands.
    pub(super) async fn end(&self, netns: &PodNetns) -> Result<(), CommandError> {
        self.ss(netns, &["-K", "-tnH", "state", "connected"], &of_ztunnel()).await.map(drop)
    }

    /// Ends connections that are direct although these rules would lead them to ztunnel.
    /// Both ends hear of it by a reset. Returns how many.
    pub(super) async fn end_older(
        &self,
        netns: &PodNetns,
        options: &Options,
    ) -> Result<usize, CommandError> {
        let older = older::older(&self.sockets(netns).await?, options);
        let (v4, v6): (Vec<Ends>, Vec<Ends>) =
            older.into_iter().partition(|ends| ends.local.is_ipv4());
        let mut ended = 0;
        for chunk in v4.chunks(AT_ONCE).chain(v6.chunks(AT_ONCE)) {
            let arguments = [&["-K", "-tnH"], &ALIVE[..]].concat();
            ended += self.ss(netns, &arguments, &older::filter(chunk)).await?.lines().count();
        }
        Ok(ended)
    }

    async fn sockets(&self, netns: &PodNetns) -> Result<Sockets, CommandError> {
        let alive = [&["-tnH"], &ALIVE[..]].concat();
        let applications = self.ss(netns, &alive, &format!("not {}", of_ztunnel())).await?;
        let connected = ["-tnH", "state", "connected"];
        let ztunnel = self.ss(netns, &connected, &of_ztunnel()).await?;
        let accepting = self.ss(netns, &["-ltnH"], "sport != :0").await?;
        Ok(Sockets {
            applications: older::parse(&applications),
            ztunnel: older::parse(&ztunnel),
            accepting: older::ports(&accepting),
        })
    }

    /// Makes conntrack forget all lookups over UDP: what it remembers of one decides about
    /// the next between the same addresses and ports.
    pub(super) async fn forget_lookups(&self, netns: &PodNetns) -> Result<(), CommandError> {
        // From the server too: an answer that came late counts as a conversation it began.
        let lookups: [&[&str]; 2] =
            [&["-p", "udp", "--orig-port-dst", "53"], &["-p", "udp", "--orig-port-src", "53"]];
        self.forget_all(netns, &lookups).await
    }

    /// Makes conntrack forget what belonged to the capture. `conntrack -D` ends with 1
    /// both on failure and when there was nothing to delete, so the listing decides.
    pub(super) async fn forget(&self, netns: &PodNetns) -> Result<(), CommandError> {
        let connmark = format!("{:#x}/{:#x}", CONNMARK.value, CONNMARK.mask);
        let outbound = port::OUTBOUND.to_string();
        let inbound = port::INBOUND_PLAIN.to_string();
        // A redirect is seen in the reply: it comes from the port of the listener.
        let dns = port::DNS.to_string();
        let ours: [&[&str]; 5] = [
            &["-m", &connmark],
            &["-p", "tcp", "--reply-port-src", &outbound],
            &["-p", "tcp", "--reply-port-src", &inbound],
            &["-p", "tcp", "--reply-port-src", &dns],
            &["-p", "udp", "--reply-port-src", &dns],
        ];
        self.forget_all(netns, &ours).await
    }

    /// Whether iptables of the old kind, which nft does not list, has a table in the pod. A
    /// list that cannot be read is taken for one that has an entry.
    pub(super) async fn are_tracked_for_iptables(&self, netns: &PodNetns) -> bool {
        let is_used = || {
            LEGACY_TABLES.iter().any(|path| match std::fs::read_to_string(path) {
                Ok(tables) => !tables.trim().is_empty(),
                // The kernel's module is not there, so neither are tables.
                Err(error) => error.kind() != io::ErrorKind::NotFound,
            })
        };
        inside(self.runner.fence(), netns, is_used).await.unwrap_or(true)
    }

    /// Makes conntrack forget all connections of the pod, whoever's.
    pub(super) async fn forget_everything(&self, netns: &PodNetns) -> Result<(), CommandError> {
        for family in ["ipv4", "ipv6"] {
            self.conntrack(netns, &["-F", "-f", family]).await?.success()?;
        }
        Ok(())
    }

    async fn forget_all(&self, netns: &PodNetns, filters: &[&[&str]]) -> Result<(), CommandError> {
        for family in ["ipv4", "ipv6"] {
            for filter in filters {
                let arguments = |verb| [&[verb, "-f", family], *filter].concat();
                let deletion = self.conntrack(netns, &arguments("-D")).await?;
                if deletion.succeeded() {
                    continue;
                }
                let left = self.conntrack(netns, &arguments("-L")).await?.success()?;
                if !left.trim().is_empty() {
                    return deletion.success().map(drop);
                }
            }
        }
        Ok(())
    }

    async fn ss(
        &self,
        netns: &PodNetns,
        states: &[&str],
        filter: &str,
    ) -> Result<String, CommandError> {
        let arguments = [states, &[filter]].concat();
        self.runner.run(netns, &self.ss, &arguments, String::new()).await?.success()
    }

    async fn conntrack(
        &self,
        netns: &PodNetns,
        arguments: &[&str],
    ) -> Result<super::command::Output, CommandError> {
        self.runner.run(netns, &self.conntrack, arguments, String::new()).await
    }
}

/// What the application opened or accepted, at ztunnel's end.
fn proxied() -> String {
    let hbone = port::INBOUND_HBONE;
    format!(
        "( sport = :{} or sport = :{} or ( {} and dport != :{hbone} and sport != :{hbone} ) )",
        port::OUTBOUND,
        port::INBOUND_PLAIN,
        marked(),
    )
}

fn of_ztunnel() -> String {
    format!(
        "( sport = :{} or sport = :{} or sport = :{} or {} )",
        port::OUTBOUND,
        port::INBOUND_PLAIN,
        port::INBOUND_HBONE,
        marked(),
    )
}

fn marked() -> String {
    format!("fwmark = {:#x}/{:#x}", PACKET_MARK.value, PACKET_MARK.mask)
}
