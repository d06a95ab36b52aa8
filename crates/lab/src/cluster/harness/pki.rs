//! Certificates, tokens and kubeconfigs of one cluster.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use serde_json::json;
use time::{Duration, OffsetDateTime};

/// Clusters are short-lived; nobody renews anything.
const LIFE: Duration = Duration::days(30);

/// Names that the API is reached by, besides its addresses.
const API_NAMES: [&str; 5] = [
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
];

/// The authority of a cluster.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

/// A certificate and its key, as PEM.
#[derive(Clone)]
pub(crate) struct Pair {
    pub certificate: String,
    pub key: String,
}

/// Somebody who may talk to the API, by a token.
#[derive(Clone)]
pub(crate) struct User {
    pub name: String,
    pub groups: &'static str,
    pub token: String,
}

impl Authority {
    pub(crate) fn generate() -> Result<Self, rcgen::Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = base("cluster-ca")?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), certificate })
    }

    pub(crate) fn certificate(&self) -> &str {
        &self.certificate
    }

    /// For the API server, under all its names.
    pub(crate) fn server(&self, addresses: &[IpAddr]) -> Result<Pair, rcgen::Error> {
        let mut params = base("kube-apiserver")?;
        for name in API_NAMES {
            params.subject_alt_names.push(SanType::DnsName(name.try_into()?));
        }
        params.subject_alt_names.extend(addresses.iter().copied().map(SanType::IpAddress));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(&params)
    }

    /// For a client that the other side knows by name and group.
    pub(crate) fn client(&self, name: &str, group: &str) -> Result<Pair, rcgen::Error> {
        let mut params = base(name)?;
        params.distinguished_name.push(DnType::OrganizationName, group);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(&params)
    }

    fn sign(&self, params: &CertificateParams) -> Result<Pair, rcgen::Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Pair { certificate, key: key.serialize_pem() })
    }

    /// How a user reaches the API at `server`, for example `https://127.0.0.1:6443`. JSON is
    /// YAML.
    pub(crate) fn kubeconfig(&self, server: &str, user: &User) -> String {
        let authority = STANDARD.encode(&self.certificate);
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{
                "name": "sluice",
                "cluster": {"server": server, "certificate-authority-data": authority},
            }],
            "users": [{"name": user.name, "user": {"token": user.token}}],
            "contexts": [{
                "name": "sluice",
                "context": {"cluster": "sluice", "user": user.name},
            }],
            "current-context": "sluice",
        });
        format!("{config:#}\n")
    }
}

/// A key for the signatures of service account tokens, and its public half.
pub(crate) fn signing_key() -> Result<(String, String), rcgen::Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    Ok((key.serialize_pem(), key.public_key_pem()))
}

impl User {
    /// With a token of its own.
    pub(crate) fn new(name: impl Into<String>, groups: &'static str) -> Result<Self, rcgen::Error> {
        // A fresh key is as random as a token has to be.
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let token: String = STANDARD.encode(key.serialize_der()).chars().rev().take(40).collect();
        let token = token.replace(['+', '/', '='], "x");
        Ok(Self { name: name.into(), groups, token })
    }

    /// A line of the API server's token file.
    pub(crate) fn line(&self) -> String {
        let Self { name, groups, token } = self;
        format!("{token},{name},{name},\"{groups}\"\n")
    }
}

fn base(name: &str) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    params.distinguished_name.push(DnType::CommonName, name);
    let now = OffsetDateTime::now_utc();
    (params.not_before, params.not_after) = (now - Duration::minutes(5), now + LIFE);
    Ok(params)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubeconfig_leads_to_the_server_with_authority_and_token() {
        let authority = Authority::generate().unwrap();
        let user = User::new("admin", "system:masters").unwrap();
        let text = authority.kubeconfig("https://127.0.0.1:1", &user);
        let config: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(config["clusters"][0]["cluster"]["server"], "https://127.0.0.1:1");
        assert_eq!(config["users"][0]["user"]["token"], user.token.as_str());
        assert_ne!(user.token, User::new("admin", "system:masters").unwrap().token);
        assert!(user.line().ends_with(",admin,admin,\"system:masters\"\n"));
    }

    #[test]
    fn what_is_signed_carries_its_addresses() {
        let authority = Authority::generate().unwrap();
        let pair = authority.server(&["172.31.99.1".parse().unwrap()]).unwrap();
        assert!(pair.certificate.contains("BEGIN CERTIFICATE") && pair.key.contains("PRIVATE KEY"));
    }
}
