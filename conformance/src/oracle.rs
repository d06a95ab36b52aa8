//! Looks at the wire for as long as two captured pods know each other: whatever happens to
//! the parts, nothing between them is in clear text.

use std::fmt;
use std::net::IpAddr;

use anyhow::Context;
use lab::{Lab, Pod, Window};

use crate::world::HBONE_PORT;

/// A watch over one pair of pods.
pub(crate) struct Oracle {
    pair: [End; 2],
    /// What went in clear text before both were known to be captured.
    before: usize,
    window: Window,
}

struct End {
    name: String,
    ips: Vec<IpAddr>,
}

/// What an oracle has seen.
pub(crate) struct Verdict {
    names: [String; 2],
    before: usize,
    tunnel: usize,
    /// TCP packets of the pair outside of the tunnel.
    pub open: usize,
}

impl Oracle {
    /// Begins to watch. Until [`Oracle::known`], clear text is only counted.
    pub(crate) async fn watch(lab: &Lab, pair: [&Pod; 2]) -> anyhow::Result<Self> {
        let end = |pod: &Pod| End {
            name: format!("{}/{}", pod.namespace(), pod.name()),
            ips: pod.ips().to_vec(),
        };
        let window = window(lab).await?;
        Ok(Self { pair: pair.map(end), before: 0, window })
    }

    /// Both are captured, and the sender's ztunnel has shown that it knows.
    pub(crate) async fn known(self, lab: &Lab) -> anyhow::Result<Self> {
        let window = window(lab).await?;
        let [one, other] = &self.pair;
        let seen = self.window.close().await?.between(&one.ips, &other.ips);
        let before = seen.tcp_without_port(HBONE_PORT);
        Ok(Self { pair: self.pair, before, window })
    }

    /// Whether it watches over this pod.
    pub(crate) fn is_about(&self, pod: &Pod) -> bool {
        self.pair.iter().any(|end| end.ips == pod.ips())
    }

    /// Ends the watch.
    pub(crate) async fn close(self) -> anyhow::Result<Verdict> {
        let [one, other] = self.pair;
        let seen = self.window.close().await?.between(&one.ips, &other.ips);
        Ok(Verdict {
            names: [one.name, other.name],
            before: self.before,
            tunnel: seen.tcp_with_port(HBONE_PORT),
            open: seen.tcp_without_port(HBONE_PORT),
        })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { names: [one, other], before, tunnel, open } = self;
        write!(
            f,
            "{one} and {other}: {tunnel} packets in the tunnel, {open} in clear text; before \
             both were known, {before}"
        )
    }
}

async fn window(lab: &Lab) -> anyhow::Result<Window> {
    let sniffer = lab.sniff_wire(1).await.context("watch the wire")?;
    Ok(sniffer.window().await?)
}
