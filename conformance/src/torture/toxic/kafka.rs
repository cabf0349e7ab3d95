//! Keeps a Kafka client on the proxy: in the broker's answers the broker's own port becomes the proxy's.
//!
//! Answers are frames of a length (big-endian i32) and as many bytes. Where one names a broker, its host is text and its port the
//! i32 behind it (Kafka protocol guide, Metadata and FindCoordinator), so the bytes `127.0.0.1` + port are looked for. Both
//! ports are four bytes: lengths stay. Frames beyond [`SMALL`] hold records and are passed as they come.

/// A frame that may name a broker is smaller.
const SMALL: usize = 64 << 10;
const HOST: &[u8] = b"127.0.0.1";

pub struct Redirect {
    from: Vec<u8>,
    to: Vec<u8>,
    /// The beginning of a frame, its length included, that is not whole yet.
    held: Vec<u8>,
    /// Bytes of a large frame that are still to come.
    large: usize,
}

impl Redirect {
    pub fn new(broker: u16, proxy: u16) -> Redirect {
        let named = |port: u16| [HOST, &i32::from(port).to_be_bytes()].concat();
        Redirect { from: named(broker), to: named(proxy), held: Vec::new(), large: 0 }
    }

    /// What of it may go on now.
    pub fn pass(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.held.extend_from_slice(bytes);
        let mut out = Vec::with_capacity(self.held.len());
        loop {
            if self.large > 0 {
                let now = self.large.min(self.held.len());
                out.extend(self.held.drain(..now));
                self.large -= now;
            }
            let Some(length) = self.held.first_chunk::<4>().map(|length| i32::from_be_bytes(*length)) else {
                return out;
            };
            let whole = 4 + usize::try_from(length).unwrap_or(0);
            if whole > SMALL {
                self.large = whole;
            } else if self.held.len() >= whole {
                let mut frame: Vec<u8> = self.held.drain(..whole).collect();
                self.rename(&mut frame);
                out.append(&mut frame);
            } else {
                return out;
            }
        }
    }

    fn rename(&self, frame: &mut [u8]) {
        let places: Vec<usize> = (0..frame.len().saturating_sub(self.from.len() - 1))
            .filter(|at| frame[*at..].starts_with(&self.from))
            .collect();
        for at in places {
            frame[at..at + self.to.len()].copy_from_slice(&self.to);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(body: &[u8]) -> Vec<u8> {
        [&(body.len() as i32).to_be_bytes()[..], body].concat()
    }

    #[test]
    fn the_port_is_changed_however_the_bytes_are_cut() {
        let answer =
            |port: u16| [frame(b"head"), frame(&[b"x\x09127.0.0.1", &i32::from(port).to_be_bytes()[..]].concat())];
        let (before, after) = (answer(19092).concat(), answer(40001).concat());
        for size in 1..before.len() {
            let mut redirect = Redirect::new(19092, 40001);
            let passed: Vec<u8> = before.chunks(size).flat_map(|piece| redirect.pass(piece)).collect();
            assert_eq!(passed, after, "in pieces of {size}");
        }
    }

    #[test]
    fn large_frames_pass_as_they_come() {
        let large = frame(&vec![7; SMALL + 5]);
        let mut redirect = Redirect::new(1, 2);
        assert_eq!(redirect.pass(&large[..1_000]).len(), 1_000);
        assert_eq!(redirect.pass(&large[1_000..]).len(), large.len() - 1_000);
        assert_eq!(redirect.pass(&frame(b"next")), frame(b"next"));
    }
}
