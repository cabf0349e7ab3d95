//! The suite over a JetStream stream, and what only that has: repeats known by their id, streams that are missing, full or
//! others, a server killed mid-publish.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::context::Context;
use async_nats::jetstream::stream::{Config, DiscardPolicy};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use gravity_conformance::export_suite::{
    Arrived, ExportRig, assert_order_per_key, is_delivered, key_in_body, kind, numbered,
};
use gravity_conformance::kafka_rig::unique;
use gravity_conformance::nats_rig::{PrivateNats, client, connection, jetstream, nats_under_test};
use gravity_connectors::nats::{JetStreamExporter, JetStreamExporterOptions};
use gravity_model::FaultKind;
use gravity_model::port::export::{Delivery, Exporter, Message};

use super::nats::arrived;

struct StreamRig {
    host: String,
    name: String,
    context: Context,
}

async fn rig() -> Option<StreamRig> {
    Some(rig_on(&nats_under_test()?).await)
}

async fn rig_on(host: &str) -> StreamRig {
    let (name, context) = (format!("x-{}", unique()), jetstream(&client(host).await));
    let rig = StreamRig { host: host.to_owned(), name, context };
    rig.context.create_stream(rig.config()).await.expect("create stream");
    rig
}

impl StreamRig {
    fn config(&self) -> Config {
        Config {
            name: self.name.clone(),
            subjects: vec![self.subject()],
            max_message_size: 100_000,
            ..Config::default()
        }
    }

    fn subject(&self) -> String {
        format!("{}.out", self.name)
    }

    fn options(&self) -> JetStreamExporterOptions {
        JetStreamExporterOptions { connection: connection(&self.host), subject: self.subject(), stream: None }
    }
}

#[async_trait]
impl ExportRig for StreamRig {
    fn exporter(&self) -> Box<dyn Exporter> {
        Box::new(JetStreamExporter::new("out", self.options()))
    }

    fn refusable(&self, number: u64, key: &str) -> Message {
        Message { body: Bytes::from(vec![b'x'; 150_000]), ..numbered(number, Some(key)) }
    }

    fn misplaced(&self) -> Box<dyn Exporter> {
        let options = JetStreamExporterOptions { subject: format!("missing.{}", unique()), ..self.options() };
        Box::new(JetStreamExporter::new("out", options))
    }

    fn unreachable(&self) -> Box<dyn Exporter> {
        let options = JetStreamExporterOptions { connection: connection("127.0.0.1:1"), ..self.options() };
        Box::new(JetStreamExporter::new("out", options))
    }

    fn knows_repeats(&self) -> bool {
        true
    }

    async fn arrived(&self) -> Vec<Arrived> {
        let context = jetstream(&client(&self.host).await);
        let stream = context.get_stream(&self.name).await.expect("the rig's stream");
        let count = usize::try_from(stream.cached_info().state.messages).expect("count");
        let config = pull::Config { ack_policy: AckPolicy::None, ..pull::Config::default() };
        let consumer = stream.create_consumer(config).await.expect("consumer");
        let mut messages = consumer.messages().await.expect("messages");
        let mut found = Vec::new();
        while found.len() < count {
            let message = tokio::time::timeout(Duration::from_secs(30), messages.next()).await;
            found.push(arrived(&message.expect("in time").expect("the consumer lives").expect("a message").message));
        }
        found
    }
}

gravity_conformance::export_suite!(rig);

