//! Queues of a run on RabbitMQ, and all messages of one.

use std::time::Duration;

use futures::StreamExt;
use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};

use super::{Received, read};
use crate::torture::stack::arms::{Peers, Server};

/// A connection of the gate's own with one channel, which confirms what is published.
pub struct Client {
    // Closed with its value.
    _connection: Connection,
    channel: Channel,
}

impl Client {
    /// `address`: `HOST:PORT`. The error says that the broker is not there (yet).
    pub async fn connect(address: &str) -> Result<Client, String> {
        let wrong = |error: lapin::Error| format!("RabbitMQ: {error}");
        let uri = format!("amqp://guest:guest@{address}/%2f");
        let connection = Connection::connect(&uri, ConnectionProperties::default()).await.map_err(wrong)?;
        let channel = connection.create_channel().await.map_err(wrong)?;
        channel.confirm_select(ConfirmSelectOptions::default()).await.map_err(wrong)?;
        Ok(Client { _connection: connection, channel })
    }

    /// Publishes (id, body) to a queue; for each whether the broker has stored it.
    pub async fn publish(&self, queue: &str, messages: &[(String, String)]) -> Result<Vec<bool>, String> {
        let mut confirms = Vec::with_capacity(messages.len());
        for (id, body) in messages {
            let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
            let properties = BasicProperties::default().with_delivery_mode(2).with_message_id(id.as_str().into());
            let sent = self.channel.basic_publish("".into(), queue.into(), options, body.as_bytes(), properties).await;
            confirms.push(sent.map_err(|error| format!("RabbitMQ: {error}"))?);
        }
        let mut stored = Vec::with_capacity(confirms.len());
        for confirm in confirms {
            stored.push(matches!(confirm.await, Ok(Confirmation::Ack(None))));
        }
        Ok(stored)
    }
}

/// Makes durable classic queues.
pub async fn create(peers: &Peers, names: &[&str]) -> Result<(), String> {
    if names.is_empty() {
        return Ok(());
    }
    let client = Client::connect(peers.at(Server::RabbitMq)?).await?;
    for name in names {
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("classic".into()));
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        let made = client.channel.queue_declare((*name).into(), options, arguments).await;
        made.map_err(|error| format!("declaring queue {name}: {error}"))?;
    }
    Ok(())
}

/// Left-overs cost disk only.
pub async fn delete(peers: &Peers, names: &[&str]) {
    if names.is_empty() {
        return;
    }
    let Ok(address) = peers.at(Server::RabbitMq) else { return };
    if let Ok(client) = Client::connect(address).await {
        for name in names {
            let _ = client.channel.queue_delete((*name).into(), QueueDeleteOptions::default()).await;
        }
    }
}

/// Takes the whole queue, in its order.
pub async fn read_all(address: &str, name: &str) -> Result<Received, String> {
    let wrong = |error: &dyn std::fmt::Display| format!("reading queue {name}: {error}");
    let client = Client::connect(address).await?;
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let declared = client.channel.queue_declare(name.into(), options, FieldTable::default()).await;
    let count = declared.map_err(|error| wrong(&error))?.message_count();
    let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let consumer = client.channel.basic_consume(name.into(), "".into(), options, FieldTable::default()).await;
    let mut consumer = consumer.map_err(|error| wrong(&error))?;
    let mut received = Received::default();
    for done in 0..count {
        let delivery = match tokio::time::timeout(Duration::from_secs(30), consumer.next()).await {
            Ok(Some(Ok(delivery))) => delivery,
            Ok(Some(Err(error))) => return Err(wrong(&error)),
            Ok(None) | Err(_) => return Err(wrong(&format!("no message for 30 s after {done} of {count}"))),
        };
        let header = |name: &str| match name {
            // The id of an exporter's message is AMQP's own word for it.
            "id" => delivery.properties.message_id().as_ref().map(|id| id.to_string()),
            _ => None,
        };
        received.take(read(header, &delivery.data));
    }
    Ok(received)
}
