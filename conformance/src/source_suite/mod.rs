//! The contract of the source port, run over every source that has positions: the memory double and the real brokers.

mod book;
mod cases;

pub use book::{Book, Taken};
pub use cases::*;

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
pub use gravity_connectors::memory::source::Published;
use gravity_model::Fault;
use gravity_model::port::source::{Acceptance, BatchLimits, Source};

/// A broker as the suite needs it: one topic, made fresh for one case.
#[async_trait]
pub trait SourceRig: Send + Sync {
    /// A source that reads the topic for the rig's one log; the same one, as far as the broker can tell, at every call.
    fn source(&self) -> Box<dyn Source> {
        self.accepting(Acceptance::default())
    }

    /// The same source, told to go on where history broke.
    fn accepting(&self, accept: Acceptance) -> Box<dyn Source>;

    async fn publish(&self, partition: u32, messages: Vec<Published>);

    /// Uses up at least one offset without a record: compaction, or an aborted transaction with its marker.
    async fn leave_gap(&self, partition: u32);

    /// Retention: nothing before `low` is left.
    async fn trim(&self, partition: u32, low: u64);

    /// Deletes the topic and creates it again, as large as before, empty.
    async fn recreate(&self);

    /// Adds partitions up to this count.
    async fn grow(&self, partitions: u32);

    /// First offset of the partition that the broker does not hold for acknowledged.
    async fn acknowledged(&self, partition: u32) -> u64;

    /// Moves the acknowledged offset without the source. Only while no source is connected.
    async fn acknowledge_elsewhere(&self, partition: u32, offset: u64);

    /// Number of the partition in a slot's name.
    fn partition_of(&self, slot: &str) -> u32;

    /// Number of the slot that a partition lies in: its own, or the only one of a protocol without partitions.
    fn slot_number(&self, partition: u32) -> u32 {
        partition
    }

    /// Offset of the first record of all.
    fn first_offset(&self) -> u64 {
        0
    }

    /// False where the broker keeps nothing for its readers.
    fn keeps_acknowledgements(&self) -> bool {
        true
    }

    /// True where the broker itself gives out again what was not acknowledged, because it has no positions.
    fn delivers_again(&self) -> bool {
        false
    }

    /// Everything odd that a message of this protocol can be.
    fn odd_messages(&self) -> Vec<Published> {
        let time = Some(1_700_000_000_123_000);
        vec![
            Published { payload: Some(b"plain".to_vec()), time, ..Published::default() },
            Published { key: Some(b"k".to_vec()), payload: None, time, ..Published::default() },
            Published { key: None, payload: None, time, ..Published::default() },
            Published { key: Some(Vec::new()), payload: Some(Vec::new()), time, ..Published::default() },
            Published {
                key: Some(vec![0, 255, 10]),
                payload: Some((0..=255).collect()),
                headers: vec![
                    ("a".to_owned(), b"1".to_vec()),
                    ("b".to_owned(), vec![0, 255]),
                    ("a".to_owned(), b"2".to_vec()),
                    ("empty".to_owned(), Vec::new()),
                ],
                time,
            },
            Published { payload: Some(vec![b'x'; 900_000]), time, ..Published::default() },
        ]
    }

    /// Is what was taken what was published, as far as the protocol carries it?
    fn same(&self, taken: &Published, published: &Published) -> bool {
        taken == published
    }
}

/// Limits that leave the source its freedom.
pub const WIDE: BatchLimits =
    BatchLimits { max_records: 10_000, max_bytes: 1 << 20, max_wait: Duration::from_millis(100) };

/// No case waits longer for what must come.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A message with a payload and a key.
pub fn message(key: &str, payload: &str) -> Published {
    Published { key: Some(key.as_bytes().to_vec()), payload: Some(payload.as_bytes().to_vec()), ..Published::default() }
}

/// `count` messages whose payloads are `PREFIX-0`, `PREFIX-1`, …
pub fn messages(prefix: &str, count: usize) -> Vec<Published> {
    (0..count).map(|index| message(&format!("k{}", index % 7), &format!("{prefix}-{index}"))).collect()
}

