//! Which names in a certificate are an identity.

use proptest::prelude::*;
use rcgen::SanType;

use super::test_ca::TestCa;
use super::{PeerError, identity_of};
use mesh::Identity;

/// What a certificate with these URI names says.
fn named(ca: &TestCa, uris: &[&str]) -> Result<Identity, PeerError> {
    identity_of(ca.leaf(uris, |_| ()).1.der())
}

#[test]
fn one_spiffe_id_is_an_identity_whatever_else_stands_beside_it() {
    let ca = TestCa::new();
    let id = "spiffe://cluster.local/ns/shop/sa/cart";
    assert_eq!(named(&ca, &[id]).unwrap().to_string(), id);
    let (_, leaf) = ca.leaf(&[id], |params| {
        params.subject_alt_names.push(SanType::DnsName("cart.shop".try_into().unwrap()));
    });
    assert_eq!(identity_of(leaf.der()).unwrap().to_string(), id);
}

#[test]
fn what_is_almost_an_identity_is_none() {
    let ca = TestCa::new();
    let id = "spiffe://cluster.local/ns/shop/sa/cart";
    let long_account = format!("spiffe://cluster.local/ns/shop/sa/{}", "a".repeat(3000));
    let counts: [&[&str]; 4] =
        [&[], &[id, id], &[id, "https://cart.shop"], &[id, "spiffe://other/ns/shop/sa/cart"]];
    for uris in counts {
        let found = named(&ca, uris);
        assert_eq!(found, Err(PeerError::UriCount(uris.len())), "{uris:?}");
    }
    for uri in [
        "https://cluster.local/ns/shop/sa/cart",
        "SPIFFE://cluster.local/ns/shop/sa/cart",
        "Spiffe://cluster.local/ns/shop/sa/cart",
        "spiffe:/cluster.local/ns/shop/sa/cart",
        "spiffe://cluster.local/NS/shop/SA/cart",
        "spiffe://cluster.local/ns/shop/sa/cart/",
        "spiffe://cluster.local/ns/shop/sa/cart//",
        "spiffe://cluster.local//ns/shop/sa/cart",
        "spiffe://cluster.local/ns//sa/cart",
        "spiffe://cluster.local/ns/shop/sa/",
        "spiffe://cluster.local/ns/shop/sa",
        "spiffe:///ns/shop/sa/cart",
        "spiffe://cluster.local",
        "spiffe://cluster.local/ns/shop/sa/cart?x=1",
        "spiffe://cluster.local/ns/shop/sa/cart#x",
        "spiffe://cluster.local/ns/shop/sa/c%61rt",
        "spiffe://cluster.local/ns/shop%2fsa/sa/cart",
        "spiffe://user@cluster.local/ns/shop/sa/cart",
        "spiffe://cluster.local:443/ns/shop/sa/cart",
        "spiffe://cluster.local/ns/shop/sa/cart ",
        " spiffe://cluster.local/ns/shop/sa/cart",
        "spiffe://cluster.local/ns/shop/sa/cart\0",
        "",
        &long_account,
    ] {
        let found = named(&ca, &[uri]);
        assert!(
            matches!(found, Err(PeerError::Identity(_) | PeerError::Malformed(_))),
            "{uri:?} is {found:?}"
        );
    }
}

#[test]
fn letters_are_not_folded() {
    let ca = TestCa::new();
    let small = named(&ca, &["spiffe://cluster.local/ns/shop/sa/cart"]).unwrap();
    for other in
        ["spiffe://cluster.local/ns/shop/sa/Cart", "spiffe://Cluster.local/ns/shop/sa/cart"]
    {
        assert_ne!(named(&ca, &[other]).ok(), Some(small.clone()), "{other}");
    }
}

#[test]
fn no_letter_outside_ascii_is_accepted() {
    for uri in ["spiffe://clüster.local/ns/shop/sa/cart", "spiffe://cluster.local/ns/shop/sa/cаrt"]
    {
        assert!(uri.parse::<Identity>().is_err(), "{uri}");
    }
}

proptest! {
    #[test]
    fn parsing_never_panics_and_what_it_accepts_is_what_was_written(text in "\\PC{0,80}") {
        if let Ok(identity) = text.parse::<Identity>() {
            prop_assert_eq!(identity.to_string(), text);
        }
    }

    #[test]
    fn near_misses_never_panic_and_round_trip(
        text in "spiffe://[a-z.%/]{0,12}/ns/[a-z0-9./-]{0,12}/sa/[a-zA-Z0-9._?#-]{0,12}"
    ) {
        if let Ok(identity) = text.parse::<Identity>() {
            prop_assert_eq!(identity.to_string(), text);
        }
    }

    #[test]
    fn no_bytes_make_reading_a_certificate_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = identity_of(&bytes.into());
    }

    #[test]
    fn no_changed_byte_makes_reading_a_certificate_panic(place in 0usize..400, byte in any::<u8>()) {
        static LEAF: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| {
            let (_, leaf) = TestCa::new().leaf(&["spiffe://cluster.local/ns/a/sa/b"], |_| ());
            leaf.der().to_vec()
        });
        let mut leaf = LEAF.clone();
        let place = place % leaf.len();
        leaf[place] = byte;
        let _ = identity_of(&leaf.into());
    }
}
