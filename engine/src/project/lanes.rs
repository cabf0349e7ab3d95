//! Lanes: several writers of one route, each with its share of the view keys (SEMANTICS 3.1, 3.2).
//!
//! A key's lane comes from its values alone, so that one entity's rows in several tables share a lane. Events whose changes
//! lie in one lane run beside those of other lanes; an event that touches several is a barrier: every lane comes to its
//! predecessor first, and consecutive ones share a transaction that moves all lanes.

use gravity_model::Sequence;
use gravity_rules::ChangeOp;

use crate::project::evaluate::{Judged, Stretch};

/// Part of a stretch, in log order.
#[derive(Debug, PartialEq, Eq)]
pub enum Run {
    /// Events of one lane each, by lane; every lane ends at `through`.
    Apart { by_lane: Vec<Vec<u32>>, through: Sequence },
    /// Events that touch several lanes.
    Together { events: Vec<u32>, through: Sequence },
}

/// Cuts a stretch into runs. The last one ends where the stretch does.
pub fn runs(stretch: &Stretch, lanes: usize) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (index, judged) in stretch.events.iter().enumerate() {
        let index = index as u32;
        match lane_of(stretch, judged, lanes) {
            Some(lane) => {
                if !matches!(runs.last(), Some(Run::Apart { .. })) {
                    runs.push(Run::Apart { by_lane: vec![Vec::new(); lanes], through: Sequence::ZERO });
                }
                if let Some(Run::Apart { by_lane, through }) = runs.last_mut() {
                    by_lane[lane].push(index);
                    *through = judged.sequence;
                }
            }
            None => {
                if !matches!(runs.last(), Some(Run::Together { .. })) {
                    runs.push(Run::Together { events: Vec::new(), through: Sequence::ZERO });
                }
                if let Some(Run::Together { events, through }) = runs.last_mut() {
                    events.push(index);
                    *through = judged.sequence;
                }
            }
        }
    }
    if let Some(Run::Apart { through, .. } | Run::Together { through, .. }) = runs.last_mut() {
        *through = stretch.through;
    }
    runs
}

/// The lane of an event's first view key; lane 0 where it has none.
pub fn home_lane(stretch: &Stretch, judged: &Judged, lanes: usize) -> usize {
    let changes = &stretch.evaluation.changes[judged.changes.start as usize..judged.changes.end as usize];
    let keyed = changes.iter().find(|change| change.op != ChangeOp::DeleteAll);
    keyed.map_or(0, |change| lane_of_key(stretch.evaluation.key(change), lanes))
}

/// The one lane that an event touches; `None` where there are several.
fn lane_of(stretch: &Stretch, judged: &Judged, lanes: usize) -> Option<usize> {
    let mut only = None;
    for change in &stretch.evaluation.changes[judged.changes.start as usize..judged.changes.end as usize] {
        if change.op == ChangeOp::DeleteAll {
            return None;
        }
        let keys = std::iter::once(stretch.evaluation.key(change)).chain(stretch.evaluation.old_key(change));
        for key in keys {
            let lane = lane_of_key(key, lanes);
            if *only.get_or_insert(lane) != lane {
                return None;
            }
        }
    }
    Some(only.unwrap_or(0))
}

fn lane_of_key(canonical: &[u8], lanes: usize) -> usize {
    (xxhash_rust::xxh3::xxh3_64(canonical) % lanes as u64) as usize
}
