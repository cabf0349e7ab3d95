//! Reads a hot generation back: checks every frame, block and link of the chain, cuts what was never acknowledged, and
//! refuses to pass over damage.
//!
//! What may be cut is only what follows the last *proof*: each frame says through which write the disk was good when it was
//! written. Before the proof, whatever is missing or does not verify is damage, never the end of the log.

use gravity_model::Sequence;
use gravity_model::ident::{BlockMark, Digest};

use crate::api::{LogError, SequenceRange};
use crate::block::{self, CARRY, CHUNK, CHUNK_BEGIN, CHUNK_MORE, Cut, Head, MORE, Meta};
use crate::frame;
use crate::hot::{Met, Store};
use crate::live::{Carry, Live};
use crate::record::{self, Records};

/// Where the next block joins on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChainHead {
    pub digest: Digest,
    pub next: Sequence,
}

/// Where a block with events is to be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HotBlock {
    pub mark: BlockMark,
    pub count: u32,
    /// Of its (last) physical block.
    pub ordinal: u64,
    /// Physical blocks that it came in.
    pub parts: u32,
    pub generation: u32,
}

impl HotBlock {
    pub fn last(&self) -> Sequence {
        Sequence(self.mark.first.get() + u64::from(self.count) - 1)
    }
}

/// One physical block that counts.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub ordinal: u64,
    pub head: Head,
    pub previous: Digest,
    pub digest: Digest,
    pub meta: Meta,
    /// Records of its state events, with their sequences; the bytes of a carry.
    states: Vec<(Sequence, Vec<u8>)>,
    carry: Vec<u8>,
}

/// A stretch that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Damage {
    pub range: SequenceRange,
    pub detail: String,
}

/// What a generation holds.
#[derive(Debug, Default)]
pub(crate) struct Scanned {
    pub blocks: Vec<Seen>,
    pub damage: Vec<Damage>,
    /// Something follows the last good block that the next block must declare void.
    pub torn: Option<String>,
    pub next_ordinal: u64,
    /// Frames and their bytes, void ones included.
    pub frames: u64,
    pub bytes: u64,
}

enum Item {
    Good(Box<Seen>),
    Bad { ordinal: u64, detail: String },
}

/// Reads all of `store`. `keep_through` cuts after the block with that digest, whatever else is good: for reopening after
/// a failed write, when the callers were already told that the rest is not in the log.
pub(crate) fn scan(store: &dyn Store, salt: u32, keep_through: Option<Digest>) -> std::io::Result<Scanned> {
    let mut items: Vec<Item> = Vec::new();
    let mut scanned = Scanned { next_ordinal: 1, ..Scanned::default() };
    let mut proof = 0u64;
    let mut expected = 1u64;
    let mut chunks = StateChunks::default();
    let mut lost_cut = None;
    store.scan(&mut |met| {
        let (ordinal, bytes) = match met {
            Met::Frame { ordinal, bytes } => (ordinal, bytes),
            Met::Bad { detail } => {
                items.push(Item::Bad { ordinal: expected, detail });
                return;
            }
        };
        scanned.frames += 1;
        scanned.bytes += bytes.len() as u64;
        if ordinal > expected {
            let detail = format!("blocks {expected}..={} are missing", ordinal - 1);
            items.push(Item::Bad { ordinal: expected, detail });
        }
        expected = expected.max(ordinal + 1);
        scanned.next_ordinal = expected;
        let opened = frame::open(bytes, salt);
        let unpacked = match opened {
            Ok((frame, block, true)) if frame.ordinal == ordinal => {
                proof = proof.max(frame.durable);
                block::decode(block)
            }
            Ok((frame, _, true)) => Err(format!("stored as {ordinal}, says {}", frame.ordinal)),
            Ok((_, _, false)) => Err("cut short".to_owned()),
            Err(detail) => Err(detail),
        };
        let seen = unpacked.and_then(|unpacked| Seen::of(ordinal, unpacked, &mut chunks));
        match seen {
            Ok(seen) => {
                if let Some(cut) = seen.meta.cut
                    && !cut_back(&mut items, &cut)
                {
                    lost_cut = Some(cut);
                }
                items.push(Item::Good(Box::new(seen)));
            }
            Err(detail) => items.push(Item::Bad { ordinal, detail: format!("block {ordinal}: {detail}") }),
        }
    })?;
    if let Some(cut) = lost_cut {
        let range = SequenceRange { first: cut.last_kept, last: cut.last_kept };
        scanned.damage.push(Damage { range, detail: "a cut names a block that is not there".to_owned() });
    }
    sift(items, proof, keep_through, &mut scanned);
    Ok(scanned)
}

