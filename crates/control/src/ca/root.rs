//! The root and what it signs. Pure but for randomness: time comes in as an argument.

use std::net::IpAddr;

use mesh::Identity;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use time::{Duration, OffsetDateTime};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Longest life of what is signed.
pub(crate) const MAX_LIFE: Duration = Duration::hours(24);
/// Other clocks may be behind ours by this much.
const SKEW: Duration = Duration::minutes(2);
const ROOT_LIFE: Duration = Duration::days(3650);

/// Why there is no root, or no signature.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// The cryptography refused.
    #[error("{step}: {source}")]
    Crypto {
        /// What was tried.
        step: &'static str,
        /// What came of it.
        source: rcgen::Error,
    },
    /// No random numbers.
    #[error("the system has no random numbers")]
    Random,
    /// The server's key cannot be used.
    #[error("the server's key cannot be used: {0}")]
    ServerKey(#[source] rustls::Error),
    /// The stored root lacks a part.
    #[error("no PEM block {0} in it")]
    Missing(&'static str),
    /// The stored root is no certificate.
    #[error("its certificate cannot be read")]
    Certificate,
    /// The stored root may not sign.
    #[error("its certificate is not that of a certificate authority")]
    NotCa,
    /// Key and certificate do not belong together.
    #[error("its key is not that of its certificate")]
    OtherKey,
    /// Too old, or from the future.
    #[error("its certificate is not valid now, only from {from} until {until}")]
    NotNow {
        /// Start.
        from: OffsetDateTime,
        /// End.
        until: OffsetDateTime,
    },
}

/// A name that a server is dialled by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ServerName {
    Dns(String),
    Ip(IpAddr),
}

/// The root: a key and its certificate.
pub(crate) struct Root {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
    until: OffsetDateTime,
}

impl std::fmt::Debug for Root {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Root").field("until", &self.until).finish_non_exhaustive()
    }
}

impl Root {
    /// Makes a new one.
    pub(crate) fn generate(trust_domain: &str, now: OffsetDateTime) -> Result<Self, RootError> {
        let crypto = |step| move |source| RootError::Crypto { step, source };
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
            .map_err(crypto("making the root's key"))?;
        let mut params = base(now, ROOT_LIFE)?;
        params.distinguished_name.push(DnType::OrganizationName, "Sluice");
        params.distinguished_name.push(DnType::CommonName, format!("Root of {trust_domain}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(crypto("signing the root"))?.pem();
        let until = params.not_after;
        Ok(Self { issuer: Issuer::new(params, key), certificate, until })
    }

    /// Reads what [`Root::to_pem`] wrote.
    pub(crate) fn from_pem(text: &str, now: OffsetDateTime) -> Result<Self, RootError> {
        let crypto = |step| move |source| RootError::Crypto { step, source };
        let key = PrivateKeyDer::from_pem_slice(text.as_bytes())
            .map_err(|_| RootError::Missing("PRIVATE KEY"))?;
        let key = KeyPair::try_from(&key).map_err(crypto("reading its key"))?;
        let certificate = CertificateDer::from_pem_slice(text.as_bytes())
            .map_err(|_| RootError::Missing("CERTIFICATE"))?;
        let until = check_root(&certificate, &key, now)?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key)
            .map_err(crypto("reading its certificate"))?;
        Ok(Self { issuer, certificate: certificate_pem(text), until })
    }

    /// Key and certificate, for [`Root::from_pem`].
    pub(crate) fn to_pem(&self) -> String {
        format!("{}{}", self.issuer.key().serialize_pem(), self.certificate)
    }

    /// The certificate, for those who are to trust it.
    pub(crate) fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Signs a workload's key, for at most [`MAX_LIFE`].
    pub(crate) fn sign_workload(
        &self,
        identity: &Identity,
        key: &impl PublicKeyData,
        life: Duration,
        now: OffsetDateTime,
    ) -> Result<String, RootError> {
        let uri = identity.to_string().try_into().map(SanType::URI);
        let uri =
            uri.map_err(|source| RootError::Crypto { step: "naming the workload", source })?;
        let uses = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let params = self.leaf(vec![uri], uses, life, now)?;
        let signed = params.signed_by(key, &self.issuer);
        let step = "signing a workload's certificate";
        Ok(signed.map_err(|source| RootError::Crypto { step, source })?.pem())
    }

    /// Makes a key and a certificate for a server with these names.
    pub(crate) fn issue_server(
        &self,
        names: &[ServerName],
        now: OffsetDateTime,
    ) -> Result<CertifiedKey, RootError> {
        let crypto = |step| move |source| RootError::Crypto { step, source };
        let name = |name: &ServerName| match name {
            ServerName::Dns(dns) => dns.as_str().try_into().map(SanType::DnsName),
            ServerName::Ip(ip) => Ok(SanType::IpAddress(*ip)),
        };
        let names: Result<Vec<_>, _> = names.iter().map(name).collect();
        let names = names.map_err(crypto("naming the server"))?;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
            .map_err(crypto("making the server's key"))?;
        let params = self.leaf(names, vec![ExtendedKeyUsagePurpose::ServerAuth], MAX_LIFE, now)?;
        let certificate = params
            .signed_by(&key, &self.issuer)
            .map_err(crypto("signing the server's certificate"))?;
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key)
            .map_err(RootError::ServerKey)?;
        Ok(CertifiedKey::new(vec![certificate.der().clone()], key))
    }

