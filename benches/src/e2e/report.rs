//! What a run of the end-to-end harness prints: one line per round, medians and ranges per key law, one JSON line.

use std::time::Duration;

use serde_json::{Value, json};

use super::Drain;
use super::latency::Visible;
use crate::figures::Samples;
use crate::random::KeyLaw;

pub struct Round {
    pub law: &'static str,
    pub number: u32,
    pub events: u64,
    pub bytes: u64,
    pub drain: Drain,
    pub visible: Option<Visible>,
    pub differences: usize,
}

const MIB: f64 = (1 << 20) as f64;

impl Round {
    fn rate(&self, time: Duration) -> f64 {
        self.events as f64 / time.as_secs_f64()
    }

    fn cpu_per_million(&self) -> f64 {
        self.drain.usage.cpu_seconds * 1e6 / self.events as f64
    }

    pub fn line(&self) -> String {
        let head = format!("{} {}:", self.law, self.number);
        if self.differences > 0 {
            let examples = self.drain.difference.examples.join("\n  ");
            return format!("{head} {} rows are WRONG, no speed is printed\n  {examples}", self.differences);
        }
        let visible = self.visible.as_ref().map_or(String::new(), |Visible { times, polls }| {
            format!(
                "; visible p50 {:.1} p99 {:.1} p99.9 {:.1} ms (a poll takes p50 {:.1} p99 {:.1})",
                times.quantile(0.5),
                times.quantile(0.99),
                times.quantile(0.999),
                polls.quantile(0.5),
                polls.quantile(0.99)
            )
        });
        let threads: Vec<String> = self
            .drain
            .usage
            .threads
            .iter()
            .take(8)
            .map(|(name, seconds)| format!("{name} {:.2}", seconds * 1e6 / self.events as f64))
            .collect();
        format!(
            "{head} {:.0} events/s ({:.0} from command start), {} rows equal{}; {:.2} CPU-s per million [{}]; peak {:.0} MiB \
             ({:.0} later); {:.0} B per event{visible}",
            self.rate(self.drain.warm),
            self.rate(self.drain.cold),
            self.drain.difference.rows,
            if self.drain.late { " (late)" } else { "" },
            self.cpu_per_million(),
            threads.join(", "),
            self.drain.usage.peak_bytes as f64 / MIB,
            self.drain.peak_bytes_after as f64 / MIB,
            self.bytes as f64 / self.events as f64,
        )
    }
}

/// Medians and ranges of the rounds of each law. The error says that rows were wrong.
pub fn summary(laws: &[KeyLaw], rounds: &[Round]) -> Result<(), String> {
    println!();
    let mut line = serde_json::Map::new();
    for law in laws {
        let mine: Vec<&Round> = rounds.iter().filter(|round| round.law == law.name()).collect();
        let wrong: usize = mine.iter().map(|round| round.differences).sum();
        if wrong > 0 {
            line.insert(law.name().to_owned(), json!({"wrong_rows": wrong}));
            continue;
        }
        let of = |value: &dyn Fn(&Round) -> Option<f64>| Samples::of(mine.iter().filter_map(|r| value(r)).collect());
        let measures: Vec<(&str, &str, usize, Samples)> = vec![
            ("events_per_second", "events/s", 0, of(&|r| Some(r.rate(r.drain.warm)))),
            ("events_per_second_cold", "events/s from command start", 0, of(&|r| Some(r.rate(r.drain.cold)))),
            ("cpu_seconds_per_million", "CPU-s per million events", 2, of(&|r| Some(r.cpu_per_million()))),
            ("peak_mib", "MiB peak memory", 0, of(&|r| Some(r.drain.peak_bytes_after as f64 / MIB))),
            ("visible_p50_ms", "ms to visible, p50", 1, of(&|r| Some(r.visible.as_ref()?.times.quantile(0.5)))),
            ("visible_p99_ms", "ms to visible, p99", 1, of(&|r| Some(r.visible.as_ref()?.times.quantile(0.99)))),
        ];
        let mut object = serde_json::Map::new();
        println!("{} ({} rounds, median and range):", law.name(), mine.len());
        for (key, words, decimals, samples) in measures {
            if samples.median().is_nan() {
                continue;
            }
            println!("  {} {words}", samples.show(decimals));
            object.insert(key.to_owned(), Value::from(samples.median()));
        }
        line.insert(law.name().to_owned(), Value::Object(object));
    }
    println!("{}", json!({"bench": "e2e", "result": line}));
    match rounds.iter().map(|round| round.differences).sum::<usize>() {
        0 => Ok(()),
        wrong => Err(format!("{wrong} rows differ from the oracle")),
    }
}
