//! Discovery messages as they lie on the wire.
//!
//! The first response of a large mesh is one message of many megabytes. Nothing of it is
//! decoded on the runtime: the codec hands bytes through, the envelope cuts them into
//! resources without copying, and each resource is read when it is applied. So a corrupt
//! one spoils itself only, and there is never a second copy of the mesh in memory.

use bytes::{Buf, BufMut, Bytes};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// Passes messages through as bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RawCodec;

impl Codec for RawCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// A `DeltaDiscoveryResponse` whose resources are not decoded yet.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Envelope {
    /// Encoded [`Item`]s.
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub resources: Vec<Bytes>,
    /// What the response is about.
    #[prost(string, tag = "4")]
    pub type_url: String,
    /// To be repeated in the reply.
    #[prost(string, tag = "5")]
    pub nonce: String,
    /// Names of what is gone.
    #[prost(string, repeated, tag = "6")]
    pub removed: Vec<String>,
}

/// A `Resource` whose body is not decoded yet.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Item {
    /// Opaque; told back to the control plane after a reconnect.
    #[prost(string, tag = "1")]
    pub version: String,
    /// The content.
    #[prost(message, optional, tag = "2")]
    pub body: Option<Body>,
    /// Key of the resource.
    #[prost(string, tag = "3")]
    pub name: String,
    /// Other names under which it can be asked for.
    #[prost(string, repeated, tag = "4")]
    pub aliases: Vec<String>,
}

/// A `google.protobuf.Any`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Body {
    /// Type of the content; bytes, because it is only compared.
    #[prost(bytes = "bytes", tag = "1")]
    pub type_url: Bytes,
    /// The encoded content.
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
}
