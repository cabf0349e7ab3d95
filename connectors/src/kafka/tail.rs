//! Are there records between two offsets? Needed at the end of a topic only: transaction markers move the client's position,
//! but offsets that compaction emptied do not, and `--stop-at-end` must not wait for records that do not exist.

use std::time::{Duration, Instant};

use gravity_model::Fault;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::{Message, Offset, TopicPartitionList};

use super::config::KafkaSourceOptions;
use super::context::SourceContext;
use super::error::{fault_from, fault_of};

const LIMIT: Duration = Duration::from_secs(10);

/// True when the partition holds no record at offsets `from..end`. Reads with a client of its own that joins no group. Blocks.
pub fn nothing_between(
    name: &str,
    options: &KafkaSourceOptions,
    (topic, partition): (&str, i32),
    from: u64,
    end: u64,
) -> Result<bool, Fault> {
    let doing = || format!("look for the end of topic {topic} partition {partition} of source {name}");
    let mut config = options.client_config(name)?;
    config.remove("group.instance.id");
    config
        .set("enable.partition.eof", "true")
        .set("queued.max.messages.kbytes", "1024")
        .set("fetch.max.bytes", "1048576");
    let consumer: BaseConsumer<SourceContext> =
        config.create_with_context(SourceContext::new(name)).map_err(|error| fault_from(error, doing()))?;
    // A slot that was never read begins wherever the broker begins.
    let begin = if from == 0 { Offset::Beginning } else { Offset::Offset(i64::try_from(from).unwrap_or(i64::MAX)) };
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, begin).map_err(|error| fault_from(error, doing()))?;
    consumer.assign(&list).map_err(|error| fault_from(error, doing()))?;
    let until = Instant::now() + LIMIT;
    while Instant::now() < until {
        match consumer.poll(Duration::from_millis(100)) {
            None => {}
            Some(Ok(message)) => return Ok(u64::try_from(message.offset()).unwrap_or(0) >= end),
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(true),
            Some(Err(error)) => return Err(fault_from(error, doing())),
        }
    }
    Err(fault_of(Code::OperationTimedOut, doing(), "the broker does not answer"))
}
