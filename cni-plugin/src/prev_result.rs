//! prevResult: what the plugins before this one made. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::config::CniVersion;

/// The result of the plugins before this one.
#[derive(Debug)]
pub struct PrevResult {
    /// What ADD answers: exactly what was received, unless that was of another version than
    /// the configuration.
    pub raw: Box<RawValue>,
    /// The addresses in it that are the container's.
    pub ips: Vec<IpAddr>,
}

impl PrevResult {
    /// Takes over what was received, finds the addresses in it, and writes it in the
    /// version that the runtime wants.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn read(raw: Box<RawValue>, wanted: CniVersion) -> Result<Self, String> {
        // A JSON list would do for serde, one value per field.
        if !raw.get().starts_with('{') {
            return Err("not an object".to_owned());
        }
        let view: ResultView =
            serde_json::from_str(raw.get()).map_err(|error| error.to_string())?;
        let ips = view.container_ips()?;
        let raw = match view.cni_version.as_deref() {
            Some(found) if found == wanted.name() => raw,
            Some(found) if CniVersion::from_name(found).is_none() => {
                return Err(format!("its cniVersion {found:?} is not supported"));
            }
            _ => in_version(&raw, wanted).map_err(|error| error.to_string())?,
        };
        Ok(Self { ips, raw })
    }
}

/// A JSON object whose values nobody looks into.
type Object = BTreeMap<String, Box<RawValue>>;

/// Writes a result as `wanted` has it. From 1.0.0 on addresses do not tell their family;
/// everything else that later versions have is new keys, which earlier ones overlook.
fn in_version(raw: &RawValue, wanted: CniVersion) -> serde_json::Result<Box<RawValue>> {
    let mut keys: Object = serde_json::from_str(raw.get())?;
    keys.insert("cniVersion".to_owned(), to_raw_value(wanted.name())?);
    if let Some(ips) = keys.get_mut("ips") {
        let Some(mut all) = serde_json::from_str::<Option<Vec<Object>>>(ips.get())? else {
            return to_raw_value(&keys);
        };
        for ip in &mut all {
            ip.remove("version");
            if wanted < CniVersion::V1_0_0 {
                let is_v6 = ip.get("address").is_some_and(|address| address.get().contains(':'));
                ip.insert("version".to_owned(), to_raw_value(if is_v6 { "6" } else { "4" })?);
            }
        }
        *ips = to_raw_value(&all)?;
    }
    to_raw_value(&keys)
}

/// The part of a result that we read. It is the same in all supported versions.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResultView {
    cni_version: Option<String>,
    interfaces: Option<Vec<InterfaceView>>,
    ips: Option<Vec<IpView>>,
}

#[derive(Deserialize)]
struct InterfaceView {
    sandbox: Option<String>,
}

#[derive(Deserialize)]
struct IpView {
    address: String,
    interface: Option<i64>,
}

impl ResultView {
    /// Addresses of interfaces without a sandbox are the node's own.
    fn container_ips(&self) -> Result<Vec<IpAddr>, String> {
        let interfaces = self.interfaces.as_deref().unwrap_or_default();
        let mut found = Vec::new();
        for ip in self.ips.as_deref().unwrap_or_default() {
            let (address, _prefix) = ip.address.split_once('/').unwrap_or((&ip.address, ""));
            let address = address
                .parse()
                .map_err(|_| format!("{:?} in its ips is not an address", ip.address))?;
            let index = ip.interface.and_then(|index| usize::try_from(index).ok());
            let interface = index.and_then(|index| interfaces.get(index));
            let is_nodes = interface.is_some_and(|i| i.sandbox.as_deref().unwrap_or("").is_empty());
            if !is_nodes {
                found.push(address);
            }
        }
        Ok(found)
    }
}
