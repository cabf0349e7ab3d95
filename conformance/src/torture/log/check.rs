//! Opens a log that a killed writer left and compares everything in it with the script.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use gravity_log::{DedupeHit, DedupeKey, EventLog, ReadLimits};
use gravity_model::port::source::Position;
use gravity_model::{Recorded, Sequence};
use serde::{Deserialize, Serialize};

use super::LogTarget;
use super::script::{BatchPlan, EventBuf, SOURCE, STATE_NAME, Script, WHOLE, difference};

/// Dedupe keys of this many batches before the end are looked up, and one in 16 of the older ones.
const RECENT_BATCHES: usize = 200;
/// More lines would only hide the first.
const MAX_PROBLEMS: usize = 12;

/// What the writer was told: the first `events` of the script are durable, the last of them at `sequence`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Acknowledged {
    pub events: u64,
    pub sequence: u64,
}

/// What is wrong with a log, and how much of it there is. JSON between the checking process and its parent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Findings {
    /// Events of the script that are there: 0..next.
    pub next: u64,
    pub last_sequence: u64,
    pub segments: u32,
    pub open_ms: u64,
    pub lost: u64,
    pub duplicated: u64,
    /// Events that differ from the script, and everything else that is wrong.
    pub damaged: u64,
    pub problems: Vec<String>,
}

impl Findings {
    pub fn is_clean(&self) -> bool {
        self.lost == 0 && self.duplicated == 0 && self.damaged == 0
    }

    fn problem(&mut self, text: String) {
        self.damaged += 1;
        self.note(text);
    }

    fn note(&mut self, text: String) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(text);
        }
    }
}

/// Opens, reads everything, closes where `close` says so (a log that is never closed in an orderly way must be as good).
pub fn run(target: &LogTarget, seed: u64, acknowledged: Acknowledged, close: bool) -> Result<Findings, String> {
    let started = Instant::now();
    let log = target.open().map_err(|error| format!("opening {}: {error}", target.directory.display()))?;
    let mut findings = Findings { open_ms: started.elapsed().as_millis() as u64, ..Findings::default() };
    let mut walk = Walk::new(seed, acknowledged);
    walk.read_all(log.as_ref(), &mut findings);
    walk.finish(log.as_ref(), &mut findings);
    if close {
        log.close();
    }
    Ok(findings)
}

struct Walk {
    script: Script,
    acknowledged: Acknowledged,
    /// The batch that event `next` belongs to.
    plan: BatchPlan,
    next: u64,
    sequence: Sequence,
    positions: BTreeMap<String, Position>,
    state: BTreeMap<String, (Sequence, Vec<u8>)>,
    dedupe: VecDeque<(DedupeKey, DedupeHit)>,
    old_dedupe: Vec<(DedupeKey, DedupeHit)>,
    first_of_batch: Sequence,
    buf: EventBuf,
}

impl Walk {
    fn new(seed: u64, acknowledged: Acknowledged) -> Walk {
        let script = Script::new(seed);
        Walk {
            script,
            acknowledged,
            plan: script.batch(0),
            next: 0,
            sequence: Sequence::ZERO,
            positions: BTreeMap::new(),
            state: BTreeMap::new(),
            dedupe: VecDeque::new(),
            old_dedupe: Vec::new(),
            first_of_batch: Sequence::ZERO,
            buf: EventBuf::default(),
        }
    }

    fn read_all(&mut self, log: &dyn EventLog, findings: &mut Findings) {
        let last = *log.durable().borrow();
        findings.last_sequence = last.get();
        while self.sequence < last {
            let blocks = match log.read(self.sequence, ReadLimits { events: 4_096, bytes: 8 << 20 }) {
                Ok(blocks) => blocks,
                Err(error) => {
                    findings.problem(format!("reading after {}: {error}", self.sequence));
                    return;
                }
            };
            let before = self.sequence;
            for block in &blocks {
                for recorded in block.iter().filter(|recorded| recorded.sequence > before) {
                    self.event(&recorded, findings);
                }
            }
            if self.sequence == before {
                findings.problem(format!("the log says {last} events but ends after {before}"));
                return;
            }
        }
        if self.sequence > last {
            findings.problem(format!("read up to {} although only {last} are durable", self.sequence));
        }
    }

