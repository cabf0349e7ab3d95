//! Reads a range of the log again and checks all that can be checked: checksums, places, the digest chain, sequences.

use gravity_model::Sequence;
use gravity_model::ident::Digest;

use crate::api::{LogError, SequenceRange, Verified};
use crate::block::{self, CHUNK, CHUNK_BEGIN};
use crate::frame;
use crate::hot::Store;
use crate::recover::HotBlock;
use crate::shared::Shared;

/// See [`crate::EventLog::verify`]. What is appended after the call began is not looked at.
pub(crate) fn verify(
    shared: &Shared,
    range: Option<SequenceRange>,
    progress: &mut dyn FnMut(u64),
) -> Result<Verified, LogError> {
    let mut found = Verified::default();
    let (segments, hot, last) = {
        let view = shared.view.read();
        (view.segments.clone(), view.hot.iter().copied().collect::<Vec<_>>(), view.last)
    };
    let all = SequenceRange { first: Sequence(1), last };
    let range = range.unwrap_or(all);
    let is_whole = |segment: SequenceRange| range.first <= segment.first && segment.last <= range.last;
    for segment in segments {
        let own = SequenceRange { first: segment.entry.first, last: segment.entry.last };
        if own.last < range.first || own.first > range.last {
            continue;
        }
        let what = segment.path.display().to_string();
        if is_whole(own) {
            // Bytes that no reader looks at are covered by the digest of the whole file.
            match segment.file_digest() {
                Ok(digest) if digest == segment.entry.file_digest => {}
                Ok(_) => found.bad.push((what.clone(), own, "the file's digest does not match".to_owned())),
                Err(error) => found.bad.push((what.clone(), own, error.to_string())),
            }
        }
        let mut bad = Vec::new();
        let (blocks, events, bytes, head) = (&mut found.blocks, &mut found.events, &mut found.bytes, &mut found.head);
        segment.check(
            range,
            &mut |restored| {
                if restored.block.last() >= range.first && restored.block.mark.first <= range.last {
                    *blocks += 1;
                    *events += u64::from(restored.block.count);
                    *bytes += restored.block.records().len() as u64;
                    *head = restored.block.mark.digest;
                    progress(*events);
                }
            },
            &mut |range, detail| bad.push((what.clone(), range, detail)),
        );
        found.bad.extend(bad);
    }
    let mut previous: Option<(Digest, Sequence)> = None;
    let mut buffer = Vec::new();
    for at in hot.iter().filter(|at| at.last() >= range.first && at.mark.first <= range.last) {
        let own = SequenceRange { first: at.mark.first, last: at.last() };
        let what = format!("hot generation {}", at.generation);
        let Some(store) = shared.store(at.generation) else {
            // Sealed meanwhile: it was read back and verified for that.
            found.blocks += 1;
            found.events += u64::from(at.count);
            found.head = at.mark.digest;
            progress(found.events);
            previous = None;
            continue;
        };
        if let Some((_, next)) = previous
            && next != at.mark.first
        {
            let gap = SequenceRange { first: next, last: Sequence(at.mark.first.get() - 1) };
            found.bad.push((what.clone(), gap, "missing".to_owned()));
        }
        match check_block(store.as_ref(), shared.salt, at, &mut buffer) {
            Ok(bytes) => found.bytes += bytes,
            // Sealed between two reads: it was read back and verified for that.
            Err(_) if shared.store(at.generation).is_none() => {}
            Err(detail) => found.bad.push((what, own, detail)),
        }
        found.blocks += 1;
        found.events += u64::from(at.count);
        found.head = at.mark.digest;
        previous = Some((at.mark.digest, at.last().next()));
        progress(found.events);
    }
    Ok(found)
}

/// Reads the physical blocks of `at` and checks that they chain up to its digest. Gives their uncompressed bytes.
fn check_block(store: &dyn Store, salt: u32, at: &HotBlock, buffer: &mut Vec<u8>) -> Result<u64, String> {
    let first = at.ordinal + 1 - u64::from(at.parts);
    let mut previous: Option<Digest> = None;
    let mut bytes = 0;
    for ordinal in first..=at.ordinal {
        store.read(ordinal, buffer).map_err(|error| error.to_string())?;
        let (frame, packed, whole) = frame::open(buffer, salt)?;
        if frame.ordinal != ordinal || !whole {
            return Err(format!("block {ordinal} is another or cut short"));
        }
        let unpacked = block::decode(packed).map_err(|detail| format!("block {ordinal}: {detail}"))?;
        if previous.is_some_and(|previous| previous != unpacked.previous) {
            return Err(format!("block {ordinal} does not follow its predecessor"));
        }
        if at.parts > 1 && unpacked.head.has(CHUNK) && unpacked.head.has(CHUNK_BEGIN) != (ordinal == first) {
            return Err(format!("block {ordinal} is another piece of its event"));
        }
        previous = Some(unpacked.digest);
        bytes += u64::from(unpacked.head.body_len);
    }
    match previous {
        Some(digest) if digest == at.mark.digest => Ok(bytes),
        _ => Err("the digest is not the one that was acknowledged".to_owned()),
    }
}
