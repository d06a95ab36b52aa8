//! Why streams to the control plane end, in words for the operator.

use std::error::Error;
use std::time::Duration;

use tonic::{Code, Status};

use super::apply::Gone;
use crate::hbone::graceful_goaway;
use crate::identity::{ChannelError, TokenError};

/// How long the control plane may take to accept a stream or to read a reply of ours.
/// Between responses there is no limit: keep-alive pings find a dead connection.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Why a stream ended. Every end is followed by another attempt.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The control plane could not be reached, or its certificate was not accepted.
    #[error("connect: {0}")]
    Connect(#[from] ChannelError),
    /// Our token could not be read.
    #[error("read the token: {0}")]
    Token(#[from] TokenError),
    /// The cluster id cannot be sent as a header.
    #[error("cluster id {0:?} is not usable as a header")]
    ClusterId(String),
    /// A header that the operator wants to be sent cannot be one.
    #[error("XDS_HEADER_{0} is not usable as a header")]
    Header(String),
    /// What was received is not a discovery response at all.
    #[error("the control plane sent a response that cannot be decoded: {0}")]
    Corrupt(#[from] prost::DecodeError),
    /// We end the stream to ask about removals once more.
    #[error("removals that were held back are asked about once more")]
    AskAgain,
    /// We cannot work any more.
    #[error(transparent)]
    Gone(#[from] Gone),
    /// The control plane refused the stream or ended it with an error.
    #[error("{step}: {}{}", describe(.status), hint(.status))]
    Refused {
        /// What was attempted.
        step: &'static str,
        /// The control plane's answer.
        status: Box<Status>,
    },
    /// The control plane ended the stream in good order.
    #[error("the control plane ended the stream")]
    Complete,
    /// It did not answer or read in time.
    #[error("{0}: no progress in {PATIENCE:?}")]
    Stalled(&'static str),
}

impl StreamError {
    /// Ends that say nothing about the health of the control plane: it restarts, or it
    /// limits the age of connections.
    pub(super) fn benign(&self) -> bool {
        match self {
            Self::Complete | Self::AskAgain => true,
            Self::Refused { status, .. } => {
                matches!(status.code(), Code::Unknown | Code::Cancelled | Code::DeadlineExceeded)
                    || status.source().is_some_and(graceful_goaway)
            }
            _ => false,
        }
    }

    /// May it be that a request of ours was too large? Of gRPC libraries some call it the
    /// one and some the other.
    pub(super) fn may_be_too_large(&self) -> bool {
        match self {
            Self::Refused { status, .. } => {
                matches!(status.code(), Code::ResourceExhausted | Code::OutOfRange)
            }
            _ => false,
        }
    }

    /// Istio's word for it in the metric.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Connect(_) => "ConnectionError",
            Self::Complete => "Complete",
            _ if self.benign() => "Reconnect",
            _ => "Error",
        }
    }
}

pub(super) fn refused(step: &'static str) -> impl FnOnce(Status) -> StreamError {
    move |status| StreamError::Refused { step, status: Box::new(status) }
}

/// Code, message, and the causes that tonic hides behind "transport error".
fn describe(status: &Status) -> String {
    let mut text = format!("{:?}: {}", status.code(), status.message());
    let mut cause = status.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

fn hint(status: &Status) -> &'static str {
    match status.code() {
        Code::Unauthenticated | Code::PermissionDenied => {
            " (is AUTH_TOKEN a service-account token that the control plane accepts?)"
        }
        Code::Unimplemented => " (does XDS_ADDRESS point to a control plane with delta xDS?)",
        _ => "",
    }
}
