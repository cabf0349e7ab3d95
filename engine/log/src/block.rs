//! One block as bytes: header, packed body, checksum; and the digest that chains it to its predecessor. Pure.
//!
//! ```text
//!  0  "GVB1"                     20  u32  bytes of the packed body
//!  4  u8   format version        24  u32  bytes of the meta part
//!  5  u8   codec                 28  u64  first sequence
//!  6  u16  flags                 36  i64  when it was made, microseconds
//!  8  u32  events                44  32 bytes  digest of the predecessor
//! 12  u32  bytes of the body     76  32 bytes  own digest
//! 16  u32  reserved, 0          108  meta, packed body, CRC32C of all before it
//! ```
//! The digest covers the predecessor's digest, the header without codec and packed length, the meta part and the *unpacked*
//! body, so that it does not depend on how the block is stored.

use bytes::Bytes;
use gravity_model::Sequence;
use gravity_model::ident::Digest;
use gravity_model::port::source::Position;

use crate::api::DedupeKey;
use crate::frame::FRAME_HEADER;

/// A packed block, its frame included, is never larger: the safe envelope of the hot store.
pub(crate) const MAX_PACKED: usize = (256 << 10) - FRAME_HEADER;

pub(crate) const FORMAT: u8 = 1;
const MAGIC: [u8; 4] = *b"GVB1";
const HEADER: usize = 108;
const ZSTD_LEVEL: i32 = 1;
/// More than any block unpacks to; a length beyond it is damage.
const MAX_BODY: usize = 1 << 28;

/// The block goes on with a batch that an earlier block began.
pub(crate) const CONTINUES: u16 = 1;
/// The batch goes on in the next block: nothing of it exists yet.
pub(crate) const MORE: u16 = 1 << 1;
/// The body is a piece of one event's record.
pub(crate) const CHUNK: u16 = 1 << 2;
/// Further pieces of that record follow.
pub(crate) const CHUNK_MORE: u16 = 1 << 3;
/// The first of those pieces.
pub(crate) const CHUNK_BEGIN: u16 = 1 << 6;
/// The body carries live state into a new hot generation.
pub(crate) const CARRY: u16 = 1 << 4;
/// The meta part says from where on earlier blocks are void.
pub(crate) const CUT: u16 = 1 << 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Codec {
    None = 0,
    Zstd = 1,
}

/// A dedupe entry with its place in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Remembered {
    pub key: DedupeKey,
    pub body: [u8; 16],
    pub first: Sequence,
    pub count: u32,
}

/// Everything after the block with `digest` was never acknowledged and is void.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    pub last_kept: Sequence,
    pub digest: Digest,
}

/// What a block says beside its events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Meta {
    pub positions: Vec<(String, String, Position)>,
    pub dedupe: Vec<Remembered>,
    pub cut: Option<Cut>,
}

impl Meta {
    pub fn is_empty(&self) -> bool {
        self.positions.is_empty() && self.dedupe.is_empty() && self.cut.is_none()
    }

    /// Upper bound of the encoded size.
    #[cfg(test)]
    pub fn encoded_len(&self) -> usize {
        positions_len(&self.positions) + self.dedupe.len() * REMEMBERED + 49
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&(self.positions.len() as u32).to_le_bytes());
        for (source, slot, position) in &self.positions {
            for text in [source, slot] {
                out.extend_from_slice(&(text.len() as u32).to_le_bytes());
                out.extend_from_slice(text.as_bytes());
            }
            out.extend_from_slice(&position.next.to_le_bytes());
            out.extend_from_slice(&position.detail.to_le_bytes());
        }
        out.extend_from_slice(&(self.dedupe.len() as u32).to_le_bytes());
        for entry in &self.dedupe {
            out.extend_from_slice(&entry.key.0);
            out.extend_from_slice(&entry.body);
            out.extend_from_slice(&entry.first.get().to_le_bytes());
            out.extend_from_slice(&entry.count.to_le_bytes());
        }
        if let Some(cut) = &self.cut {
            out.extend_from_slice(&cut.last_kept.get().to_le_bytes());
            out.extend_from_slice(&cut.digest.0);
        }
    }

    /// `None` where the bytes are not exactly one meta part.
    pub fn decode(bytes: &[u8], has_cut: bool) -> Option<Meta> {
        let mut read = Reader(bytes);
        let mut meta = Meta::default();
        for _ in 0..read.u32()? {
            let source = read.text()?;
            let slot = read.text()?;
            let position = Position { next: read.u64()?, detail: read.u64()? };
            meta.positions.push((source.to_owned(), slot.to_owned(), position));
        }
        for _ in 0..read.u32()? {
            meta.dedupe.push(Remembered {
                key: DedupeKey(read.array()?),
                body: read.array()?,
                first: Sequence(read.u64()?),
                count: read.u32()?,
            });
        }
        if has_cut {
            meta.cut = Some(Cut { last_kept: Sequence(read.u64()?), digest: Digest(read.array()?) });
        }
        read.0.is_empty().then_some(meta)
    }
}

