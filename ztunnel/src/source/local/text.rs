//! Texts that stand for messages. An error names the key that holds the text.

use std::net::IpAddr;

use mesh::proto::workload::{GatewayAddress, NamespacedHostname, NetworkAddress, gateway_address};
use serde::Deserialize;

/// Where traffic goes first.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Gateway {
    /// `network/ip` or `namespace/hostname`.
    destination: String,
    #[serde(default)]
    hbone_mtls_port: u16,
}

impl Gateway {
    pub(super) fn message(&self, key: &str) -> Result<GatewayAddress, String> {
        let wrong = || {
            format!(
                "{key}.destination: {:?} is neither network/ip nor namespace/hostname",
                self.destination
            )
        };
        let (scope, place) = self.destination.split_once('/').ok_or_else(wrong)?;
        let destination = match place.parse::<IpAddr>() {
            Ok(ip) => gateway_address::Destination::Address(address(scope, ip, None)),
            Err(_) if scope.is_empty() || place.is_empty() || place.contains('/') => {
                return Err(wrong());
            }
            Err(_) => gateway_address::Destination::Hostname(NamespacedHostname {
                namespace: scope.to_owned(),
                hostname: place.to_owned(),
            }),
        };
        let hbone_mtls_port = self.hbone_mtls_port.into();
        Ok(GatewayAddress { destination: Some(destination), hbone_mtls_port })
    }
}

/// Reads `network/ip` or `network/ip/prefix-length`; the network may be empty.
pub(super) fn place(key: &str, text: &str) -> Result<NetworkAddress, String> {
    let wrong = || format!("{key}: {text:?} is not network/ip or network/ip/length");
    let (network, rest) = text.split_once('/').ok_or_else(wrong)?;
    let (ip, length) = match rest.split_once('/') {
        Some((ip, length)) => (ip, Some(length.parse::<u32>().map_err(|_| wrong())?)),
        None => (rest, None),
    };
    Ok(address(network, ip.parse().map_err(|_| wrong())?, length))
}

/// Reads `ip` or `ip/prefix-length`: the bytes and the length.
pub(super) fn range(key: &str, text: &str) -> Result<(Vec<u8>, u32), String> {
    let wrong = || format!("{key}: {text:?} is not ip or ip/length");
    let (ip, length) = match text.split_once('/') {
        Some((ip, length)) => (ip, Some(length.parse::<u32>().map_err(|_| wrong())?)),
        None => (text, None),
    };
    let ip: IpAddr = ip.parse().map_err(|_| wrong())?;
    let whole = if ip.is_ipv4() { 32 } else { 128 };
    Ok((octets(ip), length.unwrap_or(whole)))
}

pub(super) fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn address(network: &str, ip: IpAddr, length: Option<u32>) -> NetworkAddress {
    NetworkAddress { network: network.to_owned(), address: octets(ip), length }
}
