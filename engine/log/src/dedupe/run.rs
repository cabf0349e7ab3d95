//! One sorted run of dedupe entries: immutable, checksummed by the page, found by a filter and one page read.
//!
//! ```text
//! page 0        header
//! pages 1..=n   93 entries of 44 bytes, by key; CRC32C
//! tail          first eight key bytes of each page, bit filter, CRC32C
//! ```

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use gravity_model::event::Micros;
use gravity_model::{LogId, Sequence};

use crate::api::{DedupeHit, DedupeKey};
use crate::block::{REMEMBERED, Reader, Remembered};

const PAGE: usize = 4096;
const PER_PAGE: usize = (PAGE - 4) / REMEMBERED;
const MAGIC: [u8; 4] = *b"GVD1";
/// Name of a run that is being written.
pub(crate) const TEMPORARY: &str = "run.new";
const FILTER_BITS: usize = 10;
const FILTER_HASHES: u64 = 6;

/// Which part of the log a run covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cover {
    pub first_generation: u32,
    pub last_generation: u32,
    /// When the newest block of it was made.
    pub newest: Micros,
}

pub(crate) struct Run {
    pub cover: Cover,
    pub entries: u64,
    pub bytes: u64,
    pub path: PathBuf,
    file: File,
    fences: Vec<u64>,
    filter: Vec<u8>,
}

fn prefix(key: &DedupeKey) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&key.0[..8]);
    u64::from_be_bytes(bytes)
}

/// Bits of the filter that a key sets. Keys are digests: their halves are hashes already.
fn bits(key: &DedupeKey, filter_bits: u64) -> impl Iterator<Item = u64> {
    let mut low = [0; 8];
    low.copy_from_slice(&key.0[8..]);
    let (high, step) = (prefix(key), u64::from_le_bytes(low) | 1);
    (0..FILTER_HASHES).map(move |i| high.wrapping_add(step.wrapping_mul(i)) % filter_bits.max(1))
}

pub(crate) fn file_name(cover: &Cover) -> String {
    format!("{:08}-{:08}.run", cover.first_generation, cover.last_generation)
}

/// Writes `entries` (by key, one per key), syncs and renames into `directory`.
pub(crate) fn write(
    directory: &Path,
    log_id: LogId,
    cover: Cover,
    count: u64,
    entries: &mut dyn Iterator<Item = io::Result<Remembered>>,
) -> io::Result<Run> {
    let temporary = directory.join(TEMPORARY);
    let mut out = BufWriter::with_capacity(1 << 18, File::create(&temporary)?);
    out.write_all(&[0; PAGE])?;
    let mut filter = vec![0u8; (count as usize * FILTER_BITS).div_ceil(8).max(1)];
    let filter_bits = filter.len() as u64 * 8;
    let mut fences = Vec::new();
    let mut page: Vec<u8> = Vec::with_capacity(PAGE);
    let mut written = 0u64;
    let close = |page: &mut Vec<u8>, out: &mut BufWriter<File>| -> io::Result<()> {
        page.resize(PAGE - 4, 0);
        let crc = crc32c::crc32c(page);
        page.extend_from_slice(&crc.to_le_bytes());
        out.write_all(page)?;
        page.clear();
        Ok(())
    };
    for entry in entries {
        let entry = entry?;
        if page.is_empty() {
            fences.push(prefix(&entry.key));
        }
        for bit in bits(&entry.key, filter_bits) {
            filter[(bit / 8) as usize] |= 1 << (bit % 8);
        }
        page.extend_from_slice(&entry.key.0);
        page.extend_from_slice(&entry.body);
        page.extend_from_slice(&entry.first.get().to_le_bytes());
        page.extend_from_slice(&entry.count.to_le_bytes());
        written += 1;
        if page.len() == PER_PAGE * REMEMBERED {
            close(&mut page, &mut out)?;
        }
    }
    if !page.is_empty() {
        close(&mut page, &mut out)?;
    }
    let mut tail: Vec<u8> = fences.iter().flat_map(|fence| fence.to_le_bytes()).collect();
    tail.extend_from_slice(&filter);
    let crc = crc32c::crc32c(&tail);
    tail.extend_from_slice(&crc.to_le_bytes());
    out.write_all(&tail)?;
    let file = out.into_inner().map_err(|error| error.into_error())?;

    let mut header = Vec::with_capacity(PAGE);
    header.extend_from_slice(&MAGIC);
    header.extend_from_slice(&log_id.0);
    header.extend_from_slice(&cover.first_generation.to_le_bytes());
    header.extend_from_slice(&cover.last_generation.to_le_bytes());
    header.extend_from_slice(&cover.newest.to_le_bytes());
    header.extend_from_slice(&written.to_le_bytes());
    header.extend_from_slice(&(filter.len() as u64).to_le_bytes());
    header.resize(PAGE - 4, 0);
    let crc = crc32c::crc32c(&header);
    header.extend_from_slice(&crc.to_le_bytes());
    file.write_all_at(&header, 0)?;
    file.sync_all()?;
    let path = directory.join(file_name(&cover));
    std::fs::rename(&temporary, &path)?;
    crate::directory::sync_directory(directory)?;
    Run::open(&path, log_id)
}

