//! The generator's way into a broker that confirms each message: JetStream and RabbitMQ.
//!
//! An entity's next item goes out only once the one before it is confirmed. So whatever a dying broker or connection loses out of
//! a batch, sending that part again keeps every entity's order; what was stored and not confirmed is dropped by its id.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use async_nats::jetstream::context::Context;

use super::{CONFIRM_PATIENCE, Record, take};
use crate::torture::stack::config::Layout;
use crate::torture::stack::script::Item;
use crate::torture::stack::target::{queue, stream};

/// Items of one batch, at most.
const BATCH: usize = 120;
/// A batch that is not confirmed within this time goes out again over a new connection.
const ANSWER: Duration = Duration::from_secs(10);

/// A place that takes (id, body) and says for each whether it is stored. An error says that none is known to be.
pub trait Broker {
    fn publish(&mut self, messages: &[(String, String)]) -> impl Future<Output = Result<Vec<bool>, String>>;
    /// Forgets the connection: the next batch makes a new one.
    fn disconnect(&mut self);
}

/// Publishes the items until there are no more.
pub fn run(mut broker: impl Broker, runtime: &tokio::runtime::Handle, items: &Receiver<Item>, record: &Record) {
    let mut waiting: VecDeque<Item> = VecDeque::new();
    let mut more = true;
    while more || !waiting.is_empty() {
        if more && waiting.len() < BATCH {
            let patience = if waiting.is_empty() { Duration::from_millis(100) } else { Duration::ZERO };
            match take(items, BATCH, patience) {
                Some(taken) => waiting.extend(taken),
                None => more = false,
            }
        }
        let batch = one_of_each_entity(&mut waiting);
        if !batch.is_empty() && !publish(&mut broker, runtime, batch, record) {
            return;
        }
    }
}

/// Takes the longest beginning in which no entity occurs twice.
fn one_of_each_entity(waiting: &mut VecDeque<Item>) -> Vec<Item> {
    let mut seen = HashSet::new();
    let count = waiting.iter().take(BATCH).take_while(|item| seen.insert(item.entity)).count();
    waiting.drain(..count).collect()
}

/// Sends until all of it is confirmed. False where it never was.
fn publish(broker: &mut impl Broker, runtime: &tokio::runtime::Handle, batch: Vec<Item>, record: &Record) -> bool {
    record.sent(&batch.iter().map(|item| item.index).collect::<Vec<_>>());
    let until = Instant::now() + CONFIRM_PATIENCE;
    let mut open = batch;
    loop {
        let messages: Vec<(String, String)> =
            open.iter().map(|item| (item.message_id(), item.envelope(true))).collect();
        let answer = runtime.block_on(async { tokio::time::timeout(ANSWER, broker.publish(&messages)).await });
        // Anything else says that it is down, or on its way down.
        if let Ok(Ok(stored)) = answer {
            let (confirmed, rest): (Vec<_>, Vec<_>) = open.into_iter().zip(stored).partition(|(_, stored)| *stored);
            record.acknowledged(&confirmed.iter().map(|(item, _)| item.index).collect::<Vec<_>>());
            open = rest.into_iter().map(|(item, _)| item).collect();
            if open.is_empty() {
                return true;
            }
        }
        broker.disconnect();
        record.repeats.fetch_add(1, Ordering::Relaxed);
        if Instant::now() > until {
            let first = open.first().map_or(0, |item| item.index);
            record.problem(format!("item {first} was not confirmed in {} s", CONFIRM_PATIENCE.as_secs()));
            return false;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

pub struct NatsStream {
    hosts: String,
    subject: String,
    context: Option<Context>,
}

impl NatsStream {
    pub fn new(hosts: &str, stream: &str) -> NatsStream {
        NatsStream { hosts: hosts.to_owned(), subject: Layout::subject(stream), context: None }
    }
}

impl Broker for NatsStream {
    async fn publish(&mut self, messages: &[(String, String)]) -> Result<Vec<bool>, String> {
        let context = match self.context.take() {
            Some(context) => context,
            None => stream::connect(&self.hosts).await?,
        };
        let mut answers = Vec::with_capacity(messages.len());
        for (id, body) in messages {
            let mut headers = HeaderMap::new();
            headers.insert("Nats-Msg-Id", id.as_str());
            let sent = context.publish_with_headers(self.subject.clone(), headers, body.clone().into()).await;
            answers.push(sent.map_err(|error| format!("NATS: {error}"))?);
        }
        let mut stored = Vec::with_capacity(answers.len());
        for answer in answers {
            stored.push(answer.await.is_ok());
        }
        self.context = Some(context);
        Ok(stored)
    }

    fn disconnect(&mut self) {
        self.context = None;
    }
}

pub struct RabbitMqQueue {
    address: String,
    queue: String,
    client: Option<queue::Client>,
}

impl RabbitMqQueue {
    pub fn new(address: &str, queue: &str) -> RabbitMqQueue {
        RabbitMqQueue { address: address.to_owned(), queue: queue.to_owned(), client: None }
    }
}

impl Broker for RabbitMqQueue {
    async fn publish(&mut self, messages: &[(String, String)]) -> Result<Vec<bool>, String> {
        let client = match self.client.take() {
            Some(client) => client,
            None => queue::Client::connect(&self.address).await?,
        };
        let stored = client.publish(&self.queue, messages).await?;
        self.client = Some(client);
        Ok(stored)
    }

    fn disconnect(&mut self) {
        self.client = None;
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::arms::ALL;
    use super::super::super::script::Plan;
    use super::*;

    #[test]
    fn an_entity_is_once_in_a_batch_and_nothing_is_left_out() {
        let plan = Plan { seed: 1, entities: 40, lanes: ALL.lanes };
        let mut waiting: VecDeque<Item> = plan.script().take(1_000).collect();
        let mut next = 0;
        while !waiting.is_empty() {
            let batch = one_of_each_entity(&mut waiting);
            let entities: HashSet<u64> = batch.iter().map(|item| item.entity).collect();
            assert_eq!(entities.len(), batch.len());
            for item in batch {
                assert_eq!(item.index, next);
                next += 1;
            }
        }
        assert_eq!(next, 1_000);
    }
}