/// Encoded size of one dedupe entry.
pub(crate) const REMEMBERED: usize = 44;

pub(crate) fn positions_len(positions: &[(String, String, Position)]) -> usize {
    positions.iter().map(|(source, slot, _)| source.len() + slot.len() + 24).sum()
}

/// Reads little-endian fields off a slice; every method is `None` past its end.
pub(crate) struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }

    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.first_chunk::<N>().copied()
    }

    pub fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_le_bytes)
    }

    /// u32 length, then that many bytes.
    pub fn bytes(&mut self) -> Option<&'a [u8]> {
        let n = self.u32()? as usize;
        self.take(n)
    }

    pub fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }
}

/// What the digest covers beside bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub flags: u16,
    pub count: u32,
    pub body_len: u32,
    pub first: Sequence,
    /// Wall clock when the block was made; for retention by age, never for order.
    pub made: i64,
}

impl Head {
    pub fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }
}

/// Digest of a block after the block with digest `previous`.
pub(crate) fn digest(previous: &Digest, head: &Head, meta: &[u8], body: &[u8]) -> Digest {
    let mut hasher = DigestOf::new(previous, head, meta);
    hasher.update(body);
    hasher.finish()
}

/// The same with the body in pieces.
pub(crate) struct DigestOf(blake3::Hasher);

impl DigestOf {
    pub fn new(previous: &Digest, head: &Head, meta: &[u8]) -> DigestOf {
        let mut fixed = [0u8; 63];
        fixed[..32].copy_from_slice(&previous.0);
        fixed[32] = FORMAT;
        fixed[33..35].copy_from_slice(&head.flags.to_le_bytes());
        fixed[35..39].copy_from_slice(&head.count.to_le_bytes());
        fixed[39..43].copy_from_slice(&head.body_len.to_le_bytes());
        fixed[43..51].copy_from_slice(&head.first.get().to_le_bytes());
        fixed[51..59].copy_from_slice(&head.made.to_le_bytes());
        fixed[59..63].copy_from_slice(&(meta.len() as u32).to_le_bytes());
        let mut hasher = blake3::Hasher::new();
        hasher.update(&fixed);
        hasher.update(meta);
        DigestOf(hasher)
    }

    pub fn update(&mut self, body: &[u8]) {
        self.0.update(body);
    }

    pub fn finish(&self) -> Digest {
        Digest(*self.0.finalize().as_bytes())
    }
}

/// Packs bodies; keeps the compressor's memory between blocks.
pub(crate) struct Encoder {
    zstd: zstd::bulk::Compressor<'static>,
    packed: Vec<u8>,
}

/// A block ready to be written.
#[derive(Clone, Debug)]
pub(crate) struct Packed {
    pub head: Head,
    pub digest: Digest,
    /// Room for the frame's header, then header, meta, packed body, checksum.
    pub framed: Vec<u8>,
}

impl Packed {
    #[cfg(test)]
    pub fn block(&self) -> &[u8] {
        &self.framed[FRAME_HEADER..]
    }
}

impl Encoder {
    pub fn new() -> std::io::Result<Encoder> {
        Ok(Encoder { zstd: zstd::bulk::Compressor::new(ZSTD_LEVEL)?, packed: Vec::new() })
    }

