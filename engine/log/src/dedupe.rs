//! What must be in the log once: the dedupe window. Entries of hot generations are in memory, older ones in sorted runs that
//! are made when a generation is sealed, merged while small, and dropped whole, oldest first.
//!
//! Everything here is derived: a run that is missing or does not verify is made again from the segments.

mod run;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::sync::Arc;

use gravity_model::{LogId, Sequence};
use parking_lot::RwLock;

use crate::api::{DedupeHit, DedupeKey, LogError, LogOptions, SequenceRange};
use crate::block::Remembered;
use crate::directory::{Directory, io_error};
use crate::opening::now;
use crate::segment::Segment;
use crate::segment::catalogue::{Catalogue, Entry};
use crate::shared::Shared;
use run::{Cover, Run};

/// Adjacent runs of one size that are merged into one.
const MERGE: usize = 8;
/// A run is at most this part of the window, so that the window can shrink in steps.
const PARTS_OF_WINDOW: u64 = 16;
/// A generation with more entries in memory is rolled.
const HOT_ENTRIES: usize = 500_000;

type Hot = BTreeMap<u32, HashMap<DedupeKey, DedupeHit>>;

#[derive(Default)]
pub(crate) struct Dedupe {
    hot: RwLock<Hot>,
    /// Oldest first.
    runs: RwLock<Vec<Arc<Run>>>,
}

impl Dedupe {
    /// Opens the runs of `directory`, making those again that are missing or damaged.
    pub fn open(directory: &Directory, catalogue: &Catalogue) -> Result<Dedupe, LogError> {
        let path = directory.dedupe();
        let as_io = |error: io::Error| io_error(&path, &error);
        crate::directory::create_directory(&path).map_err(as_io)?;
        let mut found: Vec<Arc<Run>> = Vec::new();
        for file in fs::read_dir(&path).map_err(as_io)? {
            let file = file.map_err(as_io)?.path();
            // Whole or not, the next run is written over it.
            if file.ends_with(run::TEMPORARY) {
                fs::remove_file(&file).map_err(as_io)?;
                continue;
            }
            match Run::open(&file, directory.log_id) {
                Ok(run) if run.cover.last_generation >= catalogue.dedupe_from => found.push(Arc::new(run)),
                Ok(_) => fs::remove_file(&file).map_err(as_io)?,
                Err(error) => {
                    tracing::warn!(error = %error, "a dedupe run is set aside and made again");
                    fs::remove_file(&file).map_err(as_io)?;
                }
            }
        }
        // The widest run of each place counts; what it covers is what an unfinished merge left.
        found.sort_by_key(|run| (run.cover.first_generation, std::cmp::Reverse(run.cover.last_generation)));
        let mut runs: Vec<Arc<Run>> = Vec::new();
        for run in found {
            match runs.last() {
                Some(last) if run.cover.last_generation <= last.cover.last_generation => {
                    fs::remove_file(&run.path).map_err(as_io)?;
                }
                _ => runs.push(run),
            }
        }
        let covered = |runs: &[Arc<Run>], generation: u32| {
            runs.iter().any(|run| (run.cover.first_generation..=run.cover.last_generation).contains(&generation))
        };
        for entry in &catalogue.segments {
            let wanted = entry.dedupe > 0 && entry.generation >= catalogue.dedupe_from;
            if wanted && !covered(&runs, entry.generation) {
                let segment = Segment::new(&directory.sealed(), entry.clone());
                let run = write_run(directory, entry, collect(&segment)?).map_err(as_io)?;
                runs.push(run);
            }
        }
        runs.sort_by_key(|run| run.cover.first_generation);
        Ok(Dedupe { hot: RwLock::default(), runs: RwLock::new(runs) })
    }

    /// Reads the runs only; a missing one makes its entries unknown. For a reader that changes nothing.
    pub fn open_read_only(directory: &Directory) -> Dedupe {
        let files = fs::read_dir(directory.dedupe()).into_iter().flatten().flatten();
        let mut runs: Vec<Arc<Run>> =
            files.filter_map(|file| Run::open(&file.path(), directory.log_id).ok()).map(Arc::new).collect();
        runs.sort_by_key(|run| run.cover.first_generation);
        Dedupe { hot: RwLock::default(), runs: RwLock::new(runs) }
    }

