//! Reading request bodies, within bounds of size and time.

use std::fmt::Display;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::Value;

use super::Limits;
use super::action::{Action, ApiRequest};
use super::negotiate::BodyFormat;
use super::protobuf;
use super::status::{Reason, Refusal};

/// Reads the body up to the limit. A little more is read and thrown away, so that a client
/// that is still sending gets to read the refusal.
pub(crate) async fn read(limits: &Limits, mut incoming: Incoming) -> Result<Bytes, Refusal> {
    let limit = limits.body;
    let reading = async {
        let (mut kept, mut seen) = (BytesMut::new(), 0_usize);
        while let Some(frame) = incoming.frame().await {
            let frame = frame
                .map_err(|error| Refusal::bad_request(format!("the body ended early: {error}")))?;
            let Some(data) = frame.data_ref() else {
                continue;
            };
            seen = seen.saturating_add(data.len());
            if seen <= limit {
                kept.extend_from_slice(data);
            } else if seen > limit.saturating_mul(4) {
                break;
            }
        }
        if seen > limit {
            let why = format!("the body is larger than the {limit} bytes allowed");
            return Err(Refusal::new(Reason::TooLarge, why));
        }
        Ok(kept.freeze())
    };
    tokio::time::timeout(limits.read_deadline, reading).await.unwrap_or_else(|_| {
        let seconds = limits.read_deadline.as_secs();
        Err(Refusal::new(Reason::Timeout, format!("the body did not come within {seconds} s")))
    })
}

/// The body as a value; null where there is none and none is needed.
pub(crate) fn parse(request: &ApiRequest, bytes: &[u8]) -> Result<Value, Refusal> {
    let optional = matches!(
        request.action,
        Action::Get(_) | Action::List(_) | Action::Delete(_) | Action::DeleteCollection(..)
    );
    if bytes.is_empty() && optional {
        return Ok(Value::Null);
    }
    let wrong = |format: &str, error: &dyn Display| {
        Refusal::bad_request(format!("the body is not {format}: {error}"))
    };
    match request.body {
        BodyFormat::Json => serde_json::from_slice(bytes).map_err(|error| wrong("JSON", &error)),
        BodyFormat::Protobuf => protobuf::read(bytes),
        // JSON first: it is YAML too, and some of it is read faster and with better errors so.
        BodyFormat::Yaml => serde_json::from_slice(bytes)
            .or_else(|_| serde_yaml_ng::from_slice(bytes).map_err(|error| wrong("YAML", &error))),
    }
}
