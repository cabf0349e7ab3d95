//! Reads the directory of a stopped engine and changes nothing in it: sled writes whenever it opens, so hot generations are
//! read from a copy.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::api::LogError;
use crate::dedupe::Dedupe;
use crate::directory::{Directory, io_error};
use crate::hot;
use crate::live::Live;
use crate::log::{Found, Log, Parts, segments_of};
use crate::opening;
use crate::recover;
use crate::segment::catalogue::Catalogue;
use crate::shared::View;

/// A temporary directory that goes when it is dropped.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    fn create() -> io::Result<Scratch> {
        let path = std::env::temp_dir().join(format!("gravity-log-{}", uuid::Uuid::new_v4()));
        fs::create_dir(&path)?;
        Ok(Scratch(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(path = %self.0.display(), error = %error, "a temporary copy could not be removed");
        }
    }
}

fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

/// See [`crate::open_read_only`]. Damage does not refuse here: what can be read is served, reads of the rest name it.
pub(crate) fn open(root: &Path) -> Result<Log, LogError> {
    let directory = Directory::open_read_only(root)?;
    let salt = directory.salt();
    let catalogue = Catalogue::read(&directory.catalogue())?;
    let scratch = Scratch::create().map_err(|error| io_error(&std::env::temp_dir(), &error))?;
    let mut found: Vec<Found> = Vec::new();
    for generation in directory.generations()? {
        let path = directory.generation(generation);
        let sealed = catalogue.segments.iter().any(|entry| entry.generation == generation);
        let Some(kind) = hot::kind_of(&path).filter(|_| !sealed) else { continue };
        let copy = scratch.0.join(format!("{generation:08}"));
        copy_tree(&path, &copy).map_err(|error| io_error(&path, &error))?;
        let store = hot::open(kind, &copy, salt)?;
        let scanned = recover::scan(store.as_ref(), salt, None).map_err(|error| io_error(&path, &error))?;
        if scanned.blocks.is_empty() {
            store.close();
            continue;
        }
        found.push(Found { generation, store, scanned });
    }
    let mut view = View { segments: segments_of(&directory, &catalogue), ..View::default() };
    let dedupe = Dedupe::open_read_only(&directory);
    let mut live = Live::default();
    let mut stores = BTreeMap::new();
    let mut last = catalogue.segments.last().map_or(0, |entry| entry.last.get());
    for generation in &found {
        view.hot.extend(generation.scanned.hot_blocks(generation.generation));
        for seen in &generation.scanned.blocks {
            dedupe.add(generation.generation, &seen.meta.dedupe);
        }
        if let Some((_, state)) = generation.scanned.live() {
            live = state;
        }
        last = generation.scanned.chain_head().map_or(last, |head| head.next.get() - 1);
        stores.insert(generation.generation, generation.store.clone());
    }
    view.last = gravity_model::Sequence(last);
    let identity = opening::last_identity(directory.log_id, &live);
    let parts = Parts { directory, catalogue, view, dedupe, live, stores };
    Ok(Log::reading(parts, identity, scratch))
}