/// Reads into the book as ingest does until it holds `count` records; acknowledges every batch when `acknowledge`.
pub async fn read_until(
    source: &mut dyn Source,
    book: &Arc<Book>,
    count: usize,
    acknowledge: bool,
) -> Result<(), Fault> {
    let until = Instant::now() + PATIENCE;
    while book.len() < count {
        let batch = source.next_batch(WIDE).await?;
        book.take(&batch);
        if acknowledge && !batch.records.is_empty() {
            source.acknowledge(batch.token).await?;
        }
        assert!(Instant::now() < until, "{} of {count} records after {PATIENCE:?}: {:?}", book.len(), book.payloads());
    }
    Ok(())
}

/// Reads on for a while: nothing more may come.
pub async fn expect_silence(source: &mut dyn Source, book: &Arc<Book>, time: Duration) {
    let (before, until) = (book.len(), Instant::now() + time);
    while Instant::now() < until {
        let batch = source.next_batch(WIDE).await.expect("no fault in silence");
        book.take(&batch);
    }
    assert_eq!(book.len(), before, "records that must not exist: {:?}", &book.payloads()[before..]);
}

/// Reads until the source reports a fault of its own; records that come before it go into the book.
pub async fn read_to_fault(source: &mut dyn Source, book: &Arc<Book>) -> Fault {
    let until = Instant::now() + PATIENCE;
    loop {
        match source.next_batch(WIDE).await {
            Ok(batch) => book.take(&batch),
            Err(fault) => return fault,
        }
        assert!(Instant::now() < until, "no fault within {PATIENCE:?}");
    }
}

/// Expands to one test per case. `$rig` is an async function that gives `Some` of a fresh rig with that many partitions,
/// or `None` after it has printed why it cannot.
#[macro_export]
macro_rules! source_suite {
    // Every source with positions that the broker lets it go back to.
    ($rig:path) => {
        $crate::source_suite!(queue $rig);
        $crate::source_suite!(anew $rig);
        $crate::source_suite!(@cases $rig;
            reading_goes_on_where_the_book_stands(2),
            o2_trap25_a_new_consumer_reads_on_without_loss(1),
            s5_trap9_a_new_partition_starts_at_its_beginning(1),
            latest_skips_what_was_there_and_nothing_else(1),
            s6_retention_past_the_book_halts(1),
            an_accepted_gap_is_told_and_reading_goes_on_behind_it(1),
        );
    };
    // A broker that forgets what was acknowledged.
    (queue $rig:path) => {
        $crate::source_suite!(@cases $rig;
            every_record_arrives_as_published(1),
            each_slot_keeps_its_order(4),
            a_book_ahead_of_the_acknowledgement_makes_no_duplicate(1),
            gaps_are_normal(1),
            limits_hold(1),
            a_dropped_wait_loses_nothing(2),
            trap15_acknowledged_is_only_what_was_named(1),
            a_token_of_an_earlier_connection_is_ignored(1),
            s6_a_book_beyond_the_end_halts(1),
            s6_a_recreated_topic_halts(1),
            s6_a_recreated_topic_halts_while_reading(1),
            the_end_is_passed_once_all_is_handed_out(3),
            the_end_is_passed_behind_a_gap(1),
            the_end_of_an_emptied_partition_is_passed(1),
            closing_twice_is_fine_and_reading_after_it_is_a_fault(1),
            lag_counts_what_is_left(1),
        );
    };
    // A broker that keeps what is published into a new topic before anybody reads it.
    (anew $rig:path) => {
        $crate::source_suite!(@cases $rig;
            an_accepted_new_topic_is_told_and_read_from_its_beginning(1),
            a_topic_made_anew_while_it_is_read_is_accepted_too(1),
        );
    };
    // A broker without positions: repeats are known by what they carry.
    (repeats $rig:path) => {
        $crate::source_suite!(@cases $rig;
            every_record_arrives_as_published(1),
            each_slot_keeps_its_order(4),
            a_book_ahead_of_the_acknowledgement_makes_no_duplicate(1),
            limits_hold(1),
            a_dropped_wait_loses_nothing(2),
            a_token_of_an_earlier_connection_is_ignored(1),
            the_end_is_passed_once_all_is_handed_out(3),
            closing_twice_is_fine_and_reading_after_it_is_a_fault(1),
            lag_counts_what_is_left(1),
        );
    };
    (@cases $rig:path; $($case:ident($partitions:expr)),* $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                if let Some(rig) = $rig($partitions).await {
                    $crate::source_suite::$case(&rig).await;
                }
            }
        )*
    };
}
