//! A real RabbitMQ for the suites: queues made fresh for each case, and brokers that a case may kill.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use gravity_connectors::rabbitmq::{RabbitMqConnection, RabbitMqSource, RabbitMqSourceOptions};
use gravity_model::port::source::{Acceptance, Source};
use lapin::options::{BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};

use crate::kafka_rig::{free_port, root, run, unique};
use crate::source_suite::{Published, SourceRig};

const LIMIT: Duration = Duration::from_secs(30);

/// `host:port` of the RabbitMQ under test; `None` after saying so.
pub fn rabbitmq_under_test() -> Option<String> {
    let host = std::env::var("GRAVITY_TEST_RABBITMQ").ok().filter(|host| !host.is_empty());
    if host.is_none() {
        println!("skipped: GRAVITY_TEST_RABBITMQ is not set");
    }
    host
}

/// A connection without TLS, as guest.
pub fn connection(address: &str) -> RabbitMqConnection {
    let (host, port) = address.rsplit_once(':').expect("HOST:PORT");
    RabbitMqConnection::new(host, port.parse().expect("a port"))
}

/// A client that nothing under test shares. Its channel confirms what is published.
pub struct Client {
    _connection: Connection,
    pub channel: Channel,
}

impl Client {
    pub async fn connect(address: &str) -> Client {
        let uri = format!("amqp://guest:guest@{address}/%2f");
        let connection =
            Connection::connect(&uri, ConnectionProperties::default()).await.expect("a client of the test's own");
        let channel = connection.create_channel().await.expect("channel");
        channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
        Client { _connection: connection, channel }
    }

    /// A durable queue: `classic` or `quorum`, with more arguments.
    pub async fn declare(&self, queue: &str, kind: &str, more: &[(&str, AMQPValue)]) {
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString(kind.into()));
        for (name, value) in more {
            arguments.insert((*name).into(), value.clone());
        }
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        self.channel.queue_declare(queue.into(), options, arguments).await.expect("declare");
    }

    /// Messages that are ready in the queue.
    pub async fn ready(&self, queue: &str) -> u64 {
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let declared = self.channel.queue_declare(queue.into(), options, FieldTable::default()).await.expect("count");
        u64::from(declared.message_count())
    }

    /// Sends to a queue, and waits until all of it is stored.
    pub async fn publish(&self, queue: &str, messages: Vec<(Vec<u8>, BasicProperties)>) {
        let mut confirms = Vec::with_capacity(messages.len());
        for (body, properties) in messages {
            let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
            let properties = properties.with_delivery_mode(2);
            let sent = self.channel.basic_publish("".into(), queue.into(), options, &body, properties).await;
            confirms.push(sent.expect("sent"));
        }
        for confirm in confirms {
            let confirmation = confirm.await.expect("answered");
            assert!(confirmation.is_ack() && confirmation.take_message().is_none(), "not stored");
        }
    }

    /// Takes everything out of the queue.
    pub async fn drain(&self, queue: &str) -> Vec<lapin::message::Delivery> {
        let mut all = Vec::new();
        let options = BasicGetOptions { no_ack: true };
        while let Some(message) = self.channel.basic_get(queue.into(), options).await.expect("get") {
            all.push(message.delivery);
        }
        all
    }
}

/// Queues of one case; a partition of the suite is a queue.
pub struct RabbitMqRig {
    pub address: String,
    pub name: String,
    pub client: Client,
    partitions: u32,
    /// The suite's messages carry ids.
    with_ids: bool,
    published: AtomicU64,
}

impl RabbitMqRig {
    pub async fn on(address: &str, kind: &str, partitions: u32, with_ids: bool) -> RabbitMqRig {
        let client = Client::connect(address).await;
        let name = format!("t-{}", unique());
        for partition in 0..4 {
            client.declare(&format!("{name}/{partition}"), kind, &[]).await;
        }
        let (address, published) = (address.to_owned(), AtomicU64::new(0));
        RabbitMqRig { address, name, client, partitions, with_ids, published }
    }

    pub fn queue(&self, partition: u32) -> String {
        format!("{}/{partition}", self.name)
    }

    pub fn options(&self) -> RabbitMqSourceOptions {
        RabbitMqSourceOptions {
            connection: connection(&self.address),
            queues: (0..self.partitions).map(|partition| self.queue(partition)).collect(),
            // Some cases acknowledge nothing.
            prefetch: 5000,
        }
    }

