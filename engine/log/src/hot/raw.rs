//! The raw twin: the same framed blocks in one append-only file. Yardstick of benchmarks, oracle of tests.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use parking_lot::RwLock;

use super::{Met, Store, closed};
use crate::api::LogError;
use crate::directory::{create_directory, io_error, sync_directory};
use crate::frame::{self, FRAME_HEADER};

pub(crate) const FILE: &str = "raw.log";
/// Read at once while scanning; larger than any frame.
const WINDOW: usize = 4 << 20;

pub(crate) struct RawStore {
    salt: u32,
    inner: RwLock<Option<Inner>>,
}

struct Inner {
    file: File,
    end: u64,
    /// (ordinal, offset, bytes), by ordinal.
    places: Vec<(u64, u64, u32)>,
}

impl RawStore {
    pub fn open(directory: &Path, salt: u32) -> Result<RawStore, LogError> {
        let as_io = |error: io::Error| io_error(directory, &error);
        create_directory(directory).map_err(as_io)?;
        let path = directory.join(FILE);
        let file = File::options()
            .create(true)
            .read(true)
            .append(true)
            .open(&path)
            .map_err(|error| io_error(&path, &error))?;
        file.sync_all().map_err(as_io)?;
        sync_directory(directory).map_err(as_io)?;
        if let Some(parent) = directory.parent() {
            sync_directory(parent).map_err(as_io)?;
        }
        let end = file.metadata().map_err(as_io)?.len();
        let store = RawStore { salt, inner: RwLock::new(Some(Inner { file, end, places: Vec::new() })) };
        let mut places = Vec::new();
        store
            .walk(&mut |offset, met| {
                if let Met::Frame { ordinal, bytes } = met {
                    places.push((ordinal, offset, bytes.len() as u32));
                }
            })
            .map_err(as_io)?;
        if let Some(inner) = store.inner.write().as_mut() {
            inner.places = places;
        }
        Ok(store)
    }

    /// Visits every frame with its offset. Where the bytes are no frame it goes on at the next place that can be one.
    fn walk(&self, each: &mut dyn FnMut(u64, Met<'_>)) -> io::Result<()> {
        let inner = self.inner.read();
        let inner = inner.as_ref().ok_or_else(closed)?;
        let mut file = &inner.file;
        io::Seek::seek(&mut file, io::SeekFrom::Start(0))?;
        let mut window: Vec<u8> = Vec::new();
        // Offset of the window, start of the next frame in it, whether the file's end is in it, the last ordinal met.
        let (mut base, mut at, mut ended, mut newest) = (0u64, 0usize, false, 0u64);
        loop {
            if !ended && window.len() - at < WINDOW / 2 {
                window.drain(..at);
                base += at as u64;
                at = 0;
                let wanted = (WINDOW - window.len()) as u64;
                ended = (&mut file).take(wanted).read_to_end(&mut window)? < wanted as usize;
            }
            if at == window.len() {
                return Ok(());
            }
            let problem = match frame::open(&window[at..], self.salt) {
                // An older copy inside damaged bytes is not the block that stood here.
                Ok((frame, block, true)) if frame.ordinal > newest => {
                    let bytes = &window[at..at + FRAME_HEADER + block.len()];
                    // A block that does not verify may have torn bytes inside its length: the next frame can begin there. Nor
                    // does it use up its ordinal: what declares it void was written under the same one.
                    if crate::block::checksum_holds(block) {
                        newest = frame.ordinal;
                        each(base + at as u64, Met::Frame { ordinal: frame.ordinal, bytes });
                        at += bytes.len();
                        continue;
                    }
                    format!("block {} does not match its checksum", frame.ordinal)
                }
                Ok((_, _, true)) => "a frame out of order".to_owned(),
                Ok((frame, _, false)) => format!("block {} is cut short by the end of the file", frame.ordinal),
                Err(detail) => detail,
            };
            each(base + at as u64, Met::Bad { detail: format!("offset {}: {problem}", base + at as u64) });
            // Resynchronise: skip to the next magic, refilling the window as needed.
            at += 1;
            loop {
                if let Some(found) = frame::find(&window, at) {
                    at = found;
                    break;
                }
                at = window.len().saturating_sub(3).max(at).min(window.len());
                if ended {
                    at = window.len();
                    break;
                }
                window.drain(..at);
                base += at as u64;
                at = 0;
                let wanted = (WINDOW - window.len()) as u64;
                ended = (&mut file).take(wanted).read_to_end(&mut window)? < wanted as usize;
            }
        }
    }
}

impl Store for RawStore {
    fn write(&self, ordinal: u64, frame: &[u8]) -> io::Result<()> {
        let mut inner = self.inner.write();
        let inner = inner.as_mut().ok_or_else(closed)?;
        (&inner.file).write_all(frame)?;
        inner.places.push((ordinal, inner.end, frame.len() as u32));
        inner.end += frame.len() as u64;
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.inner.read().as_ref().ok_or_else(closed)?.file.sync_data()
    }

