//! The hot generation in sled 0.34.7, inside its safe envelope. The only file that says `sled::`.
//!
//! The envelope, each part of which was found by losing data outside it: one tree per 8 blocks (a ninth insert rewrites the
//! leaf), blocks of at most 256 KiB and segments of 16 MiB (a leaf above a quarter of a segment goes to a blob file that is
//! never synced), our own fdatasync of `db` after each flush (`flush` ends in sync_file_range), no append to a tree that was
//! recovered from a crash, no `snap.*.generating` at open (it would be taken for the newest snapshot).

use std::fs::{self, File};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use parking_lot::{Mutex, RwLock};

use super::{Met, Store, closed};
use crate::api::LogError;
use crate::directory::{create_directory, io_error, sync_directory};

const SEGMENT_BYTES: usize = 16 << 20;
const TREE_BLOCKS: usize = 8;
const BLOCK_BYTES: usize = 256 << 10;
/// Each tree's name is in a map that every new tree rewrites.
const MAX_TREES: usize = 2000;
/// Rolled here, so that batches that are under way still fit below the limit.
const ROLL_AT_TREES: usize = 1750;
const CACHE_BYTES: u64 = 32 << 20;
/// sled's cache evicts a shard only when its queue of accesses is full: this many cheap reads fill it.
const TOUCHES: usize = 64;

// A tree's values with 64 KiB of overhead stay within a leaf that sled keeps in its own file.
const _: () = assert!(TREE_BLOCKS * BLOCK_BYTES + (64 << 10) <= SEGMENT_BYTES / 4);
const _: () = assert!(crate::block::MAX_PACKED + crate::frame::FRAME_HEADER <= BLOCK_BYTES);

pub(crate) struct SledStore {
    directory: PathBuf,
    handle: RwLock<Option<Handle>>,
    filling: Mutex<Filling>,
}

struct Handle {
    db: sled::Db,
    /// Second descriptor of sled's file, for the sync that sled does not do.
    file: File,
    /// By first ordinal.
    trees: Vec<(u64, sled::Tree)>,
}

/// The tree that takes blocks; none at first, so that a recovered tree never does.
#[derive(Default)]
struct Filling {
    blocks: usize,
    bytes: usize,
}

impl SledStore {
    pub fn open(directory: &Path) -> Result<SledStore, LogError> {
        let as_io = |error: io::Error| io_error(directory, &error);
        create_directory(directory).map_err(as_io)?;
        remove_half_snapshots(directory).map_err(as_io)?;
        let db = match open_db(directory) {
            Ok(db) => db,
            Err(OpenError::Disk(error)) => return Err(as_io(error)),
            Err(OpenError::Content(first)) => {
                // A snapshot only saves time: the records are all in `db`. Set it aside once and let sled read them.
                set_snapshots_aside(directory).map_err(as_io)?;
                tracing::warn!(directory = %directory.display(), error = first, "sled refused to open; trying without its snapshot");
                open_db(directory).map_err(|error| match error {
                    OpenError::Disk(error) => as_io(error),
                    OpenError::Content(detail) => LogError::Refused {
                        path: directory.to_owned(),
                        detail: format!("the hot generation cannot be opened: {detail}; it was left as it is"),
                    },
                })?
            }
        };
        let file = File::options().write(true).open(directory.join("db")).map_err(as_io)?;
        let blobs = count_blobs(directory);
        if blobs > 0 {
            return Err(LogError::Refused {
                path: directory.join("blobs"),
                detail: format!("{blobs} files where the safe envelope allows none"),
            });
        }
        for entry in fs::read_dir(directory).map_err(as_io)? {
            let path = entry.map_err(as_io)?.path();
            if path.is_file() {
                File::open(&path).and_then(|file| file.sync_all()).map_err(as_io)?;
            }
        }
        sync_directory(directory).map_err(as_io)?;
        if let Some(parent) = directory.parent() {
            sync_directory(parent).map_err(as_io)?;
        }
        let mut trees = Vec::new();
        for name in db.tree_names() {
            let Some(first) = tree_first(&name) else { continue };
            let tree = db.open_tree(&name).map_err(|error| as_io(from_sled(error)))?;
            trees.push((first, tree));
        }
        trees.sort_by_key(|(first, _)| *first);
        let handle = RwLock::new(Some(Handle { db, file, trees }));
        Ok(SledStore { directory: directory.to_owned(), handle, filling: Mutex::new(Filling::default()) })
    }
}

enum OpenError {
    /// The disk would not: worth trying again.
    Disk(io::Error),
    /// sled does not like what it found.
    Content(String),
}

fn open_db(directory: &Path) -> Result<sled::Db, OpenError> {
    let config = sled::Config::new()
        .path(directory)
        .segment_size(SEGMENT_BYTES)
        .cache_capacity(CACHE_BYTES)
        .flush_every_ms(None)
        .use_compression(false);
    // sled asserts where others return errors; a damaged generation must be refused, not take the process along.
    match catch_unwind(AssertUnwindSafe(|| config.open())) {
        Ok(Ok(db)) => Ok(db),
        Ok(Err(sled::Error::Io(error))) => Err(OpenError::Disk(error)),
        Ok(Err(error)) => Err(OpenError::Content(error.to_string())),
        Err(_) => Err(OpenError::Content("sled panicked".to_owned())),
    }
}

