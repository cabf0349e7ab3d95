//! Sealed history: immutable Arrow IPC segments, read a batch at a time.

pub(crate) mod catalogue;
pub(crate) mod columns;
pub(crate) mod write;

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::buffer::Buffer;
use arrow::ipc::convert::try_fb_to_schema;
use arrow::ipc::reader::{FileDecoder, read_footer_length};
use gravity_model::Sequence;
use gravity_model::ident::{BlockMark, Digest};
use parking_lot::Mutex;

use crate::api::{LogError, SequenceRange};
use crate::shared::Taken;
use catalogue::Entry;
use columns::Restored;
use write::{BatchPlace, FOOTER_KEY, FORMAT, Footer};

/// Open segments that are kept: their footers are some hundred kilobytes each.
const OPEN_SEGMENTS: usize = 8;
/// Decoded batches that are kept for readers with small limits.
const KEPT_BATCHES: usize = 4;

/// One segment of the catalogue.
#[derive(Debug)]
pub(crate) struct Segment {
    pub entry: Entry,
    pub path: PathBuf,
}

/// A segment with its footer read.
pub(crate) struct Open {
    file: File,
    decoder: FileDecoder,
    places: Vec<arrow::ipc::Block>,
    batches: Vec<BatchPlace>,
    blocks: Vec<(BlockMark, u32)>,
    path: PathBuf,
}

type Batch = Arc<Vec<Restored>>;

/// What readers of history share.
#[derive(Default)]
pub(crate) struct Cache {
    open: Mutex<VecDeque<(u32, Arc<Open>)>>,
    batches: Mutex<VecDeque<((u32, usize), Batch)>>,
}

impl Segment {
    pub fn new(directory: &Path, entry: Entry) -> Segment {
        Segment { path: directory.join(&entry.file), entry }
    }

    fn damaged(&self, range: SequenceRange, detail: impl Into<String>) -> LogError {
        LogError::Damaged { what: self.path.display().to_string(), range, detail: detail.into() }
    }

    fn whole(&self) -> SequenceRange {
        SequenceRange { first: self.entry.first, last: self.entry.last }
    }

    /// Reads and checks the footer.
    pub fn open(&self) -> Result<Open, LogError> {
        open_file(&self.path, &self.entry).map_err(|detail| self.damaged(self.whole(), detail))
    }

    fn cached(&self, cache: &Cache) -> Result<Arc<Open>, LogError> {
        if let Some(open) = kept(&mut cache.open.lock(), &self.entry.generation) {
            return Ok(open);
        }
        let open = Arc::new(self.open()?);
        keep(&mut cache.open.lock(), self.entry.generation, open.clone(), OPEN_SEGMENTS);
        Ok(open)
    }

