//! Certificate requests. Nothing of a request gets into the certificate but the public
//! key; the rest is only checked.

use mesh::Identity;
use rcgen::{PKCS_ECDSA_P256_SHA256, PublicKeyData, SubjectPublicKeyInfo};
use rustls::pki_types::CertificateSigningRequestDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

/// What is wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CsrProblem {
    #[error("it is not one PEM block CERTIFICATE REQUEST")]
    Pem,
    #[error("it is no PKCS#10 request")]
    Form,
    #[error("its signature is not that of its own key")]
    Signature,
    #[error("its key is not ECDSA P-256, the only kind that is signed")]
    Key,
    #[error("it must carry exactly one subject alternative name, not {0}")]
    Names(usize),
    #[error("its subject alternative name is not the URI {asked}")]
    Other { asked: Identity },
}

/// Checks a request and gives its public key.
pub(super) fn check(pem: &str, asked: &Identity) -> Result<SubjectPublicKeyInfo, CsrProblem> {
    let der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes())
        .map_err(|_| CsrProblem::Pem)?;
    let (rest, request) = X509CertificationRequest::from_der(&der).map_err(|_| CsrProblem::Form)?;
    if !rest.is_empty() {
        return Err(CsrProblem::Form);
    }
    // Before the signature, because a key of another kind need not be verified.
    let raw_key = request.certification_request_info.subject_pki.raw;
    let key = SubjectPublicKeyInfo::from_der(raw_key).map_err(|_| CsrProblem::Key)?;
    if key.algorithm() != &PKCS_ECDSA_P256_SHA256 {
        return Err(CsrProblem::Key);
    }
    request.verify_signature().map_err(|_| CsrProblem::Signature)?;
    check_names(&request, asked)?;
    Ok(key)
}

/// Exactly one name over all extensions, and it is the URI that was asked for, letter by
/// letter.
fn check_names(request: &X509CertificationRequest<'_>, asked: &Identity) -> Result<(), CsrProblem> {
    let names: Vec<_> = request
        .requested_extensions()
        .into_iter()
        .flatten()
        .filter_map(|extension| match extension {
            ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
            _ => None,
        })
        .flatten()
        .collect();
    match names[..] {
        [GeneralName::URI(uri)] if *uri == asked.to_string() => Ok(()),
        [_] => Err(CsrProblem::Other { asked: asked.clone() }),
        _ => Err(CsrProblem::Names(names.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{
        CertificateParams, KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256, SanType,
        SignatureAlgorithm,
    };

    const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";

    fn asked() -> Identity {
        CART.parse().unwrap()
    }

    fn uri(text: &str) -> SanType {
        SanType::URI(text.try_into().unwrap())
    }

    fn dns(text: &str) -> SanType {
        SanType::DnsName(text.try_into().unwrap())
    }

    fn request(names: Vec<SanType>, algorithm: &'static SignatureAlgorithm) -> (String, KeyPair) {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        (params.serialize_request(&key).unwrap().pem().unwrap(), key)
    }

    fn outcome(names: Vec<SanType>, algorithm: &'static SignatureAlgorithm) -> Option<CsrProblem> {
        check(&request(names, algorithm).0, &asked()).err()
    }

    #[test]
    fn a_good_request_gives_its_key() {
        let (pem, key) = request(vec![uri(CART)], &PKCS_ECDSA_P256_SHA256);
        let public = check(&pem, &asked()).unwrap();
        assert_eq!(public.der_bytes(), key.der_bytes());
    }

    #[test]
    fn the_name_must_be_the_one_asked_for_and_alone() {
        let other = || CsrProblem::Other { asked: asked() };
        for (names, expected) in [
            (vec![], CsrProblem::Names(0)),
            (vec![uri("spiffe://cluster.local/ns/shop/sa/web")], other()),
            (vec![uri("spiffe://cluster.local/ns/shop/sa/cart/")], other()),
            (vec![uri("SPIFFE://cluster.local/ns/shop/sa/cart")], other()),
            (vec![dns("cart.shop")], other()),
            (vec![uri(CART), uri(CART)], CsrProblem::Names(2)),
            (vec![uri(CART), uri("spiffe://cluster.local/ns/shop/sa/web")], CsrProblem::Names(2)),
            (vec![uri(CART), dns("cart.shop")], CsrProblem::Names(2)),
        ] {
            assert_eq!(outcome(names, &PKCS_ECDSA_P256_SHA256), Some(expected));
        }
    }

    #[test]
    fn only_p256_keys_are_signed() {
        for algorithm in [&PKCS_ECDSA_P384_SHA384, &PKCS_ED25519, &PKCS_RSA_SHA256] {
            assert_eq!(outcome(vec![uri(CART)], algorithm), Some(CsrProblem::Key));
        }
    }

    #[test]
    fn a_request_that_was_changed_is_refused() {
        let (pem, _) = request(vec![uri(CART)], &PKCS_ECDSA_P256_SHA256);
        let der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes()).unwrap();
        let mut changed = der.to_vec();
        let place = changed.windows(4).position(|window| window == b"cart").unwrap();
        changed[place..place + 4].copy_from_slice(b"root");
        let identity = "spiffe://cluster.local/ns/shop/sa/root".parse().unwrap();
        assert_eq!(check(&armoured(&changed), &identity).err(), Some(CsrProblem::Signature));
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let (pem, _) = request(vec![uri(CART)], &PKCS_ECDSA_P256_SHA256);
        let der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes()).unwrap();
        let longer = [&*der, &[0]].concat();
        let shorter = &der[..der.len() - 1];
        for (text, expected) in [
            (String::new(), CsrProblem::Pem),
            ("nonsense".into(), CsrProblem::Pem),
            (pem.replace("CERTIFICATE REQUEST", "CERTIFICATE"), CsrProblem::Pem),
            (armoured(&longer), CsrProblem::Form),
            (armoured(shorter), CsrProblem::Form),
            (armoured(&[]), CsrProblem::Form),
        ] {
            assert_eq!(check(&text, &asked()).err(), Some(expected), "{text}");
        }
    }

    fn armoured(der: &[u8]) -> String {
        use base64::Engine;
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        format!("-----BEGIN CERTIFICATE REQUEST-----\n{text}\n-----END CERTIFICATE REQUEST-----\n")
    }
}
