//! What librdkafka calls back: it only notes what happened; the reader's thread acts on it between two polls, where it owns
//! everything that an assignment touches.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use gravity_model::FaultKind;
use parking_lot::Mutex;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, TopicPartitionList};

use super::error::{kind_of, printable};

/// One step of the group, in the order in which it must be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupStep {
    Assign(Vec<(String, i32)>),
    Revoke(Vec<(String, i32)>),
}

/// Shared with librdkafka's callbacks.
pub struct SourceContext {
    source: String,
    steps: Mutex<VecDeque<GroupStep>>,
    /// The reader is gone: answer the group here.
    closing: AtomicBool,
    /// An answer was given while closing.
    answered: AtomicBool,
    /// Offset commits that were sent.
    pub commits_sent: AtomicU64,
    /// Offset commits that the broker answered.
    pub commits_answered: AtomicU64,
    /// Every broker is away, says the client.
    pub brokers_down: AtomicBool,
    /// The newest error of the client, with the client's sentence.
    last_error: Mutex<Option<(RDKafkaErrorCode, String)>>,
}

impl SourceContext {
    pub fn new(source: &str) -> SourceContext {
        SourceContext {
            source: source.to_owned(),
            steps: Mutex::new(VecDeque::new()),
            closing: AtomicBool::new(false),
            answered: AtomicBool::new(false),
            commits_sent: AtomicU64::new(0),
            commits_answered: AtomicU64::new(0),
            brokers_down: AtomicBool::new(false),
            last_error: Mutex::new(None),
        }
    }

    pub fn next_step(&self) -> Option<GroupStep> {
        self.steps.lock().pop_front()
    }

    pub fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
    }

    pub fn take_error(&self) -> Option<(RDKafkaErrorCode, String)> {
        self.last_error.lock().take()
    }
}

/// Keeps a client's newest error, but a broker's refusal over the outage that the client makes of it right behind: the
/// refusal is the reason that helps.
pub fn note_error(last: &Mutex<Option<(RDKafkaErrorCode, String)>>, code: RDKafkaErrorCode, reason: String) {
    let mut last = last.lock();
    let refused = last.as_ref().is_some_and(|(before, _)| kind_of(*before) == FaultKind::Misconfigured);
    if !(refused && kind_of(code) == FaultKind::Disconnected) {
        *last = Some((code, reason));
    }
}

/// librdkafka's lines go to the program's log, escaped; they hold hosts and topics, never credentials.
pub fn log(owner: &str, level: RDKafkaLogLevel, facility: &str, text: &str) {
    let text = printable(text);
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
            // Not ERROR: whether somebody must act is decided where the fault is returned.
            tracing::warn!(owner, facility, "{text}");
        }
        RDKafkaLogLevel::Warning => tracing::warn!(owner, facility, "{text}"),
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => tracing::info!(owner, facility, "{text}"),
        RDKafkaLogLevel::Debug => tracing::debug!(owner, facility, "{text}"),
    }
}

impl ClientContext for SourceContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        log(&self.source, level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let reason = printable(reason);
        tracing::debug!(source = %self.source, error = %error, reason, "kafka client error");
        if let Some(code) = error.rdkafka_error_code() {
            note_error(&self.last_error, code, reason);
        }
    }
}

impl ConsumerContext for SourceContext {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, step: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let assign = step == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.closing.load(Ordering::SeqCst) {
            // The last polls of a consumer that is being closed: give everything back, take nothing. librdkafka takes the
            // first answer for all, whatever it says; to a second one it may never reply.
            if self.answered.swap(true, Ordering::SeqCst) {
                return;
            }
            let empty = TopicPartitionList::new();
            let answer = if assign { consumer.incremental_assign(&empty) } else { consumer.incremental_unassign(list) };
            if let Err(error) = answer {
                tracing::debug!(source = %self.source, error = %error, "answer to the group while closing");
            }
            return;
        }
        let partitions =
            list.elements().iter().map(|element| (element.topic().to_owned(), element.partition())).collect();
        let step = if assign { GroupStep::Assign(partitions) } else { GroupStep::Revoke(partitions) };
        self.steps.lock().push_back(step);
    }

    fn commit_callback(&self, result: KafkaResult<()>, _offsets: &TopicPartitionList) {
        // The log decides where reading goes on; a lost commit costs the group's other tools their view of our lag.
        if let Err(error) = result {
            tracing::debug!(source = %self.source, error = %error, "offset commit refused");
        }
        self.commits_answered.fetch_add(1, Ordering::SeqCst);
    }
}