    fn read(&self, ordinal: u64, out: &mut Vec<u8>) -> io::Result<()> {
        let inner = self.inner.read();
        let inner = inner.as_ref().ok_or_else(closed)?;
        let Ok(at) = inner.places.binary_search_by_key(&ordinal, |place| place.0) else {
            return Err(io::Error::new(io::ErrorKind::NotFound, format!("block {ordinal} is not in the hot store")));
        };
        let (_, offset, bytes) = inner.places[at];
        out.clear();
        out.resize(bytes as usize, 0);
        inner.file.read_exact_at(out, offset)
    }

    fn scan(&self, each: &mut dyn FnMut(Met<'_>)) -> io::Result<()> {
        self.walk(&mut |_, met| each(met))
    }

    fn fullness(&self) -> f64 {
        0.0
    }

    fn blobs(&self) -> u64 {
        0
    }

    fn close(&self) {
        *self.inner.write() = None;
    }
}

#[cfg(test)]
mod tests {
    use gravity_model::Sequence;
    use gravity_model::ident::Digest;

    use super::*;
    use crate::frame::Frame;
    use crate::pack::Packer;

    const SALT: u32 = 7;

    fn framed(packer: &mut Packer, ordinal: u64, text: &[u8]) -> Vec<u8> {
        let mut made = packer.pack_carry(text, Vec::new(), Sequence(1), 0).pop().expect("one block");
        frame::seal(&mut made.packed.framed, Frame { ordinal, durable: 0, salt: SALT });
        made.packed.framed
    }

    /// L5, L7: a power cut kept the frame's sector of the last block and lost the rest of it. The next opening declares it void
    /// with a block of the same ordinal, since a torn block is no block; that one must be read.
    #[test]
    fn a_torn_block_does_not_hide_the_block_that_declares_it_void() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut packer = Packer::new(1 << 10, Digest::default()).expect("a packer");
        let store = RawStore::open(directory.path(), SALT).expect("open");
        store.write(1, &framed(&mut packer, 1, b"whole")).expect("write");
        let mut torn = framed(&mut packer, 2, b"torn in the middle");
        let middle = torn.len() - 8;
        torn[middle] ^= 0xff;
        store.write(2, &torn).expect("write");
        let void = framed(&mut packer, 2, b"declares it void");
        store.write(2, &void).expect("write");
        store.close();

        let store = RawStore::open(directory.path(), SALT).expect("open");
        let mut met = Vec::new();
        let mut each = |seen: Met<'_>| match seen {
            Met::Frame { ordinal, bytes } => met.push((ordinal, Some(bytes.to_vec()))),
            Met::Bad { .. } => met.push((0, None)),
        };
        store.scan(&mut each).expect("readable");
        assert_eq!(met.len(), 3);
        assert_eq!((met[1].0, met[2].clone()), (0, (2, Some(void.clone()))));
        let mut read = Vec::new();
        store.read(2, &mut read).expect("the void block");
        assert_eq!(read, void);
    }
}
