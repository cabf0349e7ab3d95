//! Seeded numbers for workloads: the same seed gives the same events for every system, on every machine.

/// SplitMix64: small, and frozen by this file instead of by a crate's version.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in `0..bound`; the bias of the modulo is below 2^-40 for the bounds in use here.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Uniform in `[0, 1)`.
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub fn pick<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.below(words.len() as u64) as usize]
    }
}

/// Which keys events hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum KeyLaw {
    Uniform,
    /// Zipf with exponent 1.1: the most frequent key gets about an eighth of 100,000 keys' events.
    Zipf,
}

impl KeyLaw {
    pub fn name(self) -> &'static str {
        match self {
            KeyLaw::Uniform => "uniform",
            KeyLaw::Zipf => "zipf",
        }
    }
}

/// Draws key ids `1..=keys`.
pub struct Keys {
    keys: u64,
    /// Cumulative weights by rank; empty for the uniform law.
    cumulative: Vec<f64>,
}

impl Keys {
    pub fn new(law: KeyLaw, keys: u64) -> Keys {
        let mut cumulative = Vec::new();
        if law == KeyLaw::Zipf {
            let mut sum = 0.0;
            cumulative.extend((1..=keys).map(|rank| {
                sum += (rank as f64).powf(-1.1);
                sum
            }));
            cumulative.iter_mut().for_each(|weight| *weight /= sum);
        }
        Keys { keys, cumulative }
    }

    pub fn draw(&self, random: &mut Random) -> u64 {
        if self.cumulative.is_empty() {
            return 1 + random.below(self.keys);
        }
        let point = random.unit();
        let rank = self.cumulative.partition_point(|weight| *weight <= point) as u64;
        // Hot keys lie scattered over the table, as they would: 7,919 is a prime that shares no factor with round numbers.
        1 + (rank.min(self.keys - 1) * 7_919 + 17) % self.keys
    }
}
