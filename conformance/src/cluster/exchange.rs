//! Oracles: captured, direct or blocked, as both ends and the nodes' interfaces saw it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use lab::cluster::access::Running;

use super::ground::{Ground, PATIENCE};
use super::observers::Watching;
use super::pods::{APP_PORT, PROGRAM, TestPod};
use super::room::Room;
use crate::pod_app::{Answers, Sighting};
use crate::scenario::{expect, expect_within};

/// How long one command in a pod may take: its own deadlines are shorter.
const COMMAND: Duration = Duration::from_secs(90);

/// What one exchange looked like to both ends and to the observers.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub answers: Answers,
    pub wire: Sighting,
}

impl Seen {
    /// Answered, and only through the tunnel.
    pub(crate) fn is_captured(&self) -> bool {
        let Sighting { marker, tunnel, elsewhere, ref lost, .. } = self.wire;
        self.is_answered() && marker == 0 && tunnel > 0 && elsewhere == 0 && lost.is_none()
    }

    /// Answered in clear text, without the tunnel.
    pub(crate) fn is_direct(&self) -> bool {
        self.is_answered() && self.wire.marker > 0 && self.wire.tunnel == 0
    }

    /// Not answered, and nothing of what was said could be read anywhere.
    pub(crate) fn is_blocked(&self) -> bool {
        self.answers.answered == 0 && self.wire.marker == 0 && self.wire.lost.is_none()
    }

    pub(crate) fn is_answered(&self) -> bool {
        self.answers.answered > 0 && self.answers.failed() == 0
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.answers, self.wire)
    }
}

/// A destination, and the addresses that may be spoken to on the way there.
pub(crate) struct Target<'a> {
    pub to: SocketAddr,
    pub ips: &'a [IpAddr],
    pub nodes: Vec<&'a str>,
    /// Who answers there.
    pub server: &'a TestPod,
    /// More words for `conformance app ask`.
    pub more: &'a [&'a str],
}

impl<'a> Target<'a> {
    /// A pod's [`APP_PORT`].
    pub(crate) fn pod(server: &'a TestPod) -> Self {
        Self::via(server.addr(APP_PORT), server)
    }

    /// An address that leads to a pod.
    pub(crate) fn via(to: SocketAddr, server: &'a TestPod) -> Self {
        Self { to, ips: &server.ips, nodes: vec![&server.node], server, more: &[] }
    }

    pub(crate) fn more(mut self, words: &'a [&'a str]) -> Self {
        self.more = words;
        self
    }
}

impl Ground {
    /// Has a pod ask, without looking at any wire.
    pub(crate) async fn ask(
        &self,
        client: &TestPod,
        to: SocketAddr,
        more: &[&str],
    ) -> anyhow::Result<Answers> {
        let to = to.to_string();
        let mut argv = vec![PROGRAM, "app", "ask", "--to", &to];
        argv.extend(more);
        let ran = self.cluster.run(&client.namespace, &client.name, &argv, COMMAND).await?;
        let line = ran.stdout.lines().last().unwrap_or_default();
        serde_json::from_str(line)
            .with_context(|| format!("{} said {line:?} {:?}", client.name, ran.stderr))
    }

    /// Has a pod ask, with observers on its node and the server's, or in a given namespace
    /// without the right to those, inside of both pods. What is said holds a marker that was
    /// never said before.
    pub(crate) async fn exchange(
        &self,
        client: &TestPod,
        target: &Target<'_>,
    ) -> anyhow::Result<Seen> {
        let marker = fresh_marker();
        let mut nodes = target.nodes.clone();
        nodes.push(&client.node);
        let sides = (client.ips.as_slice(), target.ips);
        let watching = match (&self.room, self.observers().await) {
            (_, Ok(observers)) => observers.watch(self, &nodes, sides, &marker).await?,
            (Room::Given(_), Err(_)) => {
                Watching::inside(self, [client, target.server], sides, &marker).await?
            }
            (Room::Own, Err(error)) => return Err(error),
        };
        let mut more = vec!["--line", marker.as_str()];
        more.extend(target.more);
        let answers = self.ask(client, target.to, &more).await;
        let wire = watching.close().await?;
        let seen = Seen { answers: answers?, wire };
        self.remember(format!(
            "{} to {} at {}: {seen}\n  {}\n",
            client.name,
            target.to,
            marker,
            seen.wire.samples.join("\n  ")
        ));
        Ok(seen)
    }

    /// Repeats [`Ground::exchange`] until it is as `holds` wants it.
    pub(crate) async fn until(
        &self,
        what: &str,
        client: &TestPod,
        target: &Target<'_>,
        holds: impl Fn(&Seen) -> bool,
    ) -> anyhow::Result<Seen> {
        expect_within(what, PATIENCE, async || self.exchange(client, target).await, holds).await
    }

    /// Waits until a pod reaches another through the tunnel, and nowhere else.
    pub(crate) async fn until_captured(
        &self,
        client: &TestPod,
        server: &TestPod,
    ) -> anyhow::Result<Seen> {
        let what = format!("{} reaches {} through the tunnel", client.name, server.name);
        self.until(&what, client, &Target::pod(server), Seen::is_captured).await
    }

