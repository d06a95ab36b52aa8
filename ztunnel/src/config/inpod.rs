//! Settings of the session with the node agent and of the pods' listeners.

use std::path::PathBuf;

use netns::PortUse;

use super::mode::role;
use super::parse::Flag;
use super::raw::Reader;
use crate::proxy::Role;
use crate::workloads::{Handover, Settings};

pub(super) fn workloads(reader: &mut Reader<'_>) -> Settings {
    let socket = reader.text("INPOD_UDS").unwrap_or_else(|| zds::DEFAULT_SOCKET.to_owned());
    // `own` is the way back to Istio's behaviour, for instance when the agent that holds
    // the listeners is in doubt.
    let default = match role(reader) {
        Role::Proxy => Handover::Agent,
        // Who accepts nothing must not keep listeners open: connections would wait there.
        Role::NameServer => Handover::Own,
    };
    let handover = reader.value("INPOD_LISTENERS", default, |text| match text {
        "agent" if default == Handover::Own => {
            Err("with ENABLE_PROXY=false nobody accepts what the agent's listeners take".to_owned())
        }
        "agent" => Ok(Handover::Agent),
        "own" => Ok(Handover::Own),
        _ => Err("agent or own expected".to_owned()),
    });
    Settings { handover, ..Settings::new(PathBuf::from(socket)) }
}

/// Without an agent they mean nothing.
pub(super) fn idle(reader: &mut Reader<'_>) {
    for name in ["INPOD_UDS", "INPOD_LISTENERS", "INPOD_PORT_REUSE"] {
        if reader.text(name).is_some() {
            reader.warning(format!("{name} has no effect with PROXY_MODE=dedicated"));
        }
    }
}

/// Whether listeners that ztunnel binds itself may be shared with the next ztunnel.
pub(super) fn port_use(reader: &mut Reader<'_>) -> PortUse {
    match reader.flag("INPOD_PORT_REUSE", Flag::On) {
        Flag::On => PortUse::Shared,
        Flag::Off => PortUse::Alone,
    }
}
