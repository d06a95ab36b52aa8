//! Connections that pass through a pod's in-pod proxy: how many are left, ending them,
//! and what conntrack remembers of them.

use std::path::PathBuf;

use netns::PodNetns;
use zds::{CONNMARK, PACKET_MARK, port};

use super::command::{CommandError, Runner};

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
        let states = ["-tnH", "state", "synchronized", "exclude", "time-wait"];
        let listing = self.ss(netns, &states, &proxied()).await?;
        Ok(listing.lines().filter(|line| !line.trim().is_empty()).count())
    }

    /// Ends every socket of ztunnel in the pod but its listeners. The applications' ends
    /// are reset as long as NAT stands.
    pub(super) async fn end(&self, netns: &PodNetns) -> Result<(), CommandError> {
        self.ss(netns, &["-K", "-tnH", "state", "connected"], &of_ztunnel()).await.map(drop)
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
        for family in ["ipv4", "ipv6"] {
            for filter in ours {
                let arguments = |verb| [&[verb, "-f", family], filter].concat();
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
