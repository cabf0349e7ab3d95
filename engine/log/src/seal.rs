//! The sealer's thread: turns a full hot generation into a segment, and only then lets the generation go.
//!
//! Write to a temporary name, sync, read back and verify, rename, sync the directory, catalogue entry durable; after that the
//! catalogue is the truth and the generation is dropped. A crash at any step leaves the generation, or both; leftovers are
//! collected at the next start.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gravity_model::failpoint::{Hit, hit};
use gravity_model::ident::Digest;

use crate::api::{LogError, SequenceRange};
use crate::block::{self, CARRY, CHUNK, CHUNK_BEGIN, CHUNK_MORE, Peeked};
use crate::directory::{Directory, remove_tree, sync_directory};
use crate::frame;
use crate::hot::{Met, Store};
use crate::segment::Segment;
use crate::segment::catalogue::{Catalogue, Entry};
use crate::segment::columns::Part;
use crate::segment::write::Writer;
use crate::shared::Shared;

const RETRY: Duration = Duration::from_secs(1);
const TEMPORARY: &str = "sealing.new";

/// Runs until told to stop; a seal under way is finished or given up first.
pub(crate) fn run(shared: &Arc<Shared>) {
    loop {
        let generation = {
            let mut work = shared.to_seal.lock();
            loop {
                if work.1 {
                    return;
                }
                if let Some(generation) = work.0.front() {
                    break *generation;
                }
                shared.seal_work.wait(&mut work);
            }
        };
        match seal(shared, generation) {
            Ok(()) => {
                let mut work = shared.to_seal.lock();
                work.0.pop_front();
                let more = !work.0.is_empty();
                drop(work);
                shared.queue.state.lock().sealing = more;
                shared.queue.progress.notify_all();
            }
            Err(error) => {
                // The hot generation stays; intake waits once both are full.
                tracing::error!(generation, error = %error, "sealing failed and is tried again");
                let mut work = shared.to_seal.lock();
                if !work.1 {
                    shared.seal_work.wait_for(&mut work, RETRY);
                }
            }
        }
    }
}

fn step(name: &'static str) -> io::Result<()> {
    match hit(name) {
        Hit::Fail => Err(io::Error::other(format!("injected at {name}"))),
        _ => Ok(()),
    }
}

fn stopping(shared: &Shared) -> io::Result<()> {
    if shared.to_seal.lock().1 { Err(io::Error::new(io::ErrorKind::Interrupted, "the log closes")) } else { Ok(()) }
}

fn seal(shared: &Arc<Shared>, generation: u32) -> io::Result<()> {
    let store = shared.store(generation).ok_or_else(crate::hot::closed)?;
    let sealed = shared.directory.sealed();
    let temporary = sealed.join(TEMPORARY);
    let previous = shared.catalogue.lock().segments.last().map_or(Digest::default(), |entry| entry.head);
    step("seal.before_write")?;
    let entry = write(shared, store.as_ref(), generation, previous, &temporary)?;
    step("seal.after_write")?;

    let written = Segment { entry: entry.clone(), path: temporary.clone() };
    let mut problem = None;
    let range = SequenceRange { first: entry.first, last: entry.last };
    written.check(range, &mut |_| {}, &mut |range, detail| {
        problem.get_or_insert(format!("{}..={}: {detail}", range.first, range.last));
    });
    if let Some(problem) = problem {
        return Err(io::Error::other(format!("the segment does not read back: {problem}")));
    }
    if written.file_digest()? != entry.file_digest {
        return Err(io::Error::other("the segment does not read back: its digest differs"));
    }
    stopping(shared)?;
    step("seal.before_rename")?;
    fs::rename(&temporary, sealed.join(&entry.file))?;
    sync_directory(&sealed)?;
    step("seal.before_catalogue")?;
    let mut catalogue = shared.catalogue.lock();
    let mut next = catalogue.clone();
    next.segments.push(entry.clone());
    next.write(&shared.directory.catalogue())?;
    *catalogue = next;
    drop(catalogue);
    step("seal.after_catalogue")?;

    // From here on nothing may fail: the catalogue says that the generation is history.
    {
        let mut view = shared.view.write();
        view.segments.push(Arc::new(Segment::new(&sealed, entry.clone())));
        while view.hot.front().is_some_and(|block| block.generation == generation) {
            view.hot.pop_front();
        }
    }
    shared.dedupe.sealed(shared, &entry);
    shared.stores.write().remove(&generation);
    store.close();
    drop(store);
    drop_generation(&shared.directory, generation);
    let _ = hit("seal.after_drop");
    Ok(())
}

