//! P6 and E4: of many exporters some are dead, each in its own way; the view, the intake and the others do not notice.

use std::collections::BTreeMap;
use std::sync::Arc;

use gravity_conformance::local_http::{LocalHttp, Reply};
use gravity_connectors::http::{HttpExporter, HttpExporterOptions};
use gravity_connectors::kafka::{KafkaConnection, KafkaExporter, KafkaExporterOptions};
use gravity_connectors::nats::{
    JetStreamExporter, JetStreamExporterOptions, NatsConnection, NatsExporter, NatsExporterOptions,
};
use gravity_connectors::rabbitmq::{RabbitMqConnection, RabbitMqExporter, RabbitMqExporterOptions};
use gravity_engine::status::RunState;
use gravity_model::port::export::Exporter;

use crate::support::{Scene, accepted, batch, endpoint, item};

/// Where nobody listens.
const NOBODY: &str = "127.0.0.1:1";

fn refused_connection() -> Arc<dyn Exporter> {
    let options = HttpExporterOptions { url: format!("http://{NOBODY}/"), ..HttpExporterOptions::default() };
    Arc::new(HttpExporter::new("closed", &options).expect("options"))
}

/// Exporters of every kind that lead to nobody.
fn unreachable() -> Vec<(&'static str, Arc<dyn Exporter>, bool)> {
    let kafka = KafkaConnection { hosts: vec![NOBODY.to_owned()], ..KafkaConnection::default() };
    let nats = NatsConnection { hosts: vec![NOBODY.to_owned()], ..NatsConnection::default() };
    let rabbitmq = RabbitMqExporterOptions {
        connection: RabbitMqConnection::new("127.0.0.1", 1),
        exchange: "none".to_owned(),
        routing_key: None,
    };
    let topic = KafkaExporterOptions { connection: kafka, topic: "none".to_owned() };
    let subject = NatsExporterOptions { connection: nats.clone(), subject: "none".to_owned() };
    let stream = JetStreamExporterOptions { connection: nats, subject: "none".to_owned(), stream: None };
    vec![
        ("closed", refused_connection(), false),
        ("kafka", Arc::new(KafkaExporter::new("kafka", topic)), false),
        ("nats", Arc::new(NatsExporter::new("nats", subject)), false),
        ("jetstream", Arc::new(JetStreamExporter::new("jetstream", stream)), false),
        ("rabbitmq", Arc::new(RabbitMqExporter::new("rabbitmq", rabbitmq)), false),
    ]
}

/// Every number once, and ascending within each of the keys `k0` to `k6`.
fn assert_whole(taken: &[u64], count: u64) {
    let mut all = taken.to_vec();
    all.sort_unstable();
    assert_eq!(all, (0..count).collect::<Vec<_>>(), "each once");
    let mut last: BTreeMap<u64, u64> = BTreeMap::new();
    for n in taken {
        assert!(last.insert(n % 7, *n).is_none_or(|before| before < *n), "order of key k{}", n % 7);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_exporter_among_many_holds_back_only_itself() {
    const ROUNDS: u64 = 8;
    const ROUND: u64 = 100;
    let good = [LocalHttp::start(|_| Reply::Status(204)).await, LocalHttp::start(|_| Reply::Status(200)).await];
    // Takes the request and says nothing for as long as the limit allows: the subscription is in the middle of an attempt.
    let blackhole = LocalHttp::start(|_| Reply::Silent).await;
    let broken = LocalHttp::start(|_| Reply::Status(500)).await;
    let closed = LocalHttp::start(|_| Reply::Status(410)).await;
    let mut exporters = unreachable();
    exporters.push(("blackhole", endpoint(&blackhole), false));
    exporters.push(("good1", endpoint(&good[0]), false));
    exporters.push(("broken", endpoint(&broken), false));
    exporters.push(("good2", endpoint(&good[1]), false));
    exporters.push(("gone", endpoint(&closed), false));
    let dead: Vec<&str> = exporters.iter().map(|(name, ..)| *name).filter(|name| !name.starts_with("good")).collect();
    let scene = Scene::new(exporters);
    let engine = scene.rig.start().await;
    let mut last = 0;
    for round in 0..ROUNDS {
        let numbers = round * ROUND..(round + 1) * ROUND;
        last = engine.post(&batch(numbers.map(|n| item(n, &format!("k{}", n % 7))))).await;
        // Each round goes all the way while the dead ones are stuck where they were.
        engine.in_view(last).await;
        engine.told("good1", last).await;
        engine.told("good2", last).await;
        for name in &dead {
            assert!(engine.exporter(name).cursor < last - ROUND * round, "{name}: {:?}", engine.exporter(name));
        }
    }
    assert_eq!(scene.rows(), (ROUNDS * ROUND).to_string());
    for (server, name) in good.iter().zip(["good1", "good2"]) {
        assert_whole(&accepted(server), ROUNDS * ROUND);
        let status = engine.exporter(name);
        assert_eq!((status.state, status.delivered, status.error), (RunState::Running, ROUNDS * ROUND, None));
    }
    // Every dead one says so by itself; one that waits for an answer does once its limit has passed.
    engine
        .eventually(|status| {
            let says = |name: &&str| {
                status.exporters.iter().any(|e| {
                    e.name == **name
                        && matches!(e.state, RunState::Degraded | RunState::Stopped)
                        && e.error.is_some()
                        && (e.delivered, e.parked) == (0, 0)
                })
            };
            dead.iter().all(says)
        })
        .await;
    // One comes back to life and gets everything, in order.
    blackhole.behave(|_| Reply::Status(204));
    engine.told("blackhole", last).await;
    assert_whole(&accepted(&blackhole), ROUNDS * ROUND);
    assert!(engine.exporter("kafka").cursor < last && engine.exporter("gone").cursor < last);
    let ended = tokio::time::timeout(std::time::Duration::from_secs(60), engine.0.shutdown()).await;
    assert!(ended.is_ok(), "dead exporters do not keep the engine from ending");
}
