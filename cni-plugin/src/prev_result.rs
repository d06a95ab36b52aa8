//! prevResult: what the plugins before this one made. Pure.

use std::net::IpAddr;

use serde::Deserialize;
use serde_json::value::RawValue;

/// The result of the plugins before this one.
#[derive(Debug)]
pub struct PrevResult {
    /// Exactly as it was received.
    pub raw: Box<RawValue>,
    /// The addresses in it that are the container's.
    pub ips: Vec<IpAddr>,
}

impl PrevResult {
    /// Takes over what was received and finds the addresses in it.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn read(raw: Box<RawValue>) -> Result<Self, String> {
        // A JSON list would do for serde, one value per field.
        if !raw.get().starts_with('{') {
            return Err("not an object".to_owned());
        }
        let view: ResultView =
            serde_json::from_str(raw.get()).map_err(|error| error.to_string())?;
        Ok(Self { ips: view.container_ips()?, raw })
    }
}

/// The part of a result that we read. It is the same in all supported versions.
#[derive(Deserialize)]
struct ResultView {
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
