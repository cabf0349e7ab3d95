//! The suite over the memory double, and its scripted faults.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use gravity_conformance::export_suite::{Arrived, ExportRig, is_delivered, kind, numbered};
use gravity_connectors::memory::export::{Answer, MemoryExporter, MemoryTarget};
use gravity_model::FaultKind;
use gravity_model::port::export::{Delivery, Exporter, Message};

#[derive(Default)]
struct MemoryRig(MemoryTarget);

async fn rig() -> Option<MemoryRig> {
    Some(MemoryRig::default())
}

#[async_trait]
impl ExportRig for MemoryRig {
    fn exporter(&self) -> Box<dyn Exporter> {
        Box::new(MemoryExporter::new("memory", self.0.clone()))
    }

    fn refusable(&self, number: u64, key: &str) -> Message {
        let message = numbered(number, Some(key));
        self.0.always(&message.id, Answer::Refuse);
        message
    }

    fn misplaced(&self) -> Box<dyn Exporter> {
        let target = MemoryTarget::default();
        target.script([Answer::Misconfigured; 8]);
        Box::new(MemoryExporter::new("misplaced", target))
    }

    fn unreachable(&self) -> Box<dyn Exporter> {
        let target = MemoryTarget::default();
        target.set_down(true);
        Box::new(MemoryExporter::new("down", target))
    }

    async fn arrived(&self) -> Vec<Arrived> {
        let arrived = |message: Message| {
            let mut headers: BTreeMap<String, String> = message.headers.into_iter().collect();
            headers.insert("content-type".to_owned(), message.content_type.to_owned());
            Arrived { id: message.id, key: message.key.map(|key| key.to_vec()), body: message.body.to_vec(), headers }
        };
        self.0.arrived().into_iter().map(arrived).collect()
    }
}

gravity_conformance::export_suite!(rig);

#[tokio::test]
async fn e2_a_lost_confirmation_is_no_delivery_and_no_refusal() {
    let rig = MemoryRig::default();
    rig.0.script([Answer::TakeSilently]);
    let exporter = rig.exporter();
    let outcome = exporter.export(&[numbered(1, Some("a"))]).await;
    assert_eq!(kind(&outcome[0]), FaultKind::Transient);
    assert!(exporter.export(&[numbered(1, Some("a"))]).await.iter().all(is_delivered));
    assert_eq!(rig.arrived().await.len(), 2, "arrived twice under one id");
}

#[tokio::test]
async fn answers_come_as_scripted() {
    let rig = MemoryRig::default();
    let wait = Duration::from_secs(7);
    rig.0.script([Answer::Later(Some(wait)), Answer::Slow(Duration::from_millis(40)), Answer::Disconnect]);
    let exporter = rig.exporter();
    let begun = Instant::now();
    let outcomes = exporter.export(&[numbered(1, Some("a")), numbered(2, Some("b")), numbered(3, Some("c"))]).await;
    assert!(matches!(&outcomes[0], Delivery::Failed { retry_after: Some(found), .. } if *found == wait));
    assert!(is_delivered(&outcomes[1]) && begun.elapsed() >= Duration::from_millis(40));
    assert_eq!(kind(&outcomes[2]), FaultKind::Disconnected);
    exporter.probe().await.expect("up");
    rig.0.set_down(true);
    assert!(exporter.probe().await.is_err());
    assert_eq!(rig.0.probes(), 2);
}