fn code(outcome: &Delivery) -> (FaultKind, String) {
    match outcome {
        Delivery::Delivered => panic!("delivered, but should not be"),
        Delivery::Failed { fault, .. } => (fault.kind, fault.code.to_string()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e3_another_stream_than_expected_is_misconfigured() {
    let Some(rig) = rig().await else { return };
    let other = JetStreamExporterOptions { stream: Some("another".to_owned()), ..rig.options() };
    let exporter = JetStreamExporter::new("out", other);
    let fault = exporter.probe().await.expect_err("the wrong stream");
    assert_eq!((fault.kind, &*fault.code), (FaultKind::Misconfigured, "nats-wrong-stream"), "{fault}");
    let outcomes = exporter.export(&[numbered(1, Some("a"))]).await;
    assert_eq!(code(&outcomes[0]), (FaultKind::Misconfigured, "nats-10060".to_owned()));
    exporter.close().await;
    let right = JetStreamExporterOptions { stream: Some(rig.name.clone()), ..rig.options() };
    let exporter = JetStreamExporter::new("out", right);
    exporter.probe().await.expect("the right stream");
    assert!(exporter.export(&[numbered(1, Some("a"))]).await.iter().all(is_delivered));
    exporter.close().await;
    assert_eq!(rig.arrived().await.len(), 1);
}

/// Somebody answers on the subject, but it is no stream: nothing is stored, so nothing is delivered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e3_an_answer_that_is_no_acknowledgement_is_misconfigured() {
    let Some(rig) = rig().await else { return };
    let subject = format!("service.{}", unique());
    let service = client(&rig.host).await;
    let mut requests = service.subscribe(subject.clone()).await.expect("subscribe");
    service.flush().await.expect("flush");
    let answering = tokio::spawn(async move {
        while let Some(request) = requests.next().await {
            if let Some(reply) = request.reply {
                service.publish(reply, "thanks".into()).await.expect("answer");
                service.flush().await.expect("flush");
            }
        }
    });
    let exporter = JetStreamExporter::new("out", JetStreamExporterOptions { subject, ..rig.options() });
    let outcomes = exporter.export(&[numbered(1, Some("a"))]).await;
    assert_eq!(code(&outcomes[0]), (FaultKind::Misconfigured, "nats-no-stream".to_owned()));
    exporter.close().await;
    answering.abort();
}

/// A stream that is full refuses for now: the same messages pass once there is room, and no key's order suffers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_stream_is_transient_and_holds_back_its_keys() {
    let Some(rig) = rig().await else { return };
    let full = Config { max_messages: 3, discard: DiscardPolicy::New, ..rig.config() };
    rig.context.update_stream(full).await.expect("update");
    let exporter = rig.exporter();
    let messages: Vec<Message> = (0..6).map(|number| numbered(number, Some("a"))).collect();
    let outcomes = exporter.export(&messages).await;
    assert!(outcomes[..3].iter().all(is_delivered), "{outcomes:?}");
    assert_eq!(kind(&outcomes[3]), FaultKind::Transient, "{:?}", outcomes[3]);
    assert!(outcomes[4..].iter().all(|outcome| !is_delivered(outcome)), "{outcomes:?}");
    rig.context.update_stream(rig.config()).await.expect("update");
    assert!(exporter.export(&messages[3..]).await.iter().all(is_delivered));
    exporter.close().await;
    let ids: Vec<String> = rig.arrived().await.into_iter().map(|message| message.id).collect();
    assert_eq!(ids, messages.into_iter().map(|message| message.id).collect::<Vec<_>>());
}

/// A message too large for the server is refused before it is sent: the server would end the connection over it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_beyond_the_servers_limit_blames_itself_alone() {
    let Some(rig) = rig().await else { return };
    let exporter = rig.exporter();
    let large = Message { body: Bytes::from(vec![b'x'; 2 << 20]), ..numbered(2, Some("b")) };
    let outcomes = exporter.export(&[numbered(1, Some("a")), large, numbered(3, Some("a"))]).await;
    assert!(is_delivered(&outcomes[0]) && is_delivered(&outcomes[2]), "{outcomes:?}");
    assert_eq!(code(&outcomes[1]), (FaultKind::RefusedEvent, "nats-too-large".to_owned()));
    exporter.close().await;
}

/// O43, E2: the server dies while messages are on their way. Nothing is lost, and what is sent again under the same id is
/// known: no message is there twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn o43_a_server_killed_mid_publish_loses_and_doubles_nothing() {
    let Some(nats) = PrivateNats::start() else { return };
    let rig = rig_on(&nats.host).await;
    let exporter = JetStreamExporter::new("out", rig.options()).with_attempt_limit(Duration::from_millis(1500));
    let (kills, per_kill) = (3, 6000);
    let mut failures = 0;
    for kill in 0..kills {
        let killing = async {
            tokio::time::sleep(Duration::from_millis(30)).await;
            nats.kill_and_restart().await;
        };
        failures += tokio::join!(killing, publish_as_the_engine_does(&exporter, kill * per_kill, per_kill)).1;
    }
    exporter.close().await;
    let arrived = rig.arrived().await;
    let distinct: BTreeSet<&str> = arrived.iter().map(|message| message.id.as_str()).collect();
    let total = kills * per_kill;
    assert_eq!((arrived.len() as u64, distinct.len() as u64), (total, total), "each exactly once");
    assert_order_per_key(&arrived, key_in_body);
    println!("{kills} server kills, {total} messages, 0 lost, 0 doubled, {failures} failures");
    assert!(failures > 0, "no kill met a message on its way");
}

/// Sends numbered messages in batches; what was not confirmed is sent again, in order, under the same id. Gives the number
/// of failed deliveries.
async fn publish_as_the_engine_does(exporter: &JetStreamExporter, first: u64, count: u64) -> usize {
    let (mut failures, until) = (0, Instant::now() + Duration::from_secs(90));
    for start in (first..first + count).step_by(100) {
        let mut left: Vec<Message> =
            (start..start + 100).map(|number| numbered(number, Some(&format!("k{}", number % 30)))).collect();
        while !left.is_empty() {
            let outcomes = exporter.export(&left).await;
            assert_eq!(outcomes.len(), left.len());
            let failed = outcomes.iter().filter(|outcome| !is_delivered(outcome)).count();
            failures += failed;
            left = left.into_iter().zip(&outcomes).filter(|(_, o)| !is_delivered(o)).map(|(m, _)| m).collect();
            if failed > 0 {
                // The engine backs off between attempts.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            assert!(Instant::now() < until, "{start} of {first}+{count}, {failures} failures");
        }
    }
    failures
}