impl Run {
    /// Reads header and tail; any disagreement is an error, and the run is made again from the log.
    pub fn open(path: &Path, log_id: LogId) -> io::Result<Run> {
        let bad = |detail: &str| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {detail}", path.display()));
        let file = File::open(path)?;
        let bytes = file.metadata()?.len();
        let mut header = vec![0; PAGE];
        file.read_exact_at(&mut header, 0)?;
        let content = checked(&header).ok_or_else(|| bad("the header's checksum does not match"))?;
        let mut read = Reader(content);
        let parse = |read: &mut Reader<'_>| -> Option<(LogId, Cover, u64, u64)> {
            if read.array::<4>()? != MAGIC {
                return None;
            }
            let log_id = LogId(read.array()?);
            let cover = Cover { first_generation: read.u32()?, last_generation: read.u32()?, newest: read.i64()? };
            Some((log_id, cover, read.u64()?, read.u64()?))
        };
        let (of, cover, entries, filter_len) = parse(&mut read).ok_or_else(|| bad("not a run"))?;
        if of != log_id {
            return Err(bad("a run of another log"));
        }
        let pages = (entries as usize).div_ceil(PER_PAGE);
        let tail_at = (PAGE + pages * PAGE) as u64;
        let tail_len = pages * 8 + filter_len as usize + 4;
        if tail_at + tail_len as u64 != bytes {
            return Err(bad("cut short"));
        }
        let mut tail = vec![0; tail_len];
        file.read_exact_at(&mut tail, tail_at)?;
        let content = checked(&tail).ok_or_else(|| bad("the tail's checksum does not match"))?;
        let (fences, filter) = content.split_at(pages * 8);
        let fences = fences.chunks_exact(8).map(|f| Reader(f).u64().unwrap_or(0)).collect();
        Ok(Run { cover, entries, bytes, path: path.to_owned(), file, fences, filter: filter.to_vec() })
    }

    /// Looks `key` up.
    pub fn find(&self, key: &DedupeKey) -> io::Result<Option<DedupeHit>> {
        let filter_bits = self.filter.len() as u64 * 8;
        if bits(key, filter_bits).any(|bit| self.filter[(bit / 8) as usize] & (1 << (bit % 8)) == 0) {
            return Ok(None);
        }
        let wanted = prefix(key);
        let end = self.fences.partition_point(|fence| *fence <= wanted);
        let start = self.fences.partition_point(|fence| *fence < wanted).saturating_sub(1);
        for page in start..end {
            let entries = self.page(page)?;
            if let Ok(at) = entries.binary_search_by_key(key, |entry| entry.key) {
                let entry = entries[at];
                return Ok(Some(DedupeHit { body: entry.body, first: entry.first, count: entry.count }));
            }
        }
        Ok(None)
    }

    fn page(&self, page: usize) -> io::Result<Vec<Remembered>> {
        let mut bytes = [0; PAGE];
        self.file.read_exact_at(&mut bytes, ((1 + page) * PAGE) as u64)?;
        let bad =
            || io::Error::new(io::ErrorKind::InvalidData, format!("{}: page {page} is damaged", self.path.display()));
        let content = checked(&bytes).ok_or_else(bad)?;
        let count = (self.entries as usize - page * PER_PAGE).min(PER_PAGE);
        let mut read = Reader(content);
        let mut entries = Vec::with_capacity(count);
        for _ in 0..count {
            let entry = (|| {
                Some(Remembered {
                    key: DedupeKey(read.array()?),
                    body: read.array()?,
                    first: Sequence(read.u64()?),
                    count: read.u32()?,
                })
            })();
            entries.push(entry.ok_or_else(bad)?);
        }
        Ok(entries)
    }

    /// All entries, by key.
    pub fn iter(&self) -> impl Iterator<Item = io::Result<Remembered>> + '_ {
        (0..self.fences.len()).flat_map(|page| {
            let (entries, error) = match self.page(page) {
                Ok(entries) => (entries, None),
                Err(error) => (Vec::new(), Some(Err(error))),
            };
            error.into_iter().chain(entries.into_iter().map(Ok))
        })
    }
}

