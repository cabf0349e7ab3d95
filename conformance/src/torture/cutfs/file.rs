//! One file of cutfs: the backing file holds the *current* bytes, memory holds what a power cut would put back.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::{CutMode, CutReport};
use crate::torture::random::Random;

/// What a disk writes or loses as one.
pub const PAGE: usize = 4096;
/// What a disk writes without tearing it.
pub const SECTOR: usize = 512;

/// Bytes of one page before its first unsynced write; `None` where the page lay beyond the durable end.
type Before = Option<Box<[u8; PAGE]>>;

pub struct CutFile {
    backing: File,
    size: u64,
    durable_size: u64,
    undo: BTreeMap<u64, Before>,
    /// Made shorter since the last sync. A cut then keeps or loses the file's unsynced changes as a whole.
    shrunk: bool,
}

impl CutFile {
    /// `backing` must be empty.
    pub fn new(backing: File) -> CutFile {
        CutFile { backing, size: 0, durable_size: 0, undo: BTreeMap::new(), shrunk: false }
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    pub fn is_synced(&self) -> bool {
        self.undo.is_empty() && self.size == self.durable_size
    }

    /// Up to `into.len()` bytes at `offset`; fewer at the end of the file.
    pub fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < into.len() {
            match self.backing.read_at(&mut into[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    pub fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        let end = offset + data.len() as u64;
        self.remember(offset, end)?;
        self.backing.write_all_at(data, offset)?;
        self.size = self.size.max(end);
        Ok(())
    }

    pub fn set_size(&mut self, size: u64) -> io::Result<()> {
        if size < self.size {
            self.remember(size, self.size)?;
            self.shrunk = true;
        }
        self.backing.set_len(size)?;
        self.size = size;
        Ok(())
    }

    /// fsync and fdatasync alike: the bytes and the size that is needed to read them.
    pub fn sync(&mut self) {
        self.undo.clear();
        self.durable_size = self.size;
        self.shrunk = false;
    }

    /// Keeps the durable bytes of every page in `start..end` that is about to change for the first time.
    fn remember(&mut self, start: u64, end: u64) -> io::Result<()> {
        for page in start / PAGE as u64..=(end - 1) / PAGE as u64 {
            if self.undo.contains_key(&page) {
                continue;
            }
            let at = page * PAGE as u64;
            let before = if at < self.durable_size { Some(self.page(at)?) } else { None };
            self.undo.insert(page, before);
        }
        Ok(())
    }

    fn page(&self, at: u64) -> io::Result<Box<[u8; PAGE]>> {
        let mut page = Box::new([0; PAGE]);
        self.read(at, page.as_mut_slice())?;
        Ok(page)
    }

    /// The power is gone: unsynced pages, sizes and truncations survive as `mode` says. What is left is durable.
    pub fn cut(&mut self, mode: CutMode, random: &mut Random, report: &mut CutReport) -> io::Result<()> {
        if self.is_synced() {
            return Ok(());
        }
        let whole = match mode {
            CutMode::Names => Some(true),
            CutMode::Everything => Some(false),
            CutMode::DataOnly if self.shrunk => Some(false),
            CutMode::Pages | CutMode::Sectors if self.shrunk => Some(random.one_in(2)),
            CutMode::DataOnly | CutMode::Pages | CutMode::Sectors => None,
        };
        let size = match (whole, mode) {
            (Some(true), _) | (None, CutMode::DataOnly) => self.size,
            (Some(false), _) => self.durable_size,
            // The size reaches the disk on its own: before, after or in the middle of the pages.
            (None, _) => match random.below(3) {
                0 => self.size,
                1 => self.durable_size,
                _ => random.within(self.durable_size.min(self.size), self.durable_size.max(self.size)),
            },
        };
        for (page, before) in std::mem::take(&mut self.undo) {
            let at = page * PAGE as u64;
            // Bit n stands for sector n: set where the new bytes made it to the disk.
            let kept: u8 = match (whole, mode) {
                (Some(true), _) => 0xff,
                (Some(false), _) | (None, CutMode::DataOnly) => 0,
                (None, CutMode::Sectors) => random.below(256) as u8,
                (None, _) => {
                    if random.one_in(2) {
                        0xff
                    } else {
                        0
                    }
                }
            };
            report.count_page(kept);
            if kept == 0xff {
                continue;
            }
            let mut left = before.unwrap_or_else(|| Box::new([0; PAGE]));
            if kept != 0 {
                let now = self.page(at)?;
                for sector in (0..8).filter(|sector| kept >> sector & 1 == 1) {
                    let bytes = sector * SECTOR..(sector + 1) * SECTOR;
                    left[bytes.clone()].copy_from_slice(&now[bytes]);
                }
            }
            // Bytes beyond the end are cut off below; writing them first would only grow the backing file for nothing.
            let len = size.saturating_sub(at).min(PAGE as u64) as usize;
            self.backing.write_all_at(&left[..len], at)?;
        }
        self.backing.set_len(size)?;
        self.size = size;
        self.sync();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> CutFile {
        CutFile::new(tempfile::tempfile().expect("a temporary file"))
    }

    fn content(file: &CutFile) -> Vec<u8> {
        let mut bytes = vec![0; file.size() as usize];
        assert_eq!(file.read(0, &mut bytes).expect("readable"), bytes.len());
        bytes
    }

    fn cut(file: &mut CutFile, mode: CutMode, seed: u64) -> CutReport {
        let mut report = CutReport::default();
        file.cut(mode, &mut Random::new(seed), &mut report).expect("cut");
        report
    }

    #[test]
    fn synced_bytes_stay_and_unsynced_ones_go() {
        let mut file = file();
        file.write(0, &[1; 10_000]).expect("write");
        file.sync();
        file.write(5_000, &[2; 10_000]).expect("write");
        file.write(9_000, &[3; 10]).expect("write over unsynced bytes");
        assert_eq!(content(&file)[9_005], 3);
        let report = cut(&mut file, CutMode::Everything, 1);
        assert_eq!(content(&file), [1; 10_000]);
        assert_eq!((report.pages_lost, report.pages_kept), (3, 0));
        assert_eq!(cut(&mut file, CutMode::Everything, 1), CutReport::default(), "what a cut left is durable");
    }

    #[test]
    fn an_unsynced_truncation_comes_back() {
        let mut file = file();
        file.write(0, &[7; 9_000]).expect("write");
        file.sync();
        file.set_size(100).expect("truncate");
        file.set_size(5_000).expect("grow again");
        assert_eq!(content(&file)[100..], [0; 4_900]);
        cut(&mut file, CutMode::Everything, 1);
        assert_eq!(content(&file), [7; 9_000]);
        file.set_size(100).expect("truncate");
        file.sync();
        cut(&mut file, CutMode::Everything, 1);
        assert_eq!(content(&file), [7; 100]);
    }

    #[test]
    fn data_only_keeps_the_size_and_leaves_zeros() {
        let mut file = file();
        file.write(0, &[1; 4096]).expect("write");
        file.sync();
        file.write(0, &[2; 100]).expect("write");
        file.write(4096, &[3; 5000]).expect("write");
        cut(&mut file, CutMode::DataOnly, 1);
        let mut expected = vec![1; 4096];
        expected.resize(9096, 0);
        assert_eq!(content(&file), expected);
    }

    #[test]
    fn pages_survive_in_any_subset_but_never_torn() {
        let (mut some_kept, mut some_lost) = (false, false);
        for seed in 0..50 {
            let mut file = file();
            file.write(0, &[1; 16 * PAGE]).expect("write");
            file.sync();
            file.write(0, &[2; 16 * PAGE]).expect("write");
            let report = cut(&mut file, CutMode::Pages, seed);
            for page in content(&file).chunks(PAGE) {
                assert!(page.iter().all(|&b| b == page[0]) && (page[0] == 1 || page[0] == 2));
            }
            some_kept |= report.pages_kept > 0;
            some_lost |= report.pages_lost > 0;
            assert_eq!(report.pages_torn, 0);
        }
        assert!(some_kept && some_lost);
    }

    #[test]
    fn sectors_tear_pages_but_never_sectors() {
        let mut torn = 0;
        for seed in 0..20 {
            let mut file = file();
            file.write(0, &[1; 4 * PAGE]).expect("write");
            file.sync();
            file.write(0, &[2; 4 * PAGE]).expect("write");
            torn += cut(&mut file, CutMode::Sectors, seed).pages_torn;
            for sector in content(&file).chunks(SECTOR) {
                assert!(sector.iter().all(|&b| b == sector[0]));
            }
        }
        assert!(torn > 20);
    }

    #[test]
    fn durable_bytes_survive_every_mode() {
        for mode in CutMode::ALL {
            for seed in 0..20 {
                let mut file = file();
                file.write(0, &[1; 5_000]).expect("write");
                file.sync();
                file.write(8_192, &[2; 5_000]).expect("write");
                cut(&mut file, mode, seed);
                assert_eq!(content(&file)[..5_000], [1; 5_000], "{mode:?} {seed}");
            }
        }
    }
}
