//! A stranger in the source's consumer group: it takes partitions away, reads them, sometimes commits for the group, and leaves.

use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};

use super::Deeds;
use crate::torture::random::Random;
use crate::torture::stack::arms::Server;
use crate::torture::stack::config::Layout;

/// From joining to the first partition.
const ASSIGN_PATIENCE: Duration = Duration::from_secs(60);

pub async fn disturb(layout: &Layout, times: u64, seed: u64, deeds: &mut Deeds) -> Result<(), String> {
    let mut random = Random::new(seed);
    while deeds.count < times {
        tokio::time::sleep(Duration::from_millis(random.within(100, 1_500))).await;
        let (hosts, topic) = (layout.peers.at(Server::Kafka)?.to_owned(), layout.inbound.clone());
        let (time, commit) = (Duration::from_millis(random.within(0, 1_200)), random.one_in(2));
        let taken = tokio::task::spawn_blocking(move || visit(&hosts, &topic, time, commit))
            .await
            .map_err(|error| format!("the stranger: {error}"))??;
        deeds.restarts_ms.push(taken.as_millis() as u64);
        deeds.count += 1;
    }
    Ok(())
}

/// One stay in the group; how long it took until partitions came. Blocking.
fn visit(hosts: &str, topic: &str, time: Duration, commit: bool) -> Result<Duration, String> {
    let wrong = |error: rdkafka::error::KafkaError| format!("the stranger: {error}");
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", hosts)
        .set("group.id", topic)
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "latest")
        .create()
        .map_err(wrong)?;
    consumer.subscribe(&[topic]).map_err(wrong)?;
    let started = Instant::now();
    while consumer.assignment().map_err(wrong)?.count() == 0 {
        // Errors on the way into a group are the client's to repeat.
        let _ = consumer.poll(Duration::from_millis(20));
        if started.elapsed() > ASSIGN_PATIENCE {
            return Err(format!("the stranger got no partition within {} s", ASSIGN_PATIENCE.as_secs()));
        }
    }
    let assigned = started.elapsed();
    let until = Instant::now() + time;
    let mut read = 0;
    while Instant::now() < until {
        if let Some(Ok(_)) = consumer.poll(Duration::from_millis(20)) {
            read += 1;
        }
    }
    if commit && read > 0 {
        // Positions that Gravity never made durable. A commit that comes too late is refused, which is as good.
        let _ = consumer.commit_consumer_state(CommitMode::Sync);
    }
    Ok(assigned)
}
