//! What every event log must do: each ruling is a test of its own, run over sled, the raw twin and the log in memory.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use gravity_log::{
    Batch, Block, DedupeEntry, DedupeKey, EventLog, Health, HotStore, LogError, LogOptions, MemoryDisk, MemoryLog,
    ReadLimits, SequenceRange,
};
use gravity_model::event::Headers;
use gravity_model::port::source::Position;
use gravity_model::{Event, EventKind, HeaderBuf, Sequence};

mod disk;

pub use disk::*;

/// Everything, however much.
pub const ALL: ReadLimits = ReadLimits { events: usize::MAX, bytes: usize::MAX };

/// Where a log lives between openings.
pub trait LogPlace {
    /// Opens it with options that `tweak` changed; a log in memory has none of them.
    fn open(&self, tweak: &dyn Fn(&mut LogOptions)) -> Result<Arc<dyn EventLog>, LogError>;

    /// The directory, where there is one.
    fn directory(&self) -> Option<&Path>;
}

/// A directory with a log in it.
pub struct OnDisk {
    directory: tempfile::TempDir,
    hot: HotStore,
}

impl OnDisk {
    pub fn new(hot: HotStore) -> OnDisk {
        OnDisk { directory: tempfile::tempdir().expect("a temporary directory"), hot }
    }
}

impl LogPlace for OnDisk {
    fn open(&self, tweak: &dyn Fn(&mut LogOptions)) -> Result<Arc<dyn EventLog>, LogError> {
        let mut options = LogOptions::new(self.directory.path());
        options.hot = self.hot;
        tweak(&mut options);
        gravity_log::open(options)
    }

    fn directory(&self) -> Option<&Path> {
        Some(self.directory.path())
    }
}

/// The log in memory.
#[derive(Default)]
pub struct InMemory(MemoryDisk);

impl LogPlace for InMemory {
    fn open(&self, _: &dyn Fn(&mut LogOptions)) -> Result<Arc<dyn EventLog>, LogError> {
        Ok(MemoryLog::open(&self.0)?)
    }

    fn directory(&self) -> Option<&Path> {
        None
    }
}

/// Runs every ruling, each in a place of its own that `make` gives.
pub fn run(make: &dyn Fn() -> Box<dyn LogPlace>) {
    for (name, ruling) in RULINGS {
        eprintln!("{name}");
        ruling(make().as_ref());
    }
}

macro_rules! rulings {
    ($d:tt $all:ident $macro:ident $($name:ident)*) => {
        /// All of them, by name.
        pub const $all: &[(&str, fn(&dyn LogPlace))] = &[$((stringify!($name), $name)),*];

        /// Makes one test of each ruling over the place that the expression makes.
        #[macro_export]
        macro_rules! $macro {
            ($d make:expr) => {
                $(
                    #[test]
                    fn $name() {
                        $d crate::log_suite::$name(&$d make);
                    }
                )*
            };
        }
    };
}

rulings! { $ RULINGS log_rulings
    live_state_is_carried_through_many_generations
    history_gives_the_bytes_that_were_appended
    history_keeps_marks_positions_and_dedupe_keys
    appended_events_come_back_with_every_field
    sequences_are_gapless_and_order_is_the_order_of_calls
    a_ticket_resolves_after_its_events_can_be_read
    tail_readers_are_woken_by_commits
    what_was_acknowledged_is_there_after_a_drop_without_close
    a_closed_log_takes_nothing_and_opens_again
    reads_keep_their_limits_and_give_whole_blocks
    a_sequence_beyond_the_end_is_out_of_range
    block_marks_are_those_of_the_blocks_read
    the_newest_position_of_each_slot_survives
    positions_move_without_events
    the_newest_state_of_each_name_and_key_survives
    dedupe_keys_are_found_with_body_sequence_and_count
    lazy_appends_keep_their_order_and_become_durable_unasked
    each_opening_has_a_larger_fence_and_an_owner_of_its_own
    a_second_opener_is_told_who_holds_the_log
    a_batch_of_many_blocks_is_whole
    an_event_of_many_blocks_is_whole
    an_event_above_the_cap_is_refused_and_the_log_goes_on
    a_refused_batch_is_left_as_it_was
    verify_counts_what_is_there
}

