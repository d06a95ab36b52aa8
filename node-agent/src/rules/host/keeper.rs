//! Brings the kernel to what the claims say, and looks that it stays so.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use capture::Exemption;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::kernel::Kernel;
use super::{HostProbes, RulesError, answers};
use crate::facts::PodUid;
use crate::observe::{Observer, Sight, Watch};

/// How often the host is looked at, news or not.
const LOOK: Duration = Duration::from_secs(3);
/// How long news may gather. Others change the host's rules as well, often many times in a
/// row.
const GATHER: Duration = Duration::from_millis(500);
/// How long a light look may stand for a full comparison.
const LONGEST: Duration = Duration::from_secs(300);
/// How soon a failure is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// Under what the keeper's troubles are known.
const RULES: &str = "rules";
const ANSWERS: &str = "answers";

/// What is believed about the kernel.
#[derive(Default)]
struct Belief {
    /// What is exempt; `None` makes all of it anew.
    held: Option<BTreeSet<Exemption>>,
    /// What a light look had seen before the last comparison that found nothing wrong.
    accepted: Option<(Sight, Instant)>,
}

impl Belief {
    fn stands(&self, sight: Option<Sight>) -> bool {
        let stands = |(seen, at): (Sight, Instant)| sight == Some(seen) && at.elapsed() < LONGEST;
        self.accepted.is_some_and(stands)
    }
}

impl HostProbes {
    /// Keeps the host's rules until `stop`, and leaves them there.
    pub async fn keep(self, stop: CancellationToken) {
        let Some(kernel) = &self.inner.kernel else {
            return;
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.keep_forever(kernel) => {}
            () = self.keep_answers(kernel) => {}
        }
    }

    /// Nobody tells when Cilium comes to a node, and whoever sets routes up may take ours away.
    async fn keep_answers(&self, kernel: &Kernel) {
        loop {
            let outcome = answers::ensure(kernel).await;
            if let Ok(true) = outcome {
                tracing::info!("answers to probes have a way past Cilium: a route was made");
            }
            let text = outcome.err().map(|error| {
                format!("answers to kubelet probes may be dropped by Cilium: {error}")
            });
            if let Some(text) = text.as_ref().filter(|text| self.is_news(ANSWERS, text)) {
                tracing::error!("{text}");
            }
            self.trouble(ANSWERS, text);
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn keep_forever(&self, kernel: &Kernel) {
        self.inherit(kernel).await;
        let watch = watch(kernel).await;
        let mut wishes = self.inner.wanted.subscribe();
        let mut belief = Belief::default();
        loop {
            let (version, wanted) = self.wanted();
            let outcome = bring(kernel, belief.held.as_ref(), &wanted).await;
            let pause = if outcome.is_ok() { LOOK } else { AGAIN };
            self.report(&outcome, wanted.len());
            self.inner.tried.send_replace(version);
            belief.held = outcome.is_ok().then_some(wanted);
            wishes.mark_unchanged();
            if *wishes.borrow() != version {
                continue;
            }
            tokio::select! {
                _ = wishes.changed() => {}
                () = news(watch.as_deref(), pause) => {
                    self.look(kernel, watch.as_deref(), &mut belief).await;
                }
            }
        }
    }

    async fn inherit(&self, kernel: &Kernel) {
        match kernel.listing().await {
            Ok(listing) => {
                self.change(|claims| claims.inherit(listing.exemptions()));
            }
            Err(error) => tracing::warn!(%error, "host probe rules of an earlier start are lost"),
        }
    }

    fn wanted(&self) -> (u64, BTreeSet<Exemption>) {
        let claims = self.claims();
        (*self.inner.wanted.borrow(), claims.wanted())
    }

    /// Whether the kernel still holds what it held: by a few system calls, unless somebody
    /// has changed anything.
    async fn look(&self, kernel: &Kernel, watch: Option<&Watch>, belief: &mut Belief) {
        let Some(held) = belief.held.take() else {
            return;
        };
        let sight = watch.and_then(|watch| watch.look().ok());
        if belief.stands(sight) {
            belief.held = Some(held);
            return;
        }
        match kernel.differences(&held).await {
            Ok(drifts) if drifts.is_empty() => {
                belief.accepted = sight.map(|sight| (sight, Instant::now()));
                belief.held = Some(held);
            }
            Ok(drifts) => {
                let drifts: Vec<_> = drifts.iter().map(ToString::to_string).collect();
                let drifts = drifts.join("; ");
                tracing::warn!(%drifts, "host probe rules were changed by somebody, repairing");
                self.inner.metrics.repaired();
            }
            Err(error) => {
                tracing::warn!(%error, "cannot look at the host's probe rules, making them anew");
            }
        }
    }

    fn report(&self, outcome: &Result<(), RulesError>, exemptions: usize) {
        self.inner.metrics.in_place(outcome.is_ok().then_some(exemptions));
        let text = outcome
            .as_ref()
            .err()
            .map(|error| format!("kubelet probes may be refused under strict policies: {error}"));
        if let Some(text) = text.as_ref().filter(|text| self.is_news(RULES, text)) {
            tracing::error!("{text}");
        }
        self.trouble(RULES, text);
    }

    fn is_news(&self, at: &'static str, text: &str) -> bool {
        self.inner.troubles.borrow().get(at).map(String::as_str) != Some(text)
    }
}

async fn watch(kernel: &Kernel) -> Option<Arc<Watch>> {
    let observer = Observer::new(kernel.runner.fence().clone());
    match observer.watch(&PodUid("the node".into()), &kernel.netns).await {
        Ok(watch) => Some(watch),
        Err(error) => {
            tracing::warn!(%error, "news about the node's rules are not heard");
            None
        }
    }
}

/// Until it is time to look: soon after news, at the latest after `pause`.
async fn news(watch: Option<&Watch>, pause: Duration) {
    let noticed = async {
        let heard = match watch {
            Some(watch) => watch.noticed().await.is_ok(),
            None => false,
        };
        match heard {
            true => tokio::time::sleep(GATHER).await,
            false => std::future::pending().await,
        }
    };
    tokio::select! {
        () = noticed => {}
        () = tokio::time::sleep(pause) => {}
    }
}

async fn bring(
    kernel: &Kernel,
    held: Option<&BTreeSet<Exemption>>,
    wanted: &BTreeSet<Exemption>,
) -> Result<(), RulesError> {
    if let Some(held) = held
        && kernel.change(held, wanted).await.is_ok()
    {
        return Ok(());
    }
    kernel.replace(wanted).await?;
    let drifts = kernel.differences(wanted).await?;
    if drifts.is_empty() { Ok(()) } else { Err(RulesError::HostNotAsIntended { drifts }) }
}