    fn leaf(
        &self,
        names: Vec<SanType>,
        uses: Vec<ExtendedKeyUsagePurpose>,
        life: Duration,
        now: OffsetDateTime,
    ) -> Result<CertificateParams, RootError> {
        let mut params = base(now, life.min(MAX_LIFE))?;
        params.not_after = params.not_after.min(self.until);
        params.subject_alt_names = names;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = uses;
        params.use_authority_key_identifier_extension = true;
        Ok(params)
    }
}

/// A certificate without a subject: what it is about is in its names.
fn base(now: OffsetDateTime, life: Duration) -> Result<CertificateParams, RootError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.not_before = now - SKEW;
    params.not_after = now + life;
    params.serial_number = Some(serial()?);
    Ok(params)
}

/// 127 random bits: positive, and never zero in this world.
fn serial() -> Result<SerialNumber, RootError> {
    let mut bytes = [0; 16];
    rustls::crypto::aws_lc_rs::default_provider()
        .secure_random
        .fill(&mut bytes)
        .map_err(|_| RootError::Random)?;
    bytes[0] &= 0x7f;
    Ok(SerialNumber::from_slice(&bytes))
}

/// Checks a stored root and says until when it is valid.
fn check_root(
    der: &CertificateDer<'_>,
    key: &KeyPair,
    now: OffsetDateTime,
) -> Result<OffsetDateTime, RootError> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|_| RootError::Certificate)?;
    if !certificate.is_ca() {
        return Err(RootError::NotCa);
    }
    if *certificate.public_key().subject_public_key.data != *key.public_key_raw() {
        return Err(RootError::OtherKey);
    }
    let validity = certificate.validity();
    let (from, until) = (validity.not_before.to_datetime(), validity.not_after.to_datetime());
    if now < from || now >= until {
        return Err(RootError::NotNow { from, until });
    }
    Ok(until)
}

/// The certificate's block of a file that holds the key as well, which nobody is to see.
fn certificate_pem(text: &str) -> String {
    let begin = text.find("-----BEGIN CERTIFICATE-----").unwrap_or_default();
    let end = "-----END CERTIFICATE-----";
    let length = text[begin..].find(end).map_or(text.len() - begin, |at| at + end.len());
    format!("{}\n", &text[begin..begin + length])
}

#[cfg(test)]
mod tests;
