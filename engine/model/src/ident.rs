//! Names of logs, owners and places in a log, as types, so that none can be taken for another.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Our position in the log: given at append, gapless, never reused. The first event has sequence 1; [`Sequence::ZERO`]
/// stands for "before the first".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sequence(pub u64);

impl Sequence {
    pub const ZERO: Sequence = Sequence(0);

    pub fn get(self) -> u64 {
        self.0
    }

    #[must_use]
    pub fn next(self) -> Sequence {
        Sequence(self.0 + 1)
    }

    /// The sequence `count` events further on.
    #[must_use]
    pub fn plus(self, count: u64) -> Sequence {
        Sequence(self.0 + count)
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Grows by one each time an engine opens the log for writing; a writer with a smaller fence is a zombie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fence(pub u64);

/// Build of a route's contents: raised at each attach, swap or restore, in the transaction that does it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

macro_rules! id128 {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 16]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                for byte in self.0 {
                    write!(f, "{byte:02x}")?;
                }
                Ok(())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = NotHex;

            /// Reads exactly 32 hexadecimal digits, either case.
            fn from_str(text: &str) -> Result<Self, NotHex> {
                let mut bytes = [0u8; 16];
                read_hex(text, &mut bytes)?;
                Ok($name(bytes))
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

id128! {
    /// One incarnation of a log: random at creation, and new again at every restore or fork.
    LogId
}
id128! {
    /// One opening of a log for writing: random, recorded in the log, written into every checkpoint row.
    OwnerId
}

/// BLAKE3-256 digest of a block, chained over its predecessor.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = NotHex;

    fn from_str(text: &str) -> Result<Self, NotHex> {
        let mut bytes = [0u8; 32];
        read_hex(text, &mut bytes)?;
        Ok(Digest(bytes))
    }
}

/// Names the block that holds a sequence, so that a checkpoint can be matched against *this* log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct BlockMark {
    /// First sequence of the block.
    pub first: Sequence,
    pub digest: Digest,
}

/// A text that should have been hexadecimal digits of a fixed count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected} hexadecimal digits, found {found:?}")]
pub struct NotHex {
    expected: usize,
    found: String,
}

fn read_hex(text: &str, into: &mut [u8]) -> Result<(), NotHex> {
    let fail = || NotHex { expected: into.len() * 2, found: text.to_owned() };
    if text.len() != into.len() * 2 || !text.is_ascii() {
        return Err(fail());
    }
    let mut out = Vec::with_capacity(into.len());
    for pair in text.as_bytes().chunks_exact(2) {
        let high = (pair[0] as char).to_digit(16).ok_or_else(fail)?;
        let low = (pair[1] as char).to_digit(16).ok_or_else(fail)?;
        out.push((high * 16 + low) as u8);
    }
    into.copy_from_slice(&out);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_survive_their_text_form() {
        let id = LogId([0xab; 16]);
        assert_eq!(id.to_string().parse::<LogId>(), Ok(id));
        assert!("ab".parse::<LogId>().is_err());
        assert!("zz".repeat(16).parse::<LogId>().is_err());
        let digest = Digest([7; 32]);
        assert_eq!(digest.to_string().parse::<Digest>(), Ok(digest));
    }
}
