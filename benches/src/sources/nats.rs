//! JetStream: a stream on disk, read by the source by its own position, and by bare pull consumers.

use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::context::{Context, ContextBuilder};
use async_nats::jetstream::stream::{Config, Stream};
use futures::StreamExt;
use gravity_connectors::nats::{NatsConnection, NatsReading, NatsSource, NatsSourceOptions};
use gravity_model::port::source::Acceptance;

use super::intake::Intake;
use super::{PATIENCE, Pace, Round, message};

pub async fn round(host: &str, name: &str, messages: u64) -> Result<Round, String> {
    let client = async_nats::connect(host).await.map_err(|error| error.to_string())?;
    let context = ContextBuilder::new().timeout(PATIENCE).max_ack_inflight(20_000).build(client);
    let config = Config { name: name.to_owned(), subjects: vec![format!("{name}.>")], ..Config::default() };
    let stream = context.create_stream(config).await.map_err(|error| error.to_string())?;
    let measured = measure(host, &context, &stream, name, messages).await;
    // A stream that stays costs disk only.
    let _ = context.delete_stream(name).await;
    measured
}

async fn measure(host: &str, context: &Context, stream: &Stream, name: &str, messages: u64) -> Result<Round, String> {
    let subject = format!("{name}.orders");
    let mut acks = Vec::new();
    for index in 0..messages {
        let sent = context.publish(subject.clone(), message(index).into()).await;
        acks.push(sent.map_err(|error| error.to_string())?);
        // Fewer than the context lets be under way: beyond that a publish waits for an acknowledgement that nobody takes.
        if acks.len() == 10_000 || index + 1 == messages {
            for ack in acks.drain(..) {
                ack.await.map_err(|error| error.to_string())?;
            }
        }
    }
    let no_ack = read(stream, AckPolicy::None, messages).await?;
    let ack_each = read(stream, AckPolicy::Explicit, messages).await?;
    let intake = Intake::new()?;
    let options = NatsSourceOptions {
        connection: NatsConnection { hosts: vec![host.to_owned()], ..NatsConnection::default() },
        subjects: vec![format!("{name}.>")],
        reading: NatsReading::Stream { stream: name.to_owned(), durable: None },
        log_id: intake.log_id(),
        accept: Acceptance::default(),
    };
    let into_log = intake.rate("nats", Box::new(NatsSource::new("bench", options)), messages).await?;
    Ok(Round { into_log, ack_each: Some(ack_each), no_ack })
}

/// Pulls 10,000 at a time, the fastest of the sizes that were compared in the performance notes.
async fn read(stream: &Stream, ack_policy: AckPolicy, messages: u64) -> Result<f64, String> {
    let wrong = |error: &dyn std::fmt::Display| error.to_string();
    let config = pull::Config { ack_policy, max_ack_pending: 20_000, ..pull::Config::default() };
    let consumer = stream.create_consumer(config).await.map_err(|error| wrong(&error))?;
    let pulled = consumer.stream().max_messages_per_batch(10_000).messages().await;
    let mut pulled = pulled.map_err(|error| wrong(&error))?;
    let mut pace = Pace::new(messages);
    for count in 1.. {
        let next = tokio::time::timeout(PATIENCE, pulled.next()).await.map_err(|error| wrong(&error))?;
        let message = next.ok_or("the stream ended")?.map_err(|error| wrong(&error))?;
        if ack_policy == AckPolicy::Explicit {
            message.ack().await.map_err(|error| wrong(&error))?;
        }
        if let Some(rate) = pace.at(count) {
            return Ok(rate);
        }
    }
    Err("no message".to_owned())
}
