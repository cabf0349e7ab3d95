//! A route's progress as its database keeps it: in the same transaction as the rows (P3).

use serde::{Deserialize, Serialize};

use crate::ident::{BlockMark, Epoch, Fence, LogId, OwnerId, Sequence};

/// The row of `gravity_checkpoints` for one (route, lane).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Name of the database entry, or `DATABASE/TABLE` for a detached view.
    pub route: String,
    pub lane: u16,
    pub log_id: LogId,
    pub epoch: Epoch,
    /// Last sequence done, inclusive.
    pub sequence: Sequence,
    pub fence: Fence,
    pub owner: OwnerId,
    /// The block of the log that holds `sequence`; default where `sequence` is zero.
    pub block: BlockMark,
    pub counters: Counters,
}

/// The identity of P4 for one lane: `read = applied + filtered + unmatched + failed + waiting + skipped`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    pub read: u64,
    pub applied: u64,
    pub filtered: u64,
    pub unmatched: u64,
    /// Parked now, with an error of their own.
    pub failed: u64,
    /// Parked now, behind an earlier event of one of their keys.
    pub waiting: u64,
    pub skipped: u64,
}

impl Counters {
    pub fn parked(&self) -> u64 {
        self.failed + self.waiting
    }

    /// P4. False means that an event disappeared or was counted twice: a bug, shown in `status`.
    pub fn balanced(&self) -> bool {
        self.read == self.applied + self.filtered + self.unmatched + self.parked() + self.skipped
    }

    #[must_use]
    pub fn plus(self, other: Counters) -> Counters {
        Counters {
            read: self.read + other.read,
            applied: self.applied + other.applied,
            filtered: self.filtered + other.filtered,
            unmatched: self.unmatched + other.unmatched,
            failed: self.failed + other.failed,
            waiting: self.waiting + other.waiting,
            skipped: self.skipped + other.skipped,
        }
    }
}
