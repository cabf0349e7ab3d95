//! The process that is killed: opens the log, goes on where it ends, and says `ACK` once an append is durable.

use std::io::Write;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use gravity_log::{Batch, EventLog, LogError, Ticket};

use super::LogTarget;
use super::script::{EventBuf, SOURCE, Script, WHOLE};

/// How many appends may wait for the disk at a time: enough for group commit, little enough that every kill finds some.
const IN_FLIGHT: usize = 64;

/// Appends until it is killed. Prints `OPEN next milliseconds` once, then `ACK events sequence`: that many events of the
/// script are durable, the last of them at this sequence. `rate` is in events per second, 0 for as fast as it goes.
pub fn run(target: &LogTarget, seed: u64, rate: u64) -> Result<(), String> {
    let started = Instant::now();
    let log = target.open().map_err(|error| format!("opening {}: {error}", target.directory.display()))?;
    let mut next =
        log.positions(SOURCE).into_iter().find(|(slot, _)| slot == WHOLE).map_or(0, |(_, position)| position.next);
    say(&format!("OPEN {next} {}", started.elapsed().as_millis()))?;

    let (tickets, acknowledged) = sync_channel::<(Ticket, u64)>(IN_FLIGHT);
    let waiter = std::thread::spawn(move || -> Result<(), String> {
        for (ticket, end) in acknowledged {
            let range = ticket.wait().map_err(|error| format!("append up to event {end}: {error}"))?;
            say(&format!("ACK {end} {}", range.last))?;
        }
        Ok(())
    });

    let script = Script::new(seed);
    let mut buf = EventBuf::default();
    let begun = (Instant::now(), next);
    loop {
        let plan = script.batch(next);
        let mut batch = Batch::new();
        for index in plan.first..plan.end() {
            batch.push(&script.event(index, &mut buf));
        }
        batch.set_position(SOURCE, WHOLE, plan.position());
        batch.set_position(SOURCE, &plan.slot, plan.position());
        for entry in &plan.dedupe {
            batch.remember(*entry);
        }
        let range = append(&log, batch, plan.lazy, |ticket| {
            // A waiter that ended has said why.
            let _ = tickets.send((ticket, plan.end()));
        });
        let (first, last) = match range {
            Ok(range) => range,
            Err(error) => {
                drop(tickets);
                let waited = waiter.join().map_err(|_| "the waiter panicked".to_owned())?;
                return waited.and(Err(format!("append at event {next}: {error}")));
            }
        };
        if last + 1 - first != plan.count {
            return Err(format!("batch of {} events got sequences {first}..={last}", plan.count));
        }
        if waiter.is_finished() {
            drop(tickets);
            return waiter.join().map_err(|_| "the waiter panicked".to_owned())?;
        }
        next = plan.end();
        if rate > 0 {
            let due = Duration::from_secs_f64((next - begun.1) as f64 / rate as f64);
            std::thread::sleep(due.saturating_sub(begun.0.elapsed()));
        }
    }
}

/// Appends one batch, waiting for room where there is none. Returns first and last sequence.
fn append(
    log: &Arc<dyn EventLog>,
    mut batch: Batch,
    lazy: bool,
    keep: impl FnOnce(Ticket),
) -> Result<(u64, u64), LogError> {
    if lazy {
        let range = log.append_lazy(batch)?;
        return Ok((range.first.get(), range.last.get()));
    }
    loop {
        match log.append(&mut batch) {
            Ok(ticket) => {
                let range = ticket.range;
                keep(ticket);
                return Ok((range.first.get(), range.last.get()));
            }
            Err(LogError::Busy) => futures::executor::block_on(log.room())?,
            Err(error) => return Err(error),
        }
    }
}

/// One line, at once: what is not in the pipe when the kill comes was not said.
fn say(line: &str) -> Result<(), String> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(|error| format!("standard output: {error}"))
}
