//! Whether pods that start now are started with our plugin, as the folder shows.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use super::list::{List, Shape};
use super::plan::{Found, View};

/// What the installer has seen last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Stands {
    /// Nobody looks: the configuration is not our business.
    #[default]
    Unwatched,
    /// Not, or not yet: why.
    Not(String),
    /// It does, for pods of all namespaces but these.
    InPlace {
        /// They start without us.
        excluded: BTreeSet<String>,
    },
}

/// What the installer has seen last, for everybody who wants to know.
#[derive(Clone, Debug, Default)]
pub struct Standing(Arc<Mutex<Stands>>);

impl Standing {
    /// As it was seen last.
    #[must_use]
    pub fn seen(&self) -> Stands {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// As it is seen now.
    pub fn see(&self, stands: Stands) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = stands;
    }
}

/// PURE. What a runtime would find: the first file counts.
pub(super) fn stands(view: &View) -> Stands {
    let Some((name, found)) = view.files.first_key_value() else {
        return Stands::Not("there is no network configuration".into());
    };
    let without = || Stands::Not(format!("network configuration {name} is without our plugin"));
    let (Found::Text(text), Some(shape)) = (found, Shape::of(name)) else { return without() };
    let Ok(list) = List::parse(shape, text) else { return without() };
    // Multus calls a list of the folder, or has a copy of it.
    let called = list.delegates_to().filter(|_| !list.has_ours());
    if let Some(called) = called {
        return match view.files.get(&called) {
            Some(Found::Text(text)) if Shape::of(&called) == Some(Shape::List) => {
                List::parse(Shape::List, text).ok().and_then(|it| in_place(&it))
            }
            _ => None,
        }
        .unwrap_or_else(without);
    }
    in_place(&list).unwrap_or_else(without)
}

fn in_place(list: &List<'_>) -> Option<Stands> {
    let excluded = list.excluded()?;
    Some(Stands::InPlace { excluded })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = r#"{"name":"n","plugins":[{"type":"a"},{"type":"sluice-cni","excludeNamespaces":["kube-system","x"]}]}"#;
    const THEIRS: &str = r#"{"name":"n","plugins":[{"type":"a"}]}"#;

    fn seen(files: &[(&str, &str)]) -> Stands {
        let file =
            |(name, text): &(&str, &str)| ((*name).to_owned(), Found::Text((*text).to_owned()));
        stands(&View { files: files.iter().map(file).collect(), others: BTreeSet::new() })
    }

    #[test]
    fn the_first_file_counts_with_what_its_entry_excludes() {
        let excluded = || ["kube-system".to_owned(), "x".to_owned()].into();
        let in_place = || Stands::InPlace { excluded: excluded() };
        assert_eq!(seen(&[("00-sluice.conflist", OURS), ("10-a.conflist", THEIRS)]), in_place());
        for files in [
            &[][..],
            &[("00-a.conflist", THEIRS), ("00-sluice.conflist", OURS)],
            &[("00-a.conflist", "{"), ("00-sluice.conflist", OURS)],
            &[("00-a.conf", r#"{"name":"n","type":"sluice-cni"}"#)],
        ] {
            assert!(matches!(seen(files), Stands::Not(_)), "{files:?}");
        }
        let multus =
            r#"{"name":"m","type":"multus-shim","clusterNetwork":"/host/x/00-sluice.conflist"}"#;
        assert_eq!(seen(&[("00-multus.conf", multus), ("00-sluice.conflist", OURS)]), in_place());
        let other = multus.replace("00-sluice", "10-a");
        let files = [("00-multus.conf", other.as_str()), ("10-a.conflist", THEIRS)];
        assert!(matches!(seen(&files), Stands::Not(_)));
        let nested = format!(r#"{{"name":"m","type":"multus","delegates":[{OURS}]}}"#);
        assert_eq!(seen(&[("00-multus.conf", &nested)]), in_place());
    }
}
