//! Connections that are older than their pod's capture: when they end, if ever.
//!
//! They are looked for twice. An open that was under way when the rules came is no
//! connection yet at the first look; at the second it is one, or was given up.

use std::time::{Duration, SystemTime};

use netns::PodNetns;

use super::effects::EffectError;
use super::pod::{Aging, Outcome};
use super::run::Reconciler;
use crate::enrollment::Older;
use crate::facts::PodUid;
use crate::kube::EventReason;

/// How long an open may be under way.
const SETTLE: Duration = Duration::from_secs(3);

/// How long until the next look; `None` is never.
fn left(aging: Aging, older: Older, now: SystemTime) -> Option<Duration> {
    let whole = older.grace()? + SETTLE * u32::from(aging.passes);
    // A clock that was set back does not make it longer.
    let gone = now.duration_since(aging.since).unwrap_or_default();
    Some(whole.saturating_sub(gone))
}

impl Reconciler {
    /// From now on connections that are not proxied are older than the capture, or than
    /// the rules that would lead them to ztunnel.
    pub(super) fn age(&self, uid: &PodUid) {
        self.change(|table| {
            if let Some(pod) = table.get_mut(uid) {
                pod.aging = Some(Aging { since: SystemTime::now(), passes: 0 });
            }
            table.worth_remembering();
        });
    }

    /// Whether it is time to end older connections, or how long until then.
    pub(super) fn mark_older(&self, uid: &PodUid) -> Option<Duration> {
        let mut table = self.table();
        let pod = table.get_mut(uid)?;
        let older = pod.wishes.older(self.settings().older);
        let left = pod.aging.and_then(|aging| left(aging, older, SystemTime::now()));
        pod.older_due = left == Some(Duration::ZERO);
        left
    }

    pub(super) async fn end_older(
        &self,
        uid: &PodUid,
        netns: &PodNetns,
        options: &capture::Options,
    ) -> Result<(), EffectError> {
        let ended = self.inner.effects.rules.end_older(netns, options).await?;
        self.becomes(uid, Outcome::OlderEnded);
        self.change(|table| table.worth_remembering());
        if ended == 0 {
            return Ok(());
        }
        self.inner.metrics.ended_older(ended);
        if let Some(facts) = self.facts(uid) {
            tracing::info!(pod = %facts.name, %uid, ended, "ended connections older than capture");
            let text = format!("connections that were not proxied: {ended}, as configured");
            self.tell(&facts, EventReason::OlderConnectionsEnded, text);
        }
        Ok(())
    }

    /// Leaves to the next life of the agent what it cannot find out by itself.
    pub(super) async fn write_memory(&self) {
        let news = || {
            let mut table = self.table();
            table.take_worth_remembering().then(|| table.remembered())
        };
        let written = self.inner.effects.memory.write(news).await;
        if let Err(error) = written {
            tracing::warn!(%error, "cannot write down what pods said before");
            self.table().worth_remembering();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn when_older_connections_end() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let minute = Older::KeepFor(Duration::from_secs(60));
        for (older, passes, now, expected) in [
            (Older::Keep, 0, 5000, None),
            (Older::Reset, 0, 1000, Some(0)),
            (Older::Reset, 1, 1000, Some(3)),
            (Older::Reset, 1, 1003, Some(0)),
            (minute, 0, 1000, Some(60)),
            (minute, 0, 1059, Some(1)),
            (minute, 0, 1060, Some(0)),
            (minute, 0, 9999, Some(0)),
            (minute, 1, 1060, Some(3)),
            // The clock was set back.
            (minute, 0, 10, Some(60)),
        ] {
            let aging = Aging { since: at(1000), passes };
            let left = left(aging, older, at(now));
            assert_eq!(left, expected.map(Duration::from_secs), "{older:?} {passes} {now}");
        }
    }
}
