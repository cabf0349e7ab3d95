//! Writes a segment file: record batches of about half a mebibyte, each with a checksum, and a footer that tells them apart.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use arrow::ipc::CompressionType;
use arrow::ipc::writer::{FileWriter, IpcWriteOptions};
use gravity_model::ident::Digest;
use gravity_model::port::source::Position;
use gravity_model::{LogId, Sequence};
use serde::{Deserialize, Serialize};

use super::catalogue::Entry;
use super::columns::{Builder, Part, schema};
use crate::record::Records;

/// A batch is closed at the first block boundary after this many uncompressed bytes.
const BATCH_BYTES: usize = 512 << 10;

/// Key of the footer's metadata.
pub(super) const FOOTER_KEY: &str = "gravity.segment";
pub(super) const FORMAT: u32 = 1;

/// What the footer says, as JSON.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Footer {
    pub format: u32,
    pub log_id: LogId,
    pub generation: u32,
    pub first: Sequence,
    pub last: Sequence,
    /// Digest of the block before the first.
    pub previous: String,
    /// BLAKE3 of every byte before the footer's message.
    pub body_digest: String,
    pub batches: Vec<BatchPlace>,
    /// (first sequence, events, digest) of each block that holds events.
    pub blocks: Vec<(Sequence, u32, String)>,
    /// (source, slot, position) that the blocks of this segment set last.
    pub positions: Vec<(String, String, Position)>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct BatchPlace {
    pub first: Sequence,
    pub last: Sequence,
    pub offset: u64,
    pub bytes: u32,
    pub crc: u32,
}

/// Counts and hashes what passes.
struct Hashed {
    out: BufWriter<File>,
    whole: blake3::Hasher,
    crc: u32,
    bytes: u64,
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.whole.update(&bytes[..written]);
        self.crc = crc32c::crc32c_append(self.crc, &bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// One segment being written.
pub(crate) struct Writer {
    arrow: FileWriter<Hashed>,
    builder: Builder,
    log_id: LogId,
    generation: u32,
    previous: Digest,
    /// Blocks since the last event.
    parts: Vec<Part>,
    batch_bytes: usize,
    batch_first: Option<Sequence>,
    batches: Vec<BatchPlace>,
    blocks: Vec<(Sequence, u32, String)>,
    positions: std::collections::BTreeMap<(String, String), Position>,
    head: Digest,
    newest: i64,
    dedupe: u64,
}

fn as_io(error: arrow::error::ArrowError) -> io::Error {
    match error {
        arrow::error::ArrowError::IoError(_, error) => error,
        other => io::Error::other(other.to_string()),
    }
}

impl Writer {
    /// `previous` is the digest of the block before the first that will come.
    pub fn create(path: &Path, log_id: LogId, generation: u32, previous: Digest) -> io::Result<Writer> {
        let file = BufWriter::with_capacity(1 << 20, File::create(path)?);
        let out = Hashed { out: file, whole: blake3::Hasher::new(), crc: 0, bytes: 0 };
        let options =
            IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME)).map_err(as_io)?;
        let arrow = FileWriter::try_new_with_options(out, &schema(), options).map_err(as_io)?;
        Ok(Writer {
            arrow,
            builder: Builder::new(),
            log_id,
            generation,
            previous,
            parts: Vec::new(),
            batch_bytes: 0,
            batch_first: None,
            batches: Vec::new(),
            blocks: Vec::new(),
            positions: std::collections::BTreeMap::new(),
            head: previous,
            newest: i64::MIN,
            dedupe: 0,
        })
    }

    /// Takes the next physical block; `records` are the events that it completes.
    pub fn push(&mut self, part: Part, records: Option<&[u8]>) -> io::Result<()> {
        let meta = part.meta().ok_or_else(|| io::Error::other("the meta part is malformed"))?;
        for (source, slot, position) in meta.positions {
            self.positions.insert((source, slot), position);
        }
        self.dedupe += meta.dedupe.len() as u64;
        self.newest = self.newest.max(part.head.made);
        self.head = part.digest;
        let head = part.head;
        self.parts.push(part);
        let Some(records) = records.filter(|_| head.count > 0) else { return Ok(()) };
        self.batch_first.get_or_insert(head.first);
        self.blocks.push((head.first, head.count, self.head.to_string()));
        let parts = std::mem::take(&mut self.parts);
        for (index, recorded) in Records::new(records, head.first).enumerate() {
            self.builder.push(&recorded, if index == 0 { &parts } else { &[] });
        }
        self.batch_bytes += records.len();
        if self.batch_bytes >= BATCH_BYTES { self.close_batch() } else { Ok(()) }
    }

    fn close_batch(&mut self) -> io::Result<()> {
        let Some(first) = self.batch_first.take() else { return Ok(()) };
        let last = Sequence(first.get() + self.builder.rows() as u64 - 1);
        let batch = self.builder.finish().map_err(as_io)?;
        let offset = self.arrow.get_ref().bytes;
        self.arrow.get_mut().crc = 0;
        self.arrow.write(&batch).map_err(as_io)?;
        let out = self.arrow.get_ref();
        self.batches.push(BatchPlace { first, last, offset, bytes: (out.bytes - offset) as u32, crc: out.crc });
        self.batch_bytes = 0;
        Ok(())
    }

    /// Writes the footer and syncs. `file` is the name that the segment will have.
    pub fn finish(mut self, file: String) -> io::Result<Entry> {
        self.close_batch()?;
        let (Some(first), Some(last)) = (self.batches.first().map(|b| b.first), self.batches.last().map(|b| b.last))
        else {
            return Err(io::Error::other("a generation without events"));
        };
        if !self.parts.is_empty() {
            return Err(io::Error::other("a generation that ends with a block without events"));
        }
        let positions = std::mem::take(&mut self.positions).into_iter();
        let blocks = self.blocks.len() as u64;
        let footer = Footer {
            format: FORMAT,
            log_id: self.log_id,
            generation: self.generation,
            first,
            last,
            previous: self.previous.to_string(),
            body_digest: self.arrow.get_ref().whole.finalize().to_hex().to_string(),
            batches: std::mem::take(&mut self.batches),
            blocks: std::mem::take(&mut self.blocks),
            positions: positions.map(|((source, slot), position)| (source, slot, position)).collect(),
        };
        self.arrow.write_metadata(FOOTER_KEY, serde_json::to_string(&footer).map_err(io::Error::other)?);
        let before = self.arrow.get_ref().bytes;
        self.arrow.get_mut().crc = 0;
        self.arrow.finish().map_err(as_io)?;
        let out = self.arrow.into_inner().map_err(as_io)?;
        let file_digest = Digest(*out.whole.finalize().as_bytes());
        let (bytes, crc) = (out.bytes, out.crc);
        let inner = out.out.into_inner().map_err(|error| error.into_error())?;
        inner.sync_all()?;
        Ok(Entry {
            file,
            generation: self.generation,
            first,
            last,
            blocks,
            bytes,
            previous: self.previous,
            head: self.head,
            file_digest,
            footer_bytes: (bytes - before) as u32,
            footer_crc: crc,
            newest: self.newest,
            dedupe: self.dedupe,
        })
    }
}
