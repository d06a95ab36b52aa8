//! One step of rustls' unbuffered interface, the same for both ends of a connection.

use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus,
};
use rustls::{CommonState, Error};

use super::stream_buffers::Outgoing;

/// Keys and state of one end.
pub(super) enum Session {
    Client(Box<UnbufferedClientConnection>),
    Server(Box<UnbufferedServerConnection>),
}

/// What to do once application data may be sent.
#[derive(Clone, Copy)]
pub(super) enum Want<'a> {
    /// Only look at what came in.
    Nothing,
    /// Seal these bytes.
    Seal(&'a [u8]),
    /// Tell the peer that no more will come.
    CloseNotify,
    /// Change the keys of this direction and ask the peer to change its own.
    #[cfg(test)]
    NewKeys,
}

/// What a step brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// There is more to do with the same bytes.
    Again,
    /// Plaintext was handed out; there may be more.
    Plaintext,
    /// The handshake needs more bytes from the peer.
    Blocked,
    /// The peer has said that no more will come. Seen once.
    PeerClosed,
    /// What was wanted is done; there is no whole record left.
    Done,
}

impl Session {
    /// Works on `incoming`, whose first bytes, as many as are returned, are used up then,
    /// whatever the outcome. Plaintext goes to `plain`, records to `out` in the order in
    /// which they must be sent: a record gets its number when it is sealed, so nothing
    /// may be put before one that is in `out` already.
    pub(super) fn step(
        &mut self,
        incoming: &mut [u8],
        want: Want<'_>,
        plain: &mut dyn FnMut(&[u8]),
        out: &mut Outgoing,
    ) -> (usize, Result<Step, Error>) {
        match self {
            Self::Client(session) => {
                handle(session.process_tls_records(incoming), want, plain, out)
            }
            Self::Server(session) => {
                handle(session.process_tls_records(incoming), want, plain, out)
            }
        }
    }

    /// After a failure: puts what the peer should still hear into `out`. A session that
    /// has failed may not be shown its input for any other purpose.
    pub(super) fn encode_alert(&mut self, incoming: &mut [u8], out: &mut Outgoing) {
        while self.common().wants_write() {
            if self.step(incoming, Want::Nothing, &mut |_| (), out).1.is_err() {
                break;
            }
        }
    }

    /// What both ends know about a connection.
    pub(super) fn common(&self) -> &CommonState {
        match self {
            Self::Client(session) => session,
            Self::Server(session) => session,
        }
    }
}

fn handle<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    want: Want<'_>,
    plain: &mut dyn FnMut(&[u8]),
    out: &mut Outgoing,
) -> (usize, Result<Step, Error>) {
    let mut discard = status.discard;
    let step = status.state.and_then(|state| match state {
        ConnectionState::ReadTraffic(mut traffic) => {
            while let Some(record) = traffic.next_record() {
                let record = record?;
                discard += record.discard;
                plain(record.payload);
            }
            Ok(Step::Plaintext)
        }
        ConnectionState::EncodeTlsData(mut data) => {
            out.append(|space| data.encode(space).map_err(|error| shortage_of_encoding(&error)))?;
            Ok(Step::Again)
        }
        // Whatever is in `out` is sure to be sent, or the connection ends.
        ConnectionState::TransmitTlsData(data) => {
            data.done();
            Ok(Step::Again)
        }
        ConnectionState::WriteTraffic(traffic) => fulfil(traffic, want, out),
        ConnectionState::BlockedHandshake => Ok(Step::Blocked),
        ConnectionState::PeerClosed => Ok(Step::PeerClosed),
        ConnectionState::Closed => Ok(Step::Done),
        // Early data is off at both ends.
        _ => Err(Error::General("the TLS library is in an unknown state".to_owned())),
    });
    (discard, step)
}

fn fulfil<Data>(
    mut traffic: rustls::unbuffered::WriteTraffic<'_, Data>,
    want: Want<'_>,
    out: &mut Outgoing,
) -> Result<Step, Error> {
    match want {
        Want::Nothing => {}
        Want::Seal(bytes) => {
            out.append(|space| {
                traffic.encrypt(bytes, space).map_err(|error| shortage_of_encryption(&error))
            })?;
        }
        Want::CloseNotify => {
            out.append(|space| {
                traffic.queue_close_notify(space).map_err(|error| shortage_of_encryption(&error))
            })?;
        }
        #[cfg(test)]
        Want::NewKeys => traffic.refresh_traffic_keys()?,
    }
    Ok(Step::Done)
}

/// Why nothing could be appended: space, or something final.
pub(super) type Shortage = Result<InsufficientSizeError, Error>;

fn shortage_of_encoding(error: &EncodeError) -> Shortage {
    match error {
        EncodeError::InsufficientSize(size) => Ok(*size),
        EncodeError::AlreadyEncoded => Err(Error::General(error.to_string())),
    }
}

fn shortage_of_encryption(error: &EncryptError) -> Shortage {
    match error {
        EncryptError::InsufficientSize(size) => Ok(*size),
        EncryptError::EncryptExhausted => Err(Error::EncryptError),
    }
}
