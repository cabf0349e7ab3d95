//! The record of a dead letter: what an event is parked with, for routes and subscriptions alike.

use gravity_model::{Fault, Sequence};
use gravity_rules::Refusal;

use crate::control::{Parked, Stage};
use crate::ledger::BlockedKey;

/// Codes of the faults that stop a route which can park no more.
pub const MAX_PARKED: &str = "route/max-parked";
pub const MAX_WAITING: &str = "route/max-waiting";

/// Why an event failed.
#[derive(Clone, Debug)]
pub struct Why {
    pub stage: Stage,
    pub code: String,
    pub error: String,
    pub rule: Option<String>,
}

impl Why {
    /// A refusal by the rules.
    pub fn of_rule(refusal: &Refusal) -> Why {
        Why {
            stage: Stage::Map,
            code: refusal.code.to_owned(),
            error: refusal.message.clone(),
            rule: Some(refusal.rule.clone()),
        }
    }

    /// A refusal by the database.
    pub fn of(fault: &Fault) -> Why {
        Why { stage: Stage::Apply, code: fault.code.to_string(), error: fault.to_string(), rule: None }
    }
}

/// The record of one parked event; without a reason it waits behind another.
pub fn parked(
    route: &str,
    sequence: Sequence,
    event: String,
    key: Option<String>,
    blocks: Vec<BlockedKey>,
    waiting: bool,
    why: Option<Why>,
) -> Parked {
    let why = why.unwrap_or(Why { stage: Stage::Apply, code: String::new(), error: String::new(), rule: None });
    Parked {
        route: route.to_owned(),
        sequence,
        stage: why.stage,
        code: why.code,
        error: why.error,
        rule: why.rule,
        key,
        event,
        waiting,
        blocks,
        at: crate::clock::now(),
    }
}
