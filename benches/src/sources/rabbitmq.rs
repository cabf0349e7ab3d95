//! RabbitMQ: one durable queue, filled anew for each reader, since what is read is gone.

use futures::StreamExt;
use gravity_connectors::rabbitmq::{RabbitMqConnection, RabbitMqSource, RabbitMqSourceOptions};
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};

use super::intake::Intake;
use super::{PATIENCE, Pace, Round, message};

/// The source's own default, and what the bare clients get.
const PREFETCH: u16 = gravity_connectors::rabbitmq::PREFETCH;

pub async fn round(address: &str, name: &str, kind: &str, messages: u64) -> Result<Round, String> {
    let wrong = |error: lapin::Error| error.to_string();
    let uri = format!("amqp://guest:guest@{address}/%2f");
    let connection = Connection::connect(&uri, ConnectionProperties::default()).await.map_err(wrong)?;
    let channel = connection.create_channel().await.map_err(wrong)?;
    channel.confirm_select(ConfirmSelectOptions::default()).await.map_err(wrong)?;
    let queue = format!("{name}-{kind}");
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString(kind.into()));
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(queue.as_str().into(), durable, arguments).await.map_err(wrong)?;
    let measured = measure(address, &connection, &channel, &queue, messages).await;
    // A queue that stays costs disk only.
    let _ = channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default()).await;
    measured
}

async fn measure(
    address: &str,
    connection: &Connection,
    channel: &Channel,
    queue: &str,
    messages: u64,
) -> Result<Round, String> {
    fill(channel, queue, messages).await?;
    let no_ack = read(connection, queue, false, messages).await?;
    fill(channel, queue, messages).await?;
    let ack_each = read(connection, queue, true, messages).await?;
    fill(channel, queue, messages).await?;
    let (host, port) = address.rsplit_once(':').ok_or("not HOST:PORT")?;
    let port = port.parse().map_err(|error| format!("{address}: {error}"))?;
    let options = RabbitMqSourceOptions {
        connection: RabbitMqConnection::new(host, port),
        queues: vec![queue.to_owned()],
        prefetch: PREFETCH,
    };
    let source = Box::new(RabbitMqSource::new("bench", options));
    let into_log = Intake::new()?.rate("rabbitmq", source, messages).await?;
    match ready(channel, queue).await? {
        0 => Ok(Round { into_log, ack_each: Some(ack_each), no_ack }),
        left => Err(format!("{left} messages are still in the queue")),
    }
}

/// Persistent messages, each confirmed.
async fn fill(channel: &Channel, queue: &str, messages: u64) -> Result<(), String> {
    let wrong = |error: lapin::Error| error.to_string();
    let mut confirms = Vec::new();
    for index in 0..messages {
        let properties = BasicProperties::default().with_delivery_mode(2);
        let options = BasicPublishOptions::default();
        let sent = channel.basic_publish("".into(), queue.into(), options, &message(index), properties).await;
        confirms.push(sent.map_err(wrong)?);
    }
    for confirm in confirms {
        if !confirm.await.map_err(wrong)?.is_ack() {
            return Err("a message was not stored".to_owned());
        }
    }
    match ready(channel, queue).await? {
        count if count == messages => Ok(()),
        count => Err(format!("{count} messages are ready of {messages}")),
    }
}

async fn ready(channel: &Channel, queue: &str) -> Result<u64, String> {
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let declared = channel.queue_declare(queue.into(), passive, FieldTable::default()).await;
    Ok(u64::from(declared.map_err(|error| error.to_string())?.message_count()))
}

async fn read(connection: &Connection, queue: &str, ack_each: bool, messages: u64) -> Result<f64, String> {
    let wrong = |error: lapin::Error| error.to_string();
    let channel = connection.create_channel().await.map_err(wrong)?;
    channel.basic_qos(PREFETCH, BasicQosOptions::default()).await.map_err(wrong)?;
    let options = BasicConsumeOptions { no_ack: !ack_each, ..BasicConsumeOptions::default() };
    let mut consumer =
        channel.basic_consume(queue.into(), "bare".into(), options, FieldTable::default()).await.map_err(wrong)?;
    let mut pace = Pace::new(messages);
    for count in 1.. {
        let next = tokio::time::timeout(PATIENCE, consumer.next()).await.map_err(|error| error.to_string())?;
        let delivery = next.ok_or("the consumer ended")?.map_err(wrong)?;
        if ack_each {
            delivery.ack(BasicAckOptions::default()).await.map_err(wrong)?;
        }
        if let Some(rate) = pace.at(count) {
            channel.close(200, "done".into()).await.map_err(wrong)?;
            return Ok(rate);
        }
    }
    Err("no message".to_owned())
}