fn remove_half_snapshots(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("");
        if name.starts_with("snap.") && name.ends_with(".generating") {
            tracing::warn!(file = %path.display(), "removing a half-written snapshot of an opening that was cut off");
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

fn set_snapshots_aside(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if let Some(name) = path.file_name().and_then(|name| name.to_str()).filter(|name| name.starts_with("snap.")) {
            fs::rename(&path, directory.join(format!("aside.{name}")))?;
        }
    }
    Ok(())
}

fn count_blobs(directory: &Path) -> u64 {
    fs::read_dir(directory.join("blobs")).map_or(0, |entries| entries.count() as u64)
}

fn tree_name(first: u64) -> String {
    format!("s{first:016x}")
}

fn tree_first(name: &[u8]) -> Option<u64> {
    let name = std::str::from_utf8(name).ok()?.strip_prefix('s')?;
    u64::from_str_radix(name, 16).ok()
}

fn from_sled(error: sled::Error) -> io::Error {
    match error {
        sled::Error::Io(error) => error,
        other => io::Error::other(other.to_string()),
    }
}

/// Makes the cache drop what it should have dropped.
fn touch(tree: &sled::Tree) {
    for _ in 0..TOUCHES {
        let _ = tree.get([0]);
    }
}

impl Store for SledStore {
    fn write(&self, ordinal: u64, frame: &[u8]) -> io::Result<()> {
        assert!(frame.len() <= BLOCK_BYTES, "a block of {} bytes is outside sled's safe envelope", frame.len());
        let mut handle = self.handle.write();
        let handle = handle.as_mut().ok_or_else(closed)?;
        let mut filling = self.filling.lock();
        if filling.blocks == 0 || filling.blocks == TREE_BLOCKS {
            assert!(
                handle.trees.len() < MAX_TREES,
                "a generation of more than {MAX_TREES} trees is outside sled's safe envelope"
            );
            if let Some((_, full)) = handle.trees.last() {
                touch(full);
            }
            let tree = handle.db.open_tree(tree_name(ordinal)).map_err(from_sled)?;
            handle.trees.push((ordinal, tree));
            *filling = Filling::default();
        }
        filling.blocks += 1;
        filling.bytes += frame.len();
        assert!(
            filling.bytes + (64 << 10) <= SEGMENT_BYTES / 4,
            "a tree of {} bytes is outside sled's safe envelope",
            filling.bytes
        );
        let (_, tree) = handle.trees.last().expect("one was just added if there was none");
        tree.insert(ordinal.to_be_bytes(), frame).map_err(from_sled)?;
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        let handle = self.handle.read();
        let handle = handle.as_ref().ok_or_else(closed)?;
        handle.db.flush().map_err(from_sled)?;
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let handle = self.handle.read();
        let handle = handle.as_ref().ok_or_else(closed)?;
        handle.file.sync_data()?;
        let blobs = self.directory.join("blobs");
        if count_blobs(&self.directory) > 0 {
            // The writer's assertions rule it out; if it happens all the same, durable comes first and the alarm second.
            for entry in fs::read_dir(&blobs)? {
                File::open(entry?.path())?.sync_all()?;
            }
            sync_directory(&blobs)?;
            tracing::error!(directory = %blobs.display(), "sled wrote a blob file: outside the safe envelope");
        }
        Ok(())
    }

    fn read(&self, ordinal: u64, out: &mut Vec<u8>) -> io::Result<()> {
        let handle = self.handle.read();
        let handle = handle.as_ref().ok_or_else(closed)?;
        let at = handle.trees.partition_point(|(first, _)| *first <= ordinal);
        let missing = || io::Error::new(io::ErrorKind::NotFound, format!("block {ordinal} is not in the hot store"));
        let (_, tree) = handle.trees.get(at.wrapping_sub(1)).ok_or_else(missing)?;
        let value = tree.get(ordinal.to_be_bytes()).map_err(from_sled)?.ok_or_else(missing)?;
        out.clear();
        out.extend_from_slice(&value);
        touch(tree);
        Ok(())
    }

    fn scan(&self, each: &mut dyn FnMut(Met<'_>)) -> io::Result<()> {
        let handle = self.handle.read();
        let handle = handle.as_ref().ok_or_else(closed)?;
        for (first, tree) in &handle.trees {
            for entry in tree.iter() {
                match entry {
                    Ok((key, value)) => match key.first_chunk::<8>() {
                        Some(ordinal) => each(Met::Frame { ordinal: u64::from_be_bytes(*ordinal), bytes: &value }),
                        None => each(Met::Bad { detail: "a key that no block has".to_owned() }),
                    },
                    Err(error) => {
                        each(Met::Bad { detail: format!("tree of block {first}: {error}") });
                        break;
                    }
                }
            }
            touch(tree);
        }
        Ok(())
    }

    fn fullness(&self) -> f64 {
        let trees = self.handle.read().as_ref().map_or(0, |handle| handle.trees.len());
        // Batches that are under way when the limit is seen must still fit.
        trees as f64 / ROLL_AT_TREES as f64
    }

    fn blobs(&self) -> u64 {
        count_blobs(&self.directory)
    }

    fn close(&self) {
        *self.handle.write() = None;
    }
}
