//! The Kafka source: the port on one side, the reader thread on the other.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use gravity_model::port::source::{AckToken, BatchLimits, PositionBook, Source, SourceBatch, Start};
use gravity_model::{Fault, FaultKind};
use hashbrown::HashMap;
use parking_lot::Mutex;
use rdkafka::consumer::{BaseConsumer, Consumer};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::config::KafkaSourceOptions;
use super::context::SourceContext;
use super::error::fault_from;
use super::native;
use super::open::{ASK_LIMIT, open, partitions_of};
use super::progress::{Chunk, Delivered, Durable, Given, Memory, Partition, Progress};
use super::reader::{Reader, Reading};
use super::slots;
use super::tail::nothing_between;

/// Chunks that may wait between the reader thread and the engine (at most [`CHUNK_BYTES`](super::progress::CHUNK_BYTES) each
/// and one record more).
const CHUNKS_WAITING: usize = 3;
/// How long `close` waits for the thread; it commits and leaves the group meanwhile.
const CLOSE_LIMIT: Duration = Duration::from_secs(10);
/// How long after `note_end`, and after the last look, it is looked whether any record is left before an end.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Topics of one cluster, read as one consumer group for one log.
///
/// "Every record the broker still has is in the log exactly once, in partition order."
pub struct KafkaSource {
    name: String,
    options: KafkaSourceOptions,
    memory: Arc<Mutex<Memory>>,
    /// Names the connection in ack tokens.
    connections: u64,
    connected: Option<Connected>,
}

struct Connected {
    consumer: Arc<BaseConsumer<SourceContext>>,
    progress: Arc<Progress>,
    book: Arc<dyn PositionBook>,
    cluster: String,
    /// By topic, as far as the broker gives ids.
    topic_ids: HashMap<String, String>,
    inbox: mpsc::Receiver<Delivered>,
    thread: JoinHandle<()>,
    /// Ends the thread also where nobody calls `close`.
    stop: StopOnDrop,
    /// A chunk larger than the engine's limits, given out in parts.
    rest: Option<Rest>,
    batches: u64,
    /// What each token stands for, oldest first.
    unacknowledged: VecDeque<(u64, Vec<Given>)>,
    ends: Option<Ends>,
}

/// Ends of all partitions at the last `note_end`, where they were not passed yet.
struct Ends {
    left: HashMap<Partition, u64>,
    /// When it was last looked whether records are left before an end.
    looked: Instant,
}

struct StopOnDrop(Arc<Progress>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::SeqCst);
    }
}

struct Rest {
    chunk: Box<Chunk>,
    /// First record that was not given out yet.
    from: usize,
}

impl KafkaSource {
    pub fn new(name: impl Into<String>, options: KafkaSourceOptions) -> KafkaSource {
        KafkaSource { name: name.into(), options, memory: Arc::default(), connections: 0, connected: None }
    }

    fn connected(&mut self) -> Result<&mut Connected, Fault> {
        let name = &self.name;
        self.connected.as_mut().ok_or_else(|| {
            Fault::new(FaultKind::Closed, "not-connected", format!("read source {name}"), "not connected")
        })
    }
}

#[async_trait]
impl Source for KafkaSource {
    async fn connect(&mut self, book: Arc<dyn PositionBook>, start: Start) -> Result<(), Fault> {
        self.close().await;
        self.connections += 1;
        let (name, options) = (self.name.clone(), self.options.clone());
        let opened = blocking(&self.name, move || open(&name, &options)).await??;
        let subscription: Vec<&str> = self.options.topics.iter().map(String::as_str).collect();
        opened
            .consumer
            .subscribe(&subscription)
            .map_err(|error| fault_from(error, format!("subscribe source {}", self.name)))?;
        let (out, inbox) = mpsc::channel(CHUNKS_WAITING);
        let progress = Arc::new(Progress::new());
        let reading = Reading {
            source: self.name.clone(),
            group: self.options.group.clone(),
            log_id: self.options.log_id,
            cluster: opened.cluster.clone(),
            topics: self.options.topics.clone(),
            partitions: opened.partitions,
            start,
            accept: self.options.accept,
            book: Arc::clone(&book),
            committed: opened.committed,
            memory: Arc::clone(&self.memory),
            progress: Arc::clone(&progress),
        };
        let ids = self
            .options
            .topics
            .iter()
            .filter_map(|topic| Some((topic.clone(), opened.identity.id_of(topic)?.to_owned())));
        let topic_ids = ids.collect();
        let reader = Reader::new(reading, Arc::clone(&opened.consumer), opened.identity, out);
        let thread = std::thread::Builder::new()
            .name(format!("kafka-{}", self.name))
            .spawn(move || reader.run())
            .map_err(|error| {
                Fault::new(FaultKind::Transient, "thread", format!("start source {}", self.name), error.to_string())
                    .with_source(error)
            })?;
        self.connected = Some(Connected {
            consumer: opened.consumer,
            stop: StopOnDrop(Arc::clone(&progress)),
            progress,
            book,
            cluster: opened.cluster,
            topic_ids,
            inbox,
            thread,
            rest: None,
            batches: 0,
            unacknowledged: VecDeque::new(),
            ends: None,
        });
        Ok(())
    }

