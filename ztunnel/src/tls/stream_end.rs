//! How a secured connection ends for who reads it.

use std::io;

/// What a reader is told next.
pub(super) enum Reading {
    Open,
    /// The peer has finished.
    Ended,
    Failed(Failure),
}

/// To be told again and again.
pub(super) enum Failure {
    Tls(rustls::Error),
    Io(io::ErrorKind),
}

/// The peer finished right behind the handshake.
pub(super) struct PeerClosed;

impl Failure {
    pub(super) fn error(&self) -> io::Error {
        match self {
            Self::Tls(error) => invalid(error.clone()),
            Self::Io(io::ErrorKind::UnexpectedEof) => cut(),
            Self::Io(kind) => (*kind).into(),
        }
    }
}

pub(super) fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

pub(super) fn cut() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "connection was cut: no TLS close_notify")
}
