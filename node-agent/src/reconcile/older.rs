//! Connections that are older than their pod's capture: when they end, if ever.
//!
//! They are looked for twice. An open that was under way when the rules came is no
//! connection yet at the first look; at the second it is one, or was given up.

use std::time::{Duration, Instant, SystemTime};

use capture::{Inbound, Options};
use netns::PodNetns;

use super::aging::{Aging, Opened};
use super::effects::EffectError;
use super::pod::{Outcome, Pod};
use super::run::Reconciler;
use crate::enrollment::Older;
use crate::facts::PodUid;
use crate::kube::EventReason;

/// How long an open may be under way.
const SETTLE: Duration = Duration::from_secs(3);

/// How long until the next look; `None` is never.
fn left(pod: &Pod, older: Older, now: SystemTime, steady: Instant) -> Option<Duration> {
    let aging = pod.aging.filter(|aging| !aging.is_over())?;
    let grace = older.grace()?;
    let settled = SETTLE * u32::from(aging.passes);
    // A clock that was set back does not make it longer.
    let gone = now.duration_since(aging.since).unwrap_or_default();
    let of_capture = (grace + settled).saturating_sub(gone);
    let ruled = |since| settled.saturating_sub(steady.saturating_duration_since(since));
    let of_rules = pod.ruled.map_or(Duration::ZERO, ruled);
    let put_off = pod.older_put_off.map_or(Duration::ZERO, |put_off| put_off.left(steady));
    Some(of_capture.max(of_rules).max(put_off))
}

/// Whether `after` may capture what `before` leaves alone: only then have connections become
/// older than the rules. Ranges and networks that contain each other are taken for others.
pub(super) fn captures_more(before: &Options, after: &Options) -> bool {
    let leaves_as_much = after.in_skip.is_superset(&before.in_skip)
        && after.out_skip.is_superset(&before.out_skip)
        && after.out_skip_cidrs.is_superset(&before.out_skip_cidrs)
        && after.probes.sources.is_superset(&before.probes.sources)
        && after.probes.ports.is_superset(&before.probes.ports)
        && before.guests.is_superset(&after.guests)
        && (after.inbound == before.inbound || after.inbound == Inbound::Bypass);
    !leaves_as_much
}

impl Reconciler {
    /// Rules have come: connections that are not proxied are older than they.
    pub(super) fn age(&self, uid: &PodUid, opened: Opened) {
        self.change(|table| {
            if let Some(pod) = table.get_mut(uid) {
                pod.aging = Some(Aging::after(pod.aging, opened, SystemTime::now()));
                pod.ruled = Some(Instant::now());
            }
            table.worth_remembering();
        });
    }

    /// Whether it is time to end older connections, or how long until then.
    pub(super) fn mark_older(&self, uid: &PodUid) -> Option<Duration> {
        let mut table = self.table();
        let pod = table.get_mut(uid)?;
        let older = pod.wishes.older(self.settings().older);
        let left = left(pod, older, SystemTime::now(), Instant::now());
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
            // All have been looked for.
            (Older::Reset, 2, 9999, None),
        ] {
            let aging = Some(Aging { since: at(1000), passes });
            let left = left(&Pod { aging, ..Pod::new() }, older, at(now), Instant::now());
            assert_eq!(left, expected.map(Duration::from_secs), "{older:?} {passes} {now}");
        }
    }

    #[test]
    fn their_time_counts_from_the_capture_whenever_the_same_rules_came_back() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let (began, minute) = (Instant::now(), Older::KeepFor(Duration::from_secs(60)));
        let steady = |seconds| began + Duration::from_secs(seconds);
        let captured = Aging { since: at(1000), passes: 2 };
        for (older, repaired, passes, now, expected) in [
            (minute, 1030, 0, 1030, 30),
            (minute, 1030, 0, 1060, 0),
            (minute, 1030, 1, 1060, 3),
            // Long over for those of before: two looks, so far apart as ever.
            (minute, 5000, 0, 5000, 0),
            (minute, 5000, 1, 5000, 3),
            (minute, 5000, 1, 5003, 0),
            (Older::Reset, 1030, 1, 1031, 2),
        ] {
            let again = Aging::after(Some(captured), Opened::Meanwhile, at(repaired));
            assert_eq!(again, Aging { passes: 0, ..captured });
            let aging = Some(Aging { passes, ..again });
            let pod = Pod { aging, ruled: Some(steady(repaired)), ..Pod::new() };
            let left = left(&pod, older, at(now), steady(now));
            assert_eq!(left, Some(Duration::from_secs(expected)), "{older:?} {repaired} {now}");
        }
        let unknown = Aging::after(None, Opened::Meanwhile, at(5000));
        assert_eq!(unknown, Aging { since: at(5000), passes: 0 });
        assert!(Aging::after(None, Opened::Nothing, at(5000)).is_over());
    }

    #[test]
    fn what_fails_is_put_off_longer_and_longer() {
        let began = Instant::now();
        let since = UNIX_EPOCH + Duration::from_secs(1000);
        let mut pod = Pod { aging: Some(Aging { since, passes: 0 }), ..Pod::new() };
        let waits = |pod: &Pod| left(pod, Older::Reset, since, began).unwrap().as_secs();
        let mut waited = Vec::new();
        for _ in 0..8 {
            waited.push(waits(&pod));
            pod.becomes(Outcome::OlderNotEnded(began));
            assert!(!pod.older_due, "the plan goes on to what is next");
        }
        assert_eq!(waited, [0, 1, 2, 4, 8, 16, 32, 60]);
        pod.becomes(Outcome::OlderEnded);
        assert_eq!(waits(&pod), 3, "the second look");
    }

    #[test]
    fn only_rules_that_capture_more_make_connections_older() {
        type Change = fn(&mut Options);
        let changes: [(Change, bool); 6] = [
            (|it| it.out_skip = [80.into()].into(), false),
            (|it| it.in_skip = [80.into()].into(), false),
            (|it| it.out_skip_cidrs = ["10.0.0.0/8".parse().unwrap()].into(), false),
            (|it| it.inbound = Inbound::Bypass, false),
            (|it| it.guests = ["k6t-eth0".to_owned()].into(), true),
            (|it| it.dns = capture::Dns::On, false),
        ];
        for (number, (change, more)) in changes.into_iter().enumerate() {
            let (plain, mut changed) = (crate::testing::options(), crate::testing::options());
            change(&mut changed);
            assert_eq!(captures_more(&plain, &changed), more, "{number}");
            let back = !more && changed.dns == plain.dns;
            assert_eq!(captures_more(&changed, &plain), back, "{number}, taken back");
        }
    }
}
