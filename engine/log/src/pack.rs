//! From batches that wait to blocks that fit: gathers small batches, splits large ones, chunks what is larger than a block.
//! Pure; chain and sequences go in and come out.

use bytes::{Bytes, BytesMut};
use gravity_model::Sequence;
use gravity_model::ident::Digest;
use gravity_model::port::source::Position;

use crate::block::positions_len;
use crate::block::{
    CARRY, CHUNK, CHUNK_BEGIN, CHUNK_MORE, CONTINUES, CUT, Cut, Encoder, Head, MORE, Meta, Packed, REMEMBERED,
    Remembered,
};
use crate::record;

/// Meta of a batch beyond this goes into blocks of its own.
const META_INLINE: usize = 96 << 10;
/// Entries of such blocks, in bytes.
const META_PIECE: usize = 128 << 10;
/// Pieces of an event that does not fit: with [`META_INLINE`] beside them they always do, whatever they hold.
const CHUNK_BYTES: usize = 128 << 10;
/// What a packed body should come to, so that a block rarely has to be packed twice.
const PACKED_AIM: usize = 144 << 10;
/// Live state is cut at this many uncompressed bytes.
const CARRY_BYTES: usize = 512 << 10;

/// One batch with its place in the log.
#[derive(Debug)]
pub(crate) struct Placed {
    pub first: Sequence,
    pub count: u32,
    pub records: Bytes,
    pub positions: Vec<(String, String, Position)>,
    pub dedupe: Vec<Remembered>,
}

impl Placed {
    fn meta_len(&self) -> usize {
        positions_len(&self.positions) + self.dedupe.len() * REMEMBERED
    }
}

/// A packed block and, where it is the last piece, the events that become visible with it.
#[derive(Debug)]
pub(crate) struct Made {
    pub packed: Packed,
    /// Whole records of this block; for a chunked event on its last piece only.
    pub visible: Option<Bytes>,
    /// Physical blocks that the visible events came from, this one included.
    pub parts: u32,
}

/// Makes blocks; remembers the chain's head and how well the last block packed.
pub(crate) struct Packer {
    encoder: Encoder,
    block_bytes: usize,
    pub previous: Digest,
    /// Packed bytes per uncompressed byte, of late.
    ratio: f64,
    meta: Vec<u8>,
}

impl Packer {
    pub fn new(block_bytes: usize, previous: Digest) -> std::io::Result<Packer> {
        Ok(Packer { encoder: Encoder::new()?, block_bytes, previous, ratio: 0.3, meta: Vec::new() })
    }

    /// Packs `batches`, which follow each other, into `out`.
    pub fn pack(&mut self, batches: Vec<Placed>, now: i64, out: &mut Vec<Made>) {
        let mut group: Vec<Placed> = Vec::new();
        let (mut bytes, mut meta) = (0, 0);
        let aim = self.aim();
        for batch in batches {
            let (batch_bytes, batch_meta) = (batch.records.len(), batch.meta_len());
            if !group.is_empty() && (bytes + batch_bytes > aim || meta + batch_meta > META_INLINE) {
                self.pack_group(std::mem::take(&mut group), now, out);
                (bytes, meta) = (0, 0);
            }
            bytes += batch_bytes;
            meta += batch_meta;
            group.push(batch);
        }
        if !group.is_empty() {
            self.pack_group(group, now, out);
        }
    }

    fn aim(&self) -> usize {
        self.block_bytes.min((PACKED_AIM as f64 / self.ratio) as usize)
    }

    fn pack_group(&mut self, mut group: Vec<Placed>, now: i64, out: &mut Vec<Made>) {
        if group.len() == 1 {
            let batch = group.remove(0);
            return self.pack_batch(batch, now, out);
        }
        let first = group[0].first;
        let count = group.iter().map(|batch| batch.count).sum();
        let mut records = BytesMut::with_capacity(group.iter().map(|batch| batch.records.len()).sum());
        let mut meta = Meta::default();
        for batch in &group {
            records.extend_from_slice(&batch.records);
            meta.positions.extend_from_slice(&batch.positions);
            meta.dedupe.extend_from_slice(&batch.dedupe);
        }
        keep_last_positions(&mut meta.positions);
        let records = records.freeze();
        if let Some(packed) = self.try_block(0, first, count, &meta, &records, now) {
            out.push(Made { packed, visible: Some(records), parts: 1 });
            return;
        }
        let second = group.split_off(group.len() / 2);
        self.pack_group(group, now, out);
        self.pack_group(second, now, out);
    }

