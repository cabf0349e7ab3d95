//! The thread that owns a connected consumer: takes messages in batches, answers the group, hands chunks over, commits.
//!
//! It polls all the time, also while the engine takes nothing: librdkafka stops fetching when its local queue is full, and
//! the group never evicts us for being slow.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use gravity_model::port::source::{Acceptance, PositionBook, Start};
use gravity_model::{Fault, FaultKind, LogId};
use hashbrown::HashMap;
use parking_lot::Mutex;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::chunk::ChunkBuilder;
use super::context::{GroupStep, SourceContext};
use super::error::{code_name, fault_from, fault_of, kind_of, printable};
use super::identity::{IdentityCheck, RECREATED};
use super::native::{self, DataQueue, MessageRef, Messages};
use super::progress::{Delivered, Memory, Partition, Progress};

/// Messages per call into librdkafka.
const TAKE: usize = 1024;
/// Longest sleep while nothing comes; the group waits at most this long for an answer.
const IDLE: Duration = Duration::from_millis(50);
/// How long every broker may be away before it is a fault; shorter blips are librdkafka's to mend.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often an idle reader notes the client's positions.
const POSITIONS: Duration = Duration::from_millis(200);

/// How long after its first assignment a group has to hand out every partition.
const SETTLED: Duration = Duration::from_secs(2);

/// Code of the fault that retention passed us.
const TRIMMED: &str = "retention-passed";

/// What the thread needs to know besides the client.
pub struct Reading {
    pub source: String,
    pub group: String,
    pub log_id: LogId,
    pub cluster: String,
    pub topics: Vec<String>,
    /// All partitions of the topics when we connected.
    pub partitions: Vec<Partition>,
    pub start: Start,
    pub accept: Acceptance,
    pub book: Arc<dyn PositionBook>,
    /// Offsets that this log committed earlier.
    pub committed: HashMap<(String, i32), i64>,
    pub memory: Arc<Mutex<Memory>>,
    pub progress: Arc<Progress>,
}

impl Reading {
    /// A broken history that the operator accepts is a reason to begin anew: taking the partition over finds how it goes on.
    fn begin_anew_if_accepted(&self, mut fault: Fault) -> Fault {
        let accepted = match &*fault.code {
            TRIMMED => self.accept.gap,
            RECREATED => self.accept.recreated,
            _ => false,
        };
        if accepted && fault.kind == FaultKind::HistoryBroken {
            fault.kind = FaultKind::Transient;
        }
        fault
    }
}

/// See the module.
pub struct Reader {
    pub(super) reading: Reading,
    // Queues before the client: librdkafka wants them gone first.
    queue: DataQueue<SourceContext>,
    pub(super) identity: IdentityCheck<SourceContext>,
    pub(super) consumer: Arc<BaseConsumer<SourceContext>>,
    out: mpsc::Sender<Delivered>,
    pub(super) chunk: ChunkBuilder,
    pub(super) assignments: u64,
    last_commit: Instant,
    last_positions: Instant,
    /// When to look whether the group forgot a partition; `None` before the first assignment and after the look.
    complete_by: Option<Instant>,
    looked_for_missing: bool,
}

impl Reader {
    pub fn new(
        reading: Reading,
        consumer: Arc<BaseConsumer<SourceContext>>,
        identity: IdentityCheck<SourceContext>,
        out: mpsc::Sender<Delivered>,
    ) -> Reader {
        let queue = DataQueue::new(Arc::clone(&consumer));
        Reader {
            reading,
            queue,
            identity,
            consumer,
            out,
            chunk: ChunkBuilder::default(),
            assignments: 0,
            last_commit: Instant::now(),
            last_positions: Instant::now(),
            complete_by: None,
            looked_for_missing: false,
        }
    }

