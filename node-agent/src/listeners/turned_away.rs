//! PURE. What is said to a name lookup that nobody will answer.

/// Length of the header of a message (RFC 1035, 4.1.1).
const HEADER: usize = 12;
/// Flag of the third byte: this is an answer.
const RESPONSE: u8 = 0x80;
/// Bits of the third byte that an answer repeats: the kind of query, "recursion desired".
const REPEATED: u8 = 0x79;
/// Code in the fourth byte: the server failed, which says nothing about the name. Clients
/// ask the next server, or again later, and do not remember it.
const SERVER_FAILURE: u8 = 2;

/// The longest query of which all that matters is read: a header, a name of 255 bytes, its
/// type and class.
pub(super) const LONGEST: usize = HEADER + 255 + 4;

/// The answer that there is none, with the question, without which clients would not take
/// it for theirs. `None` for what is no query.
pub(super) fn answer(query: &[u8]) -> Option<Vec<u8>> {
    let header = query.get(..HEADER)?;
    if header[2] & RESPONSE != 0 {
        return None;
    }
    let question = question(query).unwrap_or_default();
    let mut answer = vec![header[0], header[1], RESPONSE | header[2] & REPEATED, SERVER_FAILURE];
    answer.extend([0, u8::from(!question.is_empty()), 0, 0, 0, 0, 0, 0]);
    answer.extend(question);
    Some(answer)
}

/// The only question, where there is one and its name is written out.
fn question(query: &[u8]) -> Option<&[u8]> {
    if query[4..6] != [0, 1] {
        return None;
    }
    let mut end = HEADER;
    loop {
        match usize::from(*query.get(end)?) {
            0 => return query.get(HEADER..end + 5),
            length @ 1..=63 => end += 1 + length,
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `a.b`, type A, id 0x1234, recursion desired, and an OPT record behind it.
    const QUERY: &[u8] = b"\x12\x34\x01\x20\0\x01\0\0\0\0\0\x01\x01a\x01b\0\0\x01\0\x01\
        \0\0\x29\x10\0\0\0\0\0\0\0";

    #[test]
    fn a_query_is_answered_with_a_failure_and_its_question() {
        let expected = b"\x12\x34\x81\x02\0\x01\0\0\0\0\0\0\x01a\x01b\0\0\x01\0\x01";
        assert_eq!(answer(QUERY).unwrap(), expected);
    }

    #[test]
    fn what_cannot_be_read_is_answered_without_its_question() {
        let mut two = QUERY.to_vec();
        two[5] = 2;
        let mut pointer = QUERY.to_vec();
        pointer[12] = 0xc0;
        for query in [&two[..], &pointer, &QUERY[..18], &QUERY[..HEADER]] {
            assert_eq!(answer(query).unwrap(), b"\x12\x34\x81\x02\0\0\0\0\0\0\0\0");
        }
    }

    #[test]
    fn what_is_no_query_is_not_answered() {
        let mut response = QUERY.to_vec();
        response[2] |= RESPONSE;
        for bytes in [&[][..], &QUERY[..HEADER - 1], &response] {
            assert_eq!(answer(bytes), None);
        }
    }
}
