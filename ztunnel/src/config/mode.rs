//! Whom ztunnel serves.
//!
//! ```text
//! PROXY_MODE (shared)     shared: the pods of a node, as its agent hands them over;
//!                         dedicated: the machine that it runs on, and nobody else
//! PROXY_WORKLOAD_INFO     dedicated: who the machine is to the mesh, as
//!                         namespace/name/service-account
//! ENABLE_PROXY (true)     false: the name server only; no connection is carried, and what is
//!                         captured all the same is refused by the kernel
//! PACKET_MARK             shared: 1337, which the agent's rules know; dedicated: none, unless
//!                         the machine's rules tell ztunnel by a mark and not by its user
//! ENABLE_ORIG_SRC         applications see the client's address. On in shared mode; off in
//!                         dedicated mode, because it needs policy routes for the answers
//!                         that machines do not have by themselves
//! ```

use std::path::Path;

use netns::PortUse;
use zds::WorkloadInfo;

use super::parse::{self, Flag};
use super::raw::Reader;
use super::{inpod, proxy};
use crate::identity::Subject;
use crate::proxy::{Role, SourceAddress};
use crate::workloads;

/// The longest name of an object in Kubernetes.
const LONGEST_NAME: usize = 253;

/// What `PROXY_WORKLOAD_INFO` is, in words.
const FORM: &str = "namespace/name/service-account";

/// Whom ztunnel serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The pods that a node agent hands over.
    Shared(workloads::Settings),
    /// The machine that it runs on: this workload.
    Dedicated(WorkloadInfo),
}

/// To be read first, because other settings depend on it. After a mistake it is the mode
/// that asks less of them, so that no other mistake is made up.
pub(super) fn mode(reader: &mut Reader<'_>) -> Mode {
    let mode = reader.text("PROXY_MODE");
    let info = reader.value("PROXY_WORKLOAD_INFO", None, |text| info(text).map(Some));
    match mode.as_deref() {
        None | Some("shared") => {
            if info.is_some() {
                let text = "it says who this machine is: set PROXY_MODE=dedicated with it";
                reader.mistake("PROXY_WORKLOAD_INFO", text);
            }
            Mode::Shared(inpod::workloads(reader))
        }
        Some("dedicated") => {
            inpod::idle(reader);
            let what = format!("who this machine is to the mesh, as {FORM}");
            reader.required("PROXY_WORKLOAD_INFO", &what);
            Mode::Dedicated(info.unwrap_or_default())
        }
        Some(_) => {
            reader.mistake("PROXY_MODE", "shared or dedicated expected");
            inpod::workloads(reader);
            Mode::Dedicated(info.unwrap_or_default())
        }
    }
}

/// What is done for whom we serve.
pub(super) fn role(reader: &mut Reader<'_>) -> Role {
    if reader.flag("ENABLE_PROXY", Flag::On) == Flag::On {
        return Role::Proxy;
    }
    if reader.flag("ISTIO_META_DNS_CAPTURE", Flag::On) == Flag::Off {
        let text = "with ISTIO_META_DNS_CAPTURE=false too, ztunnel would do nothing at all";
        reader.mistake("ENABLE_PROXY", text);
    }
    Role::NameServer
}

fn info(text: &str) -> Result<WorkloadInfo, String> {
    let parts: Vec<_> = text.split('/').collect();
    let [namespace, name, service_account] = parts[..] else {
        return Err(format!("{FORM} expected"));
    };
    for (part, value) in
        [("namespace", namespace), ("name", name), ("service-account", service_account)]
    {
        if !is_name(value) {
            return Err(format!(
                "{FORM} expected, but {value:?} is no {part}: lower-case letters, digits, '-' \
                 and '.' only, with a letter or digit at both ends"
            ));
        }
    }
    let [namespace, name, service_account] =
        [namespace, name, service_account].map(ToOwned::to_owned);
    Ok(WorkloadInfo { name, namespace, service_account })
}

/// As Kubernetes names objects (RFC 1123).
fn is_name(text: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let inner = |byte: u8| alphanumeric(byte) || matches!(byte, b'-' | b'.');
    let ends = [text.bytes().next(), text.bytes().next_back()];
    text.len() <= LONGEST_NAME
        && text.bytes().all(inner)
        && ends.iter().all(|end| end.is_some_and(alphanumeric))
}

impl Mode {
    pub(super) fn packet_mark(&self, reader: &mut Reader<'_>) -> Option<u32> {
        match self {
            Self::Shared(_) => {
                let ours = zds::PACKET_MARK.value;
                Some(reader.value("PACKET_MARK", ours, proxy::packet_mark))
            }
            Self::Dedicated(_) => {
                reader.value("PACKET_MARK", None, |text| parse::positive(text).map(Some))
            }
        }
    }

    pub(super) fn source_address(&self, reader: &mut Reader<'_>) -> SourceAddress {
        let default = match self {
            Self::Shared(_) => Flag::On,
            Self::Dedicated(_) => Flag::Off,
        };
        match reader.flag("ENABLE_ORIG_SRC", default) {
            Flag::On => SourceAddress::Client,
            Flag::Off => SourceAddress::Pod,
        }
    }

    /// Nobody takes a machine's ports over from us: shared, they would only hide that two
    /// ztunnels run.
    pub(super) fn port_use(&self, reader: &mut Reader<'_>) -> PortUse {
        match self {
            Self::Shared(_) => inpod::port_use(reader),
            Self::Dedicated(_) => PortUse::Alone,
        }
    }

    /// Whose certificates we ask for: a machine has its own token, a node proxy none of its
    /// pods.
    #[must_use]
    pub fn subject(&self) -> Subject {
        match self {
            Self::Shared(_) => Subject::Pods,
            Self::Dedicated(_) => Subject::Bearer,
        }
    }

    /// As Istio's dump has it.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Shared(_) => "Shared",
            Self::Dedicated(_) => "Dedicated",
        }
    }

    /// The agent's socket, where there is an agent.
    pub(super) fn socket(&self) -> Option<&Path> {
        match self {
            Self::Shared(settings) => Some(&settings.socket),
            Self::Dedicated(_) => None,
        }
    }

    /// The machine, if it is served.
    pub(super) fn machine(&self) -> Option<&WorkloadInfo> {
        match self {
            Self::Shared(_) => None,
            Self::Dedicated(info) => Some(info),
        }
    }
}

#[cfg(test)]
mod tests;
