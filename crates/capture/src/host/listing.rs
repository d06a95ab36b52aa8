//! What nft says is on the host.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use serde_json::{Value, json};

use super::{Exemption, HOST_TABLE, PROBE4, PROBE6};
use crate::compare::compare;
use crate::drift::{Drift, Place};
use crate::listing::{Listing, ListingError};

/// Our two tables as `nft -j list table inet sluice_host`, and the same of `bridge`, show
/// them. The default is a host without them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostListing {
    inet: Listing,
    bridge: Listing,
}

/// One difference between the host and what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostDrift {
    family: &'static str,
    drift: Drift,
}

impl fmt::Display for HostDrift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.drift.place {
            Place::Table => {
                write!(f, "{} table {HOST_TABLE} {}", self.family, self.drift.deviation)
            }
            _ => write!(f, "{} {}", self.family, self.drift),
        }
    }
}

impl HostListing {
    /// Reads what nft printed about either table; `None` where it has no such table.
    ///
    /// # Errors
    /// Any [`ListingError`].
    pub fn parse(inet: Option<&str>, bridge: Option<&str>) -> Result<Self, ListingError> {
        let read = |family, json: Option<&str>| match json {
            Some(json) => Listing::of_table(json, family, HOST_TABLE),
            None => Ok(Listing::default()),
        };
        Ok(Self { inet: read("inet", inet)?, bridge: read("bridge", bridge)? })
    }

    /// What is exempt on this host. Elements that nobody of ours writes are left out.
    #[must_use]
    pub fn exemptions(&self) -> BTreeSet<Exemption> {
        let sets = self.inet.table.iter().flat_map(|table| &table.sets);
        let ours = sets.filter(|(name, _)| [PROBE4, PROBE6].contains(&name.as_str()));
        ours.flat_map(|(_, set)| &set.elements).filter_map(|text| parse_element(text)).collect()
    }

    /// The same rules with other exemptions: a reference made of the listing of an empty
    /// scratch namespace.
    #[must_use]
    pub fn with(mut self, exemptions: &BTreeSet<Exemption>) -> Self {
        if let Some(table) = self.inet.table.as_mut() {
            for (name, is_v4) in [(PROBE4, true), (PROBE6, false)] {
                let ours = exemptions.iter().filter(|(addr, _)| addr.is_ipv4() == is_v4);
                let mut elements: Vec<_> = ours.map(element).collect();
                elements.sort();
                table.sets.entry(name.to_owned()).or_default().elements = elements;
            }
        }
        self
    }

    /// How `observed` differs from this reference; empty means equal.
    #[must_use]
    pub fn differences(&self, observed: &Self) -> Vec<HostDrift> {
        let of = |family, reference, observed| {
            compare(reference, observed).into_iter().map(move |drift| HostDrift { family, drift })
        };
        of("inet", &self.inet, &observed.inet)
            .chain(of("bridge", &self.bridge, &observed.bridge))
            .collect()
    }
}

/// As the normalised listing has it.
fn element((addr, port): &Exemption) -> String {
    json!({ "concat": [addr.to_string(), port] }).to_string()
}

fn parse_element(text: &str) -> Option<Exemption> {
    let element: Value = serde_json::from_str(text).ok()?;
    let [addr, port] = element.get("concat")?.as_array()?.as_slice() else {
        return None;
    };
    let addr: IpAddr = addr.as_str()?.parse().ok()?;
    Some((addr, port.as_u64()?.try_into().ok()?))
}
