//! The client of Istio's certificate service.

use std::collections::BTreeMap;
use std::time::Duration;

use http::uri::PathAndQuery;
use mesh::Identity;
use mesh::proto::ca::{IstioCertificateRequest, IstioCertificateResponse};
use prost_types::{Struct, Value, value::Kind};
use tokio::time::timeout;
use tonic::client::Grpc;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

use super::certified::{CertifiedIdentity, KeyRequest, Surroundings};
use super::channel::ControlChannel;
use super::headers::ExtraHeaders;
use super::token::Token;
use super::{IdentityError, TokenError};

/// From the first packet to the certificate.
const CALL_DEADLINE: Duration = Duration::from_secs(15);

const METHOD: &str = "/istio.v1.auth.IstioCertificateService/CreateCertificate";

/// What calls to the CA carry.
#[derive(Clone, Debug)]
pub struct CaSettings {
    /// Value of the `clusterid` header.
    pub cluster: String,
    /// Life of a certificate as asked for; the CA may shorten it.
    pub ttl: Duration,
}

/// Whose certificates are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Those of the pods of a node, by the token of a node proxy. The CA checks that they
    /// run there.
    Pods,
    /// Our own, by the token of the workload itself.
    Bearer,
}

/// Has identities signed by a CA.
#[derive(Clone, Debug)]
pub struct CaClient {
    channel: Channel,
    token: Token,
    settings: CaSettings,
    subject: Subject,
    headers: ExtraHeaders,
}

impl CaClient {
    /// Needs a runtime; connects with the first call.
    #[must_use]
    pub fn new(channel: &ControlChannel, token: Token, settings: CaSettings) -> Self {
        let headers = ExtraHeaders::default();
        Self { channel: channel.lazy(), token, settings, subject: Subject::Pods, headers }
    }

    /// Asks for these certificates and not for those of pods.
    #[must_use]
    pub fn with_subject(self, subject: Subject) -> Self {
        Self { subject, ..self }
    }

    /// Sends these headers along.
    #[must_use]
    pub fn with_headers(self, headers: &ExtraHeaders) -> Self {
        Self { headers: headers.clone(), ..self }
    }

    /// Makes a key and has it signed; one attempt.
    pub(super) async fn issue(
        &self,
        identity: &Identity,
        surroundings: &Surroundings<'_>,
    ) -> Result<CertifiedIdentity, IdentityError> {
        let key = KeyRequest::new(identity)?;
        let request = self.request(identity, key.csr())?;
        let answer = timeout(CALL_DEADLINE, self.call(request))
            .await
            .map_err(|_| IdentityError::Deadline(identity.clone()))?
            .map_err(|status| IdentityError::Refused {
                identity: identity.clone(),
                status: Box::new(status),
            })?;
        key.certify(&answer.cert_chain, surroundings)
    }

    fn request(
        &self,
        identity: &Identity,
        csr: &str,
    ) -> Result<Request<IstioCertificateRequest>, TokenError> {
        let mut request = Request::new(IstioCertificateRequest {
            csr: csr.to_owned(),
            validity_duration: i64::try_from(self.settings.ttl.as_secs()).unwrap_or(i64::MAX),
            metadata: self.subject.metadata(identity),
        });
        self.headers.apply(request.metadata_mut());
        if let Some(bearer) = self.token.bearer()? {
            request.metadata_mut().insert("authorization", bearer);
            let cluster = AsciiMetadataValue::try_from(&self.settings.cluster)
                .map_err(|_| TokenError::Characters("the cluster id".to_owned()))?;
            request.metadata_mut().insert("clusterid", cluster);
        }
        Ok(request)
    }

    async fn call(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<IstioCertificateResponse, Status> {
        let mut grpc = Grpc::new(self.channel.clone());
        grpc.ready().await.map_err(|error| {
            let error = super::channel::causes(&error);
            Status::unavailable(error)
        })?;
        let codec = ProstCodec::<IstioCertificateRequest, IstioCertificateResponse>::default();
        let answer = grpc.unary(request, PathAndQuery::from_static(METHOD), codec).await?;
        Ok(answer.into_inner())
    }
}

impl Subject {
    fn metadata(self, identity: &Identity) -> Option<Struct> {
        if self == Self::Bearer {
            return None;
        }
        let impersonated = Value { kind: Some(Kind::StringValue(identity.to_string())) };
        let fields = BTreeMap::from([("ImpersonatedIdentity".to_owned(), impersonated)]);
        Some(Struct { fields })
    }
}