    /// `None` where the packed block would be larger than [`MAX_PACKED`].
    pub fn encode(&mut self, previous: &Digest, head: Head, meta: &[u8], body: &[u8]) -> Option<Packed> {
        debug_assert_eq!(head.body_len as usize, body.len());
        self.packed.clear();
        self.packed.reserve(zstd::zstd_safe::compress_bound(body.len()));
        let (codec, packed) = match self.zstd.compress_to_buffer(body, &mut self.packed) {
            Ok(length) if length < body.len() => (Codec::Zstd, self.packed.as_slice()),
            _ => (Codec::None, body),
        };
        let total = HEADER + meta.len() + packed.len() + 4;
        if total > MAX_PACKED {
            return None;
        }
        let digest = digest(previous, &head, meta, body);
        let mut bytes = Vec::with_capacity(FRAME_HEADER + total);
        bytes.resize(FRAME_HEADER, 0);
        bytes.extend_from_slice(&MAGIC);
        bytes.push(FORMAT);
        bytes.push(codec as u8);
        bytes.extend_from_slice(&head.flags.to_le_bytes());
        bytes.extend_from_slice(&head.count.to_le_bytes());
        bytes.extend_from_slice(&head.body_len.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&(packed.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&(meta.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&head.first.get().to_le_bytes());
        bytes.extend_from_slice(&head.made.to_le_bytes());
        bytes.extend_from_slice(&previous.0);
        bytes.extend_from_slice(&digest.0);
        bytes.extend_from_slice(meta);
        bytes.extend_from_slice(packed);
        let crc = crc32c::crc32c(&bytes[FRAME_HEADER..]);
        bytes.extend_from_slice(&crc.to_le_bytes());
        Some(Packed { head, digest, framed: bytes })
    }
}

/// A block read back, every checksum and the digest verified.
#[derive(Clone, Debug)]
pub(crate) struct Unpacked {
    pub head: Head,
    pub previous: Digest,
    pub digest: Digest,
    /// Encoded meta part.
    pub meta: Bytes,
    pub body: Bytes,
}

impl Unpacked {
    pub fn meta(&self) -> Result<Meta, String> {
        if self.meta.is_empty() {
            return Ok(Meta::default());
        }
        Meta::decode(&self.meta, self.head.has(CUT)).ok_or_else(|| "the meta part is malformed".to_owned())
    }
}

/// Whether the CRC32C at the end of a packed block matches.
pub(crate) fn checksum_holds(bytes: &[u8]) -> bool {
    let Some((content, crc)) = bytes.split_last_chunk::<4>() else { return false };
    crc32c::crc32c(content) == u32::from_le_bytes(*crc)
}

/// What a block says without unpacking its body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peeked {
    pub head: Head,
    pub digest: Digest,
    pub cut: Option<Cut>,
}

/// Reads a block's header after checking its checksum.
pub(crate) fn peek(bytes: &[u8]) -> Result<Peeked, String> {
    if !checksum_holds(bytes) || bytes.len() < HEADER + 4 {
        return Err("the checksum does not match".to_owned());
    }
    let header = || -> Option<Peeked> {
        let mut read = Reader(bytes);
        read.take(6)?;
        let flags = read.u16()?;
        let count = read.u32()?;
        let body_len = read.u32()?;
        read.take(8)?;
        let meta_len = read.u32()? as usize;
        let head = Head { flags, count, body_len, first: Sequence(read.u64()?), made: read.i64()? };
        read.take(32)?;
        let digest = Digest(read.array()?);
        let meta = read.take(meta_len)?;
        let cut = if head.has(CUT) { Some(Meta::decode(meta, true)?.cut?) } else { None };
        Some(Peeked { head, digest, cut })
    };
    header().ok_or_else(|| "the header is malformed".to_owned())
}

/// Reads one packed block. The error says what is wrong with it.
pub(crate) fn decode(bytes: &[u8]) -> Result<Unpacked, String> {
    let (content, crc) = bytes.split_last_chunk::<4>().ok_or("shorter than a checksum")?;
    if content.len() < HEADER {
        return Err(format!("{} bytes are shorter than a header", bytes.len()));
    }
    let found = crc32c::crc32c(content);
    let stored = u32::from_le_bytes(*crc);
    if found != stored {
        return Err(format!("checksum is {found:08x}, stored was {stored:08x}"));
    }
    let mut read = Reader(content);
    let cut_short = "cut short";
    if read.array::<4>() != Some(MAGIC) {
        return Err("not a block".to_owned());
    }
    let version = read.u8().ok_or(cut_short)?;
    if version != FORMAT {
        return Err(format!("block format {version}, this program reads {FORMAT}"));
    }
    let codec = read.u8().ok_or(cut_short)?;
    let flags = read.u16().ok_or(cut_short)?;
    let count = read.u32().ok_or(cut_short)?;
    let body_len = read.u32().ok_or(cut_short)?;
    read.u32().ok_or(cut_short)?;
    let packed_len = read.u32().ok_or(cut_short)? as usize;
    let meta_len = read.u32().ok_or(cut_short)? as usize;
    let first = Sequence(read.u64().ok_or(cut_short)?);
    let made = read.i64().ok_or(cut_short)?;
    let previous = Digest(read.array().ok_or(cut_short)?);
    let own = Digest(read.array().ok_or(cut_short)?);
    let meta = read.take(meta_len).ok_or(cut_short)?;
    let packed = read.take(packed_len).ok_or(cut_short)?;
    if !read.0.is_empty() {
        return Err("bytes follow the body".to_owned());
    }
    let length = body_len as usize;
    if length > MAX_BODY {
        return Err(format!("a body of {length} bytes"));
    }
    let body = match codec {
        0 => packed.to_vec(),
        1 => zstd::bulk::decompress(packed, length).map_err(|error| format!("cannot unpack: {error}"))?,
        other => return Err(format!("unknown codec {other}")),
    };
    if body.len() != length {
        return Err(format!("unpacks to {} bytes instead of {length}", body.len()));
    }
    let head = Head { flags, count, body_len, first, made };
    if digest(&previous, &head, meta, &body) != own {
        return Err("the digest does not match".to_owned());
    }
    Ok(Unpacked { head, previous, digest: own, meta: Bytes::copy_from_slice(meta), body: Bytes::from(body) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn meta() -> impl Strategy<Value = Meta> {
        let position = ("[a-z]{0,6}", "\\PC{0,12}", any::<u64>(), any::<u64>())
            .prop_map(|(source, slot, next, detail)| (source, slot, Position { next, detail }));
        let entry =
            (any::<[u8; 16]>(), any::<[u8; 16]>(), any::<u64>(), any::<u32>()).prop_map(|(key, body, first, count)| {
                Remembered { key: DedupeKey(key), body, first: Sequence(first), count }
            });
        let cut = (any::<u64>(), any::<[u8; 32]>())
            .prop_map(|(last, digest)| Cut { last_kept: Sequence(last), digest: Digest(digest) });
        (proptest::collection::vec(position, 0..4), proptest::collection::vec(entry, 0..4), proptest::option::of(cut))
            .prop_map(|(positions, dedupe, cut)| Meta { positions, dedupe, cut })
    }

    proptest! {
        #[test]
        fn blocks_come_back_and_no_flipped_bit_passes(
            meta in meta(),
            body in proptest::collection::vec(any::<u8>(), 0..2000),
            repeats in any::<bool>(),
            (flags, count, first, made) in (0u16..32, any::<u32>(), any::<u64>(), any::<i64>()),
            previous in any::<[u8; 32]>(),
            flip in any::<proptest::sample::Index>(),
        ) {
            let body = if repeats { body.repeat(4) } else { body };
            let flags = flags | if meta.cut.is_some() { CUT } else { 0 };
            let head = Head { flags, count, body_len: body.len() as u32, first: Sequence(first), made };
            let mut encoded = Vec::new();
            meta.encode(&mut encoded);
            prop_assert!(encoded.len() <= meta.encoded_len());
            let mut encoder = Encoder::new().expect("zstd");
            let packed = encoder.encode(&Digest(previous), head, &encoded, &body).expect("small");
            let back = decode(packed.block()).expect("just written");
            prop_assert_eq!(back.head, head);
            prop_assert_eq!(back.digest, packed.digest);
            prop_assert_eq!(back.previous, Digest(previous));
            prop_assert_eq!(&back.body[..], &body[..]);
            prop_assert_eq!(back.meta().expect("well formed"), meta);

            let mut damaged = packed.block().to_vec();
            let bit = flip.index(damaged.len() * 8);
            damaged[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(decode(&damaged).is_err());
            prop_assert!(decode(&packed.block()[..flip.index(packed.block().len())]).is_err());
        }
    }

    #[test]
    fn what_does_not_pack_below_the_limit_is_not_a_block() {
        let mut state = 1u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 56) as u8
        })
        .take(300 << 10)
        .collect();
        let head = Head { flags: 0, count: 1, body_len: noise.len() as u32, first: Sequence(1), made: 0 };
        let mut encoder = Encoder::new().expect("zstd");
        assert!(encoder.encode(&Digest::default(), head, &[], &noise).is_none());
    }
}
