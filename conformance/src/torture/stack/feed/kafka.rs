//! The generator's way into a Kafka topic: an idempotent producer that never gives up, confirmations journaled in order.

use std::collections::VecDeque;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use futures::FutureExt;
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{DeliveryFuture, FutureProducer, FutureRecord};

use super::{CONFIRM_PATIENCE, Record, take};
use crate::torture::stack::script::Item;

/// Messages that Kafka has not confirmed yet.
const WINDOW: usize = 2_000;

pub fn producer(hosts: &str) -> Result<FutureProducer, String> {
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

pub fn run(producer: &FutureProducer, topic: &str, items: &Receiver<Item>, record: &Record) {
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
        settle(&mut waiting, WINDOW, record);
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