rulings! { $ DISK_RULINGS log_disk_rulings
    a_reader_changes_nothing_and_sees_everything
    a_newer_format_is_refused_by_name
    leftovers_of_an_unfinished_seal_are_collected
    verify_finds_an_edited_byte_and_reads_name_the_range
    dedupe_runs_are_made_again_from_the_segments
    another_hot_store_takes_over
}

pub fn open(place: &dyn LogPlace) -> Arc<dyn EventLog> {
    place.open(&|_| {}).expect("the log opens")
}

/// Appends and waits.
pub fn append(log: &dyn EventLog, events: &[Event<'_>]) -> SequenceRange {
    let mut batch = Batch::new();
    for event in events {
        batch.push(event);
    }
    append_batch(log, batch)
}

pub fn append_batch(log: &dyn EventLog, mut batch: Batch) -> SequenceRange {
    log.append(&mut batch).expect("the log takes the batch").wait().expect("it becomes durable")
}

/// Appends once there is room; the ticket is dropped.
pub fn append_patiently(log: &dyn EventLog, mut batch: Batch) {
    while let Err(error) = log.append(&mut batch) {
        assert_eq!(error, LogError::Busy);
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Every block after `after`.
pub fn blocks(log: &dyn EventLog, after: Sequence) -> Vec<Block> {
    let mut all = Vec::new();
    let mut after = after;
    loop {
        let read = log.read(after, ReadLimits { events: 1000, bytes: 1 << 20 }).expect("the log can be read");
        let Some(last) = read.last() else { return all };
        assert!(last.last() > after, "a read gave nothing new");
        after = last.last();
        all.extend(read);
    }
}

/// Payloads of all data events, as text.
pub fn payloads(log: &dyn EventLog) -> Vec<String> {
    let mut out = Vec::new();
    let mut next = Sequence(1);
    for block in blocks(log, Sequence::ZERO) {
        for recorded in block.iter() {
            assert_eq!(recorded.sequence, next, "sequences are gapless");
            next = next.next();
            if recorded.event.kind == EventKind::Data {
                out.push(String::from_utf8_lossy(recorded.event.payload.unwrap_or(b"")).into_owned());
            }
        }
    }
    out
}

/// `bytes` that do not compress.
pub fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 56) as u8
    })
    .take(bytes)
    .collect()
}

/// Waits until `done`, at most ten seconds.
pub fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < end, "{what} did not happen within 10 s");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub fn appended_events_come_back_with_every_field(place: &dyn LogPlace) {
    let log = open(place);
    let mut headers = HeaderBuf::new();
    headers.push("a", b"1");
    headers.push("A", b"");
    headers.push("a", &[0xff, 0]);
    let full = Event {
        kind: EventKind::Data,
        state: false,
        name: "userCreated",
        source: "orders",
        id: Some("id-1"),
        key: Some(&[0, 0xff]),
        time: Some(-5),
        received: 7,
        traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        headers: headers.as_headers(),
        causation: Some(Sequence(1)),
        actor: Some("anna"),
        payload: Some(b"{\"id\":9007199254740993}"),
    };
    let bare = Event { payload: None, ..Event::data("x", "y", b"") };
    let empty =
        Event { id: Some(""), key: Some(b""), actor: Some(""), traceparent: Some(""), ..Event::data("", "", b"") };
    let raw = Event { kind: EventKind::Undecodable, ..Event::data("", "web", &[0xc3, 0x28, 0]) };
    let events = [full, bare, empty, raw];
    let range = append(log.as_ref(), &events);
    let check = |log: &dyn EventLog| {
        let all = blocks(log, Sequence(range.first.get() - 1));
        let found: Vec<_> = all.iter().flat_map(|block| block.iter()).filter(|r| r.sequence <= range.last).collect();
        assert_eq!(found.len(), events.len());
        for (found, given) in found.iter().zip(&events) {
            assert_eq!(format!("{:?}", found.event), format!("{given:?}"));
        }
        let kept: Vec<_> = found[0].event.headers.iter().collect();
        assert_eq!(kept, [("a", b"1".as_slice()), ("A", b""), ("a", &[0xff, 0])]);
        assert_eq!(found[1].event.headers, Headers::EMPTY);
    };
    check(log.as_ref());
    drop(log);
    check(open(place).as_ref());
}

