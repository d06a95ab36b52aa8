//! The host's tables in the kernel.

use std::collections::BTreeSet;
use std::path::PathBuf;

use capture::{Exemption, HOST_TABLE, HostDrift, HostListing, HostRules};
use netns::PodNetns;
use tokio::sync::OnceCell;

use crate::rules::command::{Output, Runner};
use crate::rules::options::{PROBE_SOURCE_V4, PROBE_SOURCE_V6};
use crate::rules::{CommandError, RulesError, command as command_failed};

/// Works on the host's tables.
pub(super) struct Kernel {
    pub(super) runner: Runner,
    pub(super) netns: PodNetns,
    nft: PathBuf,
    /// How nft lists our tables when nothing is exempt.
    base: OnceCell<HostListing>,
}

impl Kernel {
    pub(super) fn new(runner: Runner, netns: PodNetns, nft: PathBuf) -> Self {
        Self { runner, netns, nft, base: OnceCell::new() }
    }

    /// Puts all of our rules in the place of what is there.
    pub(super) async fn replace(&self, wanted: &BTreeSet<Exemption>) -> Result<(), RulesError> {
        self.load(&self.netns, rules(wanted).replace()).await
    }

    /// Changes only what differs from `before`.
    pub(super) async fn change(
        &self,
        before: &BTreeSet<Exemption>,
        wanted: &BTreeSet<Exemption>,
    ) -> Result<(), RulesError> {
        match rules(wanted).change(before) {
            Some(document) => self.load(&self.netns, document).await,
            None => Ok(()),
        }
    }

    pub(super) async fn remove(&self) -> Result<(), RulesError> {
        self.load(&self.netns, HostRules::removal()).await
    }

    /// How the host differs from what it should be.
    pub(super) async fn differences(
        &self,
        wanted: &BTreeSet<Exemption>,
    ) -> Result<Vec<HostDrift>, RulesError> {
        let reference = self.base().await?.clone().with(wanted);
        Ok(reference.differences(&self.listing().await?))
    }

    pub(super) async fn listing(&self) -> Result<HostListing, RulesError> {
        self.listing_in(&self.netns).await
    }

    async fn base(&self) -> Result<&HostListing, RulesError> {
        let make = async {
            let scratch = PodNetns::scratch()?;
            self.load(&scratch, rules(&BTreeSet::new()).replace()).await?;
            self.listing_in(&scratch).await
        };
        self.base.get_or_try_init(|| make).await
    }

    async fn listing_in(&self, netns: &PodNetns) -> Result<HostListing, RulesError> {
        let inet = self.table(netns, "inet").await?;
        let bridge = self.table(netns, "bridge").await?;
        Ok(HostListing::parse(inet.as_deref(), bridge.as_deref())?)
    }

    /// One table; `None` where there is none. nft has an error for that, and only words to
    /// tell it from others: a listing of all tables decides.
    async fn table(&self, netns: &PodNetns, family: &str) -> Result<Option<String>, RulesError> {
        let step = || command_failed("list the host's probe rules");
        let table = self.run(netns, &["-j", "list", "table", family, HOST_TABLE]).await;
        let table = table.map_err(step())?;
        if table.succeeded() {
            return table.success().map(Some).map_err(step());
        }
        let tables = self.run(netns, &["list", "tables", family]).await;
        let tables = tables.and_then(Output::success).map_err(step())?;
        let ours = format!("table {family} {HOST_TABLE}");
        if tables.lines().all(|line| line.trim() != ours) {
            return Ok(None);
        }
        table.success().map(Some).map_err(step())
    }

    async fn run(&self, netns: &PodNetns, arguments: &[&str]) -> Result<Output, CommandError> {
        self.runner.run(netns, &self.nft, arguments, String::new()).await
    }

    pub(super) async fn load(&self, netns: &PodNetns, document: String) -> Result<(), RulesError> {
        let run = self.runner.run(netns, &self.nft, &["-j", "-f", "-"], document);
        let step = command_failed("load the host's probe rules");
        run.await.and_then(Output::success).map(drop).map_err(step)
    }
}

fn rules(exemptions: &BTreeSet<Exemption>) -> HostRules {
    HostRules { v4: PROBE_SOURCE_V4, v6: PROBE_SOURCE_V6, exemptions: exemptions.clone() }
}
