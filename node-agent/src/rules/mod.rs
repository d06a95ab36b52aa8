//! A pod's rules in the kernel: apply, verify, drain, remove.
//!
//! ```text
//! Options ─► capture::Ruleset ─► JSON ─► nft -j -f -       (one transaction)
//!                │                        + policy rule and route (netlink)
//!                └─► the same in a scratch namespace ─► reference ─┐
//!                                 what nft lists in the pod ───────┴─► Vec<Drift>
//! ```
//!
//! nft rewrites rules on their way into the kernel, so what is in a pod is compared with
//! what the same nft lists for the same ruleset elsewhere, never with our own text.

mod command;
mod drift;
mod flows;
mod host;
mod netlink;
mod older;
mod options;
mod overtaking;
mod policy_route;

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use capture::{Listing, ListingError, Options, Ruleset};
use netns::{Fence, NetnsError, PodNetns};
use tokio::runtime::Handle;
use tokio::sync::OnceCell;

pub use command::CommandError;
pub use drift::{Comparison, Drift, Kind, list};
pub use host::{
    HostProbes, LinkError, Metrics as HostMetrics, NodeAddresses, ProbeSource, Troubles,
};
pub use options::{PROBE_SOURCE_V4, contract_options};
pub use policy_route::{Missing, PolicyRouteError};

use command::Runner;
use flows::Flows;
use policy_route::PolicyRoute;

/// Absolute paths of the programs that work on rules.
#[derive(Clone, Debug)]
pub struct Programs {
    /// nftables.
    pub nft: PathBuf,
    /// conntrack-tools.
    pub conntrack: PathBuf,
    /// iproute2.
    pub ss: PathBuf,
}

