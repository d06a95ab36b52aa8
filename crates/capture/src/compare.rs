//! What the kernel has against what it should have.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use crate::drift::{Deviation, Drift, Place};
use crate::listing::{ChainListing, Listing, RuleListing, SetListing, TableListing};

/// Compares what was observed in a pod with the reference: the listing of the same
/// ruleset, loaded by the same nft into a scratch namespace. Empty means equal.
#[must_use]
pub fn compare(reference: &Listing, observed: &Listing) -> Vec<Drift> {
    match (&reference.table, &observed.table) {
        (Some(reference), Some(observed)) => compare_tables(reference, observed),
        (Some(_), None) => vec![drift(Place::Table, Deviation::Missing)],
        (None, Some(_)) => vec![drift(Place::Table, Deviation::Unexpected)],
        (None, None) => Vec::new(),
    }
}

fn compare_tables(reference: &TableListing, observed: &TableListing) -> Vec<Drift> {
    let mut drifts = Vec::new();
    if reference.properties != observed.properties {
        let deviation = changed(&reference.properties, &observed.properties);
        drifts.push(drift(Place::Table, deviation));
    }
    for (name, reference, observed) in pairs(&reference.sets, &observed.sets) {
        compare_existence(Place::Set(name.clone()), reference, observed, &mut drifts);
        if let (Some(reference), Some(observed)) = (reference, observed) {
            compare_sets(name, reference, observed, &mut drifts);
        }
    }
    for (name, reference, observed) in pairs(&reference.chains, &observed.chains) {
        compare_existence(Place::Chain(name.clone()), reference, observed, &mut drifts);
        if let (Some(reference), Some(observed)) = (reference, observed) {
            compare_chains(name, reference, observed, &mut drifts);
        }
    }
    let others = |listing: &TableListing| listing.others.iter().cloned().collect::<BTreeSet<_>>();
    compare_members(&others(reference), &others(observed), Place::Other, &mut drifts);
    drifts
}

fn compare_sets(
    name: &str,
    reference: &SetListing,
    observed: &SetListing,
    drifts: &mut Vec<Drift>,
) {
    if reference.properties != observed.properties {
        let deviation = changed(&reference.properties, &observed.properties);
        drifts.push(drift(Place::Set(name.to_owned()), deviation));
    }
    let elements = |set: &SetListing| set.elements.iter().cloned().collect::<BTreeSet<_>>();
    let place = |element| Place::Element { set: name.to_owned(), element };
    compare_members(&elements(reference), &elements(observed), place, drifts);
}

fn compare_chains(
    name: &str,
    reference: &ChainListing,
    observed: &ChainListing,
    drifts: &mut Vec<Drift>,
) {
    if reference.properties != observed.properties {
        let deviation = changed(&reference.properties, &observed.properties);
        drifts.push(drift(Place::Chain(name.to_owned()), deviation));
    }
    let (missing, unexpected) = unmatched(&reference.rules, &observed.rules);
    drifts.extend(explain(name, missing, unexpected));
}

/// A rule that has no counterpart, with its position counted from 0.
type Unmatched<'a> = (usize, &'a RuleListing);

/// Pairs a rule that is gone with one that came: a moved one says the same elsewhere, a
/// changed one gives the same reason for something else.
fn explain<'a>(
    chain: &str,
    missing: Vec<Unmatched<'a>>,
    mut unexpected: Vec<Unmatched<'a>>,
) -> Vec<Drift> {
    let at = |(index, rule): Unmatched<'a>, deviation| {
        let (chain, comment) = (chain.to_owned(), rule.comment.clone());
        drift(Place::Rule { chain, position: index + 1, comment }, deviation)
    };
    let mut drifts = Vec::new();
    for gone in missing {
        let deviation = if take(&mut unexpected, |rule| rule == gone.1).is_some() {
            Deviation::Moved
        } else if let Some(now) = take(&mut unexpected, |rule| shares_reason(rule, gone.1)) {
            changed(&gone.1.statements, &now.statements)
        } else {
            Deviation::Missing
        };
        drifts.push(at(gone, deviation));
    }
    drifts.extend(unexpected.into_iter().map(|rule| at(rule, Deviation::Unexpected)));
    drifts
}

fn take<'a>(
    rules: &mut Vec<Unmatched<'a>>,
    wanted: impl Fn(&RuleListing) -> bool,
) -> Option<&'a RuleListing> {
    let index = rules.iter().position(|(_, rule)| wanted(rule))?;
    Some(rules.remove(index).1)
}

fn shares_reason(a: &RuleListing, b: &RuleListing) -> bool {
    a.comment.is_some() && a.comment == b.comment
}

/// What remains of both when a longest common subsequence is taken out, so that one rule
/// more or less does not make all that follow look different.
fn unmatched<'a>(
    reference: &'a [RuleListing],
    observed: &'a [RuleListing],
) -> (Vec<Unmatched<'a>>, Vec<Unmatched<'a>>) {
    let common = common_lengths(reference, observed);
    let (mut missing, mut unexpected) = (Vec::new(), Vec::new());
    let (mut i, mut j) = (0, 0);
    while i < reference.len() || j < observed.len() {
        let (both, more_in_observed) =
            (i < reference.len() && j < observed.len(), j < observed.len());
        if both && reference[i] == observed[j] {
            (i, j) = (i + 1, j + 1);
        } else if more_in_observed && (!both || common[i][j + 1] >= common[i + 1][j]) {
            unexpected.push((j, &observed[j]));
            j += 1;
        } else {
            missing.push((i, &reference[i]));
            i += 1;
        }
    }
    (missing, unexpected)
}

/// `lengths[i][j]`: how long the longest common subsequence of `a[i..]` and `b[j..]` is.
fn common_lengths(a: &[RuleListing], b: &[RuleListing]) -> Vec<Vec<usize>> {
    let mut lengths = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            lengths[i][j] = if a[i] == b[j] {
                lengths[i + 1][j + 1] + 1
            } else {
                lengths[i + 1][j].max(lengths[i][j + 1])
            };
        }
    }
    lengths
}

/// All names of both maps, each with what either has.
fn pairs<'a, T>(
    reference: &'a BTreeMap<String, T>,
    observed: &'a BTreeMap<String, T>,
) -> impl Iterator<Item = (&'a String, Option<&'a T>, Option<&'a T>)> {
    let names: BTreeSet<&String> = reference.keys().chain(observed.keys()).collect();
    names.into_iter().map(|name| (name, reference.get(name), observed.get(name)))
}

fn compare_existence<T>(
    place: Place,
    reference: Option<&T>,
    observed: Option<&T>,
    drifts: &mut Vec<Drift>,
) {
    match (reference, observed) {
        (Some(_), None) => drifts.push(drift(place, Deviation::Missing)),
        (None, Some(_)) => drifts.push(drift(place, Deviation::Unexpected)),
        _ => {}
    }
}

fn compare_members(
    reference: &BTreeSet<String>,
    observed: &BTreeSet<String>,
    place: impl Fn(String) -> Place,
    drifts: &mut Vec<Drift>,
) {
    let missing =
        reference.difference(observed).map(|m| drift(place(m.clone()), Deviation::Missing));
    let surplus =
        observed.difference(reference).map(|m| drift(place(m.clone()), Deviation::Unexpected));
    drifts.extend(missing.chain(surplus));
}

fn changed(expected: &impl Display, found: &impl Display) -> Deviation {
    Deviation::Changed { expected: expected.to_string(), found: found.to_string() }
}

fn drift(place: Place, deviation: Deviation) -> Drift {
    Drift { place, deviation }
}

#[cfg(test)]
mod tests;