    /// Packs one batch into as many blocks as it takes, marked open and closed.
    fn pack_batch(&mut self, batch: Placed, now: i64, out: &mut Vec<Made>) {
        let Placed { first, count, records, mut positions, mut dedupe } = batch;
        let mut begun = false;
        // 1. Meta that would not fit beside events: blocks of its own, which do not close the batch.
        if positions_len(&positions) + dedupe.len() * REMEMBERED > META_INLINE {
            for piece in meta_pieces(std::mem::take(&mut positions), std::mem::take(&mut dedupe)) {
                let flags = MORE | if begun { CONTINUES } else { 0 };
                let packed = self.try_block(flags, first, 0, &piece, &Bytes::new(), now);
                let packed = packed.expect("a meta piece is smaller than a block");
                out.push(Made { packed, visible: None, parts: 1 });
                begun = true;
            }
        }
        let meta = Meta { positions, dedupe, cut: None };
        // 2. Runs of whole records, halved until they fit.
        let mut at = 0;
        let mut next = first;
        while at < records.len() || (records.is_empty() && !begun) {
            let mut run = run_of(&records[at..], self.aim());
            loop {
                let end = at + run.bytes;
                let last = end == records.len();
                let flags = if last { 0 } else { MORE } | if begun { CONTINUES } else { 0 };
                let nothing = Meta::default();
                let carried = if last { &meta } else { &nothing };
                let body = records.slice(at..end);
                let fits = run.bytes <= 4 * self.block_bytes.max(CHUNK_BYTES);
                let packed = if fits { self.try_block(flags, next, run.count, carried, &body, now) } else { None };
                if let Some(packed) = packed {
                    out.push(Made { packed, visible: Some(body), parts: 1 });
                } else if run.count > 1 {
                    run = run_of_count(&records[at..], run.count / 2);
                    continue;
                } else {
                    self.pack_chunks(body, next, carried, flags, now, out);
                }
                begun = true;
                at = end;
                next = next.plus(u64::from(run.count));
                break;
            }
        }
        debug_assert_eq!(next, first.plus(u64::from(count)));
    }

    /// One event over several blocks; it exists only with the last.
    fn pack_chunks(
        &mut self,
        record: Bytes,
        sequence: Sequence,
        meta: &Meta,
        flags: u16,
        now: i64,
        out: &mut Vec<Made>,
    ) {
        let chunks = record.len().div_ceil(CHUNK_BYTES);
        for index in 0..chunks {
            let (start, end) = (index * CHUNK_BYTES, ((index + 1) * CHUNK_BYTES).min(record.len()));
            let last = index + 1 == chunks;
            let mut chunk_flags = CHUNK | flags;
            if !last {
                chunk_flags |= CHUNK_MORE | MORE;
            }
            chunk_flags |= if index == 0 { CHUNK_BEGIN } else { CONTINUES };
            let nothing = Meta::default();
            let carried = if last { meta } else { &nothing };
            let body = record.slice(start..end);
            let packed = self.try_block(chunk_flags, sequence, u32::from(last), carried, &body, now);
            let packed = packed.expect("a chunk is smaller than a block");
            out.push(Made { packed, visible: last.then(|| record.clone()), parts: chunks as u32 });
        }
    }

    /// Live state as blocks without events, the beginning of a generation.
    pub fn pack_carry(
        &mut self,
        state: &[u8],
        positions: Vec<(String, String, Position)>,
        next: Sequence,
        now: i64,
    ) -> Vec<Made> {
        let mut pieces: Vec<(Meta, Bytes)> =
            meta_pieces(positions, Vec::new()).into_iter().map(|meta| (meta, Bytes::new())).collect();
        let state = Bytes::copy_from_slice(state);
        let mut at = 0;
        while at < state.len() {
            let end = (at + CARRY_BYTES).min(state.len());
            pieces.push((Meta::default(), state.slice(at..end)));
            at = end;
        }
        let mut out = Vec::new();
        let mut rest: std::collections::VecDeque<_> = pieces.into();
        while let Some((meta, body)) = rest.pop_front() {
            let flags = CARRY | if out.is_empty() { 0 } else { CONTINUES } | if rest.is_empty() { 0 } else { MORE };
            match self.try_block(flags, next, 0, &meta, &body, now) {
                Some(packed) => out.push(Made { packed, visible: None, parts: 1 }),
                None => {
                    let half = body.len() / 2;
                    rest.push_front((Meta::default(), body.slice(half..)));
                    rest.push_front((meta, body.slice(..half)));
                }
            }
        }
        out
    }