/// Which step failed.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// A program.
    #[error("{step}: {source}")]
    Command {
        /// What was attempted.
        step: &'static str,
        /// Why it failed.
        source: CommandError,
    },
    /// The policy route.
    #[error(transparent)]
    PolicyRoute(#[from] PolicyRouteError),
    /// nft printed something else.
    #[error("read the pod's rules: {0}")]
    Listing(#[from] ListingError),
    /// No scratch namespace for the reference.
    #[error("make a scratch namespace for the reference rules: {0}")]
    Scratch(#[from] NetnsError),
    /// The kernel accepted something and shows something else.
    #[error("after {step} the pod still differs: {}", list(.drifts))]
    NotAsIntended {
        /// What had been done.
        step: &'static str,
        /// What differs.
        drifts: Vec<Drift>,
    },
    /// The same, of the host.
    #[error("after loading its probe rules the host still differs: {}", host_drifts(.drifts))]
    HostNotAsIntended {
        /// What differs.
        drifts: Vec<capture::HostDrift>,
    },
    /// The node's links and routes cannot be read or changed.
    #[error("work on the node's routes: {0}")]
    Link(#[from] LinkError),
    /// Something of ours is still there.
    #[error("rules, policy rule or route are still in the pod after their removal")]
    NotGone,
}

/// What is in a pod that nothing is known about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing of ours.
    Nothing,
    /// What [`Rules::apply`] makes of the options that were asked about.
    AsWanted,
    /// Something else of ours: other options, or damage.
    Otherwise,
}

/// Distinct options whose listings are kept. A node's pods have a few in common.
const MOST_REFERENCES: usize = 256;

/// What nft lists after the rules of some options were loaded; empty until somebody has asked.
type Reference = Arc<OnceCell<Arc<Listing>>>;

/// Works on the rules of pods. Clones share the reference listings.
#[derive(Clone)]
pub struct Rules {
    runner: Runner,
    flows: Flows,
    programs: Programs,
    references: Arc<Mutex<HashMap<Options, Reference>>>,
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rules").field("programs", &self.programs).finish_non_exhaustive()
    }
}

impl Rules {
    /// Works through `fence`; sockets and processes belong to `runtime`.
    #[must_use]
    pub fn new(programs: Programs, fence: Fence, runtime: Handle) -> Self {
        let runner = Runner::new(fence, runtime);
        let (ss, conntrack) = (programs.ss.clone(), programs.conntrack.clone());
        let flows = Flows { runner: runner.clone(), ss, conntrack };
        Self { runner, flows, programs, references: Arc::default() }
    }

    /// Proves once, in a scratch namespace, that this node can carry the rules.
    ///
    /// # Errors
    /// [`RulesError`] naming what is missing: nft, a kernel feature, a privilege.
    pub async fn self_test(&self, options: &Options) -> Result<(), RulesError> {
        self.reference(options).await.map(drop)
    }

    /// Puts the rules in place, or replaces what is there, in one transaction.
    ///
    /// # Errors
    /// Any [`RulesError`]; the ruleset is then as it was before.
    pub async fn apply(&self, netns: &PodNetns, options: &Options) -> Result<(), RulesError> {
        // The rules are the switch: what they rely on stands before.
        PolicyRoute::open(&self.runner, netns).await?.ensure().await?;
        self.load(netns, capture::replace(&Ruleset::capture(options))).await
    }

    /// Like [`Rules::apply`], of a pod that was captured: the rules come back also where what
    /// they rely on does not. Without its route a connection fails; without rules it is open.
    ///
    /// # Errors
    /// Any [`RulesError`]; the rules may be in place all the same.
    pub async fn apply_again(&self, netns: &PodNetns, options: &Options) -> Result<(), RulesError> {
        let ensured = PolicyRoute::open(&self.runner, netns).await?.ensure().await;
        self.load(netns, capture::replace(&Ruleset::capture(options))).await?;
        Ok(ensured?)
    }

    /// Compares the pod with what [`Rules::apply`] makes; empty means equal.
    ///
    /// # Errors
    /// Any [`RulesError`]; nothing is known then.
    pub async fn verify(
        &self,
        netns: &PodNetns,
        options: &Options,
    ) -> Result<Vec<Drift>, RulesError> {
        Ok(self.compare(netns, options).await?.drifts)
    }

    /// Like [`Rules::verify`], and looks who else has a say in where answers go.
    ///
    /// # Errors
    /// Any [`RulesError`]; nothing is known then.
    pub async fn compare(
        &self,
        netns: &PodNetns,
        options: &Options,
    ) -> Result<Comparison, RulesError> {
        let reference = self.reference(options).await?;
        let observed = self.listing(netns).await?;
        let ruleset = capture::compare(&reference, &observed).into_iter().map(Drift::Ruleset);
        let route = PolicyRoute::open(&self.runner, netns).await?;
        let missing = route.missing().await?.into_iter().map(Drift::PolicyRoute);
        let drifts = ruleset.chain(missing).collect();
        Ok(Comparison { drifts, overtaken: route.overtaken().await? })
    }

    /// Policy rules of others that may lead an application's answers past ztunnel.
    ///
    /// # Errors
    /// [`RulesError::PolicyRoute`].
    pub async fn overtaken(&self, netns: &PodNetns) -> Result<Vec<String>, RulesError> {
        Ok(PolicyRoute::open(&self.runner, netns).await?.overtaken().await?)
    }

    /// Looks what is in a pod: the first look, at a pod of an earlier life of the agent.
    ///
    /// # Errors
    /// Any [`RulesError`]; nothing is known then.
    pub async fn find(&self, netns: &PodNetns, options: &Options) -> Result<Found, RulesError> {
        let observed = self.listing(netns).await?;
        let route = PolicyRoute::open(&self.runner, netns).await?;
        if observed == Listing::default() {
            let present = route.present().await?;
            return Ok(if present { Found::Otherwise } else { Found::Nothing });
        }
        let differs = !capture::compare(&*self.reference(options).await?, &observed).is_empty();
        let differs = differs || !route.missing().await?.is_empty();
        Ok(if differs { Found::Otherwise } else { Found::AsWanted })
    }

    /// Whether anything of ours is in the pod.
    ///
    /// # Errors
    /// Any [`RulesError`]; nothing is known then.
    pub async fn present(&self, netns: &PodNetns) -> Result<bool, RulesError> {
        if self.listing(netns).await? != Listing::default() {
            return Ok(true);
        }
        Ok(PolicyRoute::open(&self.runner, netns).await?.present().await?)
    }

    /// Replaces the rules by those of a pod that leaves: new connections are direct, the
    /// redirected ones live on.
    ///
    /// # Errors
    /// Any [`RulesError`]; the rules are then as they were.
    pub async fn drain(&self, netns: &PodNetns, options: &Options) -> Result<(), RulesError> {
        self.load(netns, capture::replace(&Ruleset::drain(options))).await
    }

    /// Like [`Rules::drain`], where somebody may have removed anything of it.
    ///
    /// # Errors
    /// Any [`RulesError`].
    pub async fn drain_again(&self, netns: &PodNetns, options: &Options) -> Result<(), RulesError> {
        let ensured = PolicyRoute::open(&self.runner, netns).await?.ensure().await;
        self.drain(netns, options).await?;
        Ok(ensured?)
    }

    /// How many connections between applications and ztunnel live.
    ///
    /// # Errors
    /// [`RulesError::Command`].
    pub async fn proxied_connections(&self, netns: &PodNetns) -> Result<usize, RulesError> {
        self.flows.count(netns).await.map_err(command("count the proxied connections"))
    }

    /// Ends what is left of ztunnel's connections in the pod. To be called while NAT
    /// stands, or the applications' ends would go on in clear text.
    ///
    /// # Errors
    /// [`RulesError::Command`].
    pub async fn end_connections(&self, netns: &PodNetns) -> Result<(), RulesError> {
        self.flows.end(netns).await.map_err(command("end the proxied connections"))
    }

    /// Ends connections that are older than the capture: they are direct, although these
    /// rules would lead them to ztunnel. Connections within the pod are left alone.
    /// Returns how many were ended.
    ///
    /// # Errors
    /// [`RulesError::Command`].
    pub async fn end_older(
        &self,
        netns: &PodNetns,
        options: &Options,
    ) -> Result<usize, RulesError> {
        let ended = self.flows.end_older(netns, options).await;
        ended.map_err(command("end connections older than the capture"))
    }

    /// Forgets lookups of the time before lookups were redirected, or no longer were.
    ///
    /// # Errors
    /// [`RulesError::Command`].
    pub async fn forget_lookups(&self, netns: &PodNetns) -> Result<(), RulesError> {
        self.flows.forget_lookups(netns).await.map_err(command("forget earlier lookups"))
    }

    /// Removes everything of ours and looks that it is gone. Nothing there is fine.
    ///
    /// The policy rule and route go last: as long as they are there, [`Rules::find`] sees
    /// that a removal is not at its end.
    ///
    /// # Errors
    /// Any [`RulesError`].
    pub async fn remove(&self, netns: &PodNetns) -> Result<(), RulesError> {
        self.load(netns, capture::removal()).await?;
        self.forget_flows(netns).await?;
        PolicyRoute::open(&self.runner, netns).await?.remove().await?;
        if self.present(netns).await? { Err(RulesError::NotGone) } else { Ok(()) }
    }

    /// Without anybody's rules the kernel tracks no connections. Of those that live on it
    /// keeps what it knew, and when rules come again takes a later connection between the
    /// same ports for the old one: past the redirection, and then out of sight.
    async fn forget_flows(&self, netns: &PodNetns) -> Result<(), RulesError> {
        let tables = self.runner.run(netns, &self.programs.nft, &["list", "tables"], String::new());
        let tables = tables.await.and_then(command::Output::success);
        let bare = tables.map_err(command("list the pod's tables"))?.trim().is_empty();
        let step = command("forget connections of the capture");
        let tracked = self.flows.are_tracked_for_iptables(netns).await;
        if bare && !tracked {
            return self.flows.forget_everything(netns).await.map_err(step);
        }
        self.flows.forget(netns).await.map_err(step)
    }

    async fn load(&self, netns: &PodNetns, document: String) -> Result<(), RulesError> {
        let step = "load rules";
        let run = self.runner.run(netns, &self.programs.nft, &["-j", "-f", "-"], document);
        run.await.and_then(command::Output::success).map(drop).map_err(command(step))
    }

    async fn listing(&self, netns: &PodNetns) -> Result<Listing, RulesError> {
        let step = command("list the pod's rules");
        let nft = |arguments: &'static [&'static str]| {
            self.runner.run(netns, &self.programs.nft, arguments, String::new())
        };
        // nft has an error for a table that is not there, and only words to tell it from
        // others. A listing of all tables is no error in a namespace without any.
        let table = match nft(&["-j", "list", "table", "inet", capture::TABLE]).await {
            Ok(output) if output.succeeded() => output,
            Ok(refusal) => {
                let tables = nft(&["-j", "list", "tables", "inet"]).await;
                let tables = tables.and_then(command::Output::success);
                let tables = tables.map_err(command("list the pod's tables"))?;
                if Listing::parse(&tables)? == Listing::default() {
                    return Ok(Listing::default());
                }
                refusal
            }
            Err(error) => return Err(step(error)),
        };
        Ok(Listing::parse(&table.success().map_err(step)?)?)
    }

    /// Pods that start together with the same options wait for one scratch namespace; those
    /// with others do not.
    async fn reference(&self, options: &Options) -> Result<Arc<Listing>, RulesError> {
        let cell = self.cell(options);
        let listing = cell.get_or_try_init(|| async {
            let scratch = PodNetns::scratch()?;
            self.load(&scratch, capture::replace(&Ruleset::capture(options))).await?;
            self.listing(&scratch).await.map(Arc::new)
        });
        listing.await.map(Arc::clone)
    }

    fn cell(&self, options: &Options) -> Reference {
        let mut references = self.references.lock().unwrap_or_else(PoisonError::into_inner);
        // Who changes a pod's options again and again must not fill the memory.
        if references.len() >= MOST_REFERENCES && !references.contains_key(options) {
            references.clear();
        }
        Arc::clone(references.entry(options.clone()).or_default())
    }
}

fn command(step: &'static str) -> impl FnOnce(CommandError) -> RulesError {
    move |source| RulesError::Command { step, source }
}

fn host_drifts(drifts: &[capture::HostDrift]) -> String {
    drifts.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests;