pub fn sequences_are_gapless_and_order_is_the_order_of_calls(place: &dyn LogPlace) {
    let log = open(place);
    let mut tickets = Vec::new();
    let mut expected = Vec::new();
    for i in 0..300u32 {
        let mut batch = Batch::new();
        for j in 0..=(i % 7) {
            let payload = format!("{i}/{j}");
            batch.push(&Event::data("e", "s", payload.as_bytes()));
            expected.push(payload);
        }
        tickets.push(log.append(&mut batch).expect("taken"));
        assert!(batch.is_empty(), "the contents were taken");
    }
    let mut next = tickets[0].range.first;
    for ticket in tickets {
        assert_eq!(ticket.range.first, next);
        next = ticket.range.last.next();
        ticket.wait().expect("durable");
    }
    assert_eq!(payloads(log.as_ref()), expected);
}

pub fn a_ticket_resolves_after_its_events_can_be_read(place: &dyn LogPlace) {
    let log = open(place);
    for i in 0..20 {
        let range = append(log.as_ref(), &[Event::data("e", "s", format!("{i}").as_bytes())]);
        assert!(*log.durable().borrow() >= range.last);
        let recent = log.read_recent(Sequence(range.first.get() - 1), ALL).expect("the newest blocks are in memory");
        assert!(recent.iter().any(|block| block.event(range.first).is_some()));
    }
}

pub fn tail_readers_are_woken_by_commits(place: &dyn LogPlace) {
    let log = open(place);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut durable = log.durable();
        let before = *durable.borrow_and_update();
        let mut batch = Batch::new();
        batch.push(&Event::data("e", "s", b"1"));
        let ticket = log.append(&mut batch).expect("taken");
        tokio::time::timeout(Duration::from_secs(10), durable.changed()).await.expect("woken").expect("open");
        assert_eq!(*durable.borrow(), before.next());
        ticket.durable().await.expect("durable");
        log.room().await.expect("there is room");
    });
}

pub fn what_was_acknowledged_is_there_after_a_drop_without_close(place: &dyn LogPlace) {
    let mut expected = Vec::new();
    for round in 0..5 {
        let log = open(place);
        assert_eq!(payloads(log.as_ref()), expected, "round {round}");
        for i in 0..40 {
            let payload = format!("{round}/{i}");
            append(log.as_ref(), &[Event::data("e", "s", payload.as_bytes())]);
            expected.push(payload);
        }
        drop(log);
    }
    let log = open(place);
    assert_eq!(payloads(log.as_ref()), expected);
    assert!(log.verify(None, &mut |_| {}).expect("readable").bad.is_empty());
}

pub fn a_closed_log_takes_nothing_and_opens_again(place: &dyn LogPlace) {
    let log = open(place);
    let mut batch = Batch::new();
    batch.push(&Event::data("e", "s", b"1"));
    let ticket = log.append(&mut batch).expect("taken");
    log.close();
    log.close();
    assert!(ticket.wait().is_ok(), "closing commits what waits");
    batch.push(&Event::data("e", "s", b"2"));
    assert_eq!(log.append(&mut batch).expect_err("closed"), LogError::Closed);
    assert_eq!(*log.health().borrow(), Health::Closed);
    let again = open(place);
    assert_eq!(payloads(again.as_ref()), ["1"]);
}

