//! What lies on the log beyond a reader that stands still: how much of it concerns no view (SEMANTICS 5.5), and since when.

use gravity_log::{EventLog, ReadLimits};
use gravity_model::{EventKind, Micros, Sequence};
use parking_lot::Mutex;

/// Read per look; who has more before him is told of the rest at the next one.
const LOOK: ReadLimits = ReadLimits { events: 16 << 10, bytes: 4 << 20 };

/// A reader's account of the log beyond its position. Goes on where the last look ended while the reader stands still.
#[derive(Debug, Default)]
pub struct Beyond {
    counted: Mutex<Counted>,
}

/// Of the events in `(position, through]`.
#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    position: Sequence,
    through: Sequence,
    control: u64,
    oldest: Option<Micros>,
}

/// What a look found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Control events beyond the position, as far as was looked: no part of a lag.
    pub control: u64,
    /// When the first event that is none was received.
    pub oldest: Option<Micros>,
}

impl Beyond {
    /// Looks at `(position, last]`. May read from disk. Where the log does not answer, what is known stands.
    pub fn look(&self, log: &dyn EventLog, position: Sequence, last: Sequence) -> Found {
        let mut counted = self.counted.lock();
        if counted.position != position {
            *counted = Counted { position, through: position, control: 0, oldest: None };
        }
        let durable = *log.durable().borrow();
        if counted.through < last.min(durable) {
            let from = counted.through;
            let blocks = log.read_recent(from, LOOK).or_else(|| log.read(from, LOOK).ok()).unwrap_or_default();
            let records = blocks.iter().flat_map(gravity_log::Block::iter);
            for record in records.filter(|r| r.sequence > from && r.sequence <= last) {
                counted.through = record.sequence;
                match record.event.kind {
                    EventKind::Control => counted.control += 1,
                    _ => drop(counted.oldest.get_or_insert(record.event.received)),
                }
            }
        }
        Found { control: counted.control, oldest: counted.oldest }
    }
}
