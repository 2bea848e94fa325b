//! Incarnations and client ids: opaque texts outside this crate.

use std::{fmt, str::FromStr};

use data_encoding::BASE32_DNSSEC as BASE32;

/// Characters of an incarnation's text.
pub const INCARNATION_LEN: usize = 10;
/// Characters of a client id's text.
pub const CLIENT_ID_LEN: usize = 30;

/// One run of one process: 48 random bits, written as 10 characters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(u64);

/// One connected client. Its text begins with its gateway's incarnation; the rest locates it in that gateway,
/// and 64 random bits make it unguessable and unique.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId {
    /// The incarnation of the client's gateway.
    pub incarnation: Incarnation,
    /// The shard of that gateway.
    pub shard: u8,
    /// The client's slot in that shard (24 bits); slots are reused.
    pub slot: u32,
    /// Random; distinguishes this client from an earlier one in the same slot.
    pub key: u64,
}

/// A text that is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not an incarnation.
    #[error("{0:?} is not an incarnation: 10 characters of 0-9 and a-v")]
    Incarnation(String),
    /// Not a client id.
    #[error("{0:?} is not a client id: 30 characters of 0-9 and a-v")]
    Client(String),
}

impl Incarnation {
    /// The incarnation with the low 48 of these bits.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits & 0xffff_ffff_ffff)
    }

    /// Its 48 bits.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }
}

impl FromStr for Incarnation {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        decode::<6>(text, INCARNATION_LEN)
            .map(Self::from_bytes)
            .ok_or_else(|| IdError::Incarnation(shorten(text)))
    }
}

impl Incarnation {
    fn from_bytes(bytes: [u8; 6]) -> Self {
        let mut wide = [0; 8];
        wide[2..].copy_from_slice(&bytes);
        Self(u64::from_be_bytes(wide))
    }

    fn write(self, out: &mut [u8]) {
        BASE32.encode_mut(&self.0.to_be_bytes()[2..], out);
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; INCARNATION_LEN];
        self.write(&mut text);
        f.pad(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl ClientId {
    /// Slots are 24 bits wide.
    pub const SLOTS_MAX: u32 = 1 << 24;
}

impl FromStr for ClientId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let parse = || {
            let head = text.get(..INCARNATION_LEN)?;
            let tail = decode::<12>(text.get(INCARNATION_LEN..)?, CLIENT_ID_LEN - INCARNATION_LEN)?;
            let [shard, s0, s1, s2, key @ ..] = tail;
            Some(Self {
                incarnation: head.parse().ok()?,
                shard,
                slot: u32::from_be_bytes([0, s0, s1, s2]),
                key: u64::from_be_bytes(key),
            })
        };
        parse().ok_or_else(|| IdError::Client(shorten(text)))
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut place = [0; 12];
        place[..4].copy_from_slice(&self.slot.to_be_bytes());
        place[0] = self.shard;
        place[4..].copy_from_slice(&self.key.to_be_bytes());
        let mut text = [0; CLIENT_ID_LEN];
        self.incarnation.write(&mut text[..INCARNATION_LEN]);
        BASE32.encode_mut(&place, &mut text[INCARNATION_LEN..]);
        f.pad(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn decode<const N: usize>(text: &str, len: usize) -> Option<[u8; N]> {
    if text.len() != len {
        return None;
    }
    let mut bytes = [0; N];
    let written = BASE32.decode_mut(text.as_bytes(), &mut bytes).ok()?;
    (written == N).then_some(bytes)
}

/// An arbitrary text as a message shows it.
fn shorten(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ids_survive_their_text(inc: u64, shard: u8, slot in 0..ClientId::SLOTS_MAX, key: u64) {
            let incarnation = Incarnation::from_bits(inc);
            let id = ClientId { incarnation, shard, slot, key };
            let text = id.to_string();
            prop_assert_eq!(text.len(), CLIENT_ID_LEN);
            prop_assert!(text.starts_with(&incarnation.to_string()));
            prop_assert_eq!(text.parse::<ClientId>().unwrap(), id);
            prop_assert_eq!(incarnation.to_string().parse::<Incarnation>().unwrap(), incarnation);
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = text.parse::<ClientId>();
            let _ = text.parse::<Incarnation>();
        }
    }

    #[test]
    fn what_is_no_id_is_named() {
        let error = "nobody".parse::<ClientId>().unwrap_err();
        assert_eq!(error.to_string(), "\"nobody\" is not a client id: 30 characters of 0-9 and a-v");
        assert!("é".repeat(15).parse::<ClientId>().is_err());
    }
}
