//! Comparing a captured pod with what it should be, and putting right what differs: the
//! effects behind [`Action::Verify`](super::Action::Verify) and
//! [`Action::Look`](super::Action::Look).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use capture::Options;
use netns::PodNetns;
use zds::ListenerKind;

use super::effects::{EffectError, Effects};
use super::flaps::Harm;
use crate::facts::{PodFacts, PodUid};
use crate::listeners::HeldListener;
use crate::observe::{Author, ObserveError, Sight, Watch};
use crate::rules::{Comparison, Drift, Found, Kind, RulesError};

/// Longer than any drain.
const ANY_DRAIN: Duration = Duration::from_secs(u32::MAX as u64);

/// In what way a captured pod differs from what it should be.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) drifts: Vec<Drift>,
    /// Policy rules of others that come before ours, where it was looked for them.
    pub(super) overtaken: Option<Vec<String>>,
    /// Who changed the ruleset last.
    author: Option<Author>,
    /// IPv6 was switched on since the pod was last found right.
    has_v6_now: bool,
}

impl Findings {
    pub(super) fn harm(&self) -> Harm {
        if self.changes_rules() { Harm::Opens } else { Harm::Closes }
    }

    pub(super) fn kinds(&self) -> BTreeSet<Kind> {
        let kind = |drift: &Drift| {
            if self.has_v6_now && drift.is_of_v6() { Kind::Ipv6 } else { drift.kind() }
        };
        self.drifts.iter().map(kind).collect()
    }

    /// In words, with who did it.
    pub(super) fn text(&self) -> String {
        let drifts = crate::rules::list(&self.drifts);
        match self.author.as_ref().filter(|_| self.changes_rules()) {
            Some(Author { name, pid }) => {
                format!("{drifts} (the rules were last changed by {name}, process {pid})")
            }
            None => drifts,
        }
    }

    fn changes_rules(&self) -> bool {
        self.drifts.iter().any(|drift| drift.kind() == Kind::Rules)
    }
}

impl Effects {
    /// Whether a light look shows that a captured pod may not be as it should be, and what
    /// that would mean. `longest` may have passed since the last full comparison.
    pub(super) fn suspicion(
        &self,
        uid: &PodUid,
        options: &Options,
        longest: Duration,
    ) -> Option<Harm> {
        let seen = self.observer.known(uid).map(|watch| (watch.look(), watch));
        match seen {
            Some((Ok(sight), watch)) if watch.stands(&sight, options, longest) => {
                (!self.closed(uid).is_empty()).then_some(Harm::Closes)
            }
            Some((Ok(sight), watch)) if watch.has_accepted_rules(&sight) => Some(Harm::Closes),
            _ => Some(Harm::Opens),
        }
    }

    /// Compares a captured pod with what it should be: fully, unless a light look shows that
    /// nothing has changed since that was last done.
    pub(super) async fn inspect(
        &self,
        facts: &PodFacts,
        netns: &PodNetns,
        options: &Options,
        longest: Duration,
    ) -> Result<Findings, EffectError> {
        let closed = self.closed(&facts.uid).into_iter().map(|held| Drift::Listener(held.at()));
        let drifts: Vec<_> = closed.collect();
        let seen = self.sight(&facts.uid, netns).await;
        if seen.as_ref().is_some_and(|(watch, sight)| watch.stands(sight, options, longest)) {
            return Ok(Findings { drifts, ..Findings::default() });
        }
        let lost = seen.as_ref().is_some_and(|(watch, _)| watch.has_lost_table());
        let mut findings = Findings::default();
        let wrong = if lost {
            vec![Drift::table_is_gone()]
        } else {
            let compared = self.rules.compare(netns, options).await?;
            findings.overtaken = Some(compared.overtaken);
            compared.drifts
        };
        if let Some((watch, sight)) = seen {
            findings.author = watch.author();
            findings.has_v6_now = watch.had_no_v6() && sight.has_v6();
            if wrong.is_empty() {
                watch.accept(sight, options);
            }
        }
        findings.drifts = drifts.into_iter().chain(wrong).collect();
        Ok(findings)
    }

    /// Puts right what was found; where rules were, [`Effects::apply_and_observe`] tells more.
    pub(super) async fn mend(
        &self,
        facts: &PodFacts,
        netns: &PodNetns,
        options: &Options,
        findings: &mut Findings,
    ) -> Result<(), EffectError> {
        // Rules first: nothing else lets clear text out.
        if findings.drifts.iter().any(|drift| drift.kind() != Kind::Listener) {
            self.rules.apply_again(netns, options).await?;
            let overtaken = self.observe_applied(&facts.uid, netns, options).await?;
            findings.overtaken = Some(overtaken);
        }
        for held in self.closed(&facts.uid) {
            let at = held.at();
            held.listen_again().map_err(|source| EffectError::Listener { at, source })?;
        }
        Ok(())
    }