    /// A block that only says that everything after `cut` is void.
    pub fn pack_cut(&mut self, cut: Cut, next: Sequence, now: i64) -> Made {
        let meta = Meta { cut: Some(cut), ..Meta::default() };
        let packed = self.try_block(0, next, 0, &meta, &Bytes::new(), now).expect("an empty block is small");
        Made { packed, visible: None, parts: 1 }
    }

    fn try_block(
        &mut self,
        flags: u16,
        first: Sequence,
        count: u32,
        meta: &Meta,
        body: &[u8],
        now: i64,
    ) -> Option<Packed> {
        let flags = flags | if meta.cut.is_some() { CUT } else { 0 };
        let head = Head { flags, count, body_len: body.len() as u32, first, made: now };
        self.meta.clear();
        if !meta.is_empty() {
            meta.encode(&mut self.meta);
        }
        let packed = self.encoder.encode(&self.previous, head, &self.meta, body);
        let size = packed.as_ref().map_or(crate::block::MAX_PACKED, |packed| packed.framed.len() - self.meta.len());
        if body.len() >= 4096 {
            self.ratio = (size as f64 / body.len() as f64).clamp(0.02, 1.0);
        }
        if let Some(packed) = &packed {
            self.previous = packed.digest;
        }
        packed
    }
}

/// Keeps the last position of each slot.
fn keep_last_positions(positions: &mut Vec<(String, String, Position)>) {
    if positions.len() < 2 {
        return;
    }
    let mut seen = std::collections::HashSet::new();
    let mut kept: Vec<_> = Vec::with_capacity(positions.len());
    for entry in positions.drain(..).rev() {
        if seen.insert((entry.0.clone(), entry.1.clone())) {
            kept.push(entry);
        }
    }
    kept.reverse();
    *positions = kept;
}

/// Cuts meta into parts of at most [`META_PIECE`] bytes (one entry may exceed it).
fn meta_pieces(positions: Vec<(String, String, Position)>, dedupe: Vec<Remembered>) -> Vec<Meta> {
    let mut pieces = Vec::new();
    let mut piece = Meta::default();
    let mut bytes = 0;
    for entry in positions {
        let size = entry.0.len() + entry.1.len() + 24;
        if bytes + size > META_PIECE && bytes > 0 {
            pieces.push(std::mem::take(&mut piece));
            bytes = 0;
        }
        bytes += size;
        piece.positions.push(entry);
    }
    for entry in dedupe {
        if bytes + REMEMBERED > META_PIECE && bytes > 0 {
            pieces.push(std::mem::take(&mut piece));
            bytes = 0;
        }
        bytes += REMEMBERED;
        piece.dedupe.push(entry);
    }
    if !piece.is_empty() {
        pieces.push(piece);
    }
    pieces
}

struct Run {
    bytes: usize,
    count: u32,
}

/// The records at the start of `bytes` that stay within `aim`, at least one.
fn run_of(bytes: &[u8], aim: usize) -> Run {
    let mut run = Run { bytes: 0, count: 0 };
    while let Some(length) = record::length(&bytes[run.bytes..]) {
        if run.count > 0 && run.bytes + length > aim {
            break;
        }
        run.bytes += length;
        run.count += 1;
    }
    run
}

