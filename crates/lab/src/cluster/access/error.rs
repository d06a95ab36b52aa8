//! What goes wrong between the suite and a cluster.

use std::path::PathBuf;
use std::time::Duration;

/// A request that brought nothing usable.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The file does not say how to reach a cluster.
    #[error("kubeconfig {file}: {problem}")]
    Kubeconfig {
        /// Which file.
        file: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The API server refused it.
    #[error("{what}: {code} {reason}: {message}")]
    Refused {
        /// Verb and path.
        what: String,
        /// HTTP status.
        code: u16,
        /// The server's reason, for example `NotFound`.
        reason: String,
        /// Its text.
        message: String,
    },
    /// There was no answer.
    #[error("{what}: {source}")]
    NoAnswer {
        /// Verb and path.
        what: String,
        /// What went wrong.
        source: Box<kube::Error>,
    },
    /// There was no answer in time.
    #[error("{what}: no answer within {deadline:?}")]
    Deadline {
        /// Verb and path, or the command.
        what: String,
        /// How long was waited.
        deadline: Duration,
    },
    /// The answer is not what it must be.
    #[error("{what}: {problem}")]
    Malformed {
        /// Verb and path.
        what: String,
        /// What is wrong.
        problem: String,
    },
    /// A command in a pod could not be run, or broke off.
    #[error("run `{command}` in pod {pod}: {problem}")]
    Exec {
        /// Which pod.
        pod: String,
        /// What was to be run.
        command: String,
        /// What went wrong.
        problem: String,
    },
    /// An object did not become what was waited for.
    #[error("{what} was not observed within {patience:?}; last seen: {last}{events}")]
    TimedOut {
        /// What was waited for.
        what: String,
        /// How long.
        patience: Duration,
        /// The object's state, in short.
        last: String,
        /// Its events, a line each.
        events: String,
    },
}

impl AccessError {
    /// The HTTP status of a refusal.
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }

    pub(super) fn of(what: String, error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::Refused {
                what,
                code: status.code,
                reason: status.reason,
                message: status.message,
            },
            other => Self::NoAnswer { what, source: Box::new(other) },
        }
    }
}
