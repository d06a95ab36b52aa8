//! The addresses of one workload.

use std::net::IpAddr;
use std::ops::Deref;

/// Addresses in the order in which they were told; one or two, which is what pods have,
/// cost no allocation.
#[derive(Clone)]
pub struct Addresses(Kept);

#[derive(Clone)]
enum Kept {
    One([IpAddr; 1]),
    Two([IpAddr; 2]),
    /// Another number of them; none is no allocation either.
    Other(Box<[IpAddr]>),
}

impl Deref for Addresses {
    type Target = [IpAddr];

    fn deref(&self) -> &[IpAddr] {
        match &self.0 {
            Kept::One(one) => one,
            Kept::Two(two) => two,
            Kept::Other(other) => other,
        }
    }
}

impl FromIterator<IpAddr> for Addresses {
    fn from_iter<I: IntoIterator<Item = IpAddr>>(addresses: I) -> Self {
        let mut rest = addresses.into_iter();
        Self(match (rest.next(), rest.next(), rest.next()) {
            (Some(one), None, _) => Kept::One([one]),
            (Some(one), Some(two), None) => Kept::Two([one, two]),
            (first, second, third) => {
                let known = [first, second, third].into_iter().flatten();
                Kept::Other(known.chain(rest).collect())
            }
        })
    }
}

impl Default for Addresses {
    fn default() -> Self {
        Self(Kept::Other(Box::default()))
    }
}

impl PartialEq for Addresses {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Addresses {}

impl std::fmt::Debug for Addresses {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a> IntoIterator for &'a Addresses {
    type Item = &'a IpAddr;
    type IntoIter = std::slice::Iter<'a, IpAddr>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_of_addresses_comes_out_as_it_went_in() {
        for count in 0..6_u8 {
            let given: Vec<_> = (0..count).map(|last| IpAddr::from([10, 0, 0, last])).collect();
            let kept: Addresses = given.iter().copied().collect();
            assert_eq!(*kept, *given);
        }
        assert!(Addresses::default().is_empty());
        assert!(size_of::<Addresses>() <= 40);
    }
}
