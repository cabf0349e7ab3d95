//! Is the topic still the one whose positions the log holds? Asked of the broker while records flow, because librdkafka
//! goes on at the old offset when a topic was deleted and created again under its name.
//!
//! Why the answer is in time: the first fetch after a re-creation fails with an unknown topic id, and librdkafka waits
//! [`FETCH_BACKOFF_MS`] before the next one. A record that was taken at most [`FRESH`] after an id check *began* was
//! therefore fetched from the topic that the check saw. (Brokers before Kafka 3.1 fetch by name: there the check comes at
//! most [`FRESH`] late, and the end offset is the second guard.)

use std::time::{Duration, Instant};

use gravity_model::{Fault, FaultKind};
use hashbrown::HashMap;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::RDKafkaErrorCode as Code;

use super::error::{fault_of, printable};
use super::native::{TopicIdentities, TopicIdentity};

/// `fetch.error.backoff.ms`.
pub const FETCH_BACKOFF_MS: u32 = 600;
/// How long a check vouches for records, counted from its beginning.
const FRESH: Duration = Duration::from_millis(400);
/// The next check begins this long after the last one began.
const AGAIN: Duration = Duration::from_millis(150);
/// After this an unanswered request counts as a broker that is away.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// Code of the fault that a topic is another one.
pub const RECREATED: &str = "topic-recreated";

/// Topic ids of one connection and how fresh they are.
pub struct IdentityCheck<C: ConsumerContext + 'static> {
    source: String,
    topics: Vec<String>,
    asker: TopicIdentities<C>,
    /// Absent: the broker gives no ids.
    known: HashMap<String, String>,
    under_way: Option<Instant>,
    last_begun: Option<Instant>,
    confirmed: Option<Instant>,
    /// Since when the broker does not answer.
    silent_since: Option<Instant>,
}

impl<C: ConsumerContext + 'static> IdentityCheck<C> {
    pub fn new(source: &str, topics: Vec<String>, asker: TopicIdentities<C>) -> IdentityCheck<C> {
        IdentityCheck {
            source: source.to_owned(),
            topics,
            asker,
            known: HashMap::new(),
            under_way: None,
            last_begun: None,
            confirmed: None,
            silent_since: None,
        }
    }

    /// Asks for the ids for the first time and keeps them. Blocks at most `limit`.
    pub fn learn(&mut self, limit: Duration) -> Result<(), Fault> {
        self.asker.request(&self.topics, limit);
        let begun = Instant::now();
        let doing = format!("read topic ids for source {}", self.source);
        let identities = match self.asker.poll(limit + Duration::from_millis(500)) {
            Some(Ok(identities)) => identities,
            Some(Err((code, text))) => return Err(fault_of(code, doing, printable(&text))),
            None => return Err(fault_of(Code::OperationTimedOut, doing, "the broker does not answer")),
        };
        for identity in identities {
            match identity.id {
                Ok(Some(id)) => drop(self.known.insert(identity.topic, id)),
                Ok(None) => {}
                Err(code) => return Err(self.refused(&identity.topic, code)),
            }
        }
        self.last_begun = Some(begun);
        self.confirmed = Some(begun);
        Ok(())
    }

    pub fn id_of(&self, topic: &str) -> Option<&str> {
        self.known.get(topic).map(String::as_str)
    }

    /// Begins a check if none is under way and the last one is old enough.
    pub fn refresh(&mut self) {
        if self.under_way.is_none() && self.last_begun.is_none_or(|begun| begun.elapsed() >= AGAIN) {
            let now = Instant::now();
            self.asker.request(&self.topics, ANSWER_LIMIT);
            self.under_way = Some(now);
            self.last_begun = Some(now);
        }
    }

    /// Takes an answer if there is one within `wait`. `Err` when a topic is gone or another one.
    pub fn settle(&mut self, wait: Duration) -> Result<(), Fault> {
        let Some(begun) = self.under_way else { return Ok(()) };
        match self.asker.poll(wait) {
            None => Ok(()),
            Some(Err((code, text))) => {
                self.under_way = None;
                self.silent_since.get_or_insert(begun);
                tracing::debug!(source = %self.source, error = ?code, text = %printable(&text), "topic ids not answered");
                Ok(())
            }
            Some(Ok(identities)) => {
                self.under_way = None;
                for identity in &identities {
                    self.compare(identity)?;
                }
                self.confirmed = Some(begun);
                self.silent_since = None;
                Ok(())
            }
        }
    }

    fn compare(&self, now: &TopicIdentity) -> Result<(), Fault> {
        match (&now.id, self.known.get(&now.topic)) {
            // Between a leader's death and the next election a topic shows errors that pass.
            (Err(Code::LeaderNotAvailable | Code::ReplicaNotAvailable), _) => Ok(()),
            (Err(code), _) => Err(self.refused(&now.topic, *code)),
            (Ok(Some(id)), Some(known)) if id != known => {
                let detail = format!(
                    "topic {} was deleted and created again while it was read: its id was {known}, now it is {id} \
                     (`\"accept_recreated\": true` reads the new one from its beginning)",
                    now.topic
                );
                Err(Fault::new(FaultKind::HistoryBroken, RECREATED, format!("read source {}", self.source), detail))
            }
            _ => Ok(()),
        }
    }

    fn refused(&self, topic: &str, code: Code) -> Fault {
        let detail = match code {
            Code::UnknownTopicOrPartition => format!("topic {topic} does not exist"),
            other => format!("topic {topic}: {other}"),
        };
        fault_of(code, format!("read source {}", self.source), detail)
    }

    /// May records that were taken at `taken` be handed over?
    pub fn vouches_for(&self, taken: Instant) -> bool {
        self.known.is_empty() || self.confirmed.is_some_and(|begun| begun + FRESH >= taken)
    }

    /// The client reported that no broker is reachable: look for ourselves.
    pub fn suspect(&mut self) {
        self.silent_since.get_or_insert_with(Instant::now);
    }

    pub fn silent_for(&self) -> Duration {
        self.silent_since.map_or(Duration::ZERO, |since| since.elapsed())
    }
}
