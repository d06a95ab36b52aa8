//! What policies decide, in the log; and what those would have decided that are only
//! tried out.

use mesh::{Action, Connection, Decision, Enforcement, Policy, PolicyKey, View, Workload};
use tracing::Level;

/// What the dry-run policies that apply to a workload make of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DryRun {
    /// This DENY policy matches.
    WouldDeny(PolicyKey),
    /// There are ALLOW policies to be tried out, and neither one of them nor one in force
    /// matches.
    WouldNotAllow,
    /// This ALLOW policy matches.
    WouldAllow(PolicyKey),
}

/// Evaluates the dry-run ones of the policies that apply; `None` where none says anything.
/// The order is that of the policies in force: DENY first. Pure.
#[must_use]
pub fn dry_run(applicable: &[&Policy], connection: &Connection) -> Option<DryRun> {
    let of = |enforcement, action| {
        let all = applicable.iter().filter(move |policy| policy.enforcement() == enforcement);
        all.filter(move |policy| policy.action() == action)
    };
    let tried = |action| of(Enforcement::DryRun, action);
    if let Some(policy) = tried(Action::Deny).find(|policy| policy.matches(connection)) {
        return Some(DryRun::WouldDeny(policy.key().clone()));
    }
    tried(Action::Allow).next()?;
    if let Some(policy) = tried(Action::Allow).find(|policy| policy.matches(connection)) {
        return Some(DryRun::WouldAllow(policy.key().clone()));
    }
    let mut in_force = of(Enforcement::Enforced, Action::Allow);
    let allowed = in_force.any(|policy| policy.matches(connection));
    (!allowed).then_some(DryRun::WouldNotAllow)
}

/// The level of the lines about policies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PolicyLog {
    /// Seen by those who look for it.
    #[default]
    Debug,
    /// Seen by everybody (`AUTHZ_POLICY_INFO_LOGGING`).
    Info,
}

/// The target of the lines about policies.
macro_rules! policy_event {
    ($level:expr, $about:expr, $message:literal, $($rest:tt)*) => {{
        let (destination, connection): (&Workload, &Connection) = $about;
        tracing::event!(
            target: "policy",
            $level,
            {
                src.addr = %connection.source,
                src.identity = connection.identity.as_ref().map(tracing::field::display),
                dst.addr = %connection.destination,
                dst.workload = destination.name(),
                dst.namespace = &*destination.namespace,
                $($rest)*
            },
            $message
        );
    }};
}

impl PolicyLog {
    pub(super) fn judged(
        self,
        view: &View,
        destination: &Workload,
        connection: &Connection,
        decision: &Decision,
    ) {
        // A level of an event is a constant, so that it can be skipped at once.
        match self {
            Self::Debug if tracing::enabled!(target: "policy", Level::DEBUG) => {
                let tried = evaluate(view, destination, connection);
                debug((destination, connection), decision, tried.as_ref());
            }
            Self::Info if tracing::enabled!(target: "policy", Level::INFO) => {
                let tried = evaluate(view, destination, connection);
                info((destination, connection), decision, tried.as_ref());
            }
            Self::Debug | Self::Info => {}
        }
    }
}

fn evaluate(view: &View, destination: &Workload, connection: &Connection) -> Option<DryRun> {
    let applicable: Vec<&Policy> =
        view.applicable_policies(destination).map(|policy| &**policy).collect();
    dry_run(&applicable, connection)
}

macro_rules! policy_lines {
    ($name:ident, $level:expr) => {
        fn $name(about: (&Workload, &Connection), decision: &Decision, tried: Option<&DryRun>) {
            match decision {
                Decision::Allow => policy_event!($level, about, "policies allow",),
                Decision::Deny(denial) => {
                    policy_event!($level, about, "policies deny", reason = %denial,);
                }
            }
            match tried {
                None => {}
                Some(DryRun::WouldDeny(key)) => {
                    policy_event!($level, about, "dry run would deny", policy = %key,);
                }
                Some(DryRun::WouldNotAllow) => policy_event!(
                    $level,
                    about,
                    "dry run would deny",
                    reason = "no ALLOW policy matches",
                ),
                Some(DryRun::WouldAllow(key)) => {
                    policy_event!($level, about, "dry run would allow", policy = %key,);
                }
            }
        }
    };
}

policy_lines!(debug, Level::DEBUG);
policy_lines!(info, Level::INFO);

#[cfg(test)]
mod tests;