pub fn reads_keep_their_limits_and_give_whole_blocks(place: &dyn LogPlace) {
    let log = open(place);
    for i in 0..30 {
        append(log.as_ref(), &[Event::data("e", "s", format!("{i}").as_bytes()), Event::data("e", "s", b"second")]);
    }
    let check = |log: &dyn EventLog| {
        let last = *log.durable().borrow();
        let one = log.read(Sequence(5), ReadLimits { events: 1, bytes: 1 }).expect("readable");
        assert_eq!(one.len(), 1);
        assert!(one[0].mark.first <= Sequence(6) && one[0].last() >= Sequence(6));
        assert_eq!(one[0].iter().count(), one[0].count as usize);
        let some = log.read(Sequence::ZERO, ReadLimits { events: 10, bytes: usize::MAX }).expect("readable");
        let events: usize = some.iter().map(|block| block.count as usize).sum();
        assert!(events >= 10 && events - (some[some.len() - 1].count as usize) < 10);
        let all = log.read(Sequence::ZERO, ALL).expect("readable");
        assert_eq!(all.last().map(Block::last), Some(last));
        assert!(log.read(last, ALL).expect("readable").is_empty());
        assert!(log.read_recent(last, ALL).is_some_and(|blocks| blocks.is_empty()));
    };
    check(log.as_ref());
    drop(log);
    check(open(place).as_ref());
}

pub fn a_sequence_beyond_the_end_is_out_of_range(place: &dyn LogPlace) {
    let log = open(place);
    let last = *log.durable().borrow();
    assert!(matches!(log.read(last.next(), ALL), Err(LogError::OutOfRange { .. })));
    assert!(matches!(log.block_mark(last.next()), Err(LogError::OutOfRange { .. })));
    assert_eq!(log.read_recent(last.next(), ALL), None, "only the caller of read is told why");
}

pub fn block_marks_are_those_of_the_blocks_read(place: &dyn LogPlace) {
    let log = open(place);
    for i in 0..20 {
        append(log.as_ref(), &[Event::data("e", "s", format!("{i}").as_bytes()), Event::data("e", "s", b"second")]);
    }
    let marks = |log: &dyn EventLog| {
        let mut marks = Vec::new();
        for block in log.read(Sequence::ZERO, ALL).expect("readable").iter().filter(|b| b.last() <= Sequence(41)) {
            for recorded in block.iter() {
                assert_eq!(log.block_mark(recorded.sequence).expect("there"), block.mark);
            }
            marks.push(block.mark);
        }
        marks
    };
    let before = marks(log.as_ref());
    let digests: std::collections::HashSet<_> = before.iter().map(|mark| mark.digest).collect();
    assert_eq!(digests.len(), before.len(), "no two blocks have one digest");
    assert_eq!(log.block_mark(Sequence::ZERO).expect("there"), Default::default());
    drop(log);
    assert_eq!(marks(open(place).as_ref()), before);
}

pub fn the_newest_position_of_each_slot_survives(place: &dyn LogPlace) {
    let log = open(place);
    for i in 1..=10u64 {
        let mut batch = Batch::new();
        batch.push(&Event::data("e", "orders", b"{}"));
        batch.set_position("orders", "c/t/0", Position { next: i, detail: 1 });
        batch.set_position("orders", "c/t/1", Position { next: 5, detail: i });
        batch.set_position("orders", "c/t/1", Position { next: 100 + i, detail: i });
        append_batch(log.as_ref(), batch);
    }
    let expected = vec![
        ("c/t/0".to_owned(), Position { next: 10, detail: 1 }),
        ("c/t/1".to_owned(), Position { next: 110, detail: 10 }),
    ];
    assert_eq!(log.positions("orders"), expected);
    assert!(log.positions("other").is_empty());
    drop(log);
    assert_eq!(open(place).positions("orders"), expected);
}

