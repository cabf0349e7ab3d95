//! `bench log`: durable append through sled against the raw-segment twin; same codec, block size and checks.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use gravity_log::{Batch, EventLog, HotStore, LogError, LogOptions};
use gravity_model::Event;
use serde_json::json;

use crate::figures::{Samples, machine};
use crate::process::{self, OwnUsage};
use crate::random::KeyLaw;
use crate::workload::Workload;

/// Bytes of one append, as ingest makes them.
const APPEND_BYTES: usize = 256 << 10;

#[derive(clap::Args)]
pub struct LogBench {
    /// Events per round
    #[arg(long, default_value_t = 1_000_000)]
    events: u64,
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Where the logs are made; its disk is what is measured. Default: the system's temporary directory
    #[arg(long)]
    directory: Option<PathBuf>,
}

struct Round {
    events_per_second: f64,
    cpu_us: f64,
    /// Bytes that the process wrote per byte of payload.
    amplification: f64,
}

impl LogBench {
    pub fn run(self) -> Result<(), String> {
        let directory = self.directory.clone().unwrap_or_else(std::env::temp_dir);
        println!("{}", machine(&directory));
        println!("workload: {} events of G-1 in appends of {APPEND_BYTES} bytes, zstd-1, pipelined", self.events);
        let payloads = payloads(self.events.min(100_000))?;
        let mut rounds: [Vec<Round>; 2] = [Vec::new(), Vec::new()];
        for number in 0..self.rounds {
            // The one that goes first changes from round to round.
            for turn in 0..2 {
                let which = ((number + turn) % 2) as usize;
                let store = [HotStore::Sled, HotStore::Raw][which];
                rounds[which].push(self.round(&directory, store, &payloads)?);
            }
        }
        self.report(&rounds)
    }

    fn round(&self, directory: &Path, hot: HotStore, payloads: &[Vec<u8>]) -> Result<Round, String> {
        let work = tempfile::Builder::new().prefix("bench-log-").tempdir_in(directory).map_err(|e| e.to_string())?;
        let wrong = |error: LogError| error.to_string();
        let log = gravity_log::open(LogOptions { hot, ..LogOptions::new(work.path()) }).map_err(wrong)?;
        let (before, started) = (OwnUsage::read()?, Instant::now());
        let (mut payload, mut newest) = (0u64, None);
        let mut batch = Batch::with_capacity(APPEND_BYTES * 2);
        for index in 0..self.events {
            let bytes = &payloads[index as usize % payloads.len()];
            payload += bytes.len() as u64;
            batch.push(&Event::data("upsert", "bench", bytes));
            if batch.bytes() >= APPEND_BYTES || index + 1 == self.events {
                newest = Some(append(&*log, &mut batch).map_err(wrong)?);
            }
        }
        // Everything before it is durable as well.
        newest.map_or(Ok(()), |ticket| ticket.wait().map(drop)).map_err(wrong)?;
        let (time, used) = (started.elapsed(), OwnUsage::read()?.since(&before));
        log.close();
        Ok(Round {
            events_per_second: self.events as f64 / time.as_secs_f64(),
            cpu_us: used.cpu_seconds * 1e6 / self.events as f64,
            amplification: used.written_bytes as f64 / payload as f64,
        })
    }

    fn report(&self, rounds: &[Vec<Round>; 2]) -> Result<(), String> {
        for (name, rounds) in ["sled", "raw twin"].iter().zip(rounds) {
            let of = |value: fn(&Round) -> f64| Samples::of(rounds.iter().map(value).collect());
            println!(
                "{name}: {} events/s; {} µs CPU per event; write amplification {}",
                of(|r| r.events_per_second).show(0),
                of(|r| r.cpu_us).show(2),
                of(|r| r.amplification).show(2)
            );
        }
        let [sled, raw] = rounds;
        let pairs = sled.iter().zip(raw).map(|(s, r)| s.events_per_second / r.events_per_second).collect();
        let ratio = Samples::of(pairs);
        println!("ratio of events/s, sled to raw twin, round by round: {} (goal 1.0)", ratio.show(2));
        let peak = process::own_peak_bytes() >> 20;
        println!("peak memory of the benchmark: {peak} MiB, its pool of payloads included");
        println!("{}", json!({"bench": "log", "ratio": ratio.median(), "peak_mib": peak}));
        Ok(())
    }
}

fn append(log: &dyn EventLog, batch: &mut Batch) -> Result<gravity_log::Ticket, LogError> {
    loop {
        match log.append(batch) {
            // The queue drains at the speed of the disk; a plain thread has no runtime to wait for `room` in.
            Err(LogError::Busy) => std::thread::sleep(Duration::from_micros(200)),
            other => return other,
        }
    }
}

/// The values of the first `count` events of G-1.
fn payloads(count: u64) -> Result<Vec<Vec<u8>>, String> {
    let mut workload = Workload::new(1, KeyLaw::Uniform, 100_000);
    let mut one = || {
        let mut out = Vec::new();
        workload.next().write_json(&mut out).map(|()| out)
    };
    (0..count).map(|_| one()).collect::<Result<_, _>>().map_err(|error| error.to_string())
}
