//! Durable append of the sled log beside the raw twin, rounds interleaved: ratio, CPU per event with sealing, bytes on disk.
//!
//! `cargo run --release -p gravity-log --example append_rate [EVENTS] [ROUNDS] [DIRECTORY]`. Trust ratios of one run.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use gravity_log::{Batch, HotStore, LogError, LogOptions, ReadLimits};
use gravity_model::{Event, Sequence};

const POOL: usize = 20_000;
const BATCH: usize = 1000;

/// JSON of 300 to 700 bytes, 450 on average, with ids and amounts that differ.
fn pool() -> Vec<String> {
    let mut state = 1u64;
    let mut next = |below: u64| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) % below
    };
    let words = ["parcel", "street", "invoice", "winter", "blue", "express", "customer", "refund", "north", "gift"];
    (0..POOL)
        .map(|i| {
            let note: Vec<&str> = (0..10 + next(50)).map(|_| words[next(10) as usize]).collect();
            format!(
                "{{\"id\":{i},\"customer\":{},\"total\":\"{}.{:02}\",\"at\":\"2026-11-{:02}T{:02}:{:02}:{:02}Z\",\"token\":\"{:016x}{:016x}\",\"note\":\"{}\"}}",
                next(100_000), next(10_000), next(100), 1 + next(28), next(24), next(60), next(60), next(u64::MAX), next(u64::MAX), note.join(" ")
            )
        })
        .collect()
}

/// CPU seconds that this process has used.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

struct Measured {
    rate: f64,
    append_cpu: f64,
    seal_cpu: f64,
    read_cpu: f64,
    bytes_ratio: f64,
}

fn measure(hot: HotStore, events: usize, pool: &[String], root: &Path) -> Result<Measured, LogError> {
    let directory = root.join(format!("append-rate-{hot:?}"));
    let _ = std::fs::remove_dir_all(&directory);
    let mut options = LogOptions::new(&directory);
    options.hot = hot;
    let log = gravity_log::open(options)?;
    let (start, cpu_start) = (Instant::now(), cpu());
    let mut payload_bytes = 0;
    let mut ticket = None;
    let mut batch = Batch::with_capacity(BATCH * 600);
    let mut pushing = 0.0;
    for i in 0..events {
        let payload = &pool[i % pool.len()];
        payload_bytes += payload.len();
        batch.push(&Event {
            received: i as i64,
            key: Some(&payload.as_bytes()[1..12]),
            ..Event::data("orderPlaced", "orders", payload.as_bytes())
        });
        if batch.len() == BATCH || i + 1 == events {
            let waiting = Instant::now();
            loop {
                match log.append(&mut batch) {
                    Ok(taken) => break ticket = Some(taken),
                    Err(LogError::Busy) => std::thread::sleep(Duration::from_micros(200)),
                    Err(error) => return Err(error),
                }
            }
            pushing += waiting.elapsed().as_secs_f64();
            batch = Batch::with_capacity(BATCH * 600);
        }
    }
    let _ = pushing;
    if let Some(ticket) = ticket {
        ticket.wait()?;
    }
    let (rate, append_cpu) = (events as f64 / start.elapsed().as_secs_f64(), cpu() - cpu_start);
    while log.stat().hot_generations > 1 {
        std::thread::sleep(Duration::from_millis(20));
    }
    let seal_cpu = cpu() - cpu_start - append_cpu;
    let bytes_ratio = log.stat().bytes as f64 / payload_bytes as f64;
    let reading = cpu();
    let mut after = Sequence::ZERO;
    let mut seen = 0;
    loop {
        let blocks = log.read(after, ReadLimits { events: 10_000, bytes: 4 << 20 })?;
        let Some(last) = blocks.last() else { break };
        after = last.last();
        seen += blocks.iter().map(|block| block.iter().count()).sum::<usize>();
    }
    assert!(seen > events, "every event and the opening");
    let read_cpu = cpu() - reading;
    log.close();
    drop(log);
    let _ = std::fs::remove_dir_all(&directory);
    let per_event = 1e6 / events as f64;
    Ok(Measured {
        rate,
        append_cpu: append_cpu * per_event,
        seal_cpu: seal_cpu * per_event,
        read_cpu: read_cpu * per_event,
        bytes_ratio,
    })
}

fn main() -> Result<(), LogError> {
    let mut arguments = std::env::args().skip(1);
    let events = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(3_000_000);
    let rounds = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(3);
    let root = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let pool = pool();
    println!("payload {} B on average", pool.iter().map(String::len).sum::<usize>() / pool.len());
    let mut ratios = Vec::new();
    for round in 1..=rounds {
        let sled = measure(HotStore::Sled, events, &pool, &root)?;
        let raw = measure(HotStore::Raw, events, &pool, &root)?;
        for (name, m) in [("sled", &sled), ("raw ", &raw)] {
            println!(
                "round {round} {name}: {:>9.0} events/s; CPU us/event: {:.2} until durable (sealing that overlaps included), {:.2} sealing after, {:.2} reading all; {:.2} bytes on disk per payload byte",
                m.rate, m.append_cpu, m.seal_cpu, m.read_cpu, m.bytes_ratio
            );
        }
        ratios.push(sled.rate / raw.rate);
    }
    ratios.sort_by(f64::total_cmp);
    println!("sled / raw: {:.2} (median of {rounds})", ratios[ratios.len() / 2]);
    Ok(())
}
