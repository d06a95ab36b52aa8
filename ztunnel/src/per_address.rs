//! So many of something for each address, so that one neighbour cannot take all.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts what each address has.
#[derive(Debug)]
pub(crate) struct PerAddress {
    most: usize,
    /// Only addresses that have something are in here.
    counts: Mutex<HashMap<IpAddr, usize>>,
}

/// One of the things that an address has, until it is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    of: Arc<PerAddress>,
    ip: IpAddr,
}

impl PerAddress {
    /// At most `most` for each address.
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, counts: Mutex::default() })
    }

    /// One more for `ip`, unless it has all it may have.
    pub(crate) fn take(self: &Arc<Self>, ip: IpAddr) -> Option<Share> {
        let mut counts = self.counts();
        if counts.get(&ip).copied().unwrap_or_default() >= self.most {
            return None;
        }
        *counts.entry(ip).or_default() += 1;
        Some(Share { of: Arc::clone(self), ip })
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if let Entry::Occupied(mut count) = self.of.counts().entry(self.ip) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_its_own_number_and_none_is_remembered() {
        let shares = PerAddress::new(2);
        let [greedy, modest] = ["10.0.0.1", "fd00::1"].map(|ip| ip.parse().unwrap());
        let first = shares.take(greedy).unwrap();
        let second = shares.take(greedy).unwrap();
        assert!(shares.take(greedy).is_none());
        let third = shares.take(modest).unwrap();
        drop(first);
        let again = shares.take(greedy).unwrap();
        drop((second, third, again));
        assert!(shares.counts().is_empty());
    }
}