/// Takes back everything after the block that a cut keeps. False where that block is not there.
fn cut_back(items: &mut Vec<Item>, cut: &Cut) -> bool {
    let kept = items.iter().rposition(|item| matches!(item, Item::Good(seen) if seen.digest == cut.digest));
    match kept {
        Some(at) => items.truncate(at + 1),
        None => return false,
    }
    true
}

/// Checks the chain and decides between damage and a torn tail.
fn sift(items: Vec<Item>, proof: u64, keep_through: Option<Digest>, scanned: &mut Scanned) {
    let mut after_bad: Option<(Sequence, String)> = None;
    let mut closed = 0;
    for item in items {
        let next = scanned.blocks.last().map_or(Sequence(1), |seen| seen.next());
        let seen = match item {
            Item::Good(seen) => *seen,
            Item::Bad { ordinal, detail } if ordinal <= proof => {
                after_bad.get_or_insert((next, detail));
                continue;
            }
            Item::Bad { detail, .. } => {
                scanned.torn.get_or_insert(detail);
                break;
            }
        };
        if let Some(previous) = scanned.blocks.last()
            && after_bad.is_none()
            && (previous.digest != seen.previous || next != seen.head.first)
        {
            let detail = format!("block {} does not follow its predecessor", seen.ordinal);
            if seen.ordinal <= proof {
                after_bad = Some((next, detail));
            } else {
                scanned.torn = Some(detail);
                break;
            }
        }
        if let Some((first, detail)) = after_bad.take() {
            let last = Sequence(seen.head.first.get().max(first.get() + 1) - 1);
            scanned.damage.push(Damage { range: SequenceRange { first, last }, detail });
        }
        let more = seen.head.has(MORE);
        let last_kept = keep_through == Some(seen.digest);
        scanned.blocks.push(seen);
        if !more {
            closed = scanned.blocks.len();
        }
        if last_kept {
            closed = scanned.blocks.len();
            break;
        }
    }
    if let Some((first, detail)) = after_bad {
        scanned.damage.push(Damage { range: SequenceRange { first, last: first }, detail });
    }
    if closed < scanned.blocks.len() {
        scanned.torn.get_or_insert_with(|| format!("{} blocks of an unclosed batch", scanned.blocks.len() - closed));
        scanned.blocks.truncate(closed);
    }
    let physical_end = scanned.blocks.last().map_or(1, |seen| seen.ordinal + 1);
    if physical_end < scanned.next_ordinal {
        scanned.torn.get_or_insert_with(|| "blocks that were never acknowledged".to_owned());
    }
}

/// Puts together the record of a chunked state event.
#[derive(Default)]
struct StateChunks {
    open: bool,
    bytes: Vec<u8>,
}

impl Seen {
    fn of(ordinal: u64, unpacked: block::Unpacked, chunks: &mut StateChunks) -> Result<Seen, String> {
        let head = unpacked.head;
        let meta = unpacked.meta()?;
        let mut states = Vec::new();
        let mut carry = Vec::new();
        let body = &unpacked.body;
        if head.has(CARRY) {
            carry = body.to_vec();
        } else if head.has(CHUNK) {
            if head.has(CHUNK_BEGIN) {
                chunks.bytes.clear();
                chunks.open = record::is_state(body);
            }
            if chunks.open {
                chunks.bytes.extend_from_slice(body);
            }
            if !head.has(CHUNK_MORE) && std::mem::take(&mut chunks.open) {
                let record = std::mem::take(&mut chunks.bytes);
                record::validate(&record, 1)?;
                states.push((head.first, record));
            }
        } else {
            record::validate(body, head.count)?;
            let mut rest: &[u8] = body;
            let mut sequence = head.first;
            while let Some(length) = record::length(rest) {
                if record::is_state(rest) {
                    states.push((sequence, rest[..length].to_vec()));
                }
                rest = &rest[length..];
                sequence = sequence.next();
            }
        }
        Ok(Seen { ordinal, head, previous: unpacked.previous, digest: unpacked.digest, meta, states, carry })
    }

