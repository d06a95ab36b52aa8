//! What must hold at every moment, and what when everything is at rest.

use std::collections::BTreeSet;

use super::{Rules, World};
use crate::enrollment::{Enrollment, Reason, Wishes, enrollment};
use crate::facts::{Annotations, PodUid};
use crate::reconcile::captured_annotations;

impl World {
    /// At every moment.
    pub(super) fn check(&self) -> Result<(), String> {
        if let Some(wrong) = &self.wrong {
            return Err(wrong.clone());
        }
        let served = self.ztunnel.iter().flatten();
        let mut owned = BTreeSet::new();
        for (uid, container) in served {
            if !owned.insert(container) {
                return Err(format!("{container} has two owners"));
            }
            if self.sandboxes.get(container).is_some_and(|sandbox| sandbox.uid != *uid) {
                return Err(format!("{container} is served as {}, which it is not", uid.0));
            }
        }
        Ok(())
    }

    /// At rest.
    pub(super) fn check_at_rest(&self) -> Result<(), String> {
        for (uid, sandbox) in &self.sandboxes {
            let newest = self.sandbox_of(&sandbox.uid) == Some(uid);
            if newest && self.pods.contains_key(&sandbox.uid) {
                self.check_pod(&sandbox.uid)?;
            }
        }
        let served = self.ztunnel.iter().flatten();
        for (uid, container) in served {
            if !self.pods.contains_key(uid) {
                return Err(format!("{} is served and is no more", uid.0));
            }
            if !self.sandboxes.contains_key(container) && self.sandbox_of(uid).is_some() {
                return Err(format!("{} is served in its last sandbox", uid.0));
            }
        }
        Ok(())
    }

    /// What the disk would not forget, the next agent has it forget.
    pub(super) fn check_records(&self) -> Result<(), String> {
        let lost = self.records.keys().find(|uid| !self.pods.contains_key(*uid));
        lost.map_or(Ok(()), |uid| Err(format!("{} is still on record", uid.0)))
    }

    fn check_pod(&self, uid: &PodUid) -> Result<(), String> {
        let facts = &self.pods[uid];
        let container = self.sandbox_of(uid).cloned().unwrap_or_default();
        let rules = &self.sandboxes[&container].rules;
        let served = self.ztunnel.as_ref().and_then(|served| served.get(uid));
        let (wishes, _) = Wishes::default().hear(&facts.options);
        let wanted = enrollment(facts, &wishes, Some(&self.namespace), &self.settings);
        let wrong = match wanted {
            // A pod that is being deleted stays as it is.
            Enrollment::Skip(Reason::Terminating) => None,
            _ if facts.terminating => None,
            Enrollment::Capture(options) => [
                (*rules != Rules::Capture(options), "has not its rules"),
                (served != Some(&container), "is not served"),
                (facts.annotations != captured_annotations(), "does not say that it is captured"),
            ]
            .into_iter()
            .find(|(wrong, _)| *wrong),
            Enrollment::Skip(_) => [
                (*rules != Rules::None, "has rules"),
                (served.is_some(), "is served"),
                (facts.annotations != Annotations::default(), "says that it is captured"),
            ]
            .into_iter()
            .find(|(wrong, _)| *wrong),
        };
        wrong.map_or(Ok(()), |(_, what)| Err(format!("{} {what} at rest", uid.0)))
    }
}