    /// Applies the rules and looks that they are there, and which policy rules of others come
    /// before ours.
    pub(super) async fn apply_and_observe(
        &self,
        uid: &PodUid,
        netns: &PodNetns,
        options: &Options,
    ) -> Result<Vec<String>, EffectError> {
        self.rules.apply(netns, options).await?;
        self.observe_applied(uid, netns, options).await
    }

    async fn observe_applied(
        &self,
        uid: &PodUid,
        netns: &PodNetns,
        options: &Options,
    ) -> Result<Vec<String>, EffectError> {
        let seen = self.sight(uid, netns).await;
        let Comparison { drifts, overtaken } = self.rules.compare(netns, options).await?;
        if !drifts.is_empty() {
            return Err(RulesError::NotAsIntended { step: "applying the rules", drifts }.into());
        }
        if let Some((watch, sight)) = seen {
            watch.accept(sight, options);
        }
        Ok(overtaken)
    }

    /// Has only connections of before led to ztunnel.
    pub(super) async fn drain(
        &self,
        uid: &PodUid,
        netns: &PodNetns,
        options: &Options,
    ) -> Result<(), EffectError> {
        self.rules.drain(netns, options).await?;
        self.accept_drained(uid, netns, options).await;
        Ok(())
    }

    /// The same, where somebody may have removed anything of it.
    pub(super) async fn drain_again(
        &self,
        uid: &PodUid,
        netns: &PodNetns,
        options: &Options,
    ) -> Result<(), EffectError> {
        self.rules.drain_again(netns, options).await?;
        self.accept_drained(uid, netns, options).await;
        Ok(())
    }

    async fn accept_drained(&self, uid: &PodUid, netns: &PodNetns, options: &Options) {
        if let Some((watch, sight)) = self.sight(uid, netns).await
            // Somebody may have removed them since.
            && !watch.has_lost_table()
        {
            watch.accept(sight, options);
        }
    }

    /// Whether a light look shows that somebody has changed what keeps the connections of a
    /// draining pod proxied. Its listeners accept nothing more that counts.
    pub(super) fn drain_suspicion(&self, uid: &PodUid, options: &Options) -> Option<Harm> {
        let watch = self.observer.known(uid)?;
        // Nothing is compared fully any more, however long it lasts.
        let stands = watch.look().is_ok_and(|sight| watch.stands(&sight, options, ANY_DRAIN));
        (!stands).then_some(Harm::Opens)
    }

    /// What is in a pod of an earlier life of the agent, and which policy rules of others
    /// come before ours there.
    pub(super) async fn look(
        &self,
        uid: &PodUid,
        netns: &PodNetns,
        options: &Options,
    ) -> Result<(Found, Vec<String>), EffectError> {
        let seen = self.sight(uid, netns).await;
        let found = self.rules.find(netns, options).await?;
        match found {
            Found::Nothing => self.observer.forget(uid),
            Found::Otherwise => {}
            Found::AsWanted => {
                let overtaken = self.rules.overtaken(netns).await?;
                if let Some((watch, sight)) = seen {
                    watch.accept(sight, options);
                }
                return Ok((found, overtaken));
            }
        }
        Ok((found, Vec::new()))
    }

    /// The pod's watch, and what it sees. A pod that cannot be watched is compared fully
    /// each time.
    async fn sight(&self, uid: &PodUid, netns: &PodNetns) -> Option<(Arc<Watch>, Sight)> {
        let seen = async {
            let watch = self.observer.watch(uid, netns).await?;
            let sight = match watch.look() {
                // The news that were in the way are out of it now.
                Err(ObserveError::NoAnswer) => watch.look()?,
                seen => seen?,
            };
            Ok::<_, ObserveError>((watch, sight))
        };
        let seen = seen.await;
        seen.inspect_err(|error| tracing::warn!(%uid, %error, "a pod is not watched")).ok()
    }

    /// Whether we hold a name server's sockets of a pod that had no IPv6 when they were opened
    /// and has it now. Its lookups by IPv6 are redirected, and nobody answers.
    pub(super) async fn lacks_v6_lookups(&self, uid: &PodUid, netns: &PodNetns) -> bool {
        let held = self.link.listeners(uid);
        let has = |kind| held.iter().any(|held| held.at().kind == kind);
        let lacks = has(ListenerKind::UdpLoopbackV4) && !has(ListenerKind::UdpLoopbackV6);
        lacks && self.sight(uid, netns).await.is_some_and(|(_, sight)| sight.has_v6())
    }

    /// Our listeners in the pod that somebody has ended.
    pub(super) fn closed(&self, uid: &PodUid) -> Vec<HeldListener> {
        let mut held = self.link.listeners(uid);
        held.retain(|held| !held.is_open());
        held
    }
}
