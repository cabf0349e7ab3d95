//! The cases: each says in its name what a source must do.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gravity_model::FaultKind;
use gravity_model::port::source::{Acceptance, AckToken, BatchLimits, BreakKind, PositionBook, Source, Start};

use super::{Book, PATIENCE, Published, SourceRig, WIDE, expect_silence, message, messages, read_to_fault, read_until};

async fn connected(rig: &dyn SourceRig, book: &Arc<Book>, start: Start) -> Box<dyn Source> {
    let mut source = rig.source();
    connect(&mut *source, book, start).await;
    source
}

/// Connects as the engine does: again after a fault that passes.
async fn connect(source: &mut dyn Source, book: &Arc<Book>, start: Start) {
    let positions: Arc<dyn PositionBook> = Arc::clone(book) as Arc<dyn PositionBook>;
    let until = Instant::now() + PATIENCE;
    loop {
        match source.connect(Arc::clone(&positions), start).await {
            Ok(()) => return,
            // A broker that lets one reader in at a time may still hold the one before.
            Err(fault) if fault.kind == FaultKind::Transient && Instant::now() < until => {}
            Err(fault) => panic!("connect: {fault}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The next record of a topic with one partition that stands at the book's end.
fn only_slot(book: &Book) -> String {
    let positions = book.positions();
    assert_eq!(positions.len(), 1, "one slot expected: {positions:?}");
    positions[0].0.clone()
}

pub async fn every_record_arrives_as_published(rig: &dyn SourceRig) {
    let odd = rig.odd_messages();
    rig.publish(0, odd.clone()).await;
    let book = Arc::new(Book::default());
    let mut source = connected(rig, &book, Start::Earliest).await;
    read_until(&mut *source, &book, odd.len(), true).await.expect("read");
    source.close().await;
    let taken: Vec<Published> = book.taken().into_iter().map(|taken| taken.message).collect();
    assert_eq!(taken.len(), odd.len());
    for (taken, published) in taken.iter().zip(&odd) {
        assert!(rig.same(taken, published), "{taken:?} instead of {published:?}");
    }
}

pub async fn each_slot_keeps_its_order(rig: &dyn SourceRig) {
    let mut expected = BTreeMap::new();
    for partition in 0..4 {
        rig.publish(partition, messages(&format!("p{partition}"), 500)).await;
        let payloads = (0..500).map(|index| format!("p{partition}-{index}"));
        expected.entry(rig.slot_number(partition)).or_insert_with(Vec::new).extend(payloads);
    }
    let book = Arc::new(Book::default());
    let mut source = connected(rig, &book, Start::Earliest).await;
    read_until(&mut *source, &book, 2000, true).await.expect("read");
    source.close().await;
    let mut found: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for (taken, payload) in book.taken().iter().zip(book.payloads()) {
        found.entry(rig.partition_of(&taken.slot)).or_default().push(payload);
    }
    assert_eq!(found, expected);
    assert_eq!(book.duplicates(), 0);
}

/// O8: what was acknowledged to the broker never decides; the book does.
pub async fn reading_goes_on_where_the_book_stands(rig: &dyn SourceRig) {
    rig.publish(0, messages("a", 100)).await;
    rig.publish(1, messages("b", 100)).await;
    let book = Arc::new(Book::default());
    let mut source = connected(rig, &book, Start::Earliest).await;
    read_until(&mut *source, &book, 200, true).await.expect("read");
    source.close().await;
    // Everything is acknowledged, but the log lost its newest part: it must be read again.
    let older = Arc::new(book.reopened());
    for (slot, _) in book.positions() {
        older.set(&slot, rig.first_offset() + if rig.partition_of(&slot) == 0 { 40 } else { 100 });
    }
    let mut expected: Vec<String> = (40..100).map(|index| format!("a-{index}")).collect();
    if rig.slot_number(1) == rig.slot_number(0) {
        expected.extend((0..100).map(|index| format!("b-{index}")));
    }
    let mut source = connected(rig, &older, Start::Latest).await;
    read_until(&mut *source, &older, expected.len(), true).await.expect("read again");
    expect_silence(&mut *source, &older, Duration::from_millis(500)).await;
    source.close().await;
    assert_eq!(older.payloads(), expected);
}

pub async fn a_book_ahead_of_the_acknowledgement_makes_no_duplicate(rig: &dyn SourceRig) {
    rig.publish(0, messages("a", 100)).await;
    let book = Arc::new(Book::default());
    let mut source = connected(rig, &book, Start::Earliest).await;
    // Durable, but the engine died before it could acknowledge.
    read_until(&mut *source, &book, 100, false).await.expect("read");
    drop(source);
    let book = Arc::new(book.reopened());
    let mut source = connected(rig, &book, Start::Earliest).await;
    rig.publish(0, messages("b", 5)).await;
    read_until(&mut *source, &book, 5, true).await.expect("read on");
    source.close().await;
    assert_eq!(book.payloads(), ["b-0", "b-1", "b-2", "b-3", "b-4"]);
    // A broker with positions is asked for the right one; nothing is filtered afterwards.
    assert_eq!(book.duplicates(), if rig.delivers_again() { 100 } else { 0 });
}

pub async fn o2_trap25_a_new_consumer_reads_on_without_loss(rig: &dyn SourceRig) {
    let book = Arc::new(Book::default());
    rig.publish(0, messages("a", 1000)).await;
    let mut source = connected(rig, &book, Start::Earliest).await;
    read_until(&mut *source, &book, 1000, true).await.expect("read");
    source.close().await;
    // Whatever the broker remembers of us is set back: as if its consumer had been deleted.
    rig.acknowledge_elsewhere(0, 0).await;
    rig.publish(0, messages("b", 1000)).await;
    let mut source = connected(rig, &book, Start::Earliest).await;
    read_until(&mut *source, &book, 2000, true).await.expect("read on");
    source.close().await;
    let distinct: std::collections::BTreeSet<_> = book.payloads().into_iter().collect();
    assert_eq!((book.len(), distinct.len()), (2000, 2000));
}

pub async fn gaps_are_normal(rig: &dyn SourceRig) {
    rig.publish(0, messages("a", 10)).await;
    rig.leave_gap(0).await;
    rig.publish(0, messages("b", 10)).await;
    let book = Arc::new(Book::default());
    let mut source = connected(rig, &book, Start::Earliest).await;
    read_until(&mut *source, &book, 20, true).await.expect("read over the gap");
    source.close().await;
    let taken = book.taken();
    assert!(taken[10].offset > taken[9].offset + 1, "there is a gap: {} then {}", taken[9].offset, taken[10].offset);
    assert_eq!(book.payloads()[9..11], ["a-9", "b-0"]);
}

pub async fn limits_hold(rig: &dyn SourceRig) {
    let big = Published { payload: Some(vec![b'x'; 50_000]), ..Published::default() };
    let mut all = messages("a", 40);
    all.insert(20, big);
    rig.publish(0, all).await;
    let book = Arc::new(Book::default());
    let mut source = connected(rig, &book, Start::Earliest).await;
    let limits = BatchLimits { max_records: 7, max_bytes: 1000, max_wait: Duration::from_millis(100) };
    let until = Instant::now() + PATIENCE;
    while book.len() < 41 {
        let batch = source.next_batch(limits).await.expect("read");
        let bytes = |index: usize| {
            let record = &batch.records[index];
            [record.payload, record.key, Some(record.headers)]
                .iter()
                .flatten()
                .map(|span| span.len as usize)
                .sum::<usize>()
        };
        let total: usize = (0..batch.records.len()).map(bytes).sum();
        assert!(batch.records.len() <= 7, "{} records", batch.records.len());
        assert!(total <= 1000 || batch.records.len() == 1, "{total} bytes in {} records", batch.records.len());
        book.take(&batch);
        if !batch.records.is_empty() {
            source.acknowledge(batch.token).await.expect("acknowledge a part");
        }
        assert!(Instant::now() < until, "{} of 41", book.len());
    }
    source.close().await;
    assert_eq!(book.duplicates(), 0);
}

pub async fn a_dropped_wait_loses_nothing(rig: &dyn SourceRig) {
    let book = Arc::new(Book::default());
    let mut source = connected(rig, &book, Start::Earliest).await;
    let publishing = async {
        for round in 0..20 {
            rig.publish(round % 2, messages(&format!("r{round}"), 25)).await;
        }
    };
    let reading = async {
        let until = Instant::now() + PATIENCE;
        while book.len() < 500 {
            // The caller gives up long before the source would: again and again.
            if let Ok(batch) = tokio::time::timeout(Duration::from_micros(300), source.next_batch(WIDE)).await {
                book.take(&batch.expect("read"));
            }
            assert!(Instant::now() < until, "{} of 500", book.len());
        }
    };
    tokio::join!(publishing, reading);
    source.close().await;
    assert_eq!((book.len(), book.duplicates()), (500, 0));
}

pub async fn trap15_acknowledged_is_only_what_was_named(rig: &dyn SourceRig) {
    if !rig.keeps_acknowledgements() {
        println!("skipped: this broker keeps no acknowledgements");
        return;
    }
    rig.publish(0, messages("a", 30)).await;
    let book = Arc::new(Book::default());
    let mut source = connected(rig, &book, Start::Earliest).await;
    let limits = BatchLimits { max_records: 10, ..WIDE };
    let mut ends = Vec::new();
    let until = Instant::now() + PATIENCE;
    while book.len() < 30 {
        let batch = source.next_batch(limits).await.expect("read");
        if let Some(last) = batch.records.last() {
            ends.push((batch.token, last.position.next));
        }
        book.take(&batch);
        assert!(Instant::now() < until, "{} of 30", book.len());
    }
    let (token, named) = ends[ends.len() - 2];
    source.acknowledge(token).await.expect("acknowledge");
    source.close().await;
    assert_eq!(rig.acknowledged(0).await, named, "after close the broker knows what is durable, and no more");
}

pub async fn a_token_of_an_earlier_connection_is_ignored(rig: &dyn SourceRig) {
    if !rig.keeps_acknowledgements() {
        println!("skipped: this broker keeps no acknowledgements");
        return;
    }
    rig.publish(0, messages("a", 10)).await;
    let book = Arc::new(Book::default());
    let mut source = connected(rig, &book, Start::Earliest).await;
    let mut token = AckToken::default();
    let until = Instant::now() + PATIENCE;
    while book.len() < 10 {
        let batch = source.next_batch(WIDE).await.expect("read");
        if !batch.records.is_empty() {
            token = batch.token;
        }
        book.take(&batch);
        assert!(Instant::now() < until, "{} of 10", book.len());
    }
    let empty = Arc::new(Book::default());
    connect(&mut *source, &empty, Start::Earliest).await;
    read_until(&mut *source, &empty, 10, false).await.expect("read again");
    source.acknowledge(token).await.expect("an old token is no error");
    source.close().await;
    assert_eq!(rig.acknowledged(0).await, rig.first_offset(), "S10: a token dies with its connection");
}

pub async fn s5_trap9_a_new_partition_starts_at_its_beginning(rig: &dyn SourceRig) {
    rig.publish(0, messages("old", 3)).await;
    let book = Arc::new(Book::default());
    let mut source = connected(rig, &book, Start::Latest).await;
    wait_for_start(rig, &mut *source, &book).await;
    rig.grow(2).await;
    rig.publish(1, messages("new", 50)).await;
    let before = book.len();
    read_until(&mut *source, &book, before + 50, true).await.expect("read the new partition");
    source.close().await;
    let new: Vec<String> = (0..50).map(|index| format!("new-{index}")).collect();
    assert_eq!(book.payloads()[before..], new);
    // Also when it grows while nobody reads.
    rig.grow(3).await;
    rig.publish(2, messages("late", 20)).await;
    let mut source = connected(rig, &book, Start::Latest).await;
    let before = book.len();
    read_until(&mut *source, &book, before + 20, true).await.expect("read what grew meanwhile");
    source.close().await;
}

/// A `latest` source has begun somewhere: publishes until the first record comes through.
async fn wait_for_start(rig: &dyn SourceRig, source: &mut dyn Source, book: &Arc<Book>) {
    let until = Instant::now() + PATIENCE;
    while book.is_empty() {
        rig.publish(0, vec![message("probe", "probe")]).await;
        book.take(
            &source.next_batch(BatchLimits { max_wait: Duration::from_millis(300), ..WIDE }).await.expect("read"),
        );
        assert!(Instant::now() < until, "no record after a latest start");
    }
    assert!(book.payloads().iter().all(|payload| payload == "probe"), "{:?}", book.payloads());
}

pub async fn latest_skips_what_was_there_and_nothing_else(rig: &dyn SourceRig) {
    rig.publish(0, messages("old", 10)).await;
    let book = Arc::new(Book::default());
    let mut source = connected(rig, &book, Start::Latest).await;
    let until = Instant::now() + PATIENCE;
    while source.lag().await != Some(0) {
        expect_silence(&mut *source, &book, Duration::from_millis(100)).await;
        assert!(Instant::now() < until, "a latest start was never begun");
    }
    // Closed before any record came: what is published now is after the start, so the next connection must have it.
    source.close().await;
    rig.publish(0, messages("between", 10)).await;
    connect(&mut *source, &book, Start::Latest).await;
    read_until(&mut *source, &book, 10, true).await.expect("read on");
    source.close().await;
    assert_eq!(book.payloads(), (0..10).map(|index| format!("between-{index}")).collect::<Vec<_>>());
}

pub async fn s6_retention_past_the_book_halts(rig: &dyn SourceRig) {
    rig.publish(0, messages("a", 100)).await;
    let book = Arc::new(Book::default());
    let mut source = connected(rig, &book, Start::Earliest).await;
    read_until(&mut *source, &book, 100, true).await.expect("read");
    source.close().await;
    let slot = only_slot(&book);
    let older = Arc::new(book.reopened());
    older.set(&slot, 20);
    rig.trim(0, 60).await;
    let mut source = rig.source();
    let fault = match source.connect(Arc::clone(&older) as Arc<dyn PositionBook>, Start::Earliest).await {
        Ok(()) => read_to_fault(&mut *source, &older).await,
        Err(fault) => fault,
    };
    source.close().await;
    assert_eq!(fault.kind, FaultKind::HistoryBroken, "{fault}");
    assert!(fault.detail.contains("20") && fault.detail.contains("60"), "both offsets are named: {fault}");
    assert!(older.is_empty(), "nothing may be skipped: {:?}", older.payloads());
}

pub async fn an_accepted_gap_is_told_and_reading_goes_on_behind_it(rig: &dyn SourceRig) {
    rig.publish(0, messages("a", 100)).await;
    let book = Arc::new(Book::default());
    let mut source = connected(rig, &book, Start::Earliest).await;
    read_until(&mut *source, &book, 100, true).await.expect("read");
    source.close().await;
    let older = Arc::new(book.reopened());
    older.set(&only_slot(&book), 20);
    rig.trim(0, 60).await;
    let mut source = rig.accepting(Acceptance { gap: true, ..Acceptance::default() });
    connect(&mut *source, &older, Start::Earliest).await;
    let rest = 100 + usize::try_from(rig.first_offset()).expect("small") - 60;
    read_until(&mut *source, &older, rest, true).await.expect("read behind the gap");
    source.close().await;
    let breaks = older.breaks();
    assert_eq!(breaks.len(), 1, "{breaks:?}");
    assert_eq!((breaks[0].0, &breaks[0].1.kind), (0, &BreakKind::Gap { from: 20, to: 60 }), "{breaks:?}");
    assert_eq!(older.payloads(), book.payloads()[100 - rest..]);
    // It is over: the next connection finds nothing to tell.
    let next = Arc::new(older.reopened());
    connect(&mut *source, &next, Start::Earliest).await;
    expect_silence(&mut *source, &next, Duration::from_millis(500)).await;
    source.close().await;
    assert!(next.breaks().is_empty(), "{:?}", next.breaks());
}

pub async fn an_accepted_new_topic_is_told_and_read_from_its_beginning(rig: &dyn SourceRig) {
    rig.publish(0, messages("a", 10)).await;
    let book = Arc::new(Book::default());
    let mut source = connected(rig, &book, Start::Earliest).await;
    read_until(&mut *source, &book, 10, true).await.expect("read");
    source.close().await;
    let former = only_slot(&book);
    rig.recreate().await;
    // As long as before: where the former topic's commits lead, a reader would find nothing.
    rig.publish(0, messages("b", 10)).await;
    let mut source = rig.accepting(Acceptance { recreated: true, ..Acceptance::default() });
    connect(&mut *source, &book, Start::Earliest).await;
    read_until(&mut *source, &book, 20, true).await.expect("read the new one");
    source.close().await;
    expect_former(&book, &former, rig);
    assert_eq!(book.payloads()[10..], (0..10).map(|index| format!("b-{index}")).collect::<Vec<_>>());
}

pub async fn a_topic_made_anew_while_it_is_read_is_accepted_too(rig: &dyn SourceRig) {
    rig.publish(0, messages("a", 10)).await;
    let book = Arc::new(Book::default());
    let mut source = rig.accepting(Acceptance { recreated: true, ..Acceptance::default() });
    connect(&mut *source, &book, Start::Earliest).await;
    read_until(&mut *source, &book, 10, true).await.expect("read");
    let former = only_slot(&book);
    rig.recreate().await;
    rig.publish(0, messages("b", 50)).await;
    let until = Instant::now() + PATIENCE;
    while let Err(fault) = read_until(&mut *source, &book, 60, true).await {
        assert_ne!(fault.kind, FaultKind::HistoryBroken, "{fault}");
        assert!(Instant::now() < until, "{fault}");
        while let Err(fault) = source.connect(Arc::clone(&book) as Arc<dyn PositionBook>, Start::Earliest).await {
            assert_ne!(fault.kind, FaultKind::HistoryBroken, "{fault}");
            assert!(Instant::now() < until, "{fault}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    source.close().await;
    expect_former(&book, &former, rig);
    assert_eq!(book.payloads()[10..], (0..50).map(|index| format!("b-{index}")).collect::<Vec<_>>());
}

/// One break: ten records of `former` came before it.
fn expect_former(book: &Book, former: &str, rig: &dyn SourceRig) {
    let breaks = book.breaks();
    assert_eq!(breaks.len(), 1, "{breaks:?}");
    let expected = BreakKind::Recreated { former: Arc::from(former), next: rig.first_offset() + 10 };
    assert_eq!((breaks[0].0, &breaks[0].1.kind), (10, &expected), "{breaks:?}");
}

pub async fn s6_a_book_beyond_the_end_halts(rig: &dyn SourceRig) {
    rig.publish(0, messages("a", 30)).await;
    let book = Arc::new(Book::default());
    let mut source = connected(rig, &book, Start::Earliest).await;
    read_until(&mut *source, &book, 30, true).await.expect("read");
    source.close().await;
    let ahead = Arc::new(book.reopened());
    ahead.set(&only_slot(&book), 500);
    let mut source = rig.source();
    let fault = match source.connect(Arc::clone(&ahead) as Arc<dyn PositionBook>, Start::Earliest).await {
        Ok(()) => read_to_fault(&mut *source, &ahead).await,
        Err(fault) => fault,
    };
    source.close().await;
    assert_eq!(fault.kind, FaultKind::HistoryBroken, "{fault}");
    assert!(fault.detail.contains("500") && fault.detail.contains("30"), "both offsets are named: {fault}");
}

pub async fn s6_a_recreated_topic_halts(rig: &dyn SourceRig) {
    rig.publish(0, messages("a", 10)).await;
    let book = Arc::new(Book::default());
    let mut source = connected(rig, &book, Start::Earliest).await;
    read_until(&mut *source, &book, 10, true).await.expect("read");
    source.close().await;
    rig.recreate().await;
    // Longer than before: no offset tells, only the topic's id.
    rig.publish(0, messages("b", 50)).await;
    let mut source = rig.source();
    let fault = match source.connect(Arc::clone(&book) as Arc<dyn PositionBook>, Start::Earliest).await {
        Ok(()) => read_to_fault(&mut *source, &book).await,
        Err(fault) => fault,
    };
    source.close().await;
    assert_eq!(fault.kind, FaultKind::HistoryBroken, "{fault}");
    assert_eq!(book.len(), 10, "nothing of the new topic was taken: {:?}", book.payloads());
}

pub async fn s6_a_recreated_topic_halts_while_reading(rig: &dyn SourceRig) {
    rig.publish(0, messages("a", 10)).await;
    let book = Arc::new(Book::default());
    let mut source = connected(rig, &book, Start::Earliest).await;
    read_until(&mut *source, &book, 10, true).await.expect("read");
    rig.recreate().await;
    rig.publish(0, messages("b", 50)).await;
    let fault = read_to_fault(&mut *source, &book).await;
    // A topic that is gone for a moment is told as such; whoever connects again then sees that it is another one.
    let fault = if fault.kind == FaultKind::HistoryBroken {
        fault
    } else {
        assert!(matches!(fault.kind, FaultKind::Misconfigured | FaultKind::Disconnected), "{fault}");
        match source.connect(Arc::clone(&book) as Arc<dyn PositionBook>, Start::Earliest).await {
            Ok(()) => read_to_fault(&mut *source, &book).await,
            Err(fault) => fault,
        }
    };
    source.close().await;
    assert_eq!(fault.kind, FaultKind::HistoryBroken, "{fault}");
    assert_eq!(book.len(), 10, "nothing of the new topic was taken: {:?}", book.payloads());
}

async fn pass_end(source: &mut dyn Source, book: &Arc<Book>) {
    let until = Instant::now() + PATIENCE;
    while !source.has_passed_end().await.expect("ask for the end") {
        book.take(&source.next_batch(WIDE).await.expect("read"));
        assert!(Instant::now() < until, "the end was not passed; {} records", book.len());
    }
}

/// One partition stays empty.
pub async fn the_end_is_passed_once_all_is_handed_out(rig: &dyn SourceRig) {
    rig.publish(0, messages("a", 3000)).await;
    rig.publish(1, messages("b", 1)).await;
    let book = Arc::new(Book::default());
    let mut source = connected(rig, &book, Start::Earliest).await;
    source.note_end().await.expect("note the end");
    assert!(!source.has_passed_end().await.expect("ask"), "nothing was handed out yet");
    pass_end(&mut *source, &book).await;
    assert_eq!(book.len(), 3001, "passed exactly when the last record was handed out");
    // At the end already, and after a restart.
    source.note_end().await.expect("note the end");
    pass_end(&mut *source, &book).await;
    source.close().await;
    let book = Arc::new(book.reopened());
    let mut source = connected(rig, &book, Start::Earliest).await;
    source.note_end().await.expect("note the end");
    pass_end(&mut *source, &book).await;
    source.close().await;
    assert!(book.is_empty());
}

/// The last offsets hold no record: transaction markers.
pub async fn the_end_is_passed_behind_a_gap(rig: &dyn SourceRig) {
    rig.publish(0, messages("a", 5)).await;
    rig.leave_gap(0).await;
    let book = Arc::new(Book::default());
    let mut source = connected(rig, &book, Start::Earliest).await;
    source.note_end().await.expect("note the end");
    pass_end(&mut *source, &book).await;
    source.close().await;
    assert_eq!(book.len(), 5);
    let book = Arc::new(book.reopened());
    let mut source = connected(rig, &book, Start::Earliest).await;
    source.note_end().await.expect("note the end");
    pass_end(&mut *source, &book).await;
    source.close().await;
}

/// Retention took everything: the end is a number, but no record leads to it.
pub async fn the_end_of_an_emptied_partition_is_passed(rig: &dyn SourceRig) {
    rig.publish(0, messages("a", 20)).await;
    rig.trim(0, rig.first_offset() + 20).await;
    let book = Arc::new(Book::default());
    let mut source = connected(rig, &book, Start::Earliest).await;
    source.note_end().await.expect("note the end");
    pass_end(&mut *source, &book).await;
    source.close().await;
    assert!(book.is_empty());
}

pub async fn closing_twice_is_fine_and_reading_after_it_is_a_fault(rig: &dyn SourceRig) {
    let book = Arc::new(Book::default());
    let mut source = connected(rig, &book, Start::Earliest).await;
    source.close().await;
    source.close().await;
    let fault = source.next_batch(WIDE).await.expect_err("closed");
    assert_eq!(fault.kind, FaultKind::Closed, "{fault}");
    connect(&mut *source, &book, Start::Earliest).await;
    rig.publish(0, messages("a", 1)).await;
    read_until(&mut *source, &book, 1, true).await.expect("read after close and connect");
    source.close().await;
}

pub async fn lag_counts_what_is_left(rig: &dyn SourceRig) {
    rig.publish(0, messages("a", 100)).await;
    let book = Arc::new(Book::default());
    let mut source = connected(rig, &book, Start::Earliest).await;
    let limits = BatchLimits { max_records: 10, ..WIDE };
    let until = Instant::now() + PATIENCE;
    while book.is_empty() {
        book.take(&source.next_batch(limits).await.expect("read"));
        assert!(Instant::now() < until);
    }
    let left = 100 - book.len() as u64;
    assert_eq!(source.lag().await, Some(left));
    read_until(&mut *source, &book, 100, true).await.expect("read");
    assert_eq!(source.lag().await, Some(0));
    source.close().await;
}
