//! Connecting a source: everything that is asked of the broker before the first record, in one blocking function.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gravity_model::{Fault, FaultKind, LogId};
use hashbrown::HashMap;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode as Code;

use super::config::{KafkaSourceOptions, log_id_in};
use super::context::SourceContext;
use super::error::{code_of, fault_from, fault_of, kind_of};
use super::identity::IdentityCheck;
use super::native::{self, TopicIdentities};

/// Limit of each question while connecting.
pub const ASK_LIMIT: Duration = Duration::from_secs(10);

/// A client that has seen its topics, not yet a member of the group.
pub struct Opened {
    pub consumer: Arc<BaseConsumer<SourceContext>>,
    pub identity: IdentityCheck<SourceContext>,
    pub cluster: String,
    pub partitions: Vec<(String, i32)>,
    /// Offsets that this very log committed: the start of partitions from which it holds no record yet.
    pub committed: HashMap<(String, i32), i64>,
}

/// Reaches the broker, finds the topics and makes sure that the group feeds no other log.
pub fn open(name: &str, options: &KafkaSourceOptions) -> Result<Opened, Fault> {
    let doing = || format!("connect source {name} to kafka at {}", options.connection.place());
    let config = options.client_config(name)?;
    let consumer: BaseConsumer<SourceContext> =
        config.create_with_context(SourceContext::new(name)).map_err(|error| fault_from(error, doing()))?;
    let consumer = Arc::new(consumer);
    let partitions = partitions_of(&consumer, &options.topics, &doing)?;
    let cluster = consumer
        .client()
        .fetch_cluster_id(ASK_LIMIT)
        .ok_or_else(|| fault_of(Code::OperationTimedOut, doing(), "the broker does not tell its cluster id"))?;
    let asker = TopicIdentities::new(Arc::clone(&consumer));
    let mut identity = IdentityCheck::new(name, options.topics.clone(), asker);
    identity.learn(ASK_LIMIT)?;
    let committed = committed_by_us(&consumer, name, options, &partitions)?;
    Ok(Opened { consumer, identity, cluster, partitions, committed })
}

/// Every partition of every topic.
pub fn partitions_of(
    consumer: &BaseConsumer<SourceContext>,
    topics: &[String],
    doing: &dyn Fn() -> String,
) -> Result<Vec<(String, i32)>, Fault> {
    let mut partitions = Vec::new();
    for name in topics {
        let metadata = fetch_metadata(consumer, name, doing)?;
        let topic = metadata.topics().iter().find(|topic| topic.name() == name);
        let topic =
            topic.ok_or_else(|| fault_of(Code::UnknownTopicOrPartition, doing(), format!("no topic {name}")))?;
        if let Some(error) = topic.error() {
            let code = Code::from(error);
            let detail = match code {
                Code::UnknownTopicOrPartition => format!("topic {name} does not exist"),
                other => format!("topic {name}: {other}"),
            };
            return Err(fault_of(code, doing(), detail));
        }
        partitions.extend(topic.partitions().iter().map(|partition| (name.clone(), partition.id())));
    }
    Ok(partitions)
}

/// Asks for metadata; where that only times out, the client's own error says why (wrong password, wrong certificate).
fn fetch_metadata(
    consumer: &BaseConsumer<SourceContext>,
    topic: &str,
    doing: &dyn Fn() -> String,
) -> Result<rdkafka::metadata::Metadata, Fault> {
    let until = Instant::now() + ASK_LIMIT;
    loop {
        // Short questions, so that a refused password is told at once instead of after the whole limit.
        let error = match consumer.client().fetch_metadata(Some(topic), Duration::from_secs(1)) {
            Ok(metadata) => return Ok(metadata),
            Err(error) => error,
        };
        while consumer.poll(Duration::ZERO).is_some() {}
        let reason = consumer.context().take_error();
        if let Some((code, text)) = reason.filter(|(code, _)| kind_of(*code) == FaultKind::Misconfigured) {
            return Err(fault_of(code, doing(), text));
        }
        let passing = code_of(&error).is_none_or(|code| kind_of(code) != FaultKind::Misconfigured);
        if !passing || Instant::now() >= until {
            return Err(fault_from(error, doing()));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Reads the group's commits: another log's id in them is refused, our own are the start hints.
fn committed_by_us(
    consumer: &BaseConsumer<SourceContext>,
    name: &str,
    options: &KafkaSourceOptions,
    partitions: &[(String, i32)],
) -> Result<HashMap<(String, i32), i64>, Fault> {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for (topic, partition) in partitions {
        list.add_partition(topic, *partition);
    }
    let doing = || format!("read the commits of group {} for source {name}", options.group);
    let until = Instant::now() + ASK_LIMIT;
    let list = loop {
        match consumer.committed_offsets(list.clone(), ASK_LIMIT) {
            Ok(list) => break list,
            // A coordinator that is being made, or moves, says so for a moment.
            Err(error) => {
                let passing = code_of(&error).is_some_and(|code| kind_of(code) == FaultKind::Transient);
                if !passing || Instant::now() >= until {
                    return Err(fault_from(error, doing()));
                }
            }
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    check_commits(&list, name, &options.group, options.log_id)
}

/// The commits of this log; a fault when the group feeds another one.
pub fn check_commits(
    list: &TopicPartitionList,
    name: &str,
    group: &str,
    log_id: LogId,
) -> Result<HashMap<(String, i32), i64>, Fault> {
    let ours = log_id.to_string();
    let mut committed = HashMap::new();
    for (topic, partition, offset, metadata) in native::elements(list) {
        match log_id_in(&metadata) {
            Some(other) if other != ours => {
                let detail = format!(
                    "group {group} feeds another log: topic {topic} partition {partition} was committed by log {other}, \
                     this is log {ours}; use a group of its own for each log"
                );
                return Err(Fault::new(
                    FaultKind::NotOurs,
                    "group-of-other-log",
                    format!("resume source {name}"),
                    detail,
                ));
            }
            Some(_) if offset >= 0 => drop(committed.insert((topic, partition), offset)),
            _ => {}
        }
    }
    Ok(committed)
}
