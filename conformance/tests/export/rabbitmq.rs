//! The suite over an exchange with a queue behind it, and what only RabbitMQ has: returns, limits told by a closed channel, alarms,
//! full queues, a broker killed mid-publish.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use gravity_conformance::export_suite::{
    Arrived, ExportRig, assert_order_per_key, is_delivered, key_in_body, kind, numbered,
};
use gravity_conformance::kafka_rig::unique;
use gravity_conformance::rabbitmq_rig::{Client, PrivateRabbitMq, connection, rabbitmq_under_test};
use gravity_connectors::rabbitmq::{RabbitMqExporter, RabbitMqExporterOptions};
use gravity_model::FaultKind;
use gravity_model::port::export::{Delivery, Exporter, Message};
use lapin::ExchangeKind;
use lapin::message::Delivery as Received;
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions};
use lapin::types::{AMQPValue, FieldTable};

struct ExchangeRig {
    address: String,
    name: String,
    client: Client,
}

async fn rig() -> Option<ExchangeRig> {
    Some(rig_on(&rabbitmq_under_test()?, &[]).await)
}

/// An exchange and a durable queue of one name, bound by `out`.
async fn rig_on(address: &str, arguments: &[(&str, AMQPValue)]) -> ExchangeRig {
    let (client, name) = (Client::connect(address).await, format!("x-{}", unique()));
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let declared =
        client.channel.exchange_declare(name.as_str().into(), ExchangeKind::Direct, options, FieldTable::default());
    declared.await.expect("declare the exchange");
    client.declare(&name, "classic", arguments).await;
    let (queue, exchange) = (name.as_str().into(), name.as_str().into());
    let bound =
        client.channel.queue_bind(queue, exchange, "out".into(), QueueBindOptions::default(), FieldTable::default());
    bound.await.expect("bind");
    ExchangeRig { address: address.to_owned(), name, client }
}

impl ExchangeRig {
    fn options(&self) -> RabbitMqExporterOptions {
        RabbitMqExporterOptions {
            connection: connection(&self.address),
            exchange: self.name.clone(),
            routing_key: Some("out".to_owned()),
        }
    }
}

fn arrived(delivery: Received) -> Arrived {
    let properties = &delivery.properties;
    let table = properties.headers().clone().unwrap_or_default();
    let mut headers: BTreeMap<String, String> = table
        .inner()
        .iter()
        .map(|(name, value)| match value {
            AMQPValue::LongString(text) => (name.as_str().to_ascii_lowercase(), text.to_string()),
            other => panic!("{name} is {other:?}"),
        })
        .collect();
    let content_type = properties.content_type().as_ref().expect("a content type");
    headers.insert("content-type".to_owned(), content_type.as_str().to_owned());
    assert_eq!(*properties.delivery_mode(), Some(2), "kept by a durable queue");
    let id = properties.message_id().as_ref().expect("an id").as_str().to_owned();
    Arrived { id, key: None, body: delivery.data, headers }
}

#[async_trait]
impl ExportRig for ExchangeRig {
    fn exporter(&self) -> Box<dyn Exporter> {
        Box::new(RabbitMqExporter::new("out", self.options()))
    }

    /// The test broker takes one MiB.
    fn refusable(&self, number: u64, key: &str) -> Message {
        Message { body: Bytes::from(vec![b'x'; (1 << 20) + 1]), ..numbered(number, Some(key)) }
    }

    fn misplaced(&self) -> Box<dyn Exporter> {
        Box::new(RabbitMqExporter::new("out", RabbitMqExporterOptions { exchange: unique(), ..self.options() }))
    }

    fn unreachable(&self) -> Box<dyn Exporter> {
        let options = RabbitMqExporterOptions { connection: connection("127.0.0.1:1"), ..self.options() };
        Box::new(RabbitMqExporter::new("out", options))
    }

    async fn arrived(&self) -> Vec<Arrived> {
        self.client.drain(&self.name).await.into_iter().map(arrived).collect()
    }
}

gravity_conformance::export_suite!(rig);

fn code(outcome: &Delivery) -> (FaultKind, String) {
    match outcome {
        Delivery::Delivered => panic!("delivered, but should not be"),
        Delivery::Failed { fault, .. } => (fault.kind, fault.code.to_string()),
    }
}