    /// Runs until told to stop, or until a fault was delivered. Leaves the group in an orderly way.
    pub fn run(mut self) {
        let mut messages = Messages::with_capacity(TAKE);
        let fault = loop {
            if self.reading.progress.stop.load(Ordering::SeqCst) {
                break None;
            }
            if let Err(fault) = self.turn(&mut messages) {
                break Some(self.reading.begin_anew_if_accepted(fault));
            }
        };
        drop(messages);
        if let Some(fault) = fault {
            tracing::debug!(source = %self.reading.source, error = %fault, "kafka reader ends");
            self.deliver_last(fault);
        }
        let all = self.commit_now(&|_| true);
        self.await_commits(all);
        self.answer_open_steps();
        self.consumer.context().close();
    }

    /// One round: group, records, identity, hand-over, commit.
    fn turn(&mut self, messages: &mut Messages) -> Result<(), Fault> {
        self.serve_client(Duration::ZERO)?;
        self.serve_group()?;
        let progress = Arc::clone(&self.reading.progress);
        let full =
            |chunk: &ChunkBuilder| chunk.records() >= progress.max_records() || chunk.bytes() >= progress.max_bytes();
        let mut idle = true;
        if !full(&self.chunk) {
            let wait = if self.chunk.is_empty() { IDLE } else { Duration::ZERO };
            self.queue.take(messages, wait);
            idle = !self.take_in(messages)?;
        }
        // Also while nothing comes: the answer waits behind the client's open fetch, and a lone record should not.
        self.identity.refresh();
        if self.identity.silent_for() > PATIENCE {
            let detail = "no broker answers; librdkafka goes on trying";
            return Err(fault_of(Code::AllBrokersDown, format!("read source {}", self.reading.source), detail));
        }
        self.identity.settle(Duration::ZERO)?;
        if !self.chunk.is_empty() && (idle || full(&self.chunk)) {
            self.hand_over()?;
        } else if self.chunk.is_empty() && idle {
            self.note_positions();
        }
        self.commit_if_due();
        Ok(())
    }

    /// Copies what was taken. True when there was anything.
    fn take_in(&mut self, messages: &Messages) -> Result<bool, Fault> {
        let mut any = false;
        let progress = Arc::clone(&self.reading.progress);
        let mut state = None;
        for message in messages.iter() {
            any = true;
            if let Some(code) = message.error() {
                drop(state.take());
                return Err(self.partition_error(&message, code));
            }
            if self.chunk.push(&message) {
                continue;
            }
            // First record of its partition in this chunk.
            let guard = state.get_or_insert_with(|| progress.state.lock());
            let partition = (message.topic(), message.partition());
            if let Some((partition, assigned)) = guard.assigned.get_key_value(&partition) {
                let revocations = progress.revocations.load(Ordering::SeqCst);
                self.chunk.open_slot(&message, partition, assigned, revocations);
                self.chunk.push(&message);
            }
            // Else it was revoked a moment ago: its next owner reads it.
        }
        Ok(any)
    }

    /// What befell a partition. Always a fault, also where librdkafka would go on: its batch queue counts such a message as
    /// a record, so the client's position can no longer be relied on. The next connection begins where the log stands.
    fn partition_error(&self, message: &MessageRef<'_>, code: Code) -> Fault {
        let partition = (message.topic(), message.partition());
        let text = printable(&message.error_text());
        if kind_of(code) == FaultKind::HistoryBroken {
            return self.history_broken(&partition, &text);
        }
        let doing = format!("read topic {} partition {} of source {}", partition.0, partition.1, self.reading.source);
        let mut fault = fault_of(code, doing, text);
        if fault.kind == FaultKind::RefusedEvent {
            // A record that the client cannot take is not skipped; its settings must let it in.
            fault.kind = FaultKind::Misconfigured;
        }
        fault
    }