    async fn next_batch(&mut self, limits: BatchLimits) -> Result<SourceBatch, Fault> {
        let connection = self.connections;
        let name = self.name.clone();
        let connected = self.connected()?;
        connected.progress.set_limits(limits);
        let until = Instant::now() + limits.max_wait;
        loop {
            // Nothing is taken out of the channel without being kept, so dropping this future loses nothing.
            if connected.rest.is_none() {
                match tokio::time::timeout_at(until, connected.inbox.recv()).await {
                    Err(_) => return Ok(SourceBatch::default()),
                    Ok(Some(Delivered::Chunk(chunk))) => connected.rest = Some(Rest { chunk, from: 0 }),
                    Ok(Some(Delivered::Fault(fault))) => return Err(fault),
                    Ok(None) => {
                        let doing = format!("read source {name}");
                        return Err(Fault::new(
                            FaultKind::Disconnected,
                            "kafka-reader-ended",
                            doing,
                            "the reader ended",
                        ));
                    }
                }
            }
            if let Some(batch) = connected.next_part(limits, connection) {
                return Ok(batch);
            }
        }
    }

    async fn acknowledge(&mut self, token: AckToken) -> Result<(), Fault> {
        let connection = self.connections;
        let connected = self.connected()?;
        if token.connection == connection {
            connected.note_durable(token.batch);
        }
        Ok(())
    }

    async fn note_end(&mut self) -> Result<(), Fault> {
        let topics = self.options.topics.clone();
        let name = self.name.clone();
        let connected = self.connected()?;
        let consumer = Arc::clone(&connected.consumer);
        let ends = blocking(&name.clone(), move || {
            let doing = || format!("read the end of source {name}");
            let mut ends = HashMap::new();
            for (topic, partition) in partitions_of(&consumer, &topics, &doing)? {
                // The isolation level holds here too: the last stable offset, so an open transaction is not waited for.
                let (_, high) = consumer
                    .fetch_watermarks(&topic, partition, ASK_LIMIT)
                    .map_err(|error| fault_from(error, doing()))?;
                ends.insert((topic, partition), u64::try_from(high).unwrap_or(0));
            }
            Ok::<_, Fault>(ends)
        })
        .await??;
        connected.ends = Some(Ends { left: ends, looked: Instant::now() });
        Ok(())
    }

    async fn has_passed_end(&mut self) -> Result<bool, Fault> {
        let (name, options) = (self.name.clone(), self.options.clone());
        let connected = self.connected()?;
        if !connected.drop_passed_ends() {
            return Ok(false);
        }
        let Some(ends) = connected.ends.as_mut().filter(|ends| !ends.left.is_empty()) else { return Ok(true) };
        if ends.looked.elapsed() < LOOK_AGAIN {
            return Ok(false);
        }
        // What is left before an end may be no record at all: compaction can take the last ones of a partition.
        ends.looked = Instant::now();
        let (partition, end) =
            ends.left.iter().next().map(|(partition, end)| (partition.clone(), *end)).expect("not empty");
        let from = connected.reached(&partition);
        let (topic, number) = partition.clone();
        let empty =
            blocking(&name.clone(), move || nothing_between(&name, &options, (&topic, number), from, end)).await??;
        // Only if nothing was handed out meanwhile is the answer about what is still left.
        if let Some(ends) = self.connected()?.ends.as_mut().filter(|_| empty) {
            ends.left.remove(&partition);
            ends.looked -= LOOK_AGAIN;
            return Ok(ends.left.is_empty());
        }
        Ok(false)
    }

    async fn lag(&mut self) -> Option<u64> {
        let connected = self.connected.as_ref()?;
        let partitions: Vec<Arc<Partition>> = connected.progress.state.lock().assigned.keys().cloned().collect();
        let mut lag = None;
        for partition in partitions {
            if let Some((low, high)) = native::cached_watermarks(&connected.consumer, &partition.0, partition.1) {
                let given = connected.progress.given(&partition).unwrap_or(u64::try_from(low).unwrap_or(0));
                lag = Some(lag.unwrap_or(0) + u64::try_from(high).unwrap_or(0).saturating_sub(given));
            }
        }
        lag
    }

