//! The suite over the memory double, and its scripted faults.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gravity_conformance::source_suite::{Book, Published, SourceRig, WIDE, messages, read_until};
use gravity_connectors::memory::source::{MemoryBroker, MemorySource};
use gravity_model::port::source::{Acceptance, PositionBook, Source, Start};
use gravity_model::{Fault, FaultKind};

struct MemoryRig(MemoryBroker);

async fn rig(partitions: u32) -> Option<MemoryRig> {
    Some(MemoryRig(MemoryBroker::new(partitions)))
}

#[async_trait]
impl SourceRig for MemoryRig {
    fn accepting(&self, accept: Acceptance) -> Box<dyn Source> {
        Box::new(MemorySource::new("orders", self.0.clone()).accepting(accept))
    }

    async fn publish(&self, partition: u32, messages: Vec<Published>) {
        for message in messages {
            self.0.publish(partition, message);
        }
    }

    async fn leave_gap(&self, partition: u32) {
        self.0.leave_gap(partition);
    }

    async fn trim(&self, partition: u32, low: u64) {
        self.0.trim(partition, low);
    }

    async fn recreate(&self) {
        self.0.recreate();
    }

    async fn grow(&self, partitions: u32) {
        self.0.grow(partitions);
    }

    async fn acknowledged(&self, partition: u32) -> u64 {
        self.0.acknowledged(partition)
    }

    async fn acknowledge_elsewhere(&self, partition: u32, offset: u64) {
        self.0.set_acknowledged(partition, offset);
    }

    fn partition_of(&self, slot: &str) -> u32 {
        slot.split('/').nth(2).expect("memory/NAME/PARTITION").parse().expect("partition")
    }
}

gravity_conformance::source_suite!(rig);

#[tokio::test]
async fn s1_redelivered_records_carry_their_old_positions() {
    let rig = MemoryRig(MemoryBroker::new(1));
    rig.publish(0, messages("a", 10)).await;
    let book = Arc::new(Book::default());
    let mut source = rig.source();
    source.connect(Arc::clone(&book) as Arc<dyn PositionBook>, Start::Earliest).await.expect("connect");
    read_until(&mut *source, &book, 10, true).await.expect("read");
    rig.0.redeliver(0, 4);
    book.take(&source.next_batch(WIDE).await.expect("read again"));
    assert_eq!((book.len(), book.duplicates()), (10, 6));
}

#[tokio::test]
async fn s9_an_outage_is_a_fault_and_nothing_is_lost_behind_it() {
    let rig = MemoryRig(MemoryBroker::new(1));
    rig.publish(0, messages("a", 10)).await;
    let book = Arc::new(Book::default());
    let mut source = rig.source();
    source.connect(Arc::clone(&book) as Arc<dyn PositionBook>, Start::Earliest).await.expect("connect");
    read_until(&mut *source, &book, 10, true).await.expect("read");
    rig.0.set_down(true);
    assert_eq!(source.next_batch(WIDE).await.expect_err("down").kind, FaultKind::Disconnected);
    let positions = Arc::clone(&book) as Arc<dyn PositionBook>;
    assert_eq!(source.connect(positions, Start::Earliest).await.expect_err("still down").kind, FaultKind::Disconnected);
    rig.publish(0, messages("b", 10)).await;
    rig.0.set_down(false);
    source.connect(Arc::clone(&book) as Arc<dyn PositionBook>, Start::Earliest).await.expect("connect again");
    read_until(&mut *source, &book, 20, true).await.expect("read on");
    assert_eq!(book.duplicates(), 0);
}

#[tokio::test]
async fn scripted_faults_and_delays_come_as_told() {
    let rig = MemoryRig(MemoryBroker::new(1));
    let book = Arc::new(Book::default());
    let mut source = rig.source();
    source.connect(Arc::clone(&book) as Arc<dyn PositionBook>, Start::Earliest).await.expect("connect");
    rig.0.fail_next(Fault::new(FaultKind::Transient, "scripted", "read", "as told"));
    assert_eq!(source.next_batch(WIDE).await.expect_err("scripted").code, "scripted");
    source.connect(Arc::clone(&book) as Arc<dyn PositionBook>, Start::Earliest).await.expect("connect again");
    rig.0.set_delay(Duration::from_millis(50));
    rig.publish(0, messages("a", 1)).await;
    let before = std::time::Instant::now();
    read_until(&mut *source, &book, 1, true).await.expect("read");
    assert!(before.elapsed() >= Duration::from_millis(50));
}