    /// Says what the broker has and what the log expects.
    fn history_broken(&self, partition: &(String, i32), text: &str) -> Fault {
        let given = self.reading.progress.given(partition);
        let mut code = "position-out-of-range";
        let expected = given.map_or_else(|| "its first record".to_owned(), |offset| format!("offset {offset}"));
        let limit = Duration::from_secs(5);
        let has = match self.consumer.fetch_watermarks(&partition.0, partition.1, limit) {
            Ok((low, high)) => {
                if given.is_some_and(|given| u64::try_from(low).is_ok_and(|low| low > given)) {
                    code = TRIMMED;
                }
                format!("the broker holds offsets {low} to {high} (exclusive)")
            }
            Err(error) => format!("the broker does not say what it holds ({})", printable(&error.to_string())),
        };
        let why = match code {
            TRIMMED => "retention passed us (`\"accept_gap\": true` goes on behind it)",
            _ => "retention passed us, or the topic was truncated or re-created",
        };
        let detail = format!(
            "topic {} partition {}: {has}, the log expects {expected}; {why} ({text})",
            partition.0, partition.1
        );
        let doing = format!("read source {}", self.reading.source);
        Fault::new(FaultKind::HistoryBroken, code, doing, detail)
    }

    /// Serves the client's own events: logs, errors, commit answers, and the group's steps, which are only noted.
    pub(super) fn serve_client(&self, wait: Duration) -> Result<(), Fault> {
        let Some(result) = self.consumer.poll(wait) else { return Ok(()) };
        let doing = || format!("read source {}", self.reading.source);
        let code = match result {
            Ok(message) => {
                // Every partition delivers into our own queue; a record here would be out of order.
                drop(message);
                return Err(Fault::new(FaultKind::Transient, "kafka-stray-record", doing(), "record beside the queue"));
            }
            Err(KafkaError::MessageConsumptionFatal(code)) => {
                let (code, text) = self.consumer.client().fatal_error().unwrap_or((code, String::new()));
                return Err(fault_of(code, doing(), fatal_text(code, &text)));
            }
            Err(error) => match error.rdkafka_error_code() {
                Some(code) => code,
                None => return Ok(()),
            },
        };
        let text = self.consumer.context().take_error().map_or_else(String::new, |(_, text)| text);
        match kind_of(code) {
            FaultKind::Misconfigured | FaultKind::NotOurs => Err(fault_of(code, doing(), text)),
            FaultKind::Disconnected => {
                if code == Code::AllBrokersDown {
                    self.note_suspect();
                }
                tracing::debug!(source = %self.reading.source, error = %code_name(code), "{text}");
                Ok(())
            }
            _ => {
                tracing::warn!(source = %self.reading.source, error = %code_name(code), "{text}");
                Ok(())
            }
        }
    }

    fn note_suspect(&self) {
        self.suspect_flag().store(true, Ordering::SeqCst);
    }

    fn suspect_flag(&self) -> &std::sync::atomic::AtomicBool {
        &self.consumer.context().brokers_down
    }

    /// Everything taken is handed over: the client's positions say how far that is, control records at the end included.
    fn note_positions(&mut self) {
        if self.last_positions.elapsed() < POSITIONS {
            return;
        }
        self.last_positions = Instant::now();
        let Ok(positions) = self.consumer.position() else { return };
        let sent = self.chunk.number() - 1;
        let mut state = self.reading.progress.state.lock();
        for (topic, partition, offset, _) in native::elements(&positions) {
            if let (Some(assigned), Ok(offset)) = (state.assigned.get_mut(&(topic, partition)), u64::try_from(offset)) {
                assigned.end = Some((offset, sent));
            }
        }
    }

    /// Answers the group's steps.
    fn serve_group(&mut self) -> Result<(), Fault> {
        if self.suspect_flag().swap(false, Ordering::SeqCst) {
            self.identity.suspect();
        }
        while let Some(step) = self.consumer.context().next_step() {
            match step {
                GroupStep::Assign(partitions) => self.assign(partitions)?,
                GroupStep::Revoke(partitions) => self.revoke(&partitions)?,
            }
            self.chunk.forget_slots();
            self.complete_by.get_or_insert_with(|| Instant::now() + SETTLED);
        }
        if !self.looked_for_missing && self.complete_by.is_some_and(|by| Instant::now() >= by) {
            self.looked_for_missing = true;
            self.ask_for_missing()?;
        }
        Ok(())
    }