pub fn positions_move_without_events(place: &dyn LogPlace) {
    let log = open(place);
    let before = *log.durable().borrow();
    let mut batch = Batch::new();
    batch.set_position("orders", "c/t/0", Position { next: 9, detail: 0 });
    let range = append_batch(log.as_ref(), batch);
    assert_eq!((range.first, range.last), (before.next(), before));
    assert_eq!(*log.durable().borrow(), before);
    drop(log);
    let log = open(place);
    assert_eq!(log.positions("orders"), [("c/t/0".to_owned(), Position { next: 9, detail: 0 })]);
    append(log.as_ref(), &[Event::data("e", "s", b"after")]);
    assert_eq!(payloads(log.as_ref()), ["after"]);
}

pub fn the_newest_state_of_each_name_and_key_survives(place: &dyn LogPlace) {
    let log = open(place);
    append(log.as_ref(), &[Event::state("gravity.config", "", Some(b"1")), Event::data("e", "s", b"{}")]);
    append(
        log.as_ref(),
        &[Event::state("gravity.park", "a", Some(b"2")), Event::state("gravity.park", "b", Some(b"3"))],
    );
    let last = append(
        log.as_ref(),
        &[Event::state("gravity.config", "", Some(b"4")), Event::state("gravity.park", "a", None)],
    );
    let state = |log: &dyn EventLog| {
        let mut state = log.state();
        state.retain(|entry| entry.name != gravity_log::OPENED);
        state
    };
    let found = state(log.as_ref());
    let brief: Vec<_> = found.iter().map(|e| (e.name.as_str(), e.key.as_str(), e.payload.as_slice())).collect();
    assert_eq!(brief, [("gravity.park", "b", b"3".as_slice()), ("gravity.config", "", b"4")]);
    assert_eq!(found[1].sequence, last.first);
    drop(log);
    assert_eq!(state(open(place).as_ref()), found);
}

pub fn dedupe_keys_are_found_with_body_sequence_and_count(place: &dyn LogPlace) {
    let log = open(place);
    let key = |n: u8| DedupeKey([n; 16]);
    let mut batch = Batch::new();
    for _ in 0..3 {
        batch.push(&Event::data("e", "s", b"{}"));
    }
    batch.remember(DedupeEntry { key: key(1), body: [11; 16], event: 0, count: 3 });
    batch.remember(DedupeEntry { key: key(2), body: [12; 16], event: 2, count: 1 });
    let range = append_batch(log.as_ref(), batch);
    let check = |log: &dyn EventLog| {
        let found = log.dedupe(&[key(2), key(3), key(1)]).expect("readable");
        let hit = found[0].expect("remembered");
        assert_eq!((hit.body, hit.first, hit.count), ([12; 16], range.first.plus(2), 1));
        assert_eq!(found[1], None);
        let hit = found[2].expect("remembered");
        assert_eq!((hit.body, hit.first, hit.count), ([11; 16], range.first, 3));
    };
    check(log.as_ref());
    drop(log);
    check(open(place).as_ref());
}

pub fn lazy_appends_keep_their_order_and_become_durable_unasked(place: &dyn LogPlace) {
    let log = open(place);
    let mut lazy = Batch::new();
    lazy.push(&Event::data("e", "s", b"lazy"));
    let first = log.append_lazy(lazy).expect("taken");
    let second = append(log.as_ref(), &[Event::data("e", "s", b"asked")]);
    assert_eq!(second.first, first.last.next(), "order of calls");
    assert!(*log.durable().borrow() >= first.last, "prefix-durable");
    let mut lazy = Batch::new();
    lazy.push(&Event::data("e", "s", b"alone"));
    let alone = log.append_lazy(lazy).expect("taken");
    eventually("a lazy append alone becoming durable", || *log.durable().borrow() >= alone.last);
    drop(log);
    assert_eq!(payloads(open(place).as_ref()), ["lazy", "asked", "alone"]);
}

