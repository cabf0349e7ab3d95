//! What `gravity status` shows: one document for the command line, the API and the metrics (INTERFACE 2).

use gravity_model::{Counters, LogId};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    pub log: LogStatus,
    pub sources: Vec<SourceStatus>,
    pub routes: Vec<RouteStatus>,
    pub exporters: Vec<SubscriptionStatus>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LogStatus {
    pub id: LogId,
    pub first: u64,
    pub last: u64,
    pub bytes: u64,
    pub hot_bytes: u64,
    pub segments: u32,
    /// `running`, or why nothing can be written now.
    pub state: String,
    pub dedupe_entries: u64,
    pub dedupe_from: u64,
    /// Version of the rules in force, first 12 digits of their hash.
    pub rules: String,
}

/// State words of a source, route or subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunState {
    Starting,
    Running,
    /// Backing off after a transient fault; goes on by itself.
    Degraded,
    /// Catches up from the log's beginning.
    Building,
    Paused,
    /// Waits for an operator, or for a probe to pass.
    Stopped,
    Ended,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SourceStatus {
    pub name: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub state: RunState,
    /// Messages taken in, duplicates included; survives restarts.
    pub received: u64,
    pub duplicates: u64,
    /// Records between our position and the source's end, where the protocol tells.
    pub lag_events: Option<u64>,
    pub error: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RouteStatus {
    pub name: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub state: RunState,
    pub checkpoint: u64,
    pub lag_events: u64,
    /// Age of the oldest event that is not in the view yet.
    pub lag_seconds: f64,
    pub read: u64,
    pub applied: u64,
    pub filtered: u64,
    pub unmatched: u64,
    /// `failed + waiting`.
    pub parked: u64,
    pub failed: u64,
    pub waiting: u64,
    pub skipped: u64,
    /// Most events that wait behind one key.
    pub widest_blocked: u64,
    /// Values of pass-through fields that no column took, since the start.
    #[serde(default)]
    pub unknown_fields: u64,
    pub error: Option<String>,
}

impl RouteStatus {
    pub fn set_counters(&mut self, c: &Counters) {
        self.read = c.read;
        self.applied = c.applied;
        self.filtered = c.filtered;
        self.unmatched = c.unmatched;
        self.parked = c.parked();
        self.failed = c.failed;
        self.waiting = c.waiting;
        self.skipped = c.skipped;
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SubscriptionStatus {
    /// The exporter's name.
    pub name: String,
    pub route: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub state: RunState,
    pub cursor: u64,
    pub lag_events: u64,
    pub lag_seconds: f64,
    pub delivered: u64,
    pub parked: u64,
    pub error: Option<String>,
}

/// One entry of `dlq list`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeadLetter {
    pub route: String,
    pub sequence: u64,
    /// `decode`, `map`, `apply` or `export`.
    pub stage: String,
    pub code: String,
    pub error: String,
    /// The event's key as text, `base64:` before bytes that are not UTF-8.
    pub key: Option<String>,
    pub event: String,
    /// Waits behind an earlier dead letter of one of its keys; has no error of its own.
    pub waiting: bool,
    /// Rule at fault, `rules.json:12`.
    pub rule: Option<String>,
    /// RFC 3339.
    pub parked_at: String,
}

/// What a retry or skip did.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ReleaseReport {
    /// Sequence of the record that asked for it.
    pub record: u64,
    /// Events that ran and were applied (or filtered), those that had waited included.
    pub released: Vec<u64>,
    /// Events that failed again.
    pub parked_again: Vec<u64>,
    pub skipped: Vec<u64>,
    /// Asked for, but did not run: an earlier dead letter of one of their keys has to be retried or skipped first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blocked: Vec<Blocked>,
    /// Why they failed again, where the call itself found out (`ingest`); the dead letters say it in any case.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub reasons: Vec<ParkedAgain>,
}

/// A dead letter that stays one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParkedAgain {
    pub sequence: u64,
    pub code: String,
    pub error: String,
}

/// A dead letter that waits for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocked {
    pub sequence: u64,
    pub behind: u64,
}

/// What became of one sequence on a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fate {
    Applied,
    Filtered,
    Unmatched,
    Parked,
    Skipped,
}

/// Answer of `GET /v1/views/{view}/position`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ViewPosition {
    pub view: String,
    /// Last sequence that the view contains.
    pub sequence: u64,
    /// With `wait`: whether the view has it now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reached: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fate: Option<Fate>,
}

/// Answer of `/readyz`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Readiness {
    pub ready: bool,
    /// Why not, or what is wrong although ready (`route db1: …`).
    pub reasons: Vec<String>,
}

/// How a run with `--stop-at-end` ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    InStep,
    InStepWithNewDeadLetters,
    /// A source, route or subscription stopped and will not get there by itself.
    Stopped {
        what: String,
    },
}

/// `dlq show`: the dead letter with its event.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeadLetterDetail {
    #[serde(flatten)]
    pub letter: DeadLetter,
    pub record: Option<EventView>,
}

/// An event as `GET /v1/events` shows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EventView {
    pub sequence: u64,
    pub source: String,
    pub event: String,
    pub key: Option<String>,
    pub id: Option<String>,
    /// RFC 3339, the producer's.
    pub time: Option<String>,
    /// RFC 3339, ours.
    pub received: String,
    /// The payload as it stands in the log; `raw` instead where it is no JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload: Option<Box<serde_json::value::RawValue>>,
    /// Base64 of a payload that is no JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raw: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub causation: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// In order of arrival; values that are not UTF-8 in base64 behind `base64:`.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub headers: Vec<(String, String)>,
}
