//! Random bytes for uids, generated names and tokens, from the kernel.

use std::fs::File;
use std::io::{self, Read};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::status::{Reason, Refusal};

/// The letters the API uses for generated names: no vowels, nothing that looks alike.
const SUFFIX_LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// An open source of random bytes.
#[derive(Debug)]
pub(crate) struct Entropy(File);

impl Entropy {
    pub(crate) fn open() -> io::Result<Entropy> {
        File::open("/dev/urandom").map(Entropy)
    }

    fn bytes<const N: usize>(&self) -> Result<[u8; N], Refusal> {
        let mut bytes = [0; N];
        (&self.0).read_exact(&mut bytes).map_err(|error| {
            Refusal::new(Reason::Internal, format!("the kernel gave no random bytes: {error}"))
        })?;
        Ok(bytes)
    }

    /// A random (version 4) UUID.
    pub(crate) fn uuid(&self) -> Result<String, Refusal> {
        let mut b = self.bytes::<16>()?;
        b[6] = (b[6] & 0x0f) | 0x40;
        b[8] = (b[8] & 0x3f) | 0x80;
        let hex: String = b.iter().map(|byte| format!("{byte:02x}")).collect();
        let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
        Ok(parts.join("-"))
    }

    /// The five letters that follow a `generateName`.
    pub(crate) fn suffix(&self) -> Result<String, Refusal> {
        let letter =
            |byte: u8| char::from(SUFFIX_LETTERS[usize::from(byte) % SUFFIX_LETTERS.len()]);
        Ok(self.bytes::<5>()?.into_iter().map(letter).collect())
    }

    /// 256 bits that nobody can guess.
    pub(crate) fn secret(&self) -> Result<String, Refusal> {
        Ok(URL_SAFE_NO_PAD.encode(self.bytes::<32>()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_are_of_version_4_and_differ() {
        let entropy = Entropy::open().unwrap();
        let (one, two) = (entropy.uuid().unwrap(), entropy.uuid().unwrap());
        assert_ne!(one, two);
        assert_eq!(one.len(), 36);
        assert_eq!(&one[14..15], "4");
        assert_eq!(entropy.suffix().unwrap().len(), 5);
    }
}