    fn event(&mut self, recorded: &Recorded<'_>, findings: &mut Findings) {
        if recorded.sequence != self.sequence.next() {
            findings.problem(format!("sequence {} follows {}", recorded.sequence, self.sequence));
        }
        self.sequence = recorded.sequence;
        let ours = recorded.event.source == SOURCE || recorded.event.name == STATE_NAME;
        if !ours {
            // The log's own control events.
            return;
        }
        let Some(index) = recorded.event.id.and_then(|id| id.parse::<u64>().ok()) else {
            return findings.problem(format!("sequence {}: id {:?}", recorded.sequence, recorded.event.id));
        };
        if index < self.next {
            findings.duplicated += 1;
            return findings.note(format!("sequence {}: event {index} again", recorded.sequence));
        }
        if index > self.next {
            findings.lost += index - self.next;
            findings.note(format!("sequence {}: event {index} follows {}", recorded.sequence, self.next));
            while self.plan.end() <= index {
                self.plan = self.script.batch(self.plan.end());
            }
        }
        let expected = self.script.event(index, &mut self.buf);
        if let Some(field) = difference(&recorded.event, &expected) {
            findings.problem(format!("sequence {}: event {index} has another {field}", recorded.sequence));
        }
        if expected.state {
            let key = String::from_utf8_lossy(expected.key.unwrap_or_default()).into_owned();
            match expected.payload {
                Some(payload) => self.state.insert(key, (recorded.sequence, payload.to_vec())),
                None => self.state.remove(&key),
            };
        }
        if index + 1 == self.acknowledged.events && recorded.sequence.get() != self.acknowledged.sequence {
            let told = self.acknowledged.sequence;
            findings.problem(format!("event {index} was acknowledged at {told} and is at {}", recorded.sequence));
        }
        if index == self.plan.first {
            self.first_of_batch = recorded.sequence;
        }
        self.next = index + 1;
        if self.next == self.plan.end() {
            self.batch_ended();
        }
    }

    fn batch_ended(&mut self) {
        let position = self.plan.position();
        self.positions.insert(WHOLE.to_owned(), position);
        self.positions.insert(self.plan.slot.clone(), position);
        for entry in &self.plan.dedupe {
            let first = self.first_of_batch.plus(u64::from(entry.event));
            self.dedupe.push_back((entry.key, DedupeHit { body: entry.body, first, count: entry.count }));
        }
        while self.dedupe.len() > RECENT_BATCHES {
            if let Some(old) = self.dedupe.pop_front()
                && old.0.0[0] % 16 == 0
            {
                self.old_dedupe.push(old);
            }
        }
        self.plan = self.script.batch(self.plan.end());
    }

    fn finish(&mut self, log: &dyn EventLog, findings: &mut Findings) {
        findings.next = self.next;
        if self.next < self.acknowledged.events {
            findings.lost += self.acknowledged.events - self.next;
            findings.note(format!("{} events acknowledged, {} there", self.acknowledged.events, self.next));
        }
        if self.next != self.plan.first {
            let (first, end) = (self.plan.first, self.plan.end());
            findings.problem(format!("batch {first}..{end} is there up to {} only", self.next));
        }
        let positions: BTreeMap<String, Position> = log.positions(SOURCE).into_iter().collect();
        if positions != self.positions {
            findings.problem(format!("positions {positions:?}, expected {:?}", self.positions));
        }
        self.check_state(log, findings);
        self.check_dedupe(log, findings);
        match log.verify(None, &mut |_| {}) {
            Ok(verified) => {
                for (what, range, why) in &verified.bad {
                    findings.problem(format!("verify: {what} {}..={}: {why}", range.first, range.last));
                }
                if verified.events != self.sequence.get() {
                    findings.problem(format!("verify saw {} events of {}", verified.events, self.sequence));
                }
            }
            Err(error) => findings.problem(format!("verify: {error}")),
        }
        let stat = log.stat();
        findings.segments = stat.segments;
        if stat.sled_blobs != 0 {
            findings.problem(format!("{} files in sled's blobs", stat.sled_blobs));
        }
    }

    fn check_state(&self, log: &dyn EventLog, findings: &mut Findings) {
        let found: BTreeMap<String, (Sequence, Vec<u8>)> = log
            .state()
            .into_iter()
            .filter(|entry| entry.name == STATE_NAME)
            .map(|entry| (entry.key, (entry.sequence, entry.payload)))
            .collect();
        if found != self.state {
            let keys = |state: &BTreeMap<String, (Sequence, Vec<u8>)>| -> Vec<String> {
                state.iter().map(|(key, (sequence, payload))| format!("{key}@{sequence}/{}", payload.len())).collect()
            };
            findings.problem(format!("state {:?}, expected {:?}", keys(&found), keys(&self.state)));
        }
    }

    fn check_dedupe(&self, log: &dyn EventLog, findings: &mut Findings) {
        let mut expected: Vec<(DedupeKey, Option<DedupeHit>)> = Vec::new();
        expected.extend(self.old_dedupe.iter().chain(&self.dedupe).map(|(key, hit)| (*key, Some(*hit))));
        // What never became durable must not be remembered: its producer will send it again.
        expected.extend((self.next..self.next + 2_000).map(|index| (self.script.dedupe_key(index), None)));
        let keys: Vec<DedupeKey> = expected.iter().map(|(key, _)| *key).collect();
        match log.dedupe(&keys) {
            Ok(found) if found.len() == expected.len() => {
                for ((key, expected), found) in expected.iter().zip(found) {
                    if *expected != found {
                        findings.problem(format!("dedupe key {key:?}: {found:?}, expected {expected:?}"));
                    }
                }
            }
            Ok(found) => findings.problem(format!("{} answers for {} dedupe keys", found.len(), keys.len())),
            Err(error) => findings.problem(format!("dedupe: {error}")),
        }
    }
}
