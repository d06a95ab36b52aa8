//! Frames: length and JSON.

use serde::{Deserialize, Serialize};

use super::{Call, MAX_FRAME, Outcome, Reply, VERSION, Verb};

/// How a frame broke the contract.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The length prefix exceeds [`MAX_FRAME`].
    #[error("frame of {0} bytes exceeds {MAX_FRAME}")]
    TooLong(usize),
    /// The body is no JSON of the expected shape.
    #[error("malformed frame: {0}")]
    Malformed(#[from] serde_json::Error),
    /// The peer is of another release; what it means is not guessed.
    #[error("the peer speaks version {0} of the contract, this side {VERSION}")]
    OtherVersion(u32),
}

/// Renders a message with its length prefix.
///
/// # Errors
/// [`FrameError::TooLong`] when the peer would refuse it.
pub fn encode(message: &impl Serialize) -> Result<Vec<u8>, FrameError> {
    let body = serde_json::to_vec(message)?;
    let length = body_length(body.len())?;
    let mut frame = Vec::with_capacity(4 + body.len());
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&body);
    Ok(frame)
}

/// Reads the length prefix: how many bytes of body follow.
///
/// # Errors
/// [`FrameError::TooLong`].
pub fn decode_length(prefix: [u8; 4]) -> Result<usize, FrameError> {
    let length = usize::try_from(u32::from_be_bytes(prefix)).unwrap_or(usize::MAX);
    body_length(length)?;
    Ok(length)
}

/// Reads a body.
///
/// # Errors
/// [`FrameError::Malformed`].
pub fn decode<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, FrameError> {
    Ok(serde_json::from_slice(body)?)
}

/// Reads the body of a request, whatever its verb.
///
/// # Errors
/// [`FrameError::OtherVersion`], whatever else the body holds; [`FrameError::Malformed`].
pub fn decode_call(body: &[u8]) -> Result<Call, FrameError> {
    same_version(body)?;
    let Asked { verb } = decode(body)?;
    Ok(match verb {
        Verb::Add | Verb::Del | Verb::Check => Call::Pod(decode(body)?),
        Verb::Status => Call::Status,
        Verb::Gc => Call::Gc(decode(body)?),
    })
}

/// Reads the body of a reply.
///
/// # Errors
/// [`FrameError::OtherVersion`], whatever else the body holds; [`FrameError::Malformed`].
pub fn decode_reply(body: &[u8]) -> Result<Outcome, FrameError> {
    same_version(body)?;
    let reply: Reply = decode(body)?;
    Ok(reply.outcome)
}

/// The one key that every version of the contract has.
#[derive(Deserialize)]
struct Speaker {
    version: u32,
}

#[derive(Deserialize)]
struct Asked {
    verb: Verb,
}

/// Another version may say it in another shape, so this is looked at first.
fn same_version(body: &[u8]) -> Result<(), FrameError> {
    match decode(body)? {
        Speaker { version: VERSION } => Ok(()),
        Speaker { version } => Err(FrameError::OtherVersion(version)),
    }
}

fn body_length(length: usize) -> Result<u32, FrameError> {
    match u32::try_from(length) {
        Ok(fits) if length <= MAX_FRAME => Ok(fits),
        _ => Err(FrameError::TooLong(length)),
    }
}
