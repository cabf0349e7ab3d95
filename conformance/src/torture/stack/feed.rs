//! The generator: publishes the script to Kafka and over HTTP, journals what was acknowledged, repeats what was not.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use futures::FutureExt;
use parking_lot::Mutex;
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{DeliveryFuture, FutureProducer, FutureRecord};
use serde_json::Value;

use super::config::{HTTP_SOURCE, Layout};
use super::engine;
use super::journal::Journal;
use super::script::{Act, Item, Lane, Script};
use crate::torture::random::Random;

/// Items between the script and a lane: when a peer is down the script waits here.
const LANE_ITEMS: usize = 500;
/// Messages that Kafka has not confirmed yet.
const KAFKA_WINDOW: usize = 2_000;
/// Unconfirmed after this long although every peer is up again: the run cannot be judged.
const CONFIRM_PATIENCE: Duration = Duration::from_secs(120);

/// What the feed knows, shared with the gate while it runs.
pub struct Record {
    pub journal: Mutex<Journal>,
    /// Sequences that HTTP answers promised: (item, sequence).
    pub promised: Mutex<Vec<(u64, u64)>>,
    pub problems: Mutex<Vec<String>>,
    /// HTTP requests that had to be sent again.
    pub repeats: AtomicU64,
    stop: AtomicBool,
}

impl Record {
    fn problem(&self, text: String) {
        let mut problems = self.problems.lock();
        if problems.len() < 20 {
            problems.push(text);
        }
    }

    fn acknowledged(&self, items: &[u64]) {
        if items.is_empty() {
            return;
        }
        if let Err(error) = self.journal.lock().acknowledged(items) {
            self.problem(format!("journal: {error}"));
        }
    }

    fn sent(&self, items: &[u64]) {
        if let Err(error) = self.journal.lock().sent(items) {
            self.problem(format!("journal: {error}"));
        }
    }
}

