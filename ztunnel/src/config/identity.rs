//! Settings of identities and TLS.

use std::path::PathBuf;

use super::parse::Flag;
use super::raw::Reader;
use crate::identity::ExtraHeaders;
use crate::tls::{self, Compliance, RootSource, Versions};

const CA_HEADER: &str = "CA_HEADER_";

/// Versions, cryptography, revocation.
pub(super) fn tls(reader: &mut Reader<'_>) -> tls::Settings {
    let versions = match reader.flag("TLS12_ENABLED", Flag::Off) {
        Flag::On => Versions::Tls12And13,
        Flag::Off => Versions::Tls13,
    };
    let settings = tls::Settings {
        versions,
        compliance: reader.value("COMPLIANCE_POLICY", Compliance::None, compliance),
        revocation_lists: reader.text("CRL_PATH").map(PathBuf::from),
    };
    if let Err(error) = tls::Cryptography::new(settings.versions, settings.compliance) {
        reader.mistake("COMPLIANCE_POLICY", &error.to_string());
    }
    settings
}

/// Istio's ztunnel knows `pqc` and ignores the rest; who asks for a policy counts on it.
fn compliance(text: &str) -> Result<Compliance, String> {
    match text {
        "pqc" => Ok(Compliance::PostQuantum),
        "fips-140-2" | "fips-140-3" => {
            Err("the cryptography of this build is not the validated one".to_owned())
        }
        _ => Err("pqc expected".to_owned()),
    }
}

/// `CA_HEADER_<name>=<value>`.
pub(super) fn ca_headers(reader: &mut Reader<'_>) -> ExtraHeaders {
    let mut headers = ExtraHeaders::default();
    for (name, value) in reader.family(CA_HEADER) {
        if let Err(reason) = headers.add(&name[CA_HEADER.len()..], &value) {
            reader.secret_mistake(&name, &reason);
        }
    }
    headers
}

/// A path, PEM text, or what the system believes.
pub(super) fn root_source(text: &str) -> Result<RootSource, String> {
    Ok(if text == "SYSTEM" {
        RootSource::System
    } else if text.contains("-----BEGIN") {
        RootSource::Pem(text.to_owned())
    } else {
        RootSource::File(PathBuf::from(text))
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Mistakes, Raw};
    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> Result<Config, Mistakes> {
        let pairs = pairs.iter().copied().chain([("NODE_NAME", "n1")]);
        Config::parse(&Raw::from_pairs(pairs))
    }

    #[test]
    fn by_default_there_is_tls13_and_nothing_is_revoked() {
        assert_eq!(parse(&[]).unwrap().tls, tls::Settings::default());
    }

    #[test]
    fn settings_of_tls_are_understood() {
        let config = parse(&[
            ("TLS12_ENABLED", "true"),
            ("CRL_PATH", "/var/run/secrets/istio/crl/ca-crl.pem"),
            ("XDS_ROOT_CA", "SYSTEM"),
        ])
        .unwrap();
        assert_eq!(config.tls.versions, Versions::Tls12And13);
        let path = PathBuf::from("/var/run/secrets/istio/crl/ca-crl.pem");
        assert_eq!(config.tls.revocation_lists, Some(path));
        assert_eq!(config.source.xds.unwrap().root, RootSource::System);
        let config = parse(&[("COMPLIANCE_POLICY", "pqc")]).unwrap();
        assert_eq!(config.tls.compliance, Compliance::PostQuantum);
    }

    #[test]
    fn rules_that_cannot_be_kept_are_mistakes() {
        for pairs in [
            &[("COMPLIANCE_POLICY", "fips-140-2")][..],
            &[("COMPLIANCE_POLICY", "PQC")],
            &[("COMPLIANCE_POLICY", "pqc"), ("TLS12_ENABLED", "true")],
        ] {
            let mistakes = parse(pairs).unwrap_err();
            let [mistake] = mistakes.each() else { panic!("{mistakes}") };
            assert!(mistake.starts_with("COMPLIANCE_POLICY"), "{mistake}");
        }
    }

    #[test]
    fn headers_are_sent_and_not_shown() {
        let config = parse(&[("CA_HEADER_X-Tenant", "blue sky")]).unwrap();
        assert_eq!(format!("{:?}", config.ca_headers), r#"["x-tenant"]"#);
        let mistakes = parse(&[("CA_HEADER_X Y", "secret")]).unwrap_err().to_string();
        assert!(mistakes.contains("CA_HEADER_X Y"), "{mistakes}");
        assert!(!mistakes.contains("secret"), "{mistakes}");
    }
}
