//! SPIFFE ids as Istio's workloads carry them.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The trust domain that an empty `trust_domain` field stands for.
pub const DEFAULT_TRUST_DOMAIN: &str = "cluster.local";

/// `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`. One pointer, cheap to
/// clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity(Arc<Parts>);

#[derive(PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Parts {
    trust_domain: Box<str>,
    namespace: Box<str>,
    service_account: Box<str>,
}

/// Why a text is no identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Not of the form that Istio gives to workloads.
    #[error("{0:?} is not spiffe://<trust domain>/ns/<namespace>/sa/<service account>")]
    Form(String),
    /// A part is empty or holds a character that no Kubernetes name has.
    #[error("{part} {value:?} is not allowed in a SPIFFE id")]
    Part {
        /// Which part.
        part: &'static str,
        /// What it was.
        value: String,
    },
}

impl Identity {
    /// Puts an identity together; an empty trust domain is `cluster.local`, an empty
    /// service account `default`, as in Istio's workload messages.
    ///
    /// # Errors
    /// [`IdentityError::Part`].
    pub fn new(
        trust_domain: &str,
        namespace: &str,
        service_account: &str,
    ) -> Result<Self, IdentityError> {
        let trust_domain =
            if trust_domain.is_empty() { DEFAULT_TRUST_DOMAIN } else { trust_domain };
        let service_account = if service_account.is_empty() { "default" } else { service_account };
        check("trust domain", trust_domain)?;
        check("namespace", namespace)?;
        check("service account", service_account)?;
        Ok(Self(Arc::new(Parts {
            trust_domain: trust_domain.into(),
            namespace: namespace.into(),
            service_account: service_account.into(),
        })))
    }

    /// Whose certificates can prove it.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        &self.0.trust_domain
    }

    /// Kubernetes namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.0.namespace
    }

    /// Kubernetes service account.
    #[must_use]
    pub fn service_account(&self) -> &str {
        &self.0.service_account
    }

    /// Does anybody else have this very copy?
    pub(crate) fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    /// The identity as policies name it: without the `spiffe://` scheme.
    #[must_use]
    pub fn principal(&self) -> String {
        let Parts { trust_domain, namespace, service_account } = &*self.0;
        format!("{trust_domain}/ns/{namespace}/sa/{service_account}")
    }
}

impl FromStr for Identity {
    type Err = IdentityError;

    /// Strict: no upper-case scheme, no query, no escape, no trailing slash, nothing is
    /// normalised.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let form = || IdentityError::Form(text.to_owned());
        let rest = text.strip_prefix("spiffe://").ok_or_else(form)?;
        let mut parts = rest.split('/');
        let mut next = || parts.next().filter(|part| !part.is_empty()).ok_or_else(form);
        let trust_domain = next()?;
        let ns = next()?;
        let namespace = next()?;
        let sa = next()?;
        let service_account = next()?;
        if ns != "ns" || sa != "sa" || parts.next().is_some() {
            return Err(form());
        }
        Self::new(trust_domain, namespace, service_account)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Parts { trust_domain, namespace, service_account } = &*self.0;
        write!(f, "spiffe://{trust_domain}/ns/{namespace}/sa/{service_account}")
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// SPIFFE-ID specification, section 2: letters, digits, dot, dash and underscore.
fn check(part: &'static str, value: &str) -> Result<(), IdentityError> {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if !value.is_empty() && value.chars().all(fine) {
        Ok(())
    } else {
        Err(IdentityError::Part { part, value: value.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_survives_the_round_trip() {
        let text = "spiffe://cluster.local/ns/shop/sa/cart";
        let identity: Identity = text.parse().unwrap();
        assert_eq!(identity.namespace(), "shop");
        assert_eq!(identity.service_account(), "cart");
        assert_eq!(identity.to_string(), text);
        assert_eq!(identity.principal(), "cluster.local/ns/shop/sa/cart");
    }

    #[test]
    fn what_looks_almost_like_an_identity_is_refused() {
        for text in [
            "",
            "cluster.local/ns/a/sa/b",
            "SPIFFE://cluster.local/ns/a/sa/b",
            "spiffe://cluster.local/ns/a/sa/b/",
            "spiffe://cluster.local/ns/a/sa/b/c",
            "spiffe://cluster.local/ns//sa/b",
            "spiffe:///ns/a/sa/b",
            "spiffe://cluster.local/sa/b/ns/a",
            "spiffe://cluster.local/ns/a/sa/b?x=1",
            "spiffe://cluster.local/ns/a%2fb/sa/c",
            "spiffe://cluster.local:80/ns/a/sa/b",
            "spiffe://cluster.local/ns/a/sa/b\n",
        ] {
            assert!(text.parse::<Identity>().is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn empty_fields_stand_for_istios_defaults() {
        let identity = Identity::new("", "shop", "").unwrap();
        assert_eq!(identity.to_string(), "spiffe://cluster.local/ns/shop/sa/default");
        assert!(Identity::new("", "", "").is_err());
    }
}
