//! Medians, ranges and percentiles, and the facts about the machine without which a figure means nothing.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

/// Sorted samples of one measure.
pub struct Samples(Vec<f64>);

impl Samples {
    pub fn of(mut samples: Vec<f64>) -> Samples {
        samples.sort_by(f64::total_cmp);
        Samples(samples)
    }

    /// The smallest sample that at least `share` (0 to 1) of all samples do not exceed; NaN without samples.
    pub fn quantile(&self, share: f64) -> f64 {
        let rank = (self.0.len() as f64 * share).ceil() as usize;
        self.0.get(rank.clamp(1, self.0.len().max(1)) - 1).copied().unwrap_or(f64::NAN)
    }

    pub fn median(&self) -> f64 {
        let n = self.0.len();
        if n == 0 {
            return f64::NAN;
        }
        (self.0[(n - 1) / 2] + self.0[n / 2]) / 2.0
    }

    /// `median (lowest … highest)`.
    pub fn show(&self, decimals: usize) -> String {
        let (low, high) = (self.quantile(0.0), self.quantile(1.0));
        format!("{:.decimals$} ({low:.decimals$} … {high:.decimals$})", self.median())
    }
}

/// Median of 4 KiB writes, each followed by fdatasync, in microseconds.
pub fn sync_p50_us(directory: &Path) -> std::io::Result<f64> {
    let path = directory.join("fdatasync.probe");
    let mut file = File::create(&path)?;
    let page = [0x5a_u8; 4096];
    let mut samples = Vec::new();
    for _ in 0..300 {
        let started = Instant::now();
        file.write_all(&page)?;
        file.sync_data()?;
        samples.push(started.elapsed().as_secs_f64() * 1e6);
    }
    std::fs::remove_file(&path)?;
    Ok(Samples::of(samples).median())
}

/// One line about the machine, the kernel and the disk under `directory`.
pub fn machine(directory: &Path) -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split_once(": "));
    let cores = cpu.lines().filter(|line| line.starts_with("processor")).count();
    let kernel = read("/proc/sys/kernel/osrelease");
    let load = read("/proc/loadavg");
    let sync = sync_p50_us(directory).map_or_else(|error| error.to_string(), |us| format!("{us:.0} µs"));
    format!(
        "machine: {cores} × {}, Linux {}, load {}, fdatasync of 4 KiB p50 {sync}",
        model.map_or("?", |(_, model)| model),
        kernel.trim(),
        load.split(' ').next().unwrap_or("?")
    )
}