    /// Adds blocks after `after` until `taken` is full or the segment ends.
    pub fn read(&self, after: Sequence, taken: &mut Taken, cache: &Cache) -> Result<(), LogError> {
        let open = self.cached(cache)?;
        let from = open.batches.partition_point(|batch| batch.last <= after);
        for index in from..open.batches.len() {
            let key = (self.entry.generation, index);
            let held = kept(&mut cache.batches.lock(), &key);
            let batch = match held {
                Some(batch) => batch,
                None => {
                    let batch = open.batch(index).map_err(|detail| self.damaged(open.range(index), detail));
                    // What was read before the damage is served; the next read names it.
                    let batch = match batch {
                        Err(_) if !taken.blocks.is_empty() => return Ok(()),
                        other => Arc::new(other?),
                    };
                    keep(&mut cache.batches.lock(), key, batch.clone(), KEPT_BATCHES);
                    batch
                }
            };
            for restored in batch.iter().filter(|restored| restored.block.last() > after) {
                taken.push(restored.block.clone());
                if taken.is_full() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The block that holds `sequence`.
    pub fn mark(&self, sequence: Sequence, cache: &Cache) -> Result<BlockMark, LogError> {
        let open = self.cached(cache)?;
        let at = open.blocks.partition_point(|(mark, count)| mark.first.plus(u64::from(*count)) <= sequence);
        open.blocks
            .get(at)
            .map(|(mark, _)| *mark)
            .ok_or_else(|| self.damaged(self.whole(), "the footer does not name every block"))
    }

    /// Reads everything back and checks it: each batch's checksum, each event's place, the chain from `entry.previous` to
    /// `entry.head`. `each` gets every block; `bad` every range that does not hold.
    pub fn check(
        &self,
        range: SequenceRange,
        each: &mut dyn FnMut(&Restored),
        bad: &mut dyn FnMut(SequenceRange, String),
    ) {
        let open = match self.open() {
            Ok(open) => open,
            Err(error) => return bad(self.whole(), error.to_string()),
        };
        let mut previous = Some(self.entry.previous);
        let mut next = self.entry.first;
        for index in 0..open.batches.len() {
            let place = open.range(index);
            if place.last < range.first || place.first > range.last {
                previous = None;
                next = place.last.next();
                continue;
            }
            let batch = match open.batch(index) {
                Ok(batch) => batch,
                Err(detail) => {
                    bad(place, detail);
                    previous = None;
                    next = place.last.next();
                    continue;
                }
            };
            for restored in &batch {
                let own = SequenceRange { first: restored.block.mark.first, last: restored.block.last() };
                if own.first != next {
                    bad(own, format!("sequence {next} was expected"));
                }
                next = own.last.next();
                // After something unreadable the chain is taken up again at the next block's own digest.
                match &mut previous {
                    Some(previous) => {
                        if let Err(detail) = columns::check_chain(restored, previous) {
                            bad(own, detail);
                            *previous = restored.block.mark.digest;
                        }
                    }
                    None => previous = Some(restored.block.mark.digest),
                }
                each(restored);
            }
        }
        if previous.is_some_and(|previous| previous != self.entry.head) {
            bad(self.whole(), "the chain does not end where the catalogue says".to_owned());
        }
    }

    /// BLAKE3 of the whole file.
    pub fn file_digest(&self) -> io::Result<Digest> {
        let mut hasher = blake3::Hasher::new();
        let mut file = File::open(&self.path)?;
        let mut buffer = vec![0; 1 << 20];
        loop {
            let read = io::Read::read(&mut file, &mut buffer)?;
            if read == 0 {
                return Ok(Digest(*hasher.finalize().as_bytes()));
            }
            hasher.update(&buffer[..read]);
        }
    }
}

fn kept<K: PartialEq, V: Clone>(held: &mut VecDeque<(K, V)>, key: &K) -> Option<V> {
    let at = held.iter().position(|(held, _)| held == key)?;
    let found = held.remove(at)?;
    let value = found.1.clone();
    held.push_back(found);
    Some(value)
}

fn keep<K: PartialEq, V>(held: &mut VecDeque<(K, V)>, key: K, value: V, limit: usize) {
    held.push_back((key, value));
    while held.len() > limit {
        held.pop_front();
    }
}

fn open_file(path: &Path, entry: &Entry) -> Result<Open, String> {
    let text = |error: io::Error| error.to_string();
    let file = File::open(path).map_err(text)?;
    let bytes = file.metadata().map_err(text)?.len();
    if bytes != entry.bytes {
        return Err(format!("{bytes} bytes instead of {}", entry.bytes));
    }
    let footer_bytes = u64::from(entry.footer_bytes).min(bytes);
    let mut end = vec![0; footer_bytes as usize];
    file.read_exact_at(&mut end, bytes - footer_bytes).map_err(text)?;
    if crc32c::crc32c(&end) != entry.footer_crc {
        return Err("the footer's checksum does not match".to_owned());
    }
    let trailer: [u8; 10] = *end.last_chunk().ok_or("the footer is cut short")?;
    let arrow = |error: arrow::error::ArrowError| error.to_string();
    let length = read_footer_length(trailer).map_err(arrow)?;
    let start = (end.len() - 10).checked_sub(length).ok_or("the footer is cut short")?;
    let footer = arrow::ipc::root_as_footer(&end[start..end.len() - 10]).map_err(|error| error.to_string())?;
    let schema = try_fb_to_schema(footer.schema().ok_or("no schema")?).map_err(arrow)?;
    let places = footer.recordBatches().map(|blocks| blocks.iter().copied().collect()).unwrap_or_default();
    let metadata = footer.custom_metadata();
    let json = metadata
        .iter()
        .flatten()
        .find(|pair| pair.key() == Some(FOOTER_KEY))
        .and_then(|pair| pair.value())
        .ok_or("the footer is not that of a log segment")?;
    let ours: Footer = serde_json::from_str(json).map_err(|error| error.to_string())?;
    if ours.format != FORMAT {
        return Err(format!("segment format {}, this gravity reads {FORMAT}", ours.format));
    }
    let places: Vec<arrow::ipc::Block> = places;
    if places.len() != ours.batches.len() {
        return Err("the footer's tables do not fit".to_owned());
    }
    let mut blocks = Vec::with_capacity(ours.blocks.len());
    for (first, count, digest) in &ours.blocks {
        let digest = digest.parse().map_err(|error| format!("{error}"))?;
        blocks.push((BlockMark { first: *first, digest }, *count));
    }
    let decoder = FileDecoder::new(Arc::new(schema), footer.version());
    Ok(Open { file, decoder, places, batches: ours.batches, blocks, path: path.to_owned() })
}

impl Open {
    fn range(&self, index: usize) -> SequenceRange {
        let batch = &self.batches[index];
        SequenceRange { first: batch.first, last: batch.last }
    }

    /// One batch, its checksum verified before anything is decoded.
    fn batch(&self, index: usize) -> Result<Vec<Restored>, String> {
        let place = &self.batches[index];
        let mut bytes = vec![0; place.bytes as usize];
        self.file
            .read_exact_at(&mut bytes, place.offset)
            .map_err(|error| format!("{}: {error}", self.path.display()))?;
        let crc = crc32c::crc32c(&bytes);
        if crc != place.crc {
            return Err(format!("checksum is {crc:08x}, stored was {:08x}", place.crc));
        }
        let buffer = Buffer::from_vec(bytes);
        let batch = self.decoder.read_record_batch(&self.places[index], &buffer).map_err(|error| error.to_string())?;
        let restored = columns::restore(&batch.ok_or("an empty message")?)?;
        let (first, last) = (restored.first().map(|r| r.block.mark.first), restored.last().map(|r| r.block.last()));
        if first != Some(place.first) || last != Some(place.last) {
            return Err("holds other events than the footer says".to_owned());
        }
        Ok(restored)
    }
}