pub fn each_opening_has_a_larger_fence_and_an_owner_of_its_own(place: &dyn LogPlace) {
    let first = open(place).identity().clone();
    assert_eq!(first.fence.0, 1);
    assert_eq!(first.owners, [first.owner]);
    let log = open(place);
    let second = log.identity().clone();
    assert_eq!(second.log_id, first.log_id);
    assert_eq!(second.fence.0, 2);
    assert_ne!(second.owner, first.owner);
    assert_eq!(second.owners, [first.owner, second.owner]);
    let openings: Vec<_> = log.state().into_iter().filter(|e| e.name == gravity_log::OPENED).collect();
    assert_eq!(openings.len(), 2, "each opening is a durable fact of the log");
    let newest: serde_json::Value = serde_json::from_slice(&openings[1].payload).expect("JSON");
    assert_eq!(
        (newest["fence"].as_u64(), newest["owner"].as_str()),
        (Some(2), Some(second.owner.to_string().as_str()))
    );
    assert_eq!(openings[1].key, second.owner.to_string());
}

pub fn a_second_opener_is_told_who_holds_the_log(place: &dyn LogPlace) {
    let log = open(place);
    match place.open(&|_| {}).map(|_| ()) {
        Err(LogError::Locked { pid, .. }) => assert_eq!(pid, std::process::id().to_string()),
        other => panic!("expected Locked, found {other:?}"),
    }
    append(log.as_ref(), &[Event::data("e", "s", b"still here")]);
    log.close();
    open(place);
}

pub fn a_batch_of_many_blocks_is_whole(place: &dyn LogPlace) {
    let log = open(place);
    let mut batch = Batch::new();
    let mut expected = Vec::new();
    for i in 0..6000 {
        let payload = format!("{{\"id\":{i},\"text\":\"{}\"}}", "lorem ipsum ".repeat(i % 60));
        batch.push(&Event::data("e", "s", payload.as_bytes()));
        expected.push(payload);
    }
    batch.set_position("s", "t/0", Position { next: 6000, detail: 0 });
    let range = append_batch(log.as_ref(), batch);
    assert_eq!(range.last.get() - range.first.get(), 5999);
    assert_eq!(payloads(log.as_ref()), expected);
    drop(log);
    let log = open(place);
    assert_eq!(payloads(log.as_ref()), expected);
    assert_eq!(log.positions("s")[0].1.next, 6000);
}

pub fn an_event_of_many_blocks_is_whole(place: &dyn LogPlace) {
    let log = open(place);
    let big = noise(7, 3 << 20);
    let range = append(
        log.as_ref(),
        &[Event::data("e", "s", b"before"), Event::data("e", "s", &big), Event::data("e", "s", b"after")],
    );
    let state = noise(8, 700_000);
    append(log.as_ref(), &[Event::state("gravity.config", "", Some(&state))]);
    let check = |log: &dyn EventLog| {
        let all = blocks(log, range.first);
        let found: Vec<_> = all.iter().flat_map(|b| b.iter()).filter(|r| r.sequence > range.first).collect();
        assert_eq!(found[0].event.payload, Some(big.as_slice()));
        assert_eq!(found[1].event.payload, Some(b"after".as_slice()));
        assert!(log.state().iter().any(|entry| entry.payload == state));
    };
    check(log.as_ref());
    drop(log);
    check(open(place).as_ref());
}

pub fn an_event_above_the_cap_is_refused_and_the_log_goes_on(place: &dyn LogPlace) {
    let log = open(place);
    let huge = vec![0u8; gravity_log::MAX_EVENT_BYTES + 1];
    let mut batch = Batch::new();
    batch.push(&Event::data("e", "s", &huge));
    assert!(matches!(log.append(&mut batch), Err(LogError::TooLarge { .. })));
    append(log.as_ref(), &[Event::data("e", "s", b"next")]);
    assert_eq!(payloads(log.as_ref()), ["next"]);
}

pub fn a_refused_batch_is_left_as_it_was(place: &dyn LogPlace) {
    let log = open(place);
    log.close();
    let mut batch = Batch::new();
    batch.push(&Event::data("e", "s", b"1"));
    batch.push(&Event::data("e", "s", b"2"));
    assert!(log.append(&mut batch).is_err());
    assert_eq!(batch.len(), 2);
    drop(log);
    let log = open(place);
    append_batch(log.as_ref(), batch);
    assert_eq!(payloads(log.as_ref()), ["1", "2"]);
}

