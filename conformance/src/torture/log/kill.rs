//! `torture log-kill`: P1 and the log's order under kill -9 at any moment, recovery and sealing included.

use std::time::Instant;

use super::Store;
use super::campaign::Campaign;
use crate::torture::ledger::Outcome;

/// Each kill of a full run must have had this many events behind it, so that "nothing lost" means something.
const FULL_EVENTS_PER_KILL: u64 = 2_000;

#[derive(Clone, Debug)]
pub struct LogKill {
    pub store: Store,
    pub seed: u64,
    pub kills: u64,
    pub full: bool,
    /// Smaller generations seal more often.
    pub generation_bytes: u64,
    pub failpoints: Option<String>,
}

impl LogKill {
    pub fn run(&self) -> Result<Outcome, String> {
        let started = Instant::now();
        let campaign = Campaign {
            gate: "log-kill",
            store: self.store,
            seed: self.seed,
            kills: self.kills,
            cutting: false,
            mode: None,
            generation_bytes: self.generation_bytes,
            failpoints: self.failpoints.clone(),
            life_ms: (10, 800),
        };
        let tally = campaign.run()?;
        let mut failures = tally.failures;
        if failures.is_empty() {
            if self.full && tally.acked < self.kills * FULL_EVENTS_PER_KILL {
                failures.push(format!("only {} events acked in {} kills", tally.acked, tally.kills));
            }
            if tally.acked == 0 || tally.segments == 0 {
                failures.push(format!("{} acked, {} segments: nothing was shown", tally.acked, tally.segments));
            }
        }
        Ok(Outcome {
            gate: format!("log-kill {}", self.store.word()),
            seed: self.seed,
            line: format!(
                "{} kills, {} events acked, {} lost, {} duplicated, {} damaged, {} failed opens",
                tally.kills, tally.acked, tally.lost, tally.duplicated, tally.damaged, tally.failed_opens
            ),
            figures: vec![
                ("kills", tally.kills),
                ("kills in recovery", tally.kills_in_recovery),
                ("acked", tally.acked),
                ("lost", tally.lost),
                ("duplicated", tally.duplicated),
                ("damaged", tally.damaged),
                ("failed opens", tally.failed_opens),
                ("checks", tally.checks),
                ("segments", tally.segments),
                ("slowest open ms", tally.slowest_open_ms),
            ],
            failures,
            elapsed: started.elapsed(),
        })
    }
}