/// E3: the broker confirms what no queue takes; the return decides.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e3_a_message_that_no_queue_takes_is_not_delivered() {
    let Some(rig) = rig().await else { return };
    let nowhere = RabbitMqExporterOptions { routing_key: Some("nowhere".to_owned()), ..rig.options() };
    let exporter = RabbitMqExporter::new("out", nowhere);
    exporter.probe().await.expect("the exchange is there");
    let outcomes = exporter.export(&[numbered(1, Some("a")), numbered(2, Some("a"))]).await;
    assert_eq!(code(&outcomes[0]), (FaultKind::Misconfigured, "rabbitmq-312".to_owned()), "{outcomes:?}");
    assert!(!is_delivered(&outcomes[1]));
    exporter.close().await;
    let missing = RabbitMqExporterOptions { exchange: unique(), ..rig.options() };
    let fault = RabbitMqExporter::new("out", missing).probe().await.expect_err("no such exchange");
    assert_eq!((fault.kind, &*fault.code), (FaultKind::Misconfigured, "rabbitmq-404"), "{fault}");
}

/// Without a routing key the event's name is one; the default exchange leads to the queue of that name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_events_name_routes_where_no_key_is_given() {
    let Some(rig) = rig().await else { return };
    let options = RabbitMqExporterOptions { exchange: String::new(), routing_key: None, ..rig.options() };
    let exporter = RabbitMqExporter::new("out", options);
    let message = Message { event: rig.name.clone(), ..numbered(1, Some("a")) };
    let outcomes = exporter.export(&[message]).await;
    assert!(outcomes.iter().all(is_delivered), "{outcomes:?}");
    exporter.close().await;
    assert_eq!(rig.arrived().await.len(), 1);
}

/// A message that does not fit AMQP is refused before it is sent: the broker would end the connection over it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_beyond_a_frame_blame_their_message_alone() {
    let Some(rig) = rig().await else { return };
    let exporter = rig.exporter();
    let header = |name: String, value: usize| vec![(name, "v".repeat(value))];
    let large = Message { headers: header("h".to_owned(), 200_000), ..numbered(2, Some("b")) };
    let long = Message { headers: header("n".repeat(300), 1), ..numbered(3, Some("c")) };
    let outcomes = exporter.export(&[numbered(1, Some("a")), large, long, numbered(4, Some("a"))]).await;
    assert!(is_delivered(&outcomes[0]) && is_delivered(&outcomes[3]), "{outcomes:?}");
    assert_eq!(code(&outcomes[1]), (FaultKind::RefusedEvent, "rabbitmq-headers-too-large".to_owned()));
    assert_eq!(code(&outcomes[2]), (FaultKind::RefusedEvent, "rabbitmq-too-long".to_owned()));
    exporter.close().await;
}

/// A queue that is full refuses for now: the same messages pass once there is room, and no key's order suffers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_is_transient_and_holds_back_its_keys() {
    let Some(address) = rabbitmq_under_test() else { return };
    let full =
        [("x-max-length", AMQPValue::LongInt(3)), ("x-overflow", AMQPValue::LongString("reject-publish".into()))];
    let rig = rig_on(&address, &full).await;
    let exporter = rig.exporter();
    let messages: Vec<Message> = (0..6).map(|number| numbered(number, Some("a"))).collect();
    let (mut left, mut ids, mut refusals) = (messages.clone(), Vec::new(), 0);
    let until = Instant::now() + Duration::from_secs(30);
    while !left.is_empty() {
        let outcomes = exporter.export(&left).await;
        let delivered = outcomes.iter().take_while(|outcome| is_delivered(outcome)).count();
        assert!(outcomes[delivered..].iter().all(|outcome| !is_delivered(outcome)), "{outcomes:?}");
        if let Some(first) = outcomes.get(delivered) {
            assert_eq!(kind(first), FaultKind::Transient, "{first:?}");
            refusals += 1;
        }
        left.drain(..delivered);
        ids.extend(rig.arrived().await.into_iter().map(|message| message.id));
        assert!(Instant::now() < until, "{left:?}");
    }
    exporter.close().await;
    assert!(refusals > 0, "the queue was never full");
    assert_eq!(ids, messages.into_iter().map(|message| message.id).collect::<Vec<_>>());
}

