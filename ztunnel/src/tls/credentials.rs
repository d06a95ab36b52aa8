//! The rustls configurations of one certificate, built once.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use mesh::Identity;
use rustls::client::Resumption;
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use super::terms::Terms;
use super::verifier::{ClientVerifier, ServerVerifier};
use super::{ALPN_H2, TlsError};

/// Client configurations kept per certificate: one for each set of identities that is
/// dialled, which most pods have few of.
const CLIENT_CONFIGS: usize = 256;

/// What one workload proves itself with, and whom it believes. Cheap to clone.
#[derive(Clone)]
pub struct Credentials(Arc<Inner>);

struct Inner {
    resolver: Arc<SingleCertAndKey>,
    roots: Arc<RootCertStore>,
    terms: Terms,
    server: Arc<ServerConfig>,
    /// Used last comes last.
    clients: Mutex<Vec<Client>>,
}

struct Client {
    accepted: Vec<Identity>,
    config: Arc<ClientConfig>,
}

impl Credentials {
    /// Puts a key with its chain, the roots and the own trust domain together.
    ///
    /// # Errors
    /// [`TlsError::Config`] when key or roots are unusable.
    pub fn new(
        key: CertifiedKey,
        roots: Arc<RootCertStore>,
        trust_domain: &str,
        terms: &Terms,
    ) -> Result<Self, TlsError> {
        let resolver = Arc::new(SingleCertAndKey::from(key));
        let verifier = ClientVerifier::new(&roots, trust_domain, terms)?;
        let cryptography = &terms.cryptography;
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&cryptography.provider))
            .with_protocol_versions(cryptography.versions)
            .map_err(TlsError::Config)?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(Arc::clone(&resolver) as _);
        server.alpn_protocols = vec![ALPN_H2.to_vec()];
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        let (server, terms, clients) = (Arc::new(server), terms.clone(), Mutex::default());
        Ok(Self(Arc::new(Inner { resolver, roots, terms, server, clients })))
    }

    /// For accepting.
    pub(super) fn server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.0.server)
    }

    /// For dialling one of `accepted`.
    pub(super) fn client(&self, accepted: &[Identity]) -> Result<Arc<ClientConfig>, TlsError> {
        let mut clients = self.0.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let known = clients.iter().position(|client| client.accepted == accepted);
        let client = match known {
            Some(place) => clients.remove(place),
            None => Client {
                accepted: accepted.to_vec(),
                config: Arc::new(self.client_config(accepted)?),
            },
        };
        if clients.len() >= CLIENT_CONFIGS {
            clients.remove(0);
        }
        let config = Arc::clone(&client.config);
        clients.push(client);
        Ok(config)
    }

    pub(super) fn roots(&self) -> &Arc<RootCertStore> {
        &self.0.roots
    }

    pub(super) fn terms(&self) -> &Terms {
        &self.0.terms
    }

    fn client_config(&self, accepted: &[Identity]) -> Result<ClientConfig, TlsError> {
        let Inner { resolver, roots, terms, .. } = &*self.0;
        let verifier = ServerVerifier::new(roots, accepted, terms);
        let provider = Arc::clone(&terms.cryptography.provider);
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(terms.cryptography.versions)
            .map_err(TlsError::Config)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::clone(resolver) as _);
        config.alpn_protocols = vec![ALPN_H2.to_vec()];
        config.enable_sni = false;
        config.resumption = Resumption::disabled();
        Ok(config)
    }
}

/// The private key stays out of logs.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("roots", &self.0.roots.len()).finish_non_exhaustive()
    }
}