    /// A static member that comes back gets its old assignment without a rebalance: partitions or topics that were added
    /// while it was away are in nobody's. Joining anew makes the group look again. (In a group with other members, whose
    /// partitions are not ours, this costs one rebalance per start.)
    fn ask_for_missing(&mut self) -> Result<(), Fault> {
        let state = self.reading.progress.state.lock();
        let missing =
            self.reading.partitions.iter().filter(|partition| !state.assigned.contains_key(*partition)).count();
        drop(state);
        if missing == 0 {
            return Ok(());
        }
        tracing::info!(source = %self.reading.source, missing, "joining the group anew for partitions that nobody gave us");
        self.consumer.unsubscribe();
        let topics: Vec<&str> = self.reading.topics.iter().map(String::as_str).collect();
        let doing = || format!("subscribe source {}", self.reading.source);
        self.consumer.subscribe(&topics).map_err(|error| fault_from(error, doing()))
    }

    /// A step that was noted but not answered would keep the client from closing.
    fn answer_open_steps(&self) {
        while let Some(step) = self.consumer.context().next_step() {
            let answer = match step {
                GroupStep::Assign(_) => self.consumer.incremental_assign(&TopicPartitionList::new()),
                GroupStep::Revoke(partitions) => {
                    let mut list = TopicPartitionList::with_capacity(partitions.len());
                    for (topic, partition) in &partitions {
                        list.add_partition(topic, *partition);
                    }
                    self.consumer.incremental_unassign(&list)
                }
            };
            if let Err(error) = answer {
                tracing::debug!(source = %self.reading.source, error = %error, "answer to the group before closing");
            }
        }
    }

    pub(super) fn attach(&self, topic: &str, partition: i32) -> bool {
        self.queue.attach(topic, partition)
    }

    /// Gives the chunk to the engine, once the broker has vouched for the topics and there is room.
    fn hand_over(&mut self) -> Result<(), Fault> {
        if !self.identity.vouches_for(self.chunk.taken()) {
            return self.identity.settle(Duration::from_millis(5));
        }
        match self.out.try_reserve() {
            Ok(permit) => {
                permit.send(Delivered::Chunk(Box::new(self.chunk.finish())));
            }
            // The engine is behind: go on answering the group, look again soon.
            Err(TrySendError::Full(())) => self.serve_client(Duration::from_millis(5))?,
            Err(TrySendError::Closed(())) => self.reading.progress.stop.store(true, Ordering::SeqCst),
        }
        Ok(())
    }

    /// Records taken before a fault are good if the topics were vouched for; then the fault.
    fn deliver_last(&mut self, fault: Fault) {
        let history = fault.kind == FaultKind::HistoryBroken;
        if !history && !self.chunk.is_empty() && self.identity.vouches_for(self.chunk.taken()) {
            let chunk = Delivered::Chunk(Box::new(self.chunk.finish()));
            self.send_while_serving(chunk);
        }
        self.send_while_serving(Delivered::Fault(fault));
    }

    fn send_while_serving(&self, mut delivered: Delivered) {
        while !self.reading.progress.stop.load(Ordering::SeqCst) {
            match self.out.try_send(delivered) {
                Ok(()) | Err(TrySendError::Closed(_)) => return,
                Err(TrySendError::Full(back)) => delivered = back,
            }
            // Whatever else the client says now is told by the next connection.
            drop(self.serve_client(Duration::from_millis(5)));
        }
    }

    fn commit_if_due(&mut self) {
        if self.last_commit.elapsed() >= Duration::from_secs(1) {
            self.last_commit = Instant::now();
            self.commit_now(&|_| true);
        }
    }

    /// Serves the client until the broker answered `sent` commits, at most five seconds (P1 does not hang on it).
    pub(super) fn await_commits(&self, sent: Option<u64>) {
        let Some(answers) = sent else { return };
        let until = Instant::now() + Duration::from_secs(5);
        while self.consumer.context().commits_answered.load(Ordering::SeqCst) < answers && Instant::now() < until {
            drop(self.serve_client(Duration::from_millis(20)));
        }
    }
}

fn fatal_text(code: Code, text: &str) -> String {
    match code {
        Code::FencedInstanceId => format!(
            "another process reads with this source's name and this log's id: a copy of the data directory is running ({})",
            printable(text)
        ),
        _ => printable(text),
    }
}
