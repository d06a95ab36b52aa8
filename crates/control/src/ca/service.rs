//! Istio's certificate service.

use std::sync::Arc;
use std::time::Instant;

use mesh::Identity;
use mesh::proto::ca::{IstioCertificateRequest, IstioCertificateResponse};
use prost_types::value::Kind;
use time::{Duration, OffsetDateTime};
use tonic::{Request, Response, Status};

use super::csr::{self, CsrProblem};
use super::root::{MAX_LIFE, Root};
use crate::callers::{Caller, Gate, IssueRules, may_have};
use crate::services::certificates::istio_certificate_service_server::IstioCertificateService;

/// Metadata field with the identity that a node proxy asks for.
const IMPERSONATED: &str = "ImpersonatedIdentity";

/// Serves certificates.
#[derive(Debug)]
pub(crate) struct Authority {
    gate: Arc<Gate>,
    root: Arc<Root>,
    rules: IssueRules,
}

impl Authority {
    pub(crate) fn new(gate: Arc<Gate>, root: Arc<Root>, rules: IssueRules) -> Self {
        Self { gate, root, rules }
    }

    fn issue(&self, caller: &Caller, request: &IstioCertificateRequest) -> Result<Issued, Status> {
        let world = self.gate.world()?;
        let asked = impersonated(request)?;
        let identity = may_have(caller, asked, &self.rules, &world)?;
        let life = life(request.validity_duration)?;
        let key = csr::check(&request.csr, &identity)
            .map_err(|problem| refuse(&problem, caller, &identity))?;
        let now = OffsetDateTime::now_utc();
        let leaf = self.root.sign_workload(&identity, &key, life, now).map_err(|error| {
            tracing::error!(%identity, %error, "certificate not signed");
            Status::internal(format!("{identity} was not signed: {error}"))
        })?;
        Ok(Issued { identity, chain: vec![leaf, self.root.certificate().to_owned()] })
    }
}

struct Issued {
    identity: Identity,
    chain: Vec<String>,
}

#[tonic::async_trait]
impl IstioCertificateService for Authority {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let caller = self.gate.admit(request.metadata()).await.map_err(Status::from);
        let issued = match &caller {
            Ok(caller) => self.issue(caller, request.get_ref()),
            Err(status) => Err(status.clone()),
        };
        let (account, node) = match &caller {
            Ok(caller) => (caller.account.to_string(), caller.node.as_str()),
            Err(_) => (String::new(), ""),
        };
        match issued {
            Ok(Issued { identity, chain }) => {
                tracing::info!(%identity, %account, node, "certificate signed");
                Ok(Response::new(IstioCertificateResponse { cert_chain: chain }))
            }
            Err(status) => {
                if let Some(left_out) = self.gate.refusals.pass(Instant::now()) {
                    let reason = status.message();
                    tracing::warn!(%account, node, reason, left_out, "certificate refused");
                }
                Err(status)
            }
        }
    }
}

fn impersonated(request: &IstioCertificateRequest) -> Result<Option<&str>, Status> {
    let field = request.metadata.as_ref().and_then(|fields| fields.fields.get(IMPERSONATED));
    match field.map(|value| &value.kind) {
        None => Ok(None),
        Some(Some(Kind::StringValue(text))) => Ok(Some(text)),
        Some(_) => Err(Status::invalid_argument(format!("metadata {IMPERSONATED} is no string"))),
    }
}

/// Nothing asked for is the longest.
fn life(seconds: i64) -> Result<Duration, Status> {
    match seconds {
        ..0 => Err(Status::invalid_argument(format!("validity_duration {seconds} s is negative"))),
        0 => Ok(MAX_LIFE),
        _ => Ok(Duration::seconds(seconds).min(MAX_LIFE)),
    }
}

fn refuse(problem: &CsrProblem, caller: &Caller, identity: &Identity) -> Status {
    let text = format!(
        "certificate request for {identity} from node {} is refused: {problem}",
        caller.node
    );
    Status::invalid_argument(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_is_at_most_a_day() {
        for (asked, expected) in [(0, MAX_LIFE), (60, Duration::MINUTE), (i64::MAX, MAX_LIFE)] {
            assert_eq!(life(asked).unwrap(), expected);
        }
        assert_eq!(life(-1).unwrap_err().code(), tonic::Code::InvalidArgument);
    }

    #[test]
    fn the_identity_asked_for_is_a_string_or_absent() {
        let with = |kind| IstioCertificateRequest {
            metadata: Some(prost_types::Struct {
                fields: [(IMPERSONATED.to_owned(), prost_types::Value { kind })].into(),
            }),
            ..Default::default()
        };
        assert_eq!(impersonated(&IstioCertificateRequest::default()).unwrap(), None);
        let text = with(Some(Kind::StringValue("spiffe://x".into())));
        assert_eq!(impersonated(&text).unwrap(), Some("spiffe://x"));
        for kind in [None, Some(Kind::NumberValue(1.0))] {
            assert!(impersonated(&with(kind)).is_err());
        }
    }
}
