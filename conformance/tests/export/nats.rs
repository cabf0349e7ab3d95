//! The suite over a core subject of a real NATS: what the server has read is confirmed, who listens has it.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::{Message as Received, Subscriber};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use gravity_conformance::export_suite::{Arrived, ExportRig, is_delivered, kind, numbered};
use gravity_conformance::kafka_rig::unique;
use gravity_conformance::nats_rig::{PrivateNats, client, connection, nats_under_test};
use gravity_connectors::nats::{NatsExporter, NatsExporterOptions};
use gravity_model::FaultKind;
use gravity_model::port::export::{Exporter, Message};
use tokio::sync::Mutex;

struct CoreRig {
    host: String,
    subject: String,
    client: async_nats::Client,
    listener: Mutex<Subscriber>,
}

async fn rig() -> Option<CoreRig> {
    let host = nats_under_test()?;
    let subject = format!("x.{}", unique());
    let client = client(&host).await;
    let listener = client.subscribe(subject.clone()).await.expect("subscribe");
    client.flush().await.expect("flush");
    // The server has the subscription once it has answered something behind it.
    client.request(format!("nobody.{}", unique()), "".into()).await.expect_err("nobody answers, but the server does");
    Some(CoreRig { host, subject, client, listener: Mutex::new(listener) })
}

fn exporter(host: &str, subject: &str) -> NatsExporter {
    NatsExporter::new("out", NatsExporterOptions { connection: connection(host), subject: subject.to_owned() })
}

/// A message as it came over the wire.
pub fn arrived(message: &Received) -> Arrived {
    let headers = message.headers.clone().unwrap_or_default();
    let text = |values: &Vec<async_nats::HeaderValue>| values.iter().map(|v| v.as_str()).collect::<Vec<_>>().join(",");
    let headers: BTreeMap<String, String> =
        headers.iter().map(|(name, values)| (name.to_string().to_lowercase(), text(values))).collect();
    Arrived {
        id: headers.get("nats-msg-id").expect("every message names its id").clone(),
        key: None,
        body: message.payload.to_vec(),
        headers,
    }
}

#[async_trait]
impl ExportRig for CoreRig {
    fn exporter(&self) -> Box<dyn Exporter> {
        Box::new(exporter(&self.host, &self.subject))
    }

    fn refusable(&self, number: u64, key: &str) -> Message {
        Message { body: Bytes::from(vec![b'x'; 2 << 20]), ..numbered(number, Some(key)) }
    }

    fn misplaced(&self) -> Box<dyn Exporter> {
        Box::new(exporter(&self.host, "denied.place"))
    }

    fn unreachable(&self) -> Box<dyn Exporter> {
        Box::new(exporter("127.0.0.1:1", &self.subject))
    }

    /// What was confirmed was handed on before our own mark is.
    async fn arrived(&self) -> Vec<Arrived> {
        self.client.publish(self.subject.clone(), "mark".into()).await.expect("publish");
        let mut found = Vec::new();
        let mut listener = self.listener.lock().await;
        loop {
            let message = tokio::time::timeout(Duration::from_secs(30), listener.next()).await;
            let message = message.expect("the mark comes").expect("the subscription lives");
            if message.headers.is_none() {
                return found;
            }
            found.push(arrived(&message));
        }
    }
}

gravity_conformance::export_suite!(rig);

/// Core NATS confirms what it has read, whether anybody listens or not; a place that may not be used is told at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_permission_that_goes_is_told_and_a_probe_sees_it_come_back() {
    let Some(host) = nats_under_test() else { return };
    let unheard = exporter(&host, &format!("x.{}", unique()));
    assert!(unheard.export(&[numbered(1, Some("a"))]).await.iter().all(is_delivered));
    unheard.close().await;
    let denied = exporter(&host, "denied.place");
    for _ in 0..2 {
        let outcomes = denied.export(&[numbered(1, Some("a"))]).await;
        assert_eq!(kind(&outcomes[0]), FaultKind::Misconfigured, "{:?}", outcomes[0]);
    }
    denied.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e2_a_killed_server_is_told_and_sending_goes_on_after_it() {
    let Some(nats) = PrivateNats::start() else { return };
    let exporter = exporter(&nats.host, "x.kill");
    assert!(exporter.export(&[numbered(1, Some("a"))]).await.iter().all(is_delivered));
    nats.kill().await;
    let outcomes = exporter.export(&[numbered(2, Some("a")), numbered(3, None)]).await;
    assert!(outcomes.iter().all(|outcome| !is_delivered(outcome)), "{outcomes:?}");
    assert_eq!(kind(&outcomes[0]), FaultKind::Disconnected);
    nats.start_again().await;
    exporter.probe().await.expect("reachable again");
    assert!(exporter.export(&[numbered(2, Some("a")), numbered(3, None)]).await.iter().all(is_delivered));
    exporter.close().await;
}
