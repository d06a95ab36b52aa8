//! As much of a DNS message (RFC 1035) as must be understood to pass it on: its header
//! and its question. Any bytes are safe to look at.

/// Length of the header.
pub(super) const HEADER: usize = 12;

/// Types of questions that matter here.
pub(super) mod kind {
    pub(in crate::dns) const A: u16 = 1;
    pub(in crate::dns) const CNAME: u16 = 5;
    pub(in crate::dns) const AAAA: u16 = 28;
    pub(in crate::dns) const OPT: u16 = 41;
}

/// The class of the internet.
pub(super) const IN: u16 = 1;

/// Response codes that matter here.
pub(super) mod code {
    pub(in crate::dns) const SERVER_FAILURE: u8 = 2;
    pub(in crate::dns) const NOT_IMPLEMENTED: u8 = 4;
    pub(in crate::dns) const REFUSED: u8 = 5;
}

/// Bits of the header's third byte.
pub(super) mod flag {
    pub(in crate::dns) const RESPONSE: u8 = 0x80;
    pub(in crate::dns) const OPCODE: u8 = 0x78;
    pub(in crate::dns) const AUTHORITATIVE: u8 = 0x04;
    pub(in crate::dns) const TRUNCATED: u8 = 0x02;
    pub(in crate::dns) const RECURSION_DESIRED: u8 = 0x01;
    /// Of the fourth byte.
    pub(in crate::dns) const RECURSION_AVAILABLE: u8 = 0x80;
    /// Of the fourth byte.
    pub(in crate::dns) const CHECKING_DISABLED: u8 = 0x10;
    /// Of the fourth byte.
    pub(in crate::dns) const CODE: u8 = 0x0f;
}

/// A message with a whole header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'a>(&'a [u8]);

/// A question, its name as it stands on the wire.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question<'a> {
    /// Labels, each behind its length, with the root's at the end.
    pub(super) name: &'a [u8],
    pub(super) kind: u16,
    pub(super) class: u16,
    /// All of it.
    pub(super) bytes: &'a [u8],
}

impl<'a> Message<'a> {
    pub(super) fn read(bytes: &'a [u8]) -> Option<Self> {
        (bytes.len() >= HEADER).then_some(Self(bytes))
    }

    pub(super) fn id(self) -> u16 {
        self.number(0)
    }

    pub(super) fn flags(self) -> [u8; 2] {
        [self.0[2], self.0[3]]
    }

    pub(super) fn is_response(self) -> bool {
        self.0[2] & flag::RESPONSE != 0
    }

    pub(super) fn opcode(self) -> u8 {
        self.0[2] & flag::OPCODE
    }

    pub(super) fn code(self) -> u8 {
        self.0[3] & flag::CODE
    }

    pub(super) fn is_truncated(self) -> bool {
        self.0[2] & flag::TRUNCATED != 0
    }

    pub(super) fn questions(self) -> u16 {
        self.number(4)
    }

    /// The only question. `None` when there are none, or several, or when its name is not
    /// written out: a first name has nothing to point back to.
    pub(super) fn question(self) -> Option<Question<'a>> {
        if self.questions() != 1 {
            return None;
        }
        let mut end = HEADER;
        loop {
            match usize::from(*self.0.get(end)?) {
                0 => break,
                length @ 1..=63 => end += 1 + length,
                _ => return None,
            }
        }
        let name = self.0.get(HEADER..=end).filter(|name| name.len() <= 255)?;
        let bytes = self.0.get(HEADER..end + 5)?;
        Some(Question { name, kind: self.number(end + 1), class: self.number(end + 3), bytes })
    }

    /// Both bytes must be there.
    fn number(self, at: usize) -> u16 {
        u16::from_be_bytes([self.0[at], self.0[at + 1]])
    }
}

/// Gives a message another id. One without a header has none.
pub(super) fn set_id(message: &mut [u8], id: u16) {
    if let Some(place) = message.first_chunk_mut() {
        *place = id.to_be_bytes();
    }
}

/// Whether `response` can be the answer to `query` as it was sent: the same id and
/// question, in letters of any case. Servers that do not understand a question may leave
/// it out when they say so.
pub(super) fn answers(response: &[u8], query: &[u8]) -> bool {
    let (Some(response), Some(query)) = (Message::read(response), Message::read(query)) else {
        return false;
    };
    if !response.is_response() || (response.id(), response.opcode()) != (query.id(), query.opcode())
    {
        return false;
    }
    match (query.question(), response.question()) {
        (Some(asked), Some(echoed)) => {
            // No length is a letter, so this compares letters only.
            asked.name.eq_ignore_ascii_case(echoed.name)
                && (asked.kind, asked.class) == (echoed.kind, echoed.class)
        }
        (Some(_), None) => response.questions() == 0 && response.code() != 0,
        (None, _) => true,
    }
}

/// The answer that there is none, for one of the reasons in [`code`]. `None` for what is
/// no question.
pub(super) fn failure(query: &[u8], code: u8) -> Option<Vec<u8>> {
    let message = Message::read(query).filter(|message| !message.is_response())?;
    let [first, second] = message.flags();
    let question = message.question().map_or(&[][..], |question| question.bytes);
    let mut reply = Vec::with_capacity(HEADER + question.len());
    reply.extend(message.id().to_be_bytes());
    reply.push(flag::RESPONSE | first & (flag::OPCODE | flag::RECURSION_DESIRED));
    reply.push(flag::RECURSION_AVAILABLE | second & flag::CHECKING_DISABLED | code);
    reply.extend([0, u8::from(!question.is_empty()), 0, 0, 0, 0, 0, 0]);
    reply.extend(question);
    Some(reply)
}