    /// Remembers entries of a hot generation.
    pub fn add(&self, generation: u32, entries: &[Remembered]) {
        if entries.is_empty() {
            return;
        }
        let mut hot = self.hot.write();
        let map = hot.entry(generation).or_default();
        for entry in entries {
            map.insert(entry.key, DedupeHit { body: entry.body, first: entry.first, count: entry.count });
        }
    }

    /// Whether a hot generation holds so many entries that it should be sealed.
    pub fn is_full(&self, generation: u32) -> bool {
        self.hot.read().get(&generation).is_some_and(|map| map.len() >= HOT_ENTRIES)
    }

    /// One answer per key; the newest wins.
    pub fn find(&self, keys: &[DedupeKey]) -> io::Result<Vec<Option<DedupeHit>>> {
        let hot = self.hot.read();
        let runs = self.runs.read().clone();
        let mut found = Vec::with_capacity(keys.len());
        for key in keys {
            let mut hit = hot.values().rev().find_map(|map| map.get(key).copied());
            for run in runs.iter().rev() {
                if hit.is_some() {
                    break;
                }
                hit = run.find(key)?;
            }
            found.push(hit);
        }
        Ok(found)
    }

    pub fn len(&self) -> u64 {
        let hot: u64 = self.hot.read().values().map(|map| map.len() as u64).sum();
        hot + self.runs.read().iter().map(|run| run.entries).sum::<u64>()
    }

    /// A generation became a segment: its entries move from memory into a run. Where that fails they stay in memory, and
    /// the next start makes the run from the segment.
    pub fn sealed(&self, shared: &Shared, entry: &Entry) {
        if let Err(error) = self.move_to_run(shared, entry) {
            tracing::warn!(generation = entry.generation, error = %error, "dedupe entries stay in memory");
        }
        if let Err(error) = self.merge(&shared.directory, &shared.options).and_then(|()| self.evict(shared)) {
            tracing::warn!(error = %error, "the dedupe window was not tidied");
        }
    }

    fn move_to_run(&self, shared: &Shared, entry: &Entry) -> io::Result<()> {
        let held = self.hot.read().get(&entry.generation).cloned();
        if let Some(held) = held {
            let remembered = held.into_iter().map(|(key, hit)| Remembered {
                key,
                body: hit.body,
                first: hit.first,
                count: hit.count,
            });
            let run = write_run(&shared.directory, entry, remembered.collect())?;
            // The run is there before the entries leave memory: a look-up in between finds them twice.
            self.runs.write().push(run);
            self.hot.write().remove(&entry.generation);
        }
        Ok(())
    }

    /// Merges adjacent small runs.
    fn merge(&self, directory: &Directory, options: &LogOptions) -> io::Result<()> {
        let largest = options.dedupe_bytes / PARTS_OF_WINDOW;
        loop {
            let runs = self.runs.read().clone();
            let size = |run: &Run| (run.bytes / (64 << 10)).max(1).ilog2() / 3;
            let group = (0..runs.len().saturating_sub(MERGE - 1)).find(|at| {
                let group = &runs[*at..*at + MERGE];
                let bytes: u64 = group.iter().map(|run| run.bytes).sum();
                group.iter().all(|run| size(run) == size(&group[0])) && bytes <= largest
            });
            let Some(at) = group else { return Ok(()) };
            let group = &runs[at..at + MERGE];
            let cover = Cover {
                first_generation: group[0].cover.first_generation,
                last_generation: group[MERGE - 1].cover.last_generation,
                newest: group.iter().map(|run| run.cover.newest).max().unwrap_or(i64::MIN),
            };
            let count = run::merge(group).count() as u64;
            let merged = run::write(&directory.dedupe(), directory.log_id, cover, count, &mut run::merge(group))?;
            self.runs.write().splice(at..at + MERGE, [Arc::new(merged)]);
            for old in group {
                fs::remove_file(&old.path)?;
            }
        }
    }

