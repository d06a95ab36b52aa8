//! What nft says is in the kernel, without what differs between two equal tables.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::TABLE;

/// Our table as `nft -j list table inet sluice` shows it; tables of others in the same
/// output are ignored. The default is a namespace without our table, for which nft has
/// an error instead of a listing.
///
/// nft rewrites rules on their way through the kernel, so a listing is only ever compared
/// with a listing of the same program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    pub(crate) table: Option<TableListing>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TableListing {
    /// Flags, where somebody set any: `dormant` switches all of the table off. (nft 1.0.6
    /// prints the flag's name wrong, but prints one.)
    pub(crate) properties: Value,
    pub(crate) chains: BTreeMap<String, ChainListing>,
    pub(crate) sets: BTreeMap<String, SetListing>,
    /// Objects of kinds that we never make, as "kind name".
    pub(crate) others: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ChainListing {
    /// Type, hook, priority and policy.
    pub(crate) properties: Value,
    pub(crate) rules: Vec<RuleListing>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RuleListing {
    pub(crate) comment: Option<String>,
    pub(crate) statements: Value,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SetListing {
    /// Type and flags.
    pub(crate) properties: Value,
    /// Sorted: the kernel keeps hash sets in an order of its own.
    pub(crate) elements: Vec<String>,
}

/// Why some text is no listing.
#[derive(Debug, thiserror::Error)]
pub enum ListingError {
    /// It is no JSON: the output was cut off, or nft printed an error instead.
    #[error("nft listing is no JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// It is JSON of another shape.
    #[error("nft listing has no usable {0}: is this the output of `nft -j list`?")]
    Shape(&'static str),
}

impl Listing {
    /// Reads what `nft -j list table inet sluice` or `nft -j list ruleset` printed.
    ///
    /// # Errors
    /// Any [`ListingError`].
    pub fn parse(json: &str) -> Result<Self, ListingError> {
        Self::of_table(json, "inet", TABLE)
    }

    /// The same about another table.
    pub(crate) fn of_table(json: &str, family: &str, name: &str) -> Result<Self, ListingError> {
        let mut document: Value = serde_json::from_str(json)?;
        let Some(Value::Array(objects)) = document.get_mut("nftables").map(Value::take) else {
            return Err(ListingError::Shape("nftables array"));
        };
        let mut listing = Self::default();
        for object in objects {
            listing.add(object, family, name)?;
        }
        Ok(listing)
    }

    fn add(&mut self, object: Value, family: &str, table: &str) -> Result<(), ListingError> {
        let Value::Object(object) = object else {
            return Err(ListingError::Shape("object"));
        };
        for (kind, body) in object {
            let Value::Object(body) = body else {
                return Err(ListingError::Shape("body"));
            };
            if kind == "metainfo" || !belongs(&kind, &body, family, table) {
                continue;
            }
            let table = self.table.get_or_insert_default();
            match kind.as_str() {
                "table" => table.properties = properties(body),
                "chain" => {
                    let name = text(&body, "name")?;
                    table.chain(name).properties = properties(body);
                }
                "rule" => {
                    let name = text(&body, "chain")?;
                    table.chain(name).rules.push(RuleListing::new(body)?);
                }
                "set" => {
                    let name = text(&body, "name")?;
                    table.sets.insert(name, SetListing::new(body));
                }
                _ => table.others.push(format!("{kind} {}", text(&body, "name")?)),
            }
        }
        Ok(())
    }
}

impl TableListing {
    fn chain(&mut self, name: String) -> &mut ChainListing {
        self.chains.entry(name).or_default()
    }
}

impl RuleListing {
    fn new(mut rule: Map<String, Value>) -> Result<Self, ListingError> {
        let comment = rule.get("comment").and_then(Value::as_str).map(str::to_owned);
        let statements = rule.remove("expr").ok_or(ListingError::Shape("rule expression"))?;
        Ok(Self { comment, statements: normal(statements) })
    }
}

impl SetListing {
    fn new(mut set: Map<String, Value>) -> Self {
        let elements = match set.remove("elem") {
            Some(Value::Array(elements)) => elements,
            _ => Vec::new(),
        };
        let mut elements: Vec<_> = elements.into_iter().map(|e| normal(e).to_string()).collect();
        elements.sort();
        Self { properties: properties(set), elements }
    }
}

fn belongs(kind: &str, body: &Map<String, Value>, family: &str, table: &str) -> bool {
    let name = if kind == "table" { "name" } else { "table" };
    let is = |key, value| body.get(key).and_then(Value::as_str) == Some(value);
    is("family", family) && is(name, table)
}

/// What is left of an object without its place.
fn properties(mut object: Map<String, Value>) -> Value {
    for key in ["handle", "family", "table", "name"] {
        object.remove(key);
    }
    normal(Value::Object(object))
}

fn text(body: &Map<String, Value>, key: &'static str) -> Result<String, ListingError> {
    body.get(key).and_then(Value::as_str).map(str::to_owned).ok_or(ListingError::Shape(key))
}

/// Drops what counts packets and sorts what has no order.
fn normal(value: Value) -> Value {
    match value {
        Value::Array(items) => items.into_iter().map(normal).collect(),
        Value::Object(entries) => entries
            .into_iter()
            .map(|(key, value)| {
                let value = match key.as_str() {
                    "counter" if value.is_object() => Value::Null,
                    "set" | "flags" => sorted(normal(value)),
                    _ => normal(value),
                };
                (key, value)
            })
            .collect::<Map<_, _>>()
            .into(),
        plain => plain,
    }
}

fn sorted(value: Value) -> Value {
    match value {
        Value::Array(mut items) => {
            items.sort_by_cached_key(Value::to_string);
            Value::Array(items)
        }
        other => other,
    }
}