pub fn verify_counts_what_is_there(place: &dyn LogPlace) {
    let log = open(place);
    for i in 0..50 {
        append(log.as_ref(), &[Event::data("e", "s", format!("{i}").as_bytes())]);
    }
    let mut progress = 0;
    let found = log.verify(None, &mut |events| progress = events).expect("readable");
    let last = *log.durable().borrow();
    assert_eq!((found.events, found.bad.len(), progress), (last.get(), 0, last.get()));
    assert_eq!(found.head, log.block_mark(last).expect("there").digest);
    let part = log.verify(Some(SequenceRange { first: Sequence(10), last: Sequence(12) }), &mut |_| {});
    let part = part.expect("readable");
    assert!(part.events >= 3 && part.events < 20, "{} events", part.events);
}

/// Options under which generations roll after a few blocks.
pub fn tiny(options: &mut LogOptions) {
    options.generation_bytes = 24 << 10;
    options.block_bytes = 4 << 10;
    options.ring_bytes = 8 << 10;
    options.linger = Duration::from_micros(200);
}

/// Fills `generations` generations of a tiny log, and gives the payloads.
pub fn fill(log: &dyn EventLog, seed: u64, generations: u64) -> Vec<String> {
    let mut expected = Vec::new();
    for i in 0..generations * 8 {
        let mut batch = Batch::new();
        for j in 0..6 {
            let payload: String =
                noise(seed * 1_000_000 + i * 10 + j, 400).iter().map(|b| format!("{b:02x}")).collect();
            let headers = if j == 3 { Some(("h", payload.as_bytes())) } else { None };
            let mut buf = HeaderBuf::new();
            if let Some((name, value)) = headers {
                buf.push(name, value);
                buf.push(name, b"twice");
            }
            let key = format!("k{j}");
            let event = Event {
                id: Some(&payload[..8]),
                key: Some(key.as_bytes()),
                received: i as i64,
                time: (j == 2).then_some(-1),
                causation: (j == 4).then_some(Sequence(1)),
                headers: buf.as_headers(),
                ..Event::data("e", "s", payload.as_bytes())
            };
            batch.push(&event);
            expected.push(payload);
        }
        batch.set_position("s", &format!("t/{}", i % 3), Position { next: seed * 1000 + i, detail: 0 });
        let mut key = [0; 16];
        key[..8].copy_from_slice(&(seed * 1000 + i).to_be_bytes());
        key[8..].copy_from_slice(&(i * 7919).to_be_bytes());
        batch.remember(DedupeEntry { key: DedupeKey(key), body: [i as u8; 16], event: 1, count: 5 });
        append_batch(log, batch);
    }
    expected
}

/// Waits until at most one generation is hot and gives the number of segments.
pub fn settled(place: &dyn LogPlace, log: &dyn EventLog) -> u32 {
    if place.directory().is_none() {
        return 0;
    }
    eventually("sealing what is full", || log.stat().hot_generations <= 1);
    log.stat().segments
}

pub fn live_state_is_carried_through_many_generations(place: &dyn LogPlace) {
    let log = place.open(&tiny).expect("the log opens");
    append(log.as_ref(), &[Event::state("gravity.config", "", Some(b"the config"))]);
    append(log.as_ref(), &[Event::state("gravity.park", "gone", Some(b"x"))]);
    let mut batch = Batch::new();
    batch.set_position("once", "t/0", Position { next: 77, detail: 3 });
    append_batch(log.as_ref(), batch);
    let mut expected = fill(log.as_ref(), 1, 6);
    append(log.as_ref(), &[Event::state("gravity.park", "gone", None)]);
    expected.extend(fill(log.as_ref(), 2, 6));
    let segments = settled(place, log.as_ref());
    assert!(place.directory().is_none() || segments >= 8, "{segments} segments");
    let check = |log: &dyn EventLog| {
        let mut state = log.state();
        state.retain(|entry| entry.name != gravity_log::OPENED);
        assert_eq!(state.len(), 1);
        assert_eq!((state[0].payload.as_slice(), state[0].sequence), (b"the config".as_slice(), Sequence(2)));
        assert_eq!(log.positions("once"), [("t/0".to_owned(), Position { next: 77, detail: 3 })]);
        assert_eq!(log.positions("s").len(), 3);
        assert_eq!(payloads(log), expected);
    };
    check(log.as_ref());
    drop(log);
    let log = place.open(&tiny).expect("the log opens");
    assert_eq!(log.identity().owners.len(), 2);
    check(log.as_ref());
}

