//! What every database says alike about checkpoint and view rows: names, comparisons, and the faults when they differ.

use std::collections::HashMap;

use gravity_model::port::view::{BookkeepingRewrite, ViewRow, ViewState, describe_checkpoint};
use gravity_model::{Checkpoint, Fault, FaultKind, failpoint};

pub(crate) const CHECKPOINTS: &str = "gravity_checkpoints";
pub(crate) const VIEWS: &str = "gravity_views";

/// Numbers of ours start at zero or one and grow by one: none reaches 2^63.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(crate) fn damaged(what: &str, found: impl std::fmt::Display) -> Fault {
    Fault::new(FaultKind::NotOurs, "bookkeeping-damaged", "read the bookkeeping tables", format!("{what}: {found}"))
}

pub(crate) fn unsigned(what: &str, number: i64) -> Result<u64, Fault> {
    u64::try_from(number).map_err(|_| damaged(what, number))
}

pub(crate) fn state_word(state: ViewState) -> &'static str {
    match state {
        ViewState::Attached => "attached",
        ViewState::Building => "building",
        ViewState::Held => "held",
    }
}

pub(crate) fn state_of(word: &str) -> Result<ViewState, Fault> {
    [ViewState::Attached, ViewState::Building, ViewState::Held]
        .into_iter()
        .find(|s| state_word(*s) == word)
        .ok_or_else(|| damaged("state", word))
}

/// Same in everything that the compare-and-set compares.
fn unchanged(found: &Checkpoint, expected: &Checkpoint) -> bool {
    let owner = found.owner == expected.owner || failpoint::sabotaged("view.cas_without_owner");
    (&found.route, found.lane) == (&expected.route, expected.lane)
        && found.log_id == expected.log_id
        && found.epoch == expected.epoch
        && found.sequence == expected.sequence
        && found.fence == expected.fence
        && owner
}

/// `Err` unless `found` holds exactly the rows of `expect`, in any order.
pub(crate) fn compare(doing: &str, found: &[Checkpoint], expect: &[Checkpoint]) -> Result<(), Fault> {
    let by_key: HashMap<_, _> = found.iter().map(|c| ((c.route.as_str(), c.lane), c)).collect();
    for expected in expect {
        match by_key.get(&(expected.route.as_str(), expected.lane)) {
            None => return Err(not_ours(doing, "no row", expected)),
            Some(row) if !unchanged(row, expected) => {
                return Err(not_ours(doing, &describe_checkpoint(row), expected));
            }
            Some(_) => {}
        }
    }
    let expected = |c: &Checkpoint| expect.iter().any(|e| (&e.route, e.lane) == (&c.route, c.lane));
    match found.iter().find(|c| !expected(c)) {
        Some(extra) => Err(Fault::new(
            FaultKind::NotOurs,
            "checkpoint-changed",
            doing.to_owned(),
            format!("found {}, expected no row", describe_checkpoint(extra)),
        )),
        None => Ok(()),
    }
}

pub(crate) fn not_ours(doing: &str, found: &str, expected: &Checkpoint) -> Fault {
    Fault::new(
        FaultKind::NotOurs,
        "checkpoint-changed",
        doing.to_owned(),
        format!("found {found}, expected {}", describe_checkpoint(expected)),
    )
}

/// A view row that another log or route holds.
pub(crate) fn claimed(wanted: &ViewRow, holder: &ViewRow) -> Fault {
    Fault::new(
        FaultKind::NotOurs,
        "view-claimed",
        format!("claim table {} for route {}", wanted.table, wanted.route),
        format!("route {} of log {} holds table {}", holder.route, holder.log_id, holder.table),
    )
}

/// Every (route, lane) that a rewrite names, once.
pub(crate) fn rewritten_keys(rewrite: &BookkeepingRewrite) -> Vec<(String, u16)> {
    let mut keys: Vec<_> = rewrite
        .expect
        .iter()
        .chain(&rewrite.put)
        .map(|c| (c.route.clone(), c.lane))
        .chain(rewrite.delete.iter().cloned())
        .collect();
    keys.sort();
    keys.dedup();
    keys
}

/// `next` must name exactly the lanes that `begin` locked; returns them as (read, next) pairs.
pub(crate) fn pairs<'a>(
    read: &'a [Checkpoint],
    next: &'a [Checkpoint],
) -> Result<Vec<(&'a Checkpoint, &'a Checkpoint)>, Fault> {
    let wrong = || {
        Fault::new(
            FaultKind::Misconfigured,
            "checkpoint-lanes",
            "commit a view transaction",
            "the checkpoints to write are not those that the transaction was begun with",
        )
    };
    if read.len() != next.len() {
        return Err(wrong());
    }
    next.iter()
        .map(|n| {
            let r = read.iter().find(|r| (&r.route, r.lane) == (&n.route, n.lane)).ok_or_else(wrong)?;
            Ok((r, n))
        })
        .collect()
}