fn run_of_count(bytes: &[u8], count: u32) -> Run {
    let mut run = Run { bytes: 0, count: 0 };
    while run.count < count
        && let Some(length) = record::length(&bytes[run.bytes..])
    {
        run.bytes += length;
        run.count += 1;
    }
    run
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Batch, DedupeKey};
    use crate::block;
    use crate::frame::FRAME_HEADER;
    use gravity_model::Event;

    fn noise(seed: u64, bytes: usize) -> Vec<u8> {
        let mut state = seed;
        std::iter::repeat_with(|| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 56) as u8
        })
        .take(bytes)
        .collect()
    }

    fn placed(first: u64, payloads: &[Vec<u8>], dedupe: usize) -> Placed {
        let mut batch = Batch::new();
        for payload in payloads {
            batch.push(&Event::data("e", "s", payload));
        }
        let entry = |i: usize| Remembered {
            key: DedupeKey((i as u128).to_le_bytes()),
            body: [1; 16],
            first: Sequence(first),
            count: 1,
        };
        Placed {
            first: Sequence(first),
            count: batch.count,
            records: batch.records.into(),
            positions: vec![("s".into(), "t/0".into(), Position { next: first, detail: 0 })],
            dedupe: (0..dedupe).map(entry).collect(),
        }
    }

    /// Packs and checks what must hold of any output: sizes, chain, gapless sequences, same records, open and closed marks.
    fn check(batches: Vec<Placed>, blocks: usize) -> Vec<Made> {
        let records: Vec<u8> = batches.iter().flat_map(|b| b.records.to_vec()).collect();
        let dedupe: usize = batches.iter().map(|b| b.dedupe.len()).sum();
        let mut packer = Packer::new(512 << 10, Digest::default()).expect("zstd");
        let mut made = Vec::new();
        packer.pack(batches, 5, &mut made);
        assert_eq!(made.len(), blocks);
        let mut previous = Digest::default();
        let (mut bodies, mut visible, mut remembered) = (Vec::new(), Vec::new(), 0);
        let mut next = Sequence(1);
        let mut open = false;
        for block in &made {
            assert!(block.packed.framed.len() <= 256 << 10);
            let unpacked = block::decode(&block.packed.framed[FRAME_HEADER..]).expect("just packed");
            assert_eq!(unpacked.previous, previous);
            previous = unpacked.digest;
            assert_eq!(unpacked.head.first, next);
            next = next.plus(u64::from(unpacked.head.count));
            assert_eq!(unpacked.head.has(CONTINUES), open);
            open = unpacked.head.has(MORE);
            bodies.extend_from_slice(&unpacked.body);
            visible.extend_from_slice(block.visible.as_deref().unwrap_or(b""));
            remembered += Meta::decode(&unpacked.meta, false).map_or(0, |m| m.dedupe.len());
        }
        assert!(!open, "the last block closes the batch");
        assert_eq!(bodies, records);
        assert_eq!(visible, records);
        assert_eq!(remembered, dedupe);
        assert_eq!(packer.previous, previous);
        made
    }

    #[test]
    fn small_batches_share_a_block() {
        check((0..10).map(|i| placed(1 + i, &[vec![b'x'; 100]], 1)).collect(), 1);
    }

    #[test]
    fn a_large_batch_is_split_and_marked() {
        let payloads: Vec<_> = (0..4000).map(|i| format!("{{\"id\":{i}}}").repeat(40).into_bytes()).collect();
        let made = check(vec![placed(1, &payloads, 0)], 4);
        assert!(made[0].packed.head.has(MORE));
    }

    #[test]
    fn what_does_not_compress_is_halved_until_it_fits() {
        let payloads: Vec<_> = (0..100).map(|i| noise(i, 5000)).collect();
        let made = check(vec![placed(1, &payloads, 0)], 3);
        assert!(made.iter().all(|m| m.visible.is_some()));
        let batches = (0..100).map(|i| placed(1 + i, &[noise(i, 5000)], 0)).collect();
        check(batches, 3);
    }

    #[test]
    fn an_event_larger_than_a_block_is_chunked() {
        let made = check(vec![placed(1, &[vec![b'a'; 10], noise(1, 1 << 20), vec![b'b'; 10]], 0)], 11);
        let whole = made.iter().find(|m| m.packed.head.has(CHUNK) && m.visible.is_some()).expect("the last chunk");
        assert_eq!((whole.parts, whole.packed.head.count), (9, 1));
    }

    #[test]
    fn meta_that_fills_blocks_gets_blocks_of_its_own() {
        let made = check(vec![placed(1, &[vec![b'a'; 10]], 10_000)], 5);
        assert!(made[..4].iter().all(|m| m.visible.is_none() && m.packed.head.has(MORE)));
    }

    #[test]
    fn a_batch_with_positions_alone_is_a_block_without_events() {
        let mut empty = placed(1, &[], 0);
        empty.count = 0;
        check(vec![empty], 1);
    }

    #[test]
    fn a_carry_is_chunked_whatever_it_holds() {
        let mut packer = Packer::new(512 << 10, Digest::default()).expect("zstd");
        let state = noise(3, 1 << 20);
        let positions: Vec<_> =
            (0..10_000).map(|i| ("s".to_owned(), format!("t/{i}"), Position { next: i, detail: 0 })).collect();
        let made = packer.pack_carry(&state, positions.clone(), Sequence(9), 5);
        let (mut body, mut found) = (Vec::new(), Vec::new());
        for block in &made {
            assert!(block.packed.framed.len() <= 256 << 10);
            let unpacked = block::decode(&block.packed.framed[FRAME_HEADER..]).expect("just packed");
            assert!(unpacked.head.has(CARRY) && unpacked.head.first == Sequence(9) && unpacked.head.count == 0);
            body.extend_from_slice(&unpacked.body);
            if !unpacked.meta.is_empty() {
                found.extend(unpacked.meta().expect("well formed").positions);
            }
        }
        assert_eq!((body, found), (state, positions));
        assert!(made.last().is_some_and(|m| !m.packed.head.has(MORE)));
    }
}
