//! The cryptography everything here is built with, passed explicitly: no process-wide
//! default decides what a connection uses.

use std::sync::Arc;

use rustls::SupportedProtocolVersion;
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider, kx_group};
use rustls::crypto::{CryptoProvider, GetRandomFailed};
use rustls::version::{TLS12, TLS13};

use super::TlsError;

/// The protocol versions that are spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Versions {
    /// TLS 1.3.
    #[default]
    Tls13,
    /// TLS 1.2 too, for peers that have nothing better.
    Tls12And13,
}

/// A rule about cryptography that somebody has to comply with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compliance {
    /// None: peers without post-quantum key exchange are served too.
    #[default]
    None,
    /// Key exchange by X25519MLKEM768 only.
    PostQuantum,
}

/// Cipher suites, key exchange and versions. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Cryptography {
    pub(super) provider: Arc<CryptoProvider>,
    pub(super) versions: &'static [&'static SupportedProtocolVersion],
}

impl Cryptography {
    /// Puts it together.
    ///
    /// # Errors
    /// [`TlsError::Compliance`] for TLS 1.2 with post-quantum key exchange, which only
    /// TLS 1.3 has.
    pub fn new(versions: Versions, compliance: Compliance) -> Result<Self, TlsError> {
        if (versions, compliance) == (Versions::Tls12And13, Compliance::PostQuantum) {
            return Err(TlsError::Compliance);
        }
        let mut provider = default_provider();
        provider.cipher_suites = SUITES_13.to_vec();
        provider.kx_groups = match compliance {
            // The hybrid first: what is recorded today must not be readable in ten years.
            // Its share carries the one of X25519 along, so that peers without it
            // decline at no extra round trip; it costs 2.3 kB and about 150 us for a
            // connection that then lives for minutes.
            Compliance::None => {
                vec![kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1]
            }
            Compliance::PostQuantum => vec![kx_group::X25519MLKEM768],
        };
        let versions: &'static [_] = match versions {
            Versions::Tls13 => &BOTH[..1],
            Versions::Tls12And13 => {
                provider.cipher_suites.extend(SUITES_12);
                &BOTH
            }
        };
        Ok(Self { provider: Arc::new(provider), versions })
    }
}

impl Default for Cryptography {
    fn default() -> Self {
        Self::new(Versions::default(), Compliance::default()).expect("the defaults are allowed")
    }
}

static BOTH: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];

/// AES-GCM only, in the order in which Istio's ztunnel offers.
const SUITES_13: [rustls::SupportedCipherSuite; 2] =
    [cipher_suite::TLS13_AES_256_GCM_SHA384, cipher_suite::TLS13_AES_128_GCM_SHA256];

/// The same for TLS 1.2: forward secrecy and AES-GCM, nothing older.
const SUITES_12: [rustls::SupportedCipherSuite; 4] = [
    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
];

/// The default cryptography.
#[cfg(test)]
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Cryptography::default().provider
}

/// Random bytes, for ids that must not repeat.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], GetRandomFailed> {
    let mut bytes = [0; N];
    default_provider().secure_random.fill(&mut bytes)?;
    Ok(bytes)
}
