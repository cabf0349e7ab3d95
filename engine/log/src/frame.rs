//! The envelope of a block in a hot store: which write it was, and through which write the disk was known to be good then.
//!
//! ```text
//!  0 "GVF1"   4 u32 bytes of the block   8 u64 ordinal   16 u64 durable   24 u32 salt   28 u32 CRC32C of 0..28
//! ```
//! A valid frame proves that every ordinal up to its `durable` had reached the disk: what is missing or damaged there is
//! damage; only beyond the largest proof can a tail be torn.

pub(crate) const FRAME_HEADER: usize = 32;
const MAGIC: [u8; 4] = *b"GVF1";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// Counts writes, whatever became of them; never reused within a generation.
    pub ordinal: u64,
    /// Last ordinal known to be durable when this frame was written; 0 for none.
    pub durable: u64,
    /// Of the log, so that bytes of another log inside a payload are never taken for a frame.
    pub salt: u32,
}

/// Fills the space before a block. `bytes` are that space and the block.
pub(crate) fn seal(bytes: &mut [u8], frame: Frame) {
    let length = (bytes.len() - FRAME_HEADER) as u32;
    bytes[0..4].copy_from_slice(&MAGIC);
    bytes[4..8].copy_from_slice(&length.to_le_bytes());
    bytes[8..16].copy_from_slice(&frame.ordinal.to_le_bytes());
    bytes[16..24].copy_from_slice(&frame.durable.to_le_bytes());
    bytes[24..28].copy_from_slice(&frame.salt.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..28]);
    bytes[28..32].copy_from_slice(&crc.to_le_bytes());
}

/// Reads the envelope at the start of `bytes`: the frame and its block, which may be cut short by the end of `bytes`.
pub(crate) fn open(bytes: &[u8], salt: u32) -> Result<(Frame, &[u8], bool), String> {
    let (header, rest) = bytes.split_first_chunk::<FRAME_HEADER>().ok_or("shorter than a frame")?;
    let mut read = crate::block::Reader(header);
    let cut_short = "cut short";
    if read.array::<4>() != Some(MAGIC) {
        return Err("not a frame".to_owned());
    }
    let length = read.u32().ok_or(cut_short)? as usize;
    let frame = Frame {
        ordinal: read.u64().ok_or(cut_short)?,
        durable: read.u64().ok_or(cut_short)?,
        salt: read.u32().ok_or(cut_short)?,
    };
    let crc = read.u32().ok_or(cut_short)?;
    if crc32c::crc32c(&header[..28]) != crc {
        return Err("the frame's checksum does not match".to_owned());
    }
    if frame.salt != salt {
        return Err("the frame belongs to another log".to_owned());
    }
    Ok((frame, &rest[..length.min(rest.len())], length <= rest.len()))
}

/// Where the next frame may begin at or after `from`.
pub(crate) fn find(bytes: &[u8], from: usize) -> Option<usize> {
    bytes.get(from..)?.windows(4).position(|window| window == MAGIC).map(|at| from + at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_comes_back_and_another_logs_frame_does_not() {
        let mut bytes = vec![0u8; FRAME_HEADER];
        bytes.extend_from_slice(b"block");
        let frame = Frame { ordinal: 7, durable: 5, salt: 9 };
        seal(&mut bytes, frame);
        assert_eq!(open(&bytes, 9), Ok((frame, b"block".as_slice(), true)));
        assert_eq!(open(&bytes[..34], 9), Ok((frame, b"bl".as_slice(), false)));
        assert!(open(&bytes, 8).is_err());
        bytes[9] ^= 1;
        assert!(open(&bytes, 9).is_err());
    }
}
