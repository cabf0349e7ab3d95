//! `torture power-cut`: P1 when everything unsynced is lost, with the control that shows that the gate can lose data at all.

use std::time::Instant;

use super::Store;
use super::campaign::{Campaign, Tally};
use crate::torture::cutfs::CutMode;
use crate::torture::ledger::Outcome;

const FULL_EVENTS_PER_CUT: u64 = 5_000;

#[derive(Clone, Debug)]
pub struct PowerCut {
    pub store: Store,
    pub seed: u64,
    pub cuts: u64,
    pub full: bool,
    /// Smaller generations seal more often.
    pub generation_bytes: u64,
    pub failpoints: Option<String>,
}

impl PowerCut {
    pub fn run(&self) -> Result<Outcome, String> {
        let started = Instant::now();
        let tally = self.campaign(self.cuts, None, self.failpoints.clone()).run()?;
        let mut failures = tally.failures.clone();
        if failures.is_empty() {
            if self.full && tally.acked < self.cuts * FULL_EVENTS_PER_CUT {
                failures.push(format!("only {} events acked in {} cuts", tally.acked, tally.kills));
            }
            if tally.acked == 0 || tally.segments == 0 || tally.cut.pages_lost == 0 {
                let (acked, segments, pages) = (tally.acked, tally.segments, tally.cut.pages_lost);
                failures.push(format!("{acked} acked, {segments} segments, {pages} pages lost: nothing was shown"));
            }
        }
        // A sabotaged gate is its own control.
        let control = if self.failpoints.is_none() { Some(self.control()?) } else { None };
        if control == Some(0) {
            failures.push("the control without fdatasync lost nothing: this gate sees nothing".to_owned());
        }
        let mut line = format!(
            "{} cuts, {} acked, {} lost, {} unopenable",
            tally.kills, tally.acked, tally.lost, tally.failed_opens
        );
        if let Some(lost) = control {
            line.push_str(&format!(", control: no fdatasync lost {lost}"));
        }
        Ok(Outcome {
            gate: format!("power-cut {}", self.store.word()),
            seed: self.seed,
            line,
            figures: vec![
                ("cuts", tally.kills),
                ("cuts in recovery", tally.kills_in_recovery),
                ("acked", tally.acked),
                ("lost", tally.lost),
                ("duplicated", tally.duplicated),
                ("damaged", tally.damaged),
                ("unopenable", tally.failed_opens),
                ("checks", tally.checks),
                ("segments", tally.segments),
                ("slowest open ms", tally.slowest_open_ms),
                ("pages lost", tally.cut.pages_lost),
                ("pages kept", tally.cut.pages_kept),
                ("pages torn", tally.cut.pages_torn),
                ("names lost", tally.cut.names_lost),
                ("names kept", tally.cut.names_kept),
                ("control lost", control.unwrap_or_default()),
            ],
            failures,
            elapsed: started.elapsed(),
        })
    }

    /// The same without fdatasync: acknowledged events that are gone, or that lie in a log that cannot be opened any more.
    fn control(&self) -> Result<u64, String> {
        let mut lost = 0;
        for attempt in 0..5 {
            let mut campaign = self.campaign(1, Some(CutMode::Everything), Some("log.before_sync=sabotage".to_owned()));
            campaign.seed = campaign.seed.wrapping_add(attempt);
            campaign.life_ms = (500, 800);
            let Tally { acked, lost: missing, failed_opens, .. } = campaign.run()?;
            lost += if failed_opens > 0 { acked } else { missing };
        }
        Ok(lost)
    }

    fn campaign(&self, kills: u64, mode: Option<CutMode>, failpoints: Option<String>) -> Campaign {
        Campaign {
            gate: "power-cut",
            store: self.store,
            seed: self.seed,
            kills,
            cutting: true,
            mode,
            generation_bytes: self.generation_bytes,
            failpoints,
            life_ms: (10, 800),
        }
    }
}