/// Removes what the catalogue no longer needs; what stays is collected at the next start.
fn drop_generation(directory: &Directory, generation: u32) {
    let path = directory.generation(generation);
    if let Err(error) = remove_tree(&path).and_then(|()| sync_directory(&directory.hot())) {
        tracing::warn!(path = %path.display(), error = %error, "a sealed generation could not be removed yet");
    }
}

/// Writes the generation's blocks, in order, without those that a cut made void.
fn write(shared: &Shared, store: &dyn Store, generation: u32, previous: Digest, path: &Path) -> io::Result<Entry> {
    let survivors = survivors(store, shared.salt)?;
    let mut chain = previous;
    let mut writer = Writer::create(path, shared.directory.log_id, generation, previous)?;
    let mut buffer = Vec::new();
    let mut chunks: Vec<u8> = Vec::new();
    for (ordinal, peeked) in &survivors {
        if ordinal % 64 == 0 {
            stopping(shared)?;
        }
        store.read(*ordinal, &mut buffer)?;
        let (_, packed, _) = frame::open(&buffer, shared.salt).map_err(io::Error::other)?;
        let unpacked = block::decode(packed).map_err(io::Error::other)?;
        if unpacked.previous != chain || unpacked.digest != peeked.digest {
            return Err(io::Error::other(format!("block {ordinal} does not follow its predecessor")));
        }
        chain = unpacked.digest;
        let head = unpacked.head;
        let carry = if head.has(CARRY) { unpacked.body.to_vec() } else { Vec::new() };
        let part = Part { head, digest: unpacked.digest, meta: unpacked.meta.to_vec(), carry };
        if head.has(CHUNK) {
            if head.has(CHUNK_BEGIN) {
                chunks.clear();
            }
            chunks.extend_from_slice(&unpacked.body);
            let records = (!head.has(CHUNK_MORE)).then_some(chunks.as_slice());
            writer.push(part, records)?;
        } else {
            let records = (!head.has(CARRY)).then_some(unpacked.body.as_ref());
            writer.push(part, records)?;
        }
    }
    let (first, last) = {
        let events = survivors.iter().filter(|(_, peeked)| peeked.head.count > 0);
        let mut events = events.map(|(_, peeked)| peeked.head);
        let first = events.next();
        (first, events.next_back().or(first))
    };
    let (Some(first), Some(last)) = (first, last) else {
        return Err(io::Error::other("a generation without events is never sealed"));
    };
    let last = last.first.get() + u64::from(last.count) - 1;
    writer.finish(format!("{:020}-{last:020}.arrow", first.first.get()))
}

/// The physical blocks that count, in order: two light passes instead of holding the generation in memory.
fn survivors(store: &dyn Store, salt: u32) -> io::Result<Vec<(u64, Peeked)>> {
    let mut found: Vec<(u64, Peeked)> = Vec::new();
    let mut problem = None;
    store.scan(&mut |met| {
        let Met::Frame { ordinal, bytes } = met else { return };
        let peeked = match frame::open(bytes, salt) {
            Ok((_, packed, true)) => block::peek(packed),
            Ok(_) => Err("cut short".to_owned()),
            Err(detail) => Err(detail),
        };
        // What does not verify is either void, which the next cut shows, or missing from the chain, which the writer finds.
        let Ok(peeked) = peeked else { return };
        if let Some(cut) = &peeked.cut {
            match found.iter().rposition(|(_, kept)| kept.digest == cut.digest) {
                Some(at) => found.truncate(at + 1),
                None => problem = Some(format!("block {ordinal} cuts back to a block that is not there")),
            }
        }
        found.push((ordinal, peeked));
    })?;
    match problem {
        Some(problem) => Err(io::Error::other(problem)),
        None => Ok(found),
    }
}

/// Removes what a crash left in the middle of a seal: temporary files, segments that the catalogue does not name, and hot
/// generations that it does.
pub(crate) fn collect_leftovers(directory: &Directory, catalogue: &Catalogue) -> Result<(), LogError> {
    let sealed = directory.sealed();
    let as_io = |path: &Path, error: io::Error| crate::directory::io_error(path, &error);
    for entry in fs::read_dir(&sealed).map_err(|error| as_io(&sealed, error))? {
        let path = entry.map_err(|error| as_io(&sealed, error))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("");
        if !catalogue.segments.iter().any(|entry| entry.file == name) {
            tracing::warn!(file = %path.display(), "removing what an unfinished seal left");
            fs::remove_file(&path).map_err(|error| as_io(&path, error))?;
        }
    }
    for generation in directory.generations()? {
        if catalogue.segments.iter().any(|entry| entry.generation == generation) {
            let path = directory.generation(generation);
            remove_tree(&path).map_err(|error| as_io(&path, error))?;
        }
    }
    Ok(())
}