/// E4: an alarm stops publishers. It is told as such, and the messages pass when it is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e4_an_alarm_of_the_broker_is_told_and_passes() {
    let Some(broker) = PrivateRabbitMq::start() else { return };
    let rig = rig_on(&broker.address, &[]).await;
    let exporter = RabbitMqExporter::new("out", rig.options()).with_attempt_limit(Duration::from_secs(2));
    assert!(exporter.export(&[numbered(1, Some("a"))]).await.iter().all(is_delivered));
    broker.control(&["set_vm_memory_high_watermark", "absolute", "1000000"]).await;
    let until = Instant::now() + Duration::from_secs(30);
    let fault = loop {
        // The alarm is raised at the broker's next look at its memory.
        let outcomes = exporter.export(&[numbered(2, Some("a")), numbered(3, Some("b"))]).await;
        if let Some(failed) = outcomes.iter().find(|outcome| !is_delivered(outcome)) {
            break code(failed);
        }
        assert!(Instant::now() < until, "no alarm");
    };
    assert_eq!(fault, (FaultKind::Transient, "rabbitmq-blocked".to_owned()));
    let again = Instant::now();
    assert_eq!(code(&exporter.export(&[numbered(4, Some("a"))]).await[0]).1, "rabbitmq-blocked");
    assert!(again.elapsed() < Duration::from_secs(1), "known already: {:?}", again.elapsed());
    broker.control(&["set_vm_memory_high_watermark", "0.4"]).await;
    let until = Instant::now() + Duration::from_secs(30);
    let left = [numbered(2, Some("a")), numbered(3, Some("b")), numbered(4, Some("a"))];
    while !exporter.export(&left).await.iter().all(is_delivered) {
        assert!(Instant::now() < until, "still blocked");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    exporter.close().await;
    let ids: BTreeSet<String> = rig.arrived().await.into_iter().map(|message| message.id).collect();
    assert_eq!(ids.len(), 4, "{ids:?}");
}

/// O43, E2: the broker dies while messages are on their way. Nothing is lost, and what comes twice comes under the same id.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn o43_a_broker_killed_mid_publish_loses_nothing() {
    let Some(broker) = PrivateRabbitMq::start() else { return };
    let rig = rig_on(&broker.address, &[]).await;
    let exporter = RabbitMqExporter::new("out", rig.options()).with_attempt_limit(Duration::from_secs(3));
    let (kills, per_kill) = (2, 4000);
    let mut failures = 0;
    for round in 0..kills {
        let killing = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            broker.kill_and_restart().await;
        };
        failures += tokio::join!(killing, publish_as_the_engine_does(&exporter, round * per_kill, per_kill)).1;
    }
    exporter.close().await;
    let client = Client::connect(&broker.address).await;
    let arrived: Vec<Arrived> = client.drain(&rig.name).await.into_iter().map(arrived).collect();
    let distinct: BTreeSet<&str> = arrived.iter().map(|message| message.id.as_str()).collect();
    let total = kills * per_kill;
    assert_eq!(distinct.len() as u64, total, "none is missing");
    assert_order_per_key(&arrived, key_in_body);
    let repeats = arrived.len() as u64 - total;
    println!(
        "{kills} broker kills, {total} messages, 0 lost, {repeats} came twice under their id, {failures} failures"
    );
    assert!(failures > 0, "no kill met a message on its way");
}

/// Sends numbered messages in batches; what was not confirmed is sent again, in order, under the same id. Gives the number
/// of failed deliveries.
async fn publish_as_the_engine_does(exporter: &RabbitMqExporter, first: u64, count: u64) -> usize {
    let (mut failures, until) = (0, Instant::now() + Duration::from_secs(120));
    for start in (first..first + count).step_by(100) {
        let mut left: Vec<Message> =
            (start..start + 100).map(|number| numbered(number, Some(&format!("k{}", number % 30)))).collect();
        while !left.is_empty() {
            let outcomes = exporter.export(&left).await;
            let failed = outcomes.iter().filter(|outcome| !is_delivered(outcome)).count();
            failures += failed;
            left = left.into_iter().zip(&outcomes).filter(|(_, o)| !is_delivered(o)).map(|(m, _)| m).collect();
            if failed > 0 {
                // The engine backs off between attempts.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            assert!(Instant::now() < until, "{start} of {first}+{count}, {failures} failures");
        }
    }
    failures
}
