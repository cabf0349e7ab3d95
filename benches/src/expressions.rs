//! `bench expressions`: what a filter adds to an event, and what the worst one that loads costs per KiB of payload.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use gravity_model::{Event, Recorded, Sequence};
use gravity_rules::{Evaluation, RouteProgram, Verdict};
use serde_json::json;

use crate::figures::Samples;
use crate::rules::{Span, payloads, program};

/// From none to one that needs values; all hold for every event.
const FILTERS: [(&str, Option<&str>); 5] = [
    ("no filter", None),
    ("plain comparison", Some("amount > 100")),
    ("conjunction of three", Some("amount > 100 && currency == 'TWD' && express == false")),
    ("two functions", Some("currency.lowerAscii().startsWith('t')")),
    ("arithmetic and disjunction", Some("amount * 1.05 > 10000 || size(channel) == 12")),
];

/// Repeated with `||` as often as the loader accepts; none holds, so that all of it runs.
const WORST: [(&str, &str, &str); 4] = [
    ("s.contains('abb')", "", ""),
    ("(s + s).lowerAscii().trim().contains('abb')", "", ""),
    ("x.trim().contains('c')", "l.exists(x, ", ")"),
    ("'c' in l", "", ""),
];

/// Payloads of the worst cases.
const KIB: [usize; 2] = [16, 128];

#[derive(clap::Args)]
pub struct ExpressionsBench {
    /// Events per round
    #[arg(long, default_value_t = 200_000)]
    events: usize,
    #[arg(long, default_value_t = 7)]
    rounds: u32,
}

impl ExpressionsBench {
    pub fn run(self) -> Result<(), String> {
        let ratios = self.usual()?;
        let worst = self.worst()?;
        println!("{}", json!({"bench": "expressions", "to_no_filter": ratios, "worst_ms_per_kib": worst}));
        Ok(())
    }

    fn usual(&self) -> Result<Vec<f64>, String> {
        let (records, events) = payloads(1_000);
        let programs: Vec<RouteProgram> =
            FILTERS.iter().map(|(_, filter)| program(*filter)).collect::<Result<_, _>>()?;
        let repeats = self.events.div_ceil(events.len());
        let mut times = vec![Vec::new(); FILTERS.len()];
        println!("filters: {} events of {} B, 7 fields mapped, one thread", self.events, records.len() / events.len());
        for _ in 0..self.rounds {
            for (program, times) in programs.iter().zip(&mut times) {
                let started = Instant::now();
                let mut out = Evaluation::new();
                for _ in 0..repeats {
                    out.clear();
                    for event in &events {
                        holds(program, &records, event, &mut out)?;
                    }
                    black_box(&out);
                }
                times.push(started.elapsed().as_nanos() as f64 / (repeats * events.len()) as f64);
            }
        }
        let bare = times[0].clone();
        let mut medians = Vec::new();
        for ((name, filter), times) in FILTERS.iter().zip(times) {
            let ratio = Samples::of(times.iter().zip(&bare).map(|(time, bare)| time / bare).collect());
            let shown = filter.map(|filter| format!(" ({filter})")).unwrap_or_default();
            let nanos = Samples::of(times);
            println!("  {name}{shown}: {} ns per event, {} times no filter", nanos.show(0), ratio.show(2));
            medians.push(ratio.median());
        }
        Ok(medians)
    }

    fn worst(&self) -> Result<Vec<f64>, String> {
        println!("the worst that load, milliseconds per KiB of payload at {} and {} KiB:", KIB[0], KIB[1]);
        let mut all = Vec::new();
        for (part, before, after) in WORST {
            let make = |count: usize| format!("{before}{}{after}", vec![part; count].join(" || "));
            let count = (1..).take_while(|count| program(Some(&make(*count))).is_ok()).last();
            let count = count.ok_or_else(|| format!("not even one loads: {part}"))?;
            let program = program(Some(&make(count)))?;
            let mut shown = Vec::new();
            for kib in KIB {
                let (records, event) = long(kib);
                let once = || -> Result<f64, String> {
                    let started = Instant::now();
                    fails(&program, &records, &event)?;
                    Ok(started.elapsed().as_secs_f64() * 1e3 / (records.len() as f64 / 1024.0))
                };
                let times = (0..self.rounds).map(|_| once()).collect::<Result<Vec<f64>, String>>()?;
                shown.push(Samples::of(times));
            }
            println!("  {count} x {}: {} and {}", make(1), shown[0].show(3), shown[1].show(3));
            all.push(shown[1].median());
        }
        Ok(all)
    }
}

fn holds(program: &RouteProgram, records: &Arc<Bytes>, event: &Span, out: &mut Evaluation) -> Result<(), String> {
    match verdict(program, records, event, out) {
        Verdict::Matched => Ok(()),
        other => Err(format!("the filter should hold: {other:?}")),
    }
}

fn fails(program: &RouteProgram, records: &Arc<Bytes>, event: &Span) -> Result<(), String> {
    match verdict(program, records, event, &mut Evaluation::new()) {
        Verdict::Filtered => Ok(()),
        other => Err(format!("the filter should not hold: {other:?}")),
    }
}

fn verdict(program: &RouteProgram, records: &Arc<Bytes>, event: &Span, out: &mut Evaluation) -> Verdict {
    let event = Event::data("order", "bench", &records[event.clone()]);
    program.evaluate(&Recorded { sequence: Sequence(1), event }, records, out)
}

/// One event with half of its bytes in a text and half in a list.
fn long(kib: usize) -> (Arc<Bytes>, Span) {
    let text = "ab".repeat(kib * 256);
    let words = vec!["\"ab\""; kib * 102].join(",");
    let payload = format!(r#"{{"id":1,"s":"{text}","l":[{words}]}}"#);
    let end = payload.len();
    (Arc::new(Bytes::from(payload)), 0..end)
}