    /// Lets the oldest runs go that are too old, or beyond the window's bytes.
    fn evict(&self, shared: &Shared) -> io::Result<()> {
        let oldest_kept =
            now().saturating_sub(i64::try_from(shared.options.dedupe_age.as_micros()).unwrap_or(i64::MAX));
        loop {
            let runs = self.runs.read().clone();
            let bytes: u64 = runs.iter().map(|run| run.bytes).sum();
            let Some(oldest) = runs.first() else { return Ok(()) };
            if bytes <= shared.options.dedupe_bytes && oldest.cover.newest >= oldest_kept {
                return Ok(());
            }
            // The catalogue forgets it first, so that no start makes it again.
            let mut catalogue = shared.catalogue.lock();
            let mut next = catalogue.clone();
            next.dedupe_from = oldest.cover.last_generation + 1;
            next.write(&shared.directory.catalogue())?;
            *catalogue = next;
            drop(catalogue);
            self.runs.write().remove(0);
            fs::remove_file(&oldest.path)?;
        }
    }

    /// First sequence that the window still holds entries for.
    pub fn from(catalogue: &Catalogue, first_hot: Sequence) -> Sequence {
        if catalogue.dedupe_from <= 1 {
            return Sequence(1);
        }
        let kept = catalogue.segments.iter().find(|entry| entry.generation >= catalogue.dedupe_from);
        kept.map_or(first_hot, |entry| entry.first)
    }
}

fn write_run(directory: &Directory, entry: &Entry, mut remembered: Vec<Remembered>) -> io::Result<Arc<Run>> {
    remembered.sort_by_key(|entry| (entry.key, std::cmp::Reverse(entry.first)));
    remembered.dedup_by_key(|entry| entry.key);
    let cover = Cover { first_generation: entry.generation, last_generation: entry.generation, newest: entry.newest };
    let count = remembered.len() as u64;
    let log_id: LogId = directory.log_id;
    run::write(&directory.dedupe(), log_id, cover, count, &mut remembered.into_iter().map(Ok)).map(Arc::new)
}

/// The entries of a segment, from its blocks.
fn collect(segment: &Segment) -> Result<Vec<Remembered>, LogError> {
    let range = SequenceRange { first: segment.entry.first, last: segment.entry.last };
    let mut remembered = Vec::new();
    let mut bad = None;
    segment.check(
        range,
        &mut |restored| {
            for part in &restored.parts {
                remembered.extend(part.meta().into_iter().flat_map(|meta| meta.dedupe));
            }
        },
        &mut |range, detail| {
            bad.get_or_insert((range, detail));
        },
    );
    match bad {
        None => Ok(remembered),
        Some((range, detail)) => Err(LogError::Damaged { what: segment.path.display().to_string(), range, detail }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// L24: killed between the sync of a run and its rename. The file is whole, but its name belongs to the next run.
    #[test]
    fn a_run_that_never_got_its_name_is_not_a_run() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let directory = Directory::open(root.path()).expect("open");
        let cover = Cover { first_generation: 1, last_generation: 1, newest: i64::MAX };
        let entry = Remembered { key: DedupeKey([7; 16]), body: [1; 16], first: Sequence(1), count: 1 };
        let mut entries = std::iter::once(Ok(entry));
        let written = run::write(&directory.dedupe(), directory.log_id, cover, 1, &mut entries).expect("write");
        let catalogue = Catalogue::default();
        let reopened = Dedupe::open(&directory, &catalogue).expect("open");
        assert!(reopened.find(&[DedupeKey([7; 16])]).expect("readable")[0].is_some());

        let unnamed = directory.dedupe().join(run::TEMPORARY);
        fs::rename(&written.path, &unnamed).expect("rename");
        let reopened = Dedupe::open(&directory, &catalogue).expect("open");
        assert_eq!(reopened.find(&[DedupeKey([7; 16])]).expect("readable"), [None]);
        assert!(!unnamed.exists());
    }
}