    async fn close(&mut self) {
        let Some(connected) = self.connected.take() else { return };
        let Connected { consumer, inbox, thread, stop, .. } = connected;
        drop((stop, inbox));
        // The thread must own the last reference: dropping a consumer blocks until it left the group.
        drop(consumer);
        let joined = tokio::task::spawn_blocking(move || thread.join());
        match tokio::time::timeout(CLOSE_LIMIT, joined).await {
            Ok(Ok(Ok(()))) => {}
            Ok(_) => tracing::warn!(source = %self.name, "the kafka reader panicked"),
            Err(_) => tracing::warn!(source = %self.name, "the kafka reader is still leaving the group"),
        }
    }
}

impl Connected {
    /// The next batch of the waiting chunk within `limits`; `None` when nothing of it is left to give.
    fn next_part(&mut self, limits: BatchLimits, connection: u64) -> Option<SourceBatch> {
        let Rest { mut chunk, from } = self.rest.take()?;
        if from == 0 {
            self.progress.drop_revoked(&mut chunk);
        }
        let records = &chunk.batch.records;
        let last = end_of_part(&chunk, from, limits);
        let number = chunk.number;
        let whole = from == 0 && last == records.len();
        let origins = chunk.origins.clone();
        let mut batch = if whole {
            chunk.batch
        } else {
            let part = copy_part(&chunk, from, last);
            if last < chunk.batch.records.len() {
                self.rest = Some(Rest { chunk, from: last });
            }
            part
        };
        let given = self.progress.note_given(&batch, &origins);
        if self.rest.is_none() {
            self.progress.returned.store(number, Ordering::SeqCst);
        }
        if batch.is_empty() {
            return None;
        }
        self.batches += 1;
        batch.token = AckToken { connection, batch: self.batches };
        self.unacknowledged.push_back((self.batches, given));
        Some(batch)
    }

    /// Everything up to the batch `last` is durable: the thread commits it within a second.
    fn note_durable(&mut self, last: u64) {
        let mut state = self.progress.state.lock();
        while self.unacknowledged.front().is_some_and(|(batch, _)| *batch <= last) {
            let Some((_, given)) = self.unacknowledged.pop_front() else { break };
            for Given { origin, position } in given {
                let current = state.assigned.get(&origin.partition).is_some_and(|a| a.assignment == origin.assignment);
                if current {
                    let leader_epoch = i32::try_from(position.detail).ok().and_then(|detail| detail.checked_sub(1));
                    let leader_epoch = leader_epoch.filter(|epoch| *epoch >= 0);
                    state
                        .durable
                        .insert(origin.partition, Durable { next: position.next, leader_epoch, committed: false });
                }
            }
        }
    }

    /// Forgets ends that were passed. False when none were noted.
    fn drop_passed_ends(&mut self) -> bool {
        let Some(mut ends) = self.ends.take() else { return false };
        ends.left.retain(|partition, end| self.reached(partition) < *end);
        self.ends = Some(ends);
        true
    }

    /// How far the engine has a partition: as given by us, or as the log says of one that is not ours.
    fn reached(&self, partition: &Partition) -> u64 {
        if let Some(given) = self.progress.given(partition) {
            return given;
        }
        let shown = slots::Partition {
            cluster: &self.cluster,
            topic: &partition.0,
            partition: partition.1,
            topic_id: self.topic_ids.get(&partition.0).map(String::as_str),
        };
        slots::standing(&self.book.positions(), shown).unwrap_or(0)
    }
}

/// Index behind the last record that fits; at least one record.
fn end_of_part(chunk: &Chunk, from: usize, limits: BatchLimits) -> usize {
    let records = &chunk.batch.records;
    let mut bytes = 0;
    let mut end = from;
    while end < records.len() && end - from < limits.max_records.max(1) {
        let record = &records[end];
        let len = |span: Option<gravity_model::port::source::Span>| span.map_or(0, |span| span.len as usize);
        bytes += len(record.payload) + len(record.key) + record.headers.len as usize;
        if bytes > limits.max_bytes && end > from {
            break;
        }
        end += 1;
    }
    end
}

/// Copies some records of a chunk into a batch of their own.
fn copy_part(chunk: &Chunk, from: usize, to: usize) -> SourceBatch {
    let whole = &chunk.batch;
    let breaks = if from == 0 { whole.breaks.clone() } else { Vec::new() };
    let mut part = SourceBatch { slots: whole.slots.clone(), breaks, ..SourceBatch::default() };
    for record in &whole.records[from..to] {
        let mut record = *record;
        record.payload = record.payload.map(|span| part.store(whole.bytes(span)));
        record.key = record.key.map(|span| part.store(whole.bytes(span)));
        record.headers = part.store(whole.bytes(record.headers));
        part.records.push(record);
    }
    part
}

async fn blocking<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Fault> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        Fault::new(FaultKind::Transient, "kafka-task", format!("ask kafka for source {name}"), error.to_string())
            .with_source(error)
    })
}
