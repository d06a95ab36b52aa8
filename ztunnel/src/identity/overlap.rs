//! Roots that are on their way out.

use std::time::SystemTime;

use rustls::pki_types::CertificateDer;

/// More roots than any rotation has; a CA that changes them with each answer must not
/// fill our memory.
const MOST: usize = 16;

/// The roots of the CA's earlier answers. Peers may still have leaves of them, so they
/// are believed until the last leaf of our own, which came along with them, has expired:
/// by then those of our peers have too, because they are renewed alike.
#[derive(Debug, Default)]
pub(super) struct Overlap(Vec<(CertificateDer<'static>, SystemTime)>);

impl Overlap {
    /// Takes note of an answer: its roots, and the end of the leaf.
    pub(super) fn remember(&mut self, roots: &[CertificateDer<'static>], until: SystemTime) {
        for root in roots {
            match self.0.iter_mut().find(|(known, _)| known == root) {
                Some((_, end)) => *end = until.max(*end),
                None => self.0.push((root.clone(), until)),
            }
        }
        if self.0.len() > MOST {
            self.0.sort_by_key(|(_, end)| std::cmp::Reverse(*end));
            self.0.truncate(MOST);
        }
    }

    /// Those that are still believed.
    pub(super) fn roots(&mut self, now: SystemTime) -> Vec<CertificateDer<'static>> {
        self.0.retain(|(_, end)| *end > now);
        self.0.iter().map(|(root, _)| root.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_root_is_believed_as_long_as_the_last_leaf_that_came_with_it() {
        let root = |n: u8| CertificateDer::from(vec![n]);
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let mut overlap = Overlap::default();
        overlap.remember(&[root(1)], at(100));
        overlap.remember(&[root(1), root(2)], at(150));
        overlap.remember(&[root(2)], at(200));
        assert_eq!(overlap.roots(at(149)), [root(1), root(2)]);
        assert_eq!(overlap.roots(at(150)), [root(2)]);
        assert!(overlap.roots(at(200)).is_empty());
    }

    #[test]
    fn a_ca_that_always_has_new_roots_fills_no_memory() {
        let mut overlap = Overlap::default();
        for n in 0..100 {
            let end = SystemTime::UNIX_EPOCH + Duration::from_secs(1000 + u64::from(n));
            overlap.remember(&[CertificateDer::from(vec![n])], end);
        }
        let roots = overlap.roots(SystemTime::UNIX_EPOCH);
        assert_eq!(roots.len(), MOST);
        assert!(roots.contains(&CertificateDer::from(vec![99])));
    }
}