    /// Waits until as many messages are ready: what a reader left is requeued a moment after it is gone.
    pub async fn wait_for_ready(&self, partition: u32, count: u64) {
        let until = Instant::now() + LIMIT;
        loop {
            let ready = self.client.ready(&self.queue(partition)).await;
            if ready == count {
                return;
            }
            assert!(Instant::now() < until, "{ready} messages are ready, not {count}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[async_trait]
impl SourceRig for RabbitMqRig {
    /// A queue has no positions that could break.
    fn accepting(&self, _: Acceptance) -> Box<dyn Source> {
        Box::new(RabbitMqSource::new("orders", self.options()))
    }

    async fn publish(&self, partition: u32, messages: Vec<Published>) {
        let messages = messages.into_iter().map(|message| {
            let mut table = FieldTable::default();
            for (name, value) in &message.headers {
                table.insert(name.as_str().into(), AMQPValue::LongString(value.clone().into()));
            }
            let number = self.published.fetch_add(1, Ordering::Relaxed);
            let mut properties = BasicProperties::default().with_headers(table);
            if self.with_ids {
                properties = properties.with_message_id(format!("id-{number}").into());
            }
            if let Some(time) = message.time {
                properties = properties.with_timestamp((time / 1_000_000) as u64);
            }
            (message.payload.unwrap_or_default(), properties)
        });
        self.client.publish(&self.queue(partition), messages.collect()).await;
    }

    async fn leave_gap(&self, _partition: u32) {
        unreachable!("no positions")
    }

    async fn trim(&self, _partition: u32, _low: u64) {
        unreachable!("no positions")
    }

    async fn recreate(&self) {
        unreachable!("no positions")
    }

    async fn grow(&self, _partitions: u32) {}

    /// Counted once the broker has requeued the rest, which needs no more than a moment.
    async fn acknowledged(&self, partition: u32) -> u64 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        self.published.load(Ordering::Relaxed) - self.client.ready(&self.queue(partition)).await
    }

    async fn acknowledge_elsewhere(&self, _partition: u32, _offset: u64) {}

    fn partition_of(&self, slot: &str) -> u32 {
        slot.rsplit_once('/').expect("NAME/PARTITION").1.parse().expect("a number")
    }

    fn delivers_again(&self) -> bool {
        true
    }

    fn odd_messages(&self) -> Vec<Published> {
        let time = Some(1_700_000_000_000_000);
        let header = |name: &str, value: &[u8]| (name.to_owned(), value.to_vec());
        vec![
            Published { payload: Some(b"plain".to_vec()), time, ..Published::default() },
            Published { payload: Some(Vec::new()), ..Published::default() },
            Published {
                payload: Some((0..=255).collect()),
                headers: vec![
                    header("a", b"1"),
                    header("b", &[0, 255]),
                    header("ce-type", "é ✓".as_bytes()),
                    header("empty", b""),
                ],
                time,
                ..Published::default()
            },
            Published { payload: Some(vec![b'x'; 900_000]), ..Published::default() },
        ]
    }

    /// There are no keys, and properties become headers behind the others.
    fn same(&self, taken: &Published, published: &Published) -> bool {
        let mut expected = Published { key: None, ..published.clone() };
        let mut found = taken.clone();
        let id = found.headers.iter().position(|(name, _)| name == "message-id");
        assert_eq!(id.is_some(), self.with_ids, "{taken:?}");
        id.map(|at| found.headers.remove(at));
        expected.headers.sort();
        found.headers.sort();
        found == expected
    }
}

/// A broker that one case owns, so that it may kill it. Started by the project's own script on free ports.
pub struct PrivateRabbitMq {
    pub address: String,
    folder: tempfile::TempDir,
    ports: [(&'static str, String); 3],
}

impl PrivateRabbitMq {
    /// `None` after saying why.
    pub fn start() -> Option<PrivateRabbitMq> {
        rabbitmq_under_test()?;
        let folder = tempfile::Builder::new().prefix("rabbitmq-").tempdir().expect("folder");
        let port = free_port();
        let ports = [
            ("GRAVITY_RABBITMQ_PORT", port.to_string()),
            ("GRAVITY_RABBITMQ_DIST_PORT", free_port().to_string()),
            ("ERL_EPMD_PORT", free_port().to_string()),
        ];
        let broker = PrivateRabbitMq { address: format!("127.0.0.1:{port}"), folder, ports };
        run(&mut broker.command(&["up", "rabbitmq"]));
        Some(broker)
    }

    /// Kills the broker and starts it again on the same data.
    pub async fn kill_and_restart(&self) {
        let mut command = self.command(&["restart", "--kill", "rabbitmq"]);
        tokio::task::spawn_blocking(move || run(&mut command)).await.expect("task");
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(root().join("conformance/servers"));
        let ports = self.ports.iter().map(|(name, port)| (*name, port.as_str()));
        command.args(arguments).env("GRAVITY_WORK", self.folder.path()).envs(ports);
        command.env_remove("GRAVITY_TEST_RABBITMQ").stdin(Stdio::null());
        command
    }

    /// Runs a command of the broker's own tool against it.
    pub async fn control(&self, arguments: &[&str]) {
        let mut command = self.command(&["control", "rabbitmq"]);
        command.args(arguments);
        tokio::task::spawn_blocking(move || run(&mut command)).await.expect("task");
    }
}

impl Drop for PrivateRabbitMq {
    fn drop(&mut self) {
        // Its data is nobody's: no need to wait for an orderly end.
        run(&mut self.command(&["down", "--kill", "rabbitmq"]));
        run(&mut self.command(&["wipe", "rabbitmq"]));
    }
}
