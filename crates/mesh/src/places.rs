//! Who is at an address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;
use prefix_trie::PrefixMap;

use crate::index::{Hashing, Index};
use crate::workload::Network;

/// Something at addresses, or at whole ranges of them.
pub(crate) trait Placed {
    /// Where it is; an address alone is a range of one.
    fn places(&self) -> impl Iterator<Item = (&Network, IpNetwork)>;
}

/// Both families in one space: what is found there is compared before it is believed.
type Ranges<T> = PrefixMap<(u128, u8), Vec<Arc<T>>>;

/// Finds what is at an address. A clone is cheap.
#[derive(Debug)]
pub(crate) struct Places<T> {
    hashing: Hashing,
    exact: Index<T>,
    /// There are few; a change of one copies all.
    ranges: Arc<HashMap<Network, Ranges<T>>>,
}

impl<T: Placed> Places<T> {
    pub(crate) fn insert(&mut self, value: &Arc<T>) {
        for (network, net) in value.places() {
            if let Some(ip) = single(net) {
                self.exact.claim(self.hash(network, ip), value);
            } else {
                let ranges = Arc::make_mut(&mut self.ranges);
                let trie = ranges.entry(Arc::clone(network)).or_default();
                trie.entry(bits(net)).or_default().push(Arc::clone(value));
            }
        }
    }

    pub(crate) fn remove(&mut self, value: &Arc<T>) {
        for (network, net) in value.places() {
            if let Some(ip) = single(net) {
                self.exact.release(self.hash(network, ip), value);
            } else {
                self.remove_range(network, net, value);
            }
        }
    }

    /// Those that name this very address, the last told of first.
    pub(crate) fn exactly_at(&self, network: &str, ip: IpAddr) -> impl Iterator<Item = &Arc<T>> {
        let ip = ip.to_canonical();
        let meant = move |value: &&Arc<T>| {
            value.places().any(|(of, net)| of[..] == *network && single(net) == Some(ip))
        };
        self.exact.claimants(self.hash(network, ip)).filter(meant)
    }

    /// Those that name a range with this address in it, with the length of its prefix.
    pub(crate) fn around(&self, network: &str, ip: IpAddr) -> impl Iterator<Item = (u8, &Arc<T>)> {
        let ip = ip.to_canonical();
        let key = bits(IpNetwork::from(ip));
        let found = self.ranges.get(network).into_iter().flat_map(move |it| it.cover_values(&key));
        found.flatten().filter_map(move |value| {
            let own = value.places().filter(|(of, net)| of[..] == *network && net.contains(ip));
            Some((own.map(|(_, net)| net.prefix()).max()?, value))
        })
    }

    fn remove_range(&mut self, network: &str, net: IpNetwork, value: &Arc<T>) {
        let ranges = Arc::make_mut(&mut self.ranges);
        let Some(trie) = ranges.get_mut(network) else {
            return;
        };
        let Some(values) = trie.get_mut(&bits(net)) else {
            return;
        };
        values.retain(|it| !Arc::ptr_eq(it, value));
        if values.is_empty() {
            trie.remove(&bits(net));
        }
        if trie.is_empty() {
            ranges.remove(network);
        }
    }

    fn hash(&self, network: &str, ip: IpAddr) -> u64 {
        self.hashing.of((network, ip))
    }
}

/// The address of a range of one.
fn single(net: IpNetwork) -> Option<IpAddr> {
    let whole = if net.is_ipv4() { 32 } else { 128 };
    (net.prefix() == whole).then(|| net.ip())
}

fn bits(net: IpNetwork) -> (u128, u8) {
    match net {
        IpNetwork::V4(v4) => (v4.ip().to_ipv6_mapped().to_bits(), v4.prefix() + 96),
        IpNetwork::V6(v6) => (v6.ip().to_bits(), v6.prefix()),
    }
}

impl<T> Default for Places<T> {
    fn default() -> Self {
        Self { hashing: Hashing::default(), exact: Index::default(), ranges: Arc::default() }
    }
}

impl<T> Clone for Places<T> {
    fn clone(&self) -> Self {
        Self {
            hashing: self.hashing.clone(),
            exact: self.exact.clone(),
            ranges: Arc::clone(&self.ranges),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct At(Network, &'static [&'static str]);

    impl Placed for At {
        fn places(&self) -> impl Iterator<Item = (&Network, IpNetwork)> {
            self.1.iter().map(|net| (&self.0, net.parse().unwrap()))
        }
    }

    fn around(places: &Places<At>, network: &str, ip: &str) -> Vec<u8> {
        places.around(network, ip.parse().unwrap()).map(|(length, _)| length).collect()
    }

    #[test]
    fn an_address_and_a_range_are_told_apart_and_families_too() {
        let mut places = Places::default();
        let values = [
            At("".into(), &["10.0.0.1", "10.0.0.0/8", "10.0.0.0/24"]),
            At("".into(), &["::/0", "fd00::/8"]),
            At("other".into(), &["10.0.0.1", "10.0.0.0/8"]),
        ]
        .map(Arc::new);
        values.iter().for_each(|value| places.insert(value));
        let exact = |ip: &str| places.exactly_at("", ip.parse().unwrap()).count();
        assert_eq!([exact("10.0.0.1"), exact("::ffff:10.0.0.1"), exact("10.0.0.2")], [1, 1, 0]);
        assert_eq!(around(&places, "", "10.0.0.9"), [24, 24], "found under both of its ranges");
        assert_eq!(around(&places, "", "10.9.0.9"), [8]);
        assert_eq!(around(&places, "other", "10.0.0.9"), [8]);
        assert_eq!(around(&places, "", "192.0.2.1"), [0; 0], "::/0 is not of its family");
        assert_eq!(around(&places, "", "2001:db8::1"), [0]);
        let before = places.clone();
        values.iter().for_each(|value| places.remove(value));
        assert!(places.ranges.is_empty());
        assert_eq!(places.exactly_at("", "10.0.0.1".parse().unwrap()).count(), 0);
        assert_eq!(around(&before, "", "10.9.0.9"), [8], "a clone is not changed");
    }
}
