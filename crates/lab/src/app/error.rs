//! How a conversation fails, told apart because tests assert which way it did.

use std::fmt;
use std::io;

/// What went wrong, as an application would see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppErrorKind {
    /// Nobody accepts connections there.
    Refused,
    /// The other side ended the connection with a reset.
    Reset,
    /// The other side closed the connection instead of answering.
    Closed,
    /// Nothing happened until the deadline.
    Timeout,
    /// There is no way to that address.
    Unreachable,
    /// Anything else; the text says what.
    Other,
}

impl AppErrorKind {
    pub(crate) fn of(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe => Self::Reset,
            io::ErrorKind::UnexpectedEof => Self::Closed,
            io::ErrorKind::TimedOut => Self::Timeout,
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Self::Unreachable,
            _ => Self::Other,
        }
    }
}

/// A failed step of a conversation.
#[derive(Debug)]
pub struct AppError {
    /// How it failed.
    pub kind: AppErrorKind,
    /// Who attempted what, for example `pod default/client: connect to 10.20.2.2:80`.
    pub step: String,
    /// The detail, where there is one.
    pub detail: String,
}

impl AppError {
    /// A failure of the system.
    #[must_use]
    pub fn new(step: String, error: &io::Error) -> Self {
        Self { kind: AppErrorKind::of(error), step, detail: error.to_string() }
    }

    /// Nothing happened in time.
    #[must_use]
    pub fn timeout(step: String, deadline: std::time::Duration) -> Self {
        let detail = format!("nothing within {deadline:?}");
        Self { kind: AppErrorKind::Timeout, step, detail }
    }
}

impl fmt::Display for AppError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.step, self.detail)
    }
}

impl std::error::Error for AppError {}
