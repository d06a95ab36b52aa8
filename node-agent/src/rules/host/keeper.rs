//! Brings the kernel to what the claims say, and looks that it stays so.

use std::collections::BTreeSet;
use std::time::Duration;

use capture::Exemption;
use tokio_util::sync::CancellationToken;

use super::kernel::Kernel;
use super::{HostProbes, RulesError};

/// How often the host is looked at. What somebody flushes is back within five seconds.
const LOOK: Duration = Duration::from_secs(3);
/// How soon a failure is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// Under what the keeper's troubles are known.
const RULES: &str = "rules";

impl HostProbes {
    /// Keeps the host's rules until `stop`, and leaves them there.
    pub async fn keep(self, stop: CancellationToken) {
        let Some(kernel) = &self.inner.kernel else {
            return;
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.keep_forever(kernel) => {}
        }
    }

    async fn keep_forever(&self, kernel: &Kernel) {
        match kernel.listing().await {
            Ok(listing) => {
                self.change(|claims| claims.inherit(listing.exemptions()));
            }
            Err(error) => tracing::warn!(%error, "host probe rules of an earlier start are lost"),
        }
        let mut wishes = self.inner.wanted.subscribe();
        // What the kernel holds as far as we know; `None` makes all of it anew.
        let mut held = None;
        loop {
            let (version, wanted) = self.wanted();
            let outcome = bring(kernel, held.as_ref(), &wanted).await;
            let pause = if outcome.is_ok() { LOOK } else { AGAIN };
            self.report(&outcome, wanted.len());
            self.inner.tried.send_replace(version);
            held = outcome.is_ok().then_some(wanted);
            wishes.mark_unchanged();
            if *wishes.borrow() != version {
                continue;
            }
            tokio::select! {
                _ = wishes.changed() => {}
                () = tokio::time::sleep(pause) => held = self.look(kernel, held).await,
            }
        }
    }

    fn wanted(&self) -> (u64, BTreeSet<Exemption>) {
        let claims = self.claims();
        (*self.inner.wanted.borrow(), claims.wanted())
    }

    /// Whether the kernel still holds what it held.
    async fn look(
        &self,
        kernel: &Kernel,
        held: Option<BTreeSet<Exemption>>,
    ) -> Option<BTreeSet<Exemption>> {
        let held = held?;
        match kernel.differences(&held).await {
            Ok(drifts) if drifts.is_empty() => Some(held),
            Ok(drifts) => {
                let drifts: Vec<_> = drifts.iter().map(ToString::to_string).collect();
                let drifts = drifts.join("; ");
                tracing::warn!(%drifts, "host probe rules were changed by somebody, repairing");
                self.inner.metrics.repaired();
                None
            }
            Err(error) => {
                tracing::warn!(%error, "cannot look at the host's probe rules, making them anew");
                None
            }
        }
    }

    fn report(&self, outcome: &Result<(), RulesError>, exemptions: usize) {
        self.inner.metrics.in_place(outcome.is_ok().then_some(exemptions));
        let text = outcome
            .as_ref()
            .err()
            .map(|error| format!("kubelet probes may be refused under strict policies: {error}"));
        if let Some(text) = text.as_ref().filter(|text| self.is_news(text)) {
            tracing::error!("{text}");
        }
        self.trouble(RULES, text);
    }

    fn is_news(&self, text: &str) -> bool {
        self.inner.troubles.borrow().get(RULES).map(String::as_str) != Some(text)
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