fn checked(bytes: &[u8]) -> Option<&[u8]> {
    let (content, crc) = bytes.split_last_chunk::<4>()?;
    (crc32c::crc32c(content) == u32::from_le_bytes(*crc)).then_some(content)
}

/// Merges runs, oldest first, into one sequence by key; of equal keys the newest run's entry stays.
pub(crate) fn merge<'a>(runs: &'a [std::sync::Arc<Run>]) -> impl Iterator<Item = io::Result<Remembered>> + 'a {
    let mut heads: Vec<_> = runs.iter().map(|run| run.iter().peekable()).collect();
    std::iter::from_fn(move || {
        let mut smallest: Option<DedupeKey> = None;
        for head in &mut heads {
            match head.peek() {
                Some(Ok(entry)) => smallest = Some(smallest.map_or(entry.key, |key| key.min(entry.key))),
                Some(Err(_)) => return head.next(),
                None => {}
            }
        }
        let smallest = smallest?;
        let mut newest = None;
        for head in &mut heads {
            if let Some(found) = head.next_if(|entry| matches!(entry, Ok(entry) if entry.key == smallest)) {
                newest = Some(found);
            }
        }
        newest
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn entry(n: u64, first: u64) -> Remembered {
        let digest = blake3::hash(&n.to_le_bytes());
        let mut key = [0; 16];
        key.copy_from_slice(&digest.as_bytes()[..16]);
        Remembered { key: DedupeKey(key), body: [n as u8; 16], first: Sequence(first), count: 1 }
    }

    fn run_of(directory: &Path, generation: u32, numbers: std::ops::Range<u64>, offset: u64) -> Arc<Run> {
        let mut entries: Vec<_> = numbers.map(|n| entry(n, n + offset)).collect();
        entries.sort_by_key(|entry| entry.key);
        let cover = Cover { first_generation: generation, last_generation: generation, newest: 5 };
        let count = entries.len() as u64;
        let mut entries = entries.into_iter().map(Ok);
        Arc::new(write(directory, LogId([1; 16]), cover, count, &mut entries).expect("written"))
    }

    #[test]
    fn every_entry_is_found_and_hardly_another() {
        let directory = tempfile::tempdir().expect("a directory");
        let run = run_of(directory.path(), 1, 0..5000, 0);
        for n in 0..5000 {
            let hit = run.find(&entry(n, 0).key).expect("readable").expect("there");
            assert_eq!((hit.first, hit.body), (Sequence(n), [n as u8; 16]));
        }
        assert!((5000..9000).all(|n| run.find(&entry(n, 0).key).expect("readable").is_none()));
        assert_eq!(run.iter().count(), 5000);
    }

    #[test]
    fn a_merge_keeps_the_newest_of_equal_keys() {
        let directory = tempfile::tempdir().expect("a directory");
        let runs = [run_of(directory.path(), 1, 0..300, 0), run_of(directory.path(), 2, 200..500, 10_000)];
        let merged: Vec<_> = merge(&runs).map(|entry| entry.expect("readable")).collect();
        assert_eq!(merged.len(), 500);
        assert!(merged.windows(2).all(|pair| pair[0].key < pair[1].key));
        let at = |n: u64| merged.iter().find(|e| e.key == entry(n, 0).key).expect("merged").first;
        assert_eq!((at(199), at(250), at(499)), (Sequence(199), Sequence(10_250), Sequence(10_499)));
    }

    #[test]
    fn damage_is_an_error_and_never_an_answer() {
        let directory = tempfile::tempdir().expect("a directory");
        let run = run_of(directory.path(), 1, 0..500, 0);
        let path = run.path.clone();
        let whole = std::fs::read(&path).expect("readable");
        for at in (0..whole.len()).step_by(97) {
            let mut bytes = whole.clone();
            bytes[at] ^= 4;
            std::fs::write(&path, &bytes).expect("writable");
            let Ok(run) = Run::open(&path, LogId([1; 16])) else { continue };
            for n in 0..500 {
                if let Ok(found) = run.find(&entry(n, 0).key) {
                    assert_eq!(found.map(|hit| hit.first), Some(Sequence(n)), "byte {at}");
                }
            }
        }
    }
}
