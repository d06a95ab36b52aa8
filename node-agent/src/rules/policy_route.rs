//! The policy rule and route that lead an application's answers back to ztunnel: the
//! part of a pod's capture that nftables does not know.

use std::net::{Ipv4Addr, Ipv6Addr};

use futures_util::TryStreamExt;
use netns::{FenceError, PodNetns};
use nix::errno::Errno;
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage, RouteScope, RouteType};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use rtnetlink::{Handle, IpVersion, RouteMessageBuilder};
use tokio::task::JoinHandle;

use super::command::Runner;
use super::netlink::{LOOPBACK, code, unless};
use super::overtaking::{may_lead_elsewhere, text};
use crate::inside::inside;

/// More copies of our rule than anybody makes by accident.
const MOST_COPIES: usize = 64;

/// Which step failed.
#[derive(Debug, thiserror::Error)]
pub enum PolicyRouteError {
    /// The namespace could not be entered.
    #[error("open a route socket: {0}")]
    Fence(#[from] FenceError),
    /// No socket.
    #[error("open a route socket: {0}")]
    Socket(#[source] std::io::Error),
    /// The kernel refused.
    #[error("{step} ({family}): {source}{}", hint(.source))]
    Netlink {
        /// What was attempted.
        step: &'static str,
        /// `IPv4` or `IPv6`.
        family: &'static str,
        /// The kernel's answer.
        source: rtnetlink::Error,
    },
}

fn hint(error: &rtnetlink::Error) -> &'static str {
    if code(error) == Some(Errno::ENETDOWN) { " (the pod's lo is not up)" } else { "" }
}

/// A part of the policy route that is not as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// The rule that looks the table up.
    Rule(&'static str),
    /// The route in that table.
    Route(&'static str),
}

#[derive(Clone, Copy)]
enum Family {
    V4,
    V6,
}

impl Family {
    fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    fn version(self) -> IpVersion {
        match self {
            Self::V4 => IpVersion::V4,
            Self::V6 => IpVersion::V6,
        }
    }
}

/// A route socket inside a pod; its task ends with it.
pub(super) struct PolicyRoute {
    handle: Handle,
    connection: JoinHandle<()>,
    families: Vec<Family>,
}

impl Drop for PolicyRoute {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl PolicyRoute {
    /// Opens a route socket in `netns`. A socket keeps the namespace it was made in, so
    /// the connection runs in the runtime like any other.
    pub(super) async fn open(runner: &Runner, netns: &PodNetns) -> Result<Self, PolicyRouteError> {
        let runtime = runner.runtime().clone();
        let job = move || {
            let _reactor = runtime.enter();
            rtnetlink::new_connection()
                .map(|(connection, handle, _)| (connection, handle, has_v6()))
        };
        let opened = inside(runner.fence(), netns, job).await?;
        let (connection, handle, v6) = opened.map_err(PolicyRouteError::Socket)?;
        let families = if v6 { vec![Family::V4, Family::V6] } else { vec![Family::V4] };
        Ok(Self { handle, connection: runner.runtime().spawn(connection), families })
    }

    /// Puts rules and routes in place; what is there already stays.
    pub(super) async fn ensure(&self) -> Result<(), PolicyRouteError> {
        for &family in &self.families {
            // The route first: a rule that finds an empty table does no harm, but no good.
            self.add_route(family)
                .await
                .or_else(unless(&[Errno::EEXIST]))
                .map_err(netlink("add the route of marked packets", family))?;
            self.add_rule(family)
                .await
                .or_else(unless(&[Errno::EEXIST]))
                .map_err(netlink("add the rule for marked packets", family))?;
        }
        Ok(())
    }

    /// What is missing. With IPv6 switched off in the pod, its part is not asked for.
    pub(super) async fn missing(&self) -> Result<Vec<Missing>, PolicyRouteError> {
        let mut missing = Vec::new();
        for &family in &self.families {
            if self.our_rules(family).await?.is_empty() {
                missing.push(Missing::Rule(family.name()));
            }
            if self.our_routes(family).await?.is_empty() {
                missing.push(Missing::Route(family.name()));
            }
        }
        Ok(missing)
    }

    /// Others' rules that come before ours and may lead its packets elsewhere, in words.
    pub(super) async fn overtaken(&self) -> Result<Vec<String>, PolicyRouteError> {
        let mut overtaken = Vec::new();
        for &family in &self.families {
            // In the order in which the kernel asks them.
            let rules = self.rules(family).await?;
            let before = rules.iter().position(is_our_rule).unwrap_or(0);
            let elsewhere = rules[..before].iter().filter(|rule| may_lead_elsewhere(rule));
            let named = |rule| format!("{} policy rule \"{}\"", family.name(), text(rule));
            overtaken.extend(elsewhere.map(named));
        }
        Ok(overtaken)
    }

    /// Whether anything of ours is there, in either family.
    pub(super) async fn present(&self) -> Result<bool, PolicyRouteError> {
        for family in [Family::V4, Family::V6] {
            let rules = self.our_rules(family).await?;
            if !rules.is_empty() || !self.our_routes(family).await?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Removes everything of ours from both families, however often it is there.
    pub(super) async fn remove(&self) -> Result<(), PolicyRouteError> {
        for family in [Family::V4, Family::V6] {
            for rule in self.our_rules(family).await?.into_iter().take(MOST_COPIES) {
                let deletion = self.handle.rule().del(rule).execute().await;
                deletion
                    .or_else(unless(&[Errno::ENOENT]))
                    .map_err(netlink("delete the rule", family))?;
            }
            for route in self.our_routes(family).await?.into_iter().take(MOST_COPIES) {
                let deletion = self.handle.route().del(route).execute().await;
                deletion
                    .or_else(unless(&[Errno::ESRCH]))
                    .map_err(netlink("delete the route", family))?;
            }
        }
        Ok(())
    }

    async fn add_rule(&self, family: Family) -> Result<(), rtnetlink::Error> {
        let mut request = self
            .handle
            .rule()
            .add()
            .fw_mark(zds::CONNMARK.value)
            .table_id(zds::ROUTE.table)
            .priority(zds::ROUTE.preference)
            .action(RuleAction::ToTable);
        request.message_mut().attributes.push(RuleAttribute::FwMask(zds::CONNMARK.mask));
        match family {
            Family::V4 => request.v4().execute().await,
            Family::V6 => request.v6().execute().await,
        }
    }

    async fn add_route(&self, family: Family) -> Result<(), rtnetlink::Error> {
        let message = match family {
            Family::V4 => RouteMessageBuilder::<Ipv4Addr>::new()
                .output_interface(LOOPBACK)
                .table_id(zds::ROUTE.table)
                .kind(RouteType::Local)
                .scope(RouteScope::Host)
                .build(),
            Family::V6 => RouteMessageBuilder::<Ipv6Addr>::new()
                .output_interface(LOOPBACK)
                .table_id(zds::ROUTE.table)
                .kind(RouteType::Local)
                .scope(RouteScope::Host)
                .build(),
        };
        self.handle.route().add(message).replace().execute().await
    }

    async fn our_rules(&self, family: Family) -> Result<Vec<RuleMessage>, PolicyRouteError> {
        let mut rules = self.rules(family).await?;
        rules.retain(is_our_rule);
        Ok(rules)
    }

    async fn rules(&self, family: Family) -> Result<Vec<RuleMessage>, PolicyRouteError> {
        let rules = self.handle.rule().get(family.version()).execute();
        rules.try_collect().await.map_err(netlink("list rules", family))
    }

    async fn our_routes(&self, family: Family) -> Result<Vec<RouteMessage>, PolicyRouteError> {
        let all = match family {
            Family::V4 => RouteMessageBuilder::<Ipv4Addr>::new().build(),
            Family::V6 => RouteMessageBuilder::<Ipv6Addr>::new().build(),
        };
        let routes = self.handle.route().get(all).execute();
        let ours = routes.try_filter(|route| std::future::ready(is_our_route(route)));
        ours.try_collect().await.map_err(netlink("list routes", family))
    }
}

/// Whether IPv6 works on the loopback device. Runs in the pod: /proc/sys/net shows the
/// namespace of the thread that looks.
fn has_v6() -> bool {
    std::fs::read_to_string("/proc/sys/net/ipv6/conf/lo/disable_ipv6")
        .is_ok_and(|value| value.trim() == "0")
}

fn is_our_rule(rule: &RuleMessage) -> bool {
    let has = |wanted: &RuleAttribute| rule.attributes.contains(wanted);
    has(&RuleAttribute::Priority(zds::ROUTE.preference))
        && has(&RuleAttribute::FwMark(zds::CONNMARK.value))
        && has(&RuleAttribute::FwMask(zds::CONNMARK.mask))
        && has(&RuleAttribute::Table(zds::ROUTE.table))
}

fn is_our_route(route: &RouteMessage) -> bool {
    let has = |wanted: &RouteAttribute| route.attributes.contains(wanted);
    route.header.kind == RouteType::Local
        && route.header.destination_prefix_length == 0
        && has(&RouteAttribute::Oif(LOOPBACK))
        && has(&RouteAttribute::Table(zds::ROUTE.table))
}

fn netlink(
    step: &'static str,
    family: Family,
) -> impl FnOnce(rtnetlink::Error) -> PolicyRouteError {
    move |source| PolicyRouteError::Netlink { step, family: family.name(), source }
}