    /// First sequence after this block.
    pub fn next(&self) -> Sequence {
        self.head.first.plus(u64::from(self.head.count))
    }
}

impl Scanned {
    /// Where the next block joins on; `None` in a generation that never began.
    pub fn chain_head(&self) -> Option<ChainHead> {
        self.blocks.last().map(|seen| ChainHead { digest: seen.digest, next: seen.next() })
    }

    /// What the next block must declare void.
    pub fn cut(&self) -> Option<Cut> {
        self.torn.as_ref()?;
        let kept = self.blocks.last()?;
        Some(Cut { last_kept: Sequence(kept.next().get() - 1), digest: kept.digest })
    }

    /// Whether the live state at the beginning is all there.
    pub fn has_begun(&self) -> bool {
        self.blocks.iter().any(|seen| seen.head.has(CARRY) && !seen.head.has(MORE))
    }

    /// The state that the generation began with and everything since; `None` where its beginning is not readable.
    pub fn live(&self) -> Option<(Carry, Live)> {
        let carried: Vec<u8> = self
            .blocks
            .iter()
            .filter(|seen| seen.head.has(CARRY))
            .flat_map(|seen| seen.carry.iter().copied())
            .collect();
        let carry = Carry::decode(&carried)?;
        let mut live = carry.clone().into_live();
        for seen in &self.blocks {
            for (source, slot, position) in &seen.meta.positions {
                live.move_position(source, slot, *position);
            }
            for (sequence, bytes) in &seen.states {
                if let Some(recorded) = Records::new(bytes, *sequence).next() {
                    live.apply(&recorded);
                }
            }
        }
        Some((carry, live))
    }

    /// Blocks with events.
    pub fn hot_blocks(&self, generation: u32) -> Vec<HotBlock> {
        let mut parts = 0;
        let mut out = Vec::new();
        for seen in &self.blocks {
            parts = if seen.head.has(CHUNK) && !seen.head.has(CHUNK_BEGIN) { parts + 1 } else { 1 };
            if seen.head.count > 0 {
                out.push(HotBlock {
                    mark: BlockMark { first: seen.head.first, digest: seen.digest },
                    count: seen.head.count,
                    ordinal: seen.ordinal,
                    parts,
                    generation,
                });
                parts = 0;
            }
        }
        out
    }
}

/// Reads the events of one block back. `buffer` is scratch space.
pub(crate) fn read_block(
    store: &dyn Store,
    salt: u32,
    at: &HotBlock,
    buffer: &mut Vec<u8>,
) -> Result<bytes::Bytes, LogError> {
    let damaged = |detail: String| LogError::Damaged {
        what: format!("hot generation {}", at.generation),
        range: SequenceRange { first: at.mark.first, last: at.last() },
        detail,
    };
    let mut whole = bytes::BytesMut::new();
    let mut ordinal = at.ordinal + 1 - u64::from(at.parts);
    loop {
        store.read(ordinal, buffer).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotConnected => LogError::WriteFailed { detail: error.to_string() },
            _ => damaged(error.to_string()),
        })?;
        let unpacked = match frame::open(buffer, salt) {
            Ok((frame, block, true)) if frame.ordinal == ordinal => block::decode(block),
            Ok(_) => Err(format!("what is stored as block {ordinal} is another or cut short")),
            Err(detail) => Err(detail),
        };
        let unpacked = unpacked.map_err(|detail| damaged(format!("block {ordinal}: {detail}")))?;
        let last = ordinal == at.ordinal;
        if last && (unpacked.digest != at.mark.digest || unpacked.head.first != at.mark.first) {
            return Err(damaged(format!("block {ordinal} is not the one that was written")));
        }
        if at.parts == 1 {
            record::validate(&unpacked.body, at.count).map_err(damaged)?;
            return Ok(unpacked.body);
        }
        whole.extend_from_slice(&unpacked.body);
        if last {
            record::validate(&whole, at.count).map_err(damaged)?;
            return Ok(whole.freeze());
        }
        ordinal += 1;
    }
}
