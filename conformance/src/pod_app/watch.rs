//! The observer: what the node's interfaces carried between some addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use anyhow::Context;
use clap::Args;
use lab::{NodeTap, Observation, Transport};
use serde::{Deserialize, Serialize};

/// Packets that are told in words.
const SAMPLES: usize = 20;

/// Whom to watch.
#[derive(Debug, Args)]
pub(crate) struct Watch {
    /// Addresses of one side.
    #[arg(long, value_delimiter = ',', required = true)]
    from: Vec<IpAddr>,
    /// Addresses of the other side.
    #[arg(long, value_delimiter = ',', required = true)]
    to: Vec<IpAddr>,
    /// A text that is looked for in all that either side sends or gets.
    #[arg(long)]
    marker: String,
    /// The tunnel's port.
    #[arg(long, default_value_t = 15008)]
    tunnel: u16,
}

/// What was seen. A packet is counted once per interface that it passed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sighting {
    /// How often the marker could be read.
    pub marker: usize,
    /// TCP packets between both sides, from or to the tunnel's port.
    pub tunnel: usize,
    /// TCP packets between both sides with other ports.
    pub elsewhere: usize,
    /// The first packets with other ports, in words.
    pub samples: Vec<String>,
    /// Why the rest means nothing, when packets were lost.
    pub lost: Option<String>,
}

impl Watch {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let about = self.from.iter().chain(&self.to).copied().collect();
        let mut tap = NodeTap::open(about).context("listen on the node's interfaces")?;
        println!("watching");
        tap.listen(super::input_closed()).await.context("listen on the node's interfaces")?;
        let sighting = match tap.close() {
            Ok(seen) => self.judge(&seen),
            Err(error) => Sighting { lost: Some(error.to_string()), ..Sighting::default() },
        };
        super::tell(&sighting)
    }

    fn judge(&self, seen: &Observation) -> Sighting {
        let pair = seen.between(&self.from, &self.to);
        Sighting {
            marker: seen.marker(self.marker.as_bytes()),
            tunnel: pair.tcp_with_port(self.tunnel),
            elsewhere: pair.tcp_without_port(self.tunnel),
            samples: samples(&pair, self.tunnel),
            lost: None,
        }
    }
}

impl Sighting {
    /// What two observers have seen together.
    pub(crate) fn and(mut self, other: Self) -> Self {
        self.marker += other.marker;
        self.tunnel += other.tunnel;
        self.elsewhere += other.elsewhere;
        self.samples.extend(other.samples);
        self.lost = self.lost.or(other.lost);
        self
    }
}

impl std::fmt::Display for Sighting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(lost) = &self.lost {
            return write!(f, "on the nodes: unknown, {lost}");
        }
        let Self { marker, tunnel, elsewhere, .. } = self;
        write!(
            f,
            "on the nodes: marker {marker} times, {tunnel} packets in the tunnel, {elsewhere} \
             outside of it"
        )?;
        self.samples.first().map_or(Ok(()), |first| write!(f, ", the first: {first}"))
    }
}

fn samples(pair: &Observation, tunnel: u16) -> Vec<String> {
    let mut told = BTreeMap::new();
    let mut order = BTreeSet::new();
    for packet in pair.packets() {
        if let Transport::Tcp { from, to, flags, .. } = packet.transport
            && from != tunnel
            && to != tunnel
        {
            let text = format!(
                "{}:{from} > {}:{to} {} {} bytes",
                packet.from,
                packet.to,
                names(flags),
                packet.payload.len()
            );
            let number = told.len();
            if order.insert(text.clone()) && number < SAMPLES {
                told.insert(number, text);
            }
        }
    }
    told.into_values().collect()
}

/// RFC 9293's names of the flags.
fn names(flags: u8) -> String {
    let all = [(2, "SYN"), (16, "ACK"), (8, "PSH"), (1, "FIN"), (4, "RST")];
    let set: Vec<_> =
        all.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, name)| *name).collect();
    set.join("+")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_observers_are_one() {
        let near = Sighting { marker: 1, tunnel: 2, ..Sighting::default() };
        let far = Sighting { elsewhere: 3, lost: Some("4 packets".to_owned()), ..near.clone() };
        let both = near.clone().and(far);
        assert_eq!((both.marker, both.tunnel, both.elsewhere), (2, 4, 3));
        assert_eq!(both.to_string(), "on the nodes: unknown, 4 packets");
        assert!(near.to_string().ends_with("2 packets in the tunnel, 0 outside of it"));
    }

    #[test]
    fn flags_have_names() {
        assert_eq!(names(18), "SYN+ACK");
    }
}