pub fn history_gives_the_bytes_that_were_appended(place: &dyn LogPlace) {
    let log = place.open(&tiny).expect("the log opens");
    let mut kept: Vec<Block> = Vec::new();
    let mut after = Sequence::ZERO;
    for round in 0..6 {
        fill(log.as_ref(), round, 2);
        if round == 3 {
            append(
                log.as_ref(),
                &[Event::data("big", "s", &noise(9, 600_000)), Event::state("gravity.x", "k", Some(b"y"))],
            );
            let mut batch = Batch::new();
            for i in 0..200u64 {
                batch.push(&Event::data("many", "s", &noise(i, 3000)));
            }
            append_batch(log.as_ref(), batch);
        }
        let new = blocks(log.as_ref(), after);
        after = new.last().map_or(after, Block::last);
        kept.extend(new);
    }
    settled(place, log.as_ref());
    assert_eq!(blocks(log.as_ref(), Sequence::ZERO), kept, "block for block, byte for byte");
    let found = log.verify(None, &mut |_| {}).expect("readable");
    assert_eq!((found.bad.len(), found.events), (0, after.get()));
    // Small reads from the middle of history.
    for from in (0..after.get()).step_by(37) {
        let read = log.read(Sequence(from), ReadLimits { events: 1, bytes: 1 }).expect("readable");
        assert!(read[0].event(Sequence(from + 1)).is_some());
    }
    drop(log);
    let log = place.open(&tiny).expect("the log opens");
    let again = blocks(log.as_ref(), Sequence::ZERO);
    assert_eq!(again[..kept.len()], kept[..]);
    assert!(log.verify(None, &mut |_| {}).expect("readable").bad.is_empty());
}

pub fn history_keeps_marks_positions_and_dedupe_keys(place: &dyn LogPlace) {
    let log = place.open(&tiny).expect("the log opens");
    fill(log.as_ref(), 5, 20);
    let mut marks = Vec::new();
    for sequence in (1..log.durable().borrow().get()).step_by(11) {
        marks.push((Sequence(sequence), log.block_mark(Sequence(sequence)).expect("there")));
    }
    let check = |log: &dyn EventLog| {
        for (sequence, mark) in &marks {
            assert_eq!(log.block_mark(*sequence).expect("there"), *mark);
        }
        for i in 0..160u64 {
            let mut key = [0; 16];
            key[..8].copy_from_slice(&(5000 + i).to_be_bytes());
            key[8..].copy_from_slice(&(i * 7919).to_be_bytes());
            let hit = log.dedupe(&[DedupeKey(key)]).expect("readable")[0].expect("still in the window");
            assert_eq!((hit.body, hit.count), ([i as u8; 16], 5));
            let holder = log.read(Sequence(hit.first.get() - 1), ReadLimits { events: 1, bytes: 1 }).expect("readable");
            assert_eq!(holder[0].event(hit.first).expect("there").event.received, i as i64);
        }
        let mut unknown = [9; 16];
        unknown[0] = 1;
        assert_eq!(log.dedupe(&[DedupeKey(unknown)]).expect("readable"), [None]);
    };
    settled(place, log.as_ref());
    check(log.as_ref());
    drop(log);
    let log = place.open(&tiny).expect("the log opens");
    settled(place, log.as_ref());
    check(log.as_ref());
}