    /// Waits until a pod reaches another in clear text, and the observers see it.
    pub(crate) async fn until_direct(
        &self,
        client: &TestPod,
        server: &TestPod,
    ) -> anyhow::Result<Seen> {
        let what = format!("{} reaches {} in clear text", client.name, server.name);
        self.until(&what, client, &Target::pod(server), Seen::is_direct).await
    }

    /// Waits until a pod does not reach another.
    pub(crate) async fn until_blocked(
        &self,
        client: &TestPod,
        server: &TestPod,
    ) -> anyhow::Result<Seen> {
        let what = format!("{} does not reach {}", client.name, server.name);
        let target = Target::pod(server).more(&["--deadline", "5"]);
        self.until(&what, client, &target, Seen::is_blocked).await
    }

    /// Asks again and again until it is answered, without looking at any wire.
    pub(crate) async fn until_answered(
        &self,
        client: &TestPod,
        to: SocketAddr,
        more: &[&str],
    ) -> anyhow::Result<Answers> {
        self.until_asked("an answer", client, to, more, |answers| answers.failed() == 0).await
    }

    /// Asks again and again until the answer is as `holds` wants it.
    pub(crate) async fn until_asked(
        &self,
        what: &str,
        client: &TestPod,
        to: SocketAddr,
        more: &[&str],
        holds: impl Fn(&Answers) -> bool,
    ) -> anyhow::Result<Answers> {
        let what = format!("{}: {what} from {to}", client.name);
        expect_within(&what, PATIENCE, async || self.ask(client, to, more).await, holds).await
    }

    /// Has the client ask all the time while `work` goes on, with more words for `conformance
    /// app ask`. The first answer, or failure, is there when `work` begins.
    pub(crate) async fn under_load<T>(
        &self,
        client: &TestPod,
        (to, more): (SocketAddr, &[&str]),
        work: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<(T, Answers)> {
        let mut load = self.load(client, to, more).await?;
        match load.line(COMMAND).await? {
            Some(first) if serde_json::from_str::<Answers>(&first).is_ok() => {}
            other => bail!("the load did not begin: {other:?}"),
        }
        let done = work.await;
        let ran = load.finish(COMMAND).await?;
        let line = ran.stdout.lines().last().unwrap_or_default();
        let answers: Answers = serde_json::from_str(line)
            .with_context(|| format!("the load ended with {line:?} {:?}", ran.stderr))?;
        Ok((done?, answers))
    }

    async fn load(
        &self,
        client: &TestPod,
        to: SocketAddr,
        more: &[&str],
    ) -> anyhow::Result<Running> {
        let to = to.to_string();
        let mut argv = vec![PROGRAM, "app", "ask", "--to", &to, "--until-closed"];
        argv.extend(more);
        Ok(self.cluster.start(&client.namespace, &client.name, &argv, COMMAND).await?)
    }
}

/// None of a load's connections failed.
pub(crate) fn expect_whole(answers: &Answers) -> anyhow::Result<()> {
    expect("connections, and none that failed", answers.clone(), |answers| {
        answers.answered > 1 && answers.failed() == 0
    })
}

/// What was watched for was not said in the clear, and nothing could have been missed.
pub(crate) fn expect_unread(wire: Sighting) -> anyhow::Result<()> {
    expect("no clear text", wire, |wire| wire.marker == 0 && wire.lost.is_none())
}

/// A text that appears nowhere else on the wire.
pub(crate) fn fresh_marker() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("clear-text-marker-{}-{count}-end", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answered or not; marker, tunnel, elsewhere.
    fn seen(answered: u32, marker: usize, tunnel: usize, elsewhere: usize) -> Seen {
        let mut answers = Answers { answered, ..Answers::default() };
        if answered == 0 {
            answers.failures.insert("timeout".to_owned(), 1);
        }
        let wire = Sighting { marker, tunnel, elsewhere, ..Sighting::default() };
        Seen { answers, wire }
    }

    #[test]
    fn every_exchange_has_at_most_one_verdict() {
        let cases = [
            ("captured", seen(1, 0, 9, 0), [true, false, false]),
            ("in clear text", seen(1, 2, 0, 9), [false, true, false]),
            ("blocked", seen(0, 0, 1, 0), [false, false, true]),
            ("both ways at once", seen(1, 2, 9, 9), [false, false, false]),
            ("the tunnel, and something else", seen(1, 0, 9, 1), [false, false, false]),
            ("nothing seen of an answer", seen(1, 0, 0, 0), [false, false, false]),
            ("no answer, but it was said", seen(0, 1, 0, 5), [false, false, false]),
        ];
        for (name, seen, expected) in cases {
            let verdicts = [seen.is_captured(), seen.is_direct(), seen.is_blocked()];
            assert_eq!(verdicts, expected, "{name}");
            let mut lossy = seen;
            lossy.wire.lost = Some("3 packets".to_owned());
            assert!(!lossy.is_captured() && !lossy.is_blocked(), "{name}: not seen is not absent");
        }
    }
}
