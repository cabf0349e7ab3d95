//! The generator: publishes the script to every source, each entity through one of them, journals what was acknowledged, repeats what
//! was not.

mod confirmed;
mod http;
mod kafka;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::arms::{Lane, Server};
use super::config::Layout;
use super::engine;
use super::journal::Journal;
use super::script::{Item, Plan, Script};

/// Items between the script and a lane: when a peer is down the script waits here.
const LANE_ITEMS: usize = 500;
/// Unconfirmed after this long although every peer is up again: the run cannot be judged.
const CONFIRM_PATIENCE: Duration = Duration::from_secs(120);

/// What the feed knows, shared with the gate while it runs.
pub struct Record {
    pub journal: Mutex<Journal>,
    /// Sequences that HTTP answers promised: (item, sequence).
    pub promised: Mutex<Vec<(u64, u64)>>,
    pub problems: Mutex<Vec<String>>,
    /// Requests and batches that had to be sent again.
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
    /// Starts publishing at `rate` events per second. `runtime` drives the clients.
    pub fn start(layout: &Layout, plan: Plan, rate: u64, runtime: &tokio::runtime::Handle) -> Result<Feed, String> {
        let path = layout.directory.join("journal");
        let journal = Journal::create(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let record = Arc::new(Record {
            journal: Mutex::new(journal),
            promised: Mutex::new(Vec::new()),
            problems: Mutex::new(Vec::new()),
            repeats: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        let mut lanes = HashMap::new();
        let mut threads = Vec::new();
        for lane in plan.lanes {
            let (send, items) = sync_channel(LANE_ITEMS);
            lanes.insert(*lane, send);
            threads.push(start(*lane, layout, plan, items, record.clone(), runtime.clone())?);
        }
        let dispatched = record.clone();
        threads.push(std::thread::spawn(move || dispatch(plan.script(), rate, &lanes, &dispatched)));
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

fn start(
    lane: Lane,
    layout: &Layout,
    plan: Plan,
    items: Receiver<Item>,
    record: Arc<Record>,
    runtime: tokio::runtime::Handle,
) -> Result<std::thread::JoinHandle<()>, String> {
    let channel = layout.inbound.clone();
    Ok(match lane {
        Lane::Kafka => {
            let producer = kafka::producer(layout.peers.at(Server::Kafka)?)?;
            std::thread::spawn(move || kafka::run(&producer, &channel, &items, &record))
        }
        Lane::Http => {
            let url = format!("http://{}/v1/events/{}", layout.intake, Lane::Http.source());
            let client = engine::client()?;
            std::thread::spawn(move || http::run(client, url, plan.seed, runtime, &items, &record))
        }
        Lane::Nats => {
            let broker = confirmed::NatsStream::new(layout.peers.at(Server::Nats)?, &channel);
            std::thread::spawn(move || confirmed::run(broker, &runtime, &items, &record))
        }
        Lane::RabbitMq => {
            let broker = confirmed::RabbitMqQueue::new(layout.peers.at(Server::RabbitMq)?, &channel);
            std::thread::spawn(move || confirmed::run(broker, &runtime, &items, &record))
        }
    })
}

/// Reads the journal of a run back, as the checker must: from disk.
pub fn journal_path(directory: &Path) -> std::path::PathBuf {
    directory.join("journal")
}

fn dispatch(script: Script, rate: u64, lanes: &HashMap<Lane, SyncSender<Item>>, record: &Record) {
    let (mut started, mut sent) = (Instant::now(), 0u64);
    for item in script {
        let Some(lane) = lanes.get(&item.lane) else { return record.problem(format!("no lane {:?}", item.lane)) };
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
