//! Names that look like a setting of ours and are none: most often a typing mistake.

use std::collections::BTreeSet;

/// Names this short are too likely to be near one of ours by chance.
const SHORTEST: usize = 8;

/// Letters that may differ.
const NEAR: usize = 2;

/// The kubelet gives every container names of this family, all alike.
const KUBELETS: &str = "KUBERNETES_";

/// What is known: settings by name, and families of settings by the beginning of theirs.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) names: BTreeSet<&'static str>,
    pub(super) families: BTreeSet<&'static str>,
}

impl Known {
    /// A warning if `name` is nearly one of ours.
    pub(super) fn suspicion(&self, name: &str) -> Option<String> {
        if name.len() < SHORTEST || name.starts_with(KUBELETS) || self.names.contains(name) {
            return None;
        }
        let meant = |what: &str| format!("{name} is no setting of ours, was {what} meant?");
        if let Some(known) = self.names.iter().find(|known| distance(name, known) <= NEAR) {
            return Some(meant(known));
        }
        if self.families.iter().any(|family| name.starts_with(family)) {
            return None;
        }
        let near = |family: &&&str| nearly_begins(name, family);
        self.families.iter().find(near).map(|family| meant(&format!("{family}...")))
    }
}

/// Does the beginning of `name` differ from the family's by a letter or two?
fn nearly_begins(name: &str, family: &str) -> bool {
    let letters = family.len();
    (letters.saturating_sub(1)..=letters + 1)
        .filter_map(|end| name.get(..end))
        // The last letter of a family's name divides it from the rest.
        .any(|start| start.ends_with('_') && distance(start, family) <= NEAR)
}

/// How many letters must change to turn one text into the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        let known = Known {
            names: ["XDS_ADDRESS", "NODE_NAME", "XDS_ROOT_CA", "KUBERNETES_SERVICE_HOST"].into(),
            families: ["XDS_HEADER_", "CA_HEADER_"].into(),
        };
        let cases = [
            ("XDS_ADRESS", Some("XDS_ADDRESS")),
            ("XDS_ADDRESSES", Some("XDS_ADDRESS")),
            ("NODENAME", Some("NODE_NAME")),
            ("XDS_HEADERS_AUTH", Some("XDS_HEADER_...")),
            ("XDS_HAEDER_AUTH", Some("XDS_HEADER_...")),
            ("XDS_HEADER_AUTH", None),
            ("XDS_ADDRESS", None),
            ("XDS_BALANCER_X", None),
            ("HOSTNAME", None),
            ("KUBERNETES_SERVICE_PORT", None),
            ("PATH", None),
            ("NODE_NAME_X_Y", None),
        ];
        for (name, expected) in cases {
            let found = known.suspicion(name);
            let expected = expected.map(|what| format!("was {what} meant?"));
            assert_eq!(found.is_some(), expected.is_some(), "{name}: {found:?}");
            assert!(found.unwrap_or_default().contains(&expected.unwrap_or_default()), "{name}");
        }
    }
}
