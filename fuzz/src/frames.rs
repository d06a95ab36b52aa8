//! HTTP/2 frames, right and wrong (RFC 9113, section 4).

use arbitrary::Arbitrary;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What one end says in the life of a connection.
#[derive(Debug, Arbitrary)]
pub struct Talk {
    frames: Vec<Frame>,
    /// How many bytes arrive at once.
    pub piece: u16,
    /// How it ends.
    pub end: super::wire::End,
}

#[derive(Debug, Arbitrary)]
enum Frame {
    Connect { stream: u8, authority: Authority, headers: Vec<(Name, Vec<u8>)>, ends: bool },
    Status { stream: u8, code: u8, headers: Vec<(Name, Vec<u8>)> },
    Data { stream: u8, flags: u8, length: u16 },
    Reset { stream: u8, code: u8 },
    Settings(Vec<(u8, u32)>),
    SettingsAck,
    Ping { flags: u8 },
    GoAway { last: u8, code: u8 },
    Window { stream: u8, more: u32 },
    Any { kind: u8, flags: u8, stream: u8, payload: Vec<u8>, lie: i8 },
    Bytes(Vec<u8>),
}

#[derive(Debug, Arbitrary)]
enum Authority {
    Right,
    Port(u16),
    Text(Vec<u8>),
}

#[derive(Debug, Arbitrary)]
enum Name {
    Baggage,
    Forwarded,
    Network,
    Other(Vec<u8>),
}

impl Talk {
    /// As a client.
    #[must_use]
    pub fn of_client(&self) -> Vec<u8> {
        let mut bytes = PREFACE.to_vec();
        frame(4, 0, 0, &[], &mut bytes);
        self.write(&mut bytes);
        bytes
    }

    /// As a server.
    #[must_use]
    pub fn of_server(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        frame(4, 0, 0, &[], &mut bytes);
        self.write(&mut bytes);
        bytes
    }

    fn write(&self, to: &mut Vec<u8>) {
        self.frames.iter().take(256).for_each(|frame| frame.write(to));
    }
}

impl Frame {
    fn write(&self, to: &mut Vec<u8>) {
        match self {
            Self::Connect { stream, authority, headers, ends } => {
                // :method is entry 2 of the static table, :authority entry 1.
                let mut block = vec![0x02];
                text(b"CONNECT", &mut block);
                block.push(0x01);
                match authority {
                    Authority::Right => text(b"10.0.0.7:80", &mut block),
                    Authority::Port(port) => text(format!("10.0.0.7:{port}").as_bytes(), &mut block),
                    Authority::Text(other) => text(other, &mut block),
                }
                write_headers(headers, &mut block);
                frame(1, 4 | u8::from(*ends), u32::from(*stream), &block, to);
            }
            Self::Status { stream, code, headers } => {
                // Entries 8 to 14 are the statuses; 8 is 200.
                let mut block = vec![0x80 | (8 + code % 7)];
                write_headers(headers, &mut block);
                frame(1, 4, u32::from(*stream), &block, to);
            }
            Self::Data { stream, flags, length } => {
                frame(0, *flags, u32::from(*stream), &vec![0; usize::from(*length)], to);
            }
            Self::Reset { stream, code } => {
                frame(3, 0, u32::from(*stream), &u32::from(*code).to_be_bytes(), to);
            }
            Self::Settings(pairs) => {
                let pair = |(id, value): &(u8, u32)| {
                    let mut pair = vec![0, id % 10];
                    pair.extend(value.to_be_bytes());
                    pair
                };
                frame(4, 0, 0, &pairs.iter().flat_map(pair).collect::<Vec<_>>(), to);
            }
            Self::SettingsAck => frame(4, 1, 0, &[], to),
            Self::Ping { flags } => frame(6, *flags, 0, &[7; 8], to),
            Self::GoAway { last, code } => frame(7, 0, 0, &[0, 0, 0, *last, 0, 0, 0, *code], to),
            Self::Window { stream, more } => {
                frame(8, 0, u32::from(*stream), &more.to_be_bytes(), to);
            }
            Self::Any { kind, flags, stream, payload, lie } => {
                let start = to.len();
                frame(*kind % 12, *flags, u32::from(*stream), payload, to);
                to[start + 2] = to[start + 2].wrapping_add_signed(*lie);
            }
            Self::Bytes(bytes) => to.extend(bytes),
        }
    }
}

fn write_headers(headers: &[(Name, Vec<u8>)], block: &mut Vec<u8>) {
    for (name, value) in headers {
        block.push(0);
        match name {
            Name::Baggage => text(b"baggage", block),
            Name::Forwarded => text(b"forwarded", block),
            Name::Network => text(b"x-forwarded-network", block),
            Name::Other(name) => text(name, block),
        }
        text(value, block);
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8], to: &mut Vec<u8>) {
    let payload = &payload[..payload.len().min(0xff_ffff)];
    let length = u32::try_from(payload.len()).expect("cut above").to_be_bytes();
    to.extend_from_slice(&[length[1], length[2], length[3], kind, flags]);
    to.extend_from_slice(&stream.to_be_bytes());
    to.extend_from_slice(payload);
}

/// A string of HPACK (RFC 7541, 5.2), not Huffman coded.
fn text(value: &[u8], block: &mut Vec<u8>) {
    let mut length = value.len();
    if let Ok(short @ 0..127) = u8::try_from(length) {
        block.push(short);
    } else {
        block.push(127);
        length -= 127;
        while length >= 128 {
            block.push(128 | u8::try_from(length % 128).expect("below 128"));
            length /= 128;
        }
        block.push(u8::try_from(length).expect("below 128"));
    }
    block.extend_from_slice(value);
}