/// A running generator.
pub struct Feed {
    pub record: Arc<Record>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Feed {
    /// Starts publishing at `rate` events per second. `runtime` drives the HTTP client.
    pub fn start(
        layout: &Layout,
        seed: u64,
        entities: u64,
        rate: u64,
        runtime: tokio::runtime::Handle,
    ) -> Result<Feed, String> {
        let path = layout.directory.join("journal");
        let journal = Journal::create(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let record = Arc::new(Record {
            journal: Mutex::new(journal),
            promised: Mutex::new(Vec::new()),
            problems: Mutex::new(Vec::new()),
            repeats: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        let (kafka, kafka_items) = sync_channel(LANE_ITEMS);
        let (http, http_items) = sync_channel(LANE_ITEMS);
        let producer = producer(&layout.peers.kafka)?;
        let client = engine::client()?;
        let url = format!("http://{}/v1/events/{HTTP_SOURCE}", layout.listen);
        let (topic, r1, r2, r3) = (layout.topic_in.clone(), record.clone(), record.clone(), record.clone());
        let threads = vec![
            std::thread::spawn(move || dispatch(Script::new(seed, entities), rate, &kafka, &http, &r1)),
            std::thread::spawn(move || kafka_lane(&producer, &topic, &kafka_items, &r2)),
            std::thread::spawn(move || {
                HttpLane { client, url, runtime, record: &r3, random: Random::new(seed ^ 0x477) }.run(&http_items);
            }),
        ];
        Ok(Feed { record, threads })
    }

    /// Publishes no more, waits until all that was sent is confirmed.
    pub fn finish(self) -> Arc<Record> {
        self.record.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            if thread.join().is_err() {
                self.record.problem("a thread of the generator panicked".to_owned());
            }
        }
        self.record
    }
}

/// Reads the journal of a run back, as the checker must: from disk.
pub fn journal_path(directory: &Path) -> std::path::PathBuf {
    directory.join("journal")
}

fn dispatch(script: Script, rate: u64, kafka: &SyncSender<Item>, http: &SyncSender<Item>, record: &Record) {
    let (mut started, mut sent) = (Instant::now(), 0u64);
    for item in script {
        let lane = match item.lane {
            Lane::Kafka => kafka,
            Lane::Http => http,
        };
        if record.stop.load(Ordering::Relaxed) || lane.send(item).is_err() {
            return;
        }
        sent += 1;
        let due = Duration::from_secs_f64(sent as f64 / rate as f64);
        let early = due.saturating_sub(started.elapsed());
        if early > Duration::from_millis(5) {
            std::thread::sleep(early);
        } else if started.elapsed() > due + Duration::from_secs(1) {
            // After an outage the rate begins anew: catching up all at once would hide the next outage.
            (started, sent) = (Instant::now(), 0);
        }
    }
}

fn producer(hosts: &str) -> Result<FutureProducer, String> {
    ClientConfig::new()
        .set("bootstrap.servers", hosts)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", "5")
        // For ever: a message that is given up could have been delivered or not.
        .set("message.timeout.ms", "0")
        .set("reconnect.backoff.max.ms", "500")
        .create()
        .map_err(|error| format!("a Kafka producer: {error}"))
}

/// Takes what waits, up to `most`; `None` at the end of the feed.
fn take(items: &Receiver<Item>, most: usize, patience: Duration) -> Option<Vec<Item>> {
    let mut taken = match items.recv_timeout(patience) {
        Ok(item) => vec![item],
        Err(RecvTimeoutError::Timeout) => return Some(Vec::new()),
        Err(RecvTimeoutError::Disconnected) => return None,
    };
    while taken.len() < most {
        match items.try_recv() {
            Ok(item) => taken.push(item),
            Err(_) => break,
        }
    }
    Some(taken)
}

fn kafka_lane(producer: &FutureProducer, topic: &str, items: &Receiver<Item>, record: &Record) {
    let mut waiting: VecDeque<(u64, DeliveryFuture)> = VecDeque::new();
    while let Some(taken) = take(items, 200, Duration::from_millis(20)) {
        if !taken.is_empty() {
            record.sent(&taken.iter().map(|item| item.index).collect::<Vec<_>>());
        }
        for item in taken {
            match publish(producer, topic, &item) {
                Ok(delivery) => waiting.push_back((item.index, delivery)),
                Err(error) => record.problem(format!("publishing item {}: {error}", item.index)),
            }
        }
        settle(&mut waiting, KAFKA_WINDOW, record);
    }
    let until = Instant::now() + CONFIRM_PATIENCE;
    while !waiting.is_empty() && Instant::now() < until {
        settle(&mut waiting, usize::MAX, record);
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn publish(producer: &FutureProducer, topic: &str, item: &Item) -> Result<DeliveryFuture, KafkaError> {
    let (key, value) = (item.key(), item.envelope(false));
    let mut message = FutureRecord::to(topic).key(&key).payload(&value);
    loop {
        match producer.send_result(message) {
            Ok(delivery) => return Ok(delivery),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                message = back;
                std::thread::sleep(Duration::from_millis(10));
            }
            Err((error, _)) => return Err(error),
        }
    }
}

/// Journals the deliveries that are known, in order; waits only while more than `most` are open.
fn settle(waiting: &mut VecDeque<(u64, DeliveryFuture)>, most: usize, record: &Record) {
    let mut acknowledged = Vec::new();
    while let Some((index, delivery)) = waiting.front_mut() {
        let index = *index;
        let known = match delivery.now_or_never() {
            Some(known) => known,
            None if acknowledged.is_empty() && waiting.len() > most => {
                let Some((_, delivery)) = waiting.front_mut() else { break };
                futures::executor::block_on(delivery)
            }
            None => break,
        };
        waiting.pop_front();
        match known {
            Ok(Ok(_)) => acknowledged.push(index),
            Ok(Err((error, _))) => record.problem(format!("Kafka gave up item {index}: {error}")),
            Err(_) => record.problem(format!("the producer forgot item {index}")),
        }
    }
    record.acknowledged(&acknowledged);
}

struct HttpLane<'a> {
    client: reqwest::Client,
    url: String,
    runtime: tokio::runtime::Handle,
    record: &'a Record,
    random: Random,
}

impl HttpLane<'_> {
    fn run(mut self, items: &Receiver<Item>) {
        loop {
            let most = self.random.within(1, 120) as usize;
            let Some(batch) = take(items, most, Duration::from_millis(100)) else { return };
            if !batch.is_empty() && !self.batch(&batch) {
                return;
            }
        }
    }

    /// Posts one batch until it is answered. False where it never was.
    fn batch(&mut self, batch: &[Item]) -> bool {
        self.record.sent(&batch.iter().map(|item| item.index).collect::<Vec<_>>());
        let first = batch[0].index;
        let (bad, good): (Vec<&Item>, Vec<&Item>) = batch.iter().partition(|item| item.act == Act::Malformed);
        if !bad.is_empty() {
            // Refused whole: nothing of the good lines may be stored by this request.
            let all: Vec<&Item> = batch.iter().collect();
            let Some((status, body)) = self.post(&all, &format!("bad-{first}")) else { return false };
            if status != 400 {
                self.record.problem(format!("a batch with a malformed line was answered {status}: {body}"));
            }
            let refused: Vec<u64> = bad.iter().map(|item| item.index).collect();
            if let Err(error) = self.record.journal.lock().refused(&refused) {
                self.record.problem(format!("journal: {error}"));
            }
        }
        if good.is_empty() {
            return true;
        }
        let key = format!("batch-{first}");
        let Some((status, body)) = self.post(&good, &key) else { return false };
        let range = serde_json::from_str::<Value>(&body)
            .ok()
            .and_then(|answer| Some((answer.get("first")?.as_u64()?, answer.get("last")?.as_u64()?)));
        let Some((from, to)) = range.filter(|(from, to)| status == 200 && to + 1 - from == good.len() as u64) else {
            self.record.problem(format!("a batch of {} was answered {status}: {body}", good.len()));
            return true;
        };
        self.record.promised.lock().extend(good.iter().map(|item| item.index).zip(from..=to));
        self.record.acknowledged(&good.iter().map(|item| item.index).collect::<Vec<_>>());
        if self.random.one_in(10) {
            // A producer that did not hear the answer asks again: same answer, no second copy.
            match self.post(&good, &key) {
                Some((200, again))
                    if serde_json::from_str::<Value>(&again).is_ok_and(|v| v["first"] == from && v["last"] == to) => {}
                Some((status, again)) => {
                    self.record.problem(format!("the repeat of {key} ({body}) was answered {status}: {again}"));
                }
                None => return false,
            }
        }
        true
    }

    /// Sends until there is an answer that is not "later". The last answer's status and body.
    fn post(&mut self, items: &[&Item], key: &str) -> Option<(u16, String)> {
        let body: String = items.iter().map(|item| item.envelope(true) + "\n").collect();
        let mut until = Instant::now() + CONFIRM_PATIENCE;
        let mut stopping = false;
        loop {
            let request = self
                .client
                .post(&self.url)
                .header("content-type", "application/x-ndjson")
                .header("idempotency-key", key)
                .body(body.clone());
            let answer = self.runtime.block_on(async {
                let response = request.send().await?;
                Ok::<_, reqwest::Error>((response.status().as_u16(), response.text().await?))
            });
            match answer {
                Ok((status, text)) if !matches!(status, 409 | 429 | 500..) => return Some((status, text)),
                Ok((status @ 500, text)) => self.record.problem(format!("POST was answered {status}: {text}")),
                Ok(_) | Err(_) => {}
            }
            self.record.repeats.fetch_add(1, Ordering::Relaxed);
            if !stopping && self.record.stop.load(Ordering::Relaxed) {
                (stopping, until) = (true, Instant::now() + CONFIRM_PATIENCE);
            }
            if Instant::now() > until {
                self.record.problem(format!("{key} was not answered in {} s", CONFIRM_PATIENCE.as_secs()));
                return None;
            }
            std::thread::sleep(Duration::from_millis(30));
        }
    }
}
