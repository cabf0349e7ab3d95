//! Which segments exist: the file that decides, replaced whole and durably.

use std::path::Path;

use gravity_model::Sequence;
use gravity_model::event::Micros;
use gravity_model::ident::Digest;
use serde::{Deserialize, Serialize};

use crate::api::LogError;
use crate::directory::{io_error, replace_file};

const FORMAT: u32 = 1;

/// One sealed segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    /// Name in `sealed/`.
    pub file: String,
    /// The hot generation that it was.
    pub generation: u32,
    pub first: Sequence,
    pub last: Sequence,
    pub blocks: u64,
    pub bytes: u64,
    /// Digest of the block before, and of the last block.
    #[serde(with = "hexadecimal")]
    pub previous: Digest,
    #[serde(with = "hexadecimal")]
    pub head: Digest,
    /// BLAKE3 of the whole file.
    #[serde(with = "hexadecimal")]
    pub file_digest: Digest,
    /// Bytes of the footer and its CRC32C.
    pub footer_bytes: u32,
    pub footer_crc: u32,
    /// When its newest block was made.
    pub newest: Micros,
    /// Dedupe entries in it.
    pub dedupe: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Catalogue {
    format: u32,
    /// Dedupe entries of earlier generations have left the window.
    pub dedupe_from: u32,
    pub segments: Vec<Entry>,
}

impl Default for Catalogue {
    fn default() -> Catalogue {
        Catalogue { format: FORMAT, dedupe_from: 1, segments: Vec::new() }
    }
}

impl Catalogue {
    /// An empty one where there is no file.
    pub fn read(path: &Path) -> Result<Catalogue, LogError> {
        let refused = |detail: String| LogError::Refused { path: path.to_owned(), detail };
        let bytes = match std::fs::read(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Catalogue::default()),
            other => other.map_err(|error| io_error(path, &error))?,
        };
        let text = String::from_utf8(bytes).map_err(|_| refused("not a catalogue".to_owned()))?;
        let (json, digest) = text.trim_end().rsplit_once('\n').ok_or_else(|| refused("cut short".to_owned()))?;
        if blake3::hash(json.as_bytes()).to_hex().as_str() != digest {
            return Err(refused("its checksum does not match; restore it from a backup".to_owned()));
        }
        let catalogue: Catalogue = serde_json::from_str(json).map_err(|error| refused(error.to_string()))?;
        if catalogue.format != FORMAT {
            return Err(refused(format!("format {}, this gravity reads {FORMAT}", catalogue.format)));
        }
        for pair in catalogue.segments.windows(2) {
            if pair[0].last.next() != pair[1].first || pair[0].head != pair[1].previous {
                return Err(refused(format!("{} does not follow {}", pair[1].file, pair[0].file)));
            }
        }
        Ok(catalogue)
    }

    /// Durable when it returns.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        let json = serde_json::to_string(self).map_err(std::io::Error::other)?;
        let digest = blake3::hash(json.as_bytes()).to_hex();
        replace_file(path, format!("{json}\n{digest}\n").as_bytes())
    }
}

mod hexadecimal {
    use gravity_model::ident::Digest;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(digest: &Digest, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(digest)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
