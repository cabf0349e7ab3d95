//! What comes again is known, and what only looks like it is not.

use gravity_log::{Batch, MemoryDisk, MemoryLog};
use gravity_model::Event;
use gravity_model::port::source::{Slot, Span};

use super::*;

/// A message: its id, its payload, whether the broker says that it delivered it before.
#[derive(Clone, Copy)]
struct Message<'m>(Option<&'m str>, &'m str, bool);

fn fresh(payload: &str) -> Message<'_> {
    Message(None, payload, false)
}

fn again(payload: &str) -> Message<'_> {
    Message(None, payload, true)
}

/// A source with its log, as ingest drives them.
struct Bench {
    log: Arc<MemoryLog>,
    repeats: Repeats,
    batches: u64,
}

impl Bench {
    fn new() -> Bench {
        let log = MemoryLog::open(&MemoryDisk::default()).expect("an empty log");
        let repeats = Repeats::of("stock", log.clone());
        Bench { log, repeats, batches: 0 }
    }

    /// The process was killed: nothing is left but the log.
    fn killed(&mut self) {
        self.repeats = Repeats::of("stock", self.log.clone());
    }

    /// Takes a batch in until it is durable: `+` new, `=` came before, `!` its id stands for something else.
    async fn take(&mut self, messages: &[Message<'_>]) -> String {
        let mut batch = SourceBatch::default();
        batch.slots.push(Slot { position: None, subject: "key".into(), queue: Some("q".into()) });
        for Message(id, payload, redelivered) in messages {
            let repeat = match id {
                Some(id) => Repeat::ById(batch.store(id.as_bytes())),
                None => Repeat::ByContent { redelivered: *redelivered },
            };
            let (payload, position) = (Some(batch.store(payload.as_bytes())), Position { next: 0, detail: 0 });
            let (key, headers, time, slot) = (None, Span::default(), None, 0);
            batch.records.push(SourceRecord { payload, key, headers, time, slot, position, repeat });
        }
        let marks = self.repeats.look_up(&batch).await.expect("looked up");
        let (mut append, mut memories, mut verdicts) = (Batch::new(), Vec::new(), String::new());
        for index in 0..batch.records.len() {
            let (memory, sign) = match self.repeats.judge(&batch, &marks, index) {
                Verdict::Again => (None, '='),
                Verdict::New(memory) => (memory, '+'),
                Verdict::Reused(memory, why) => {
                    assert_eq!(why.code, REUSED_ID);
                    (Some(memory), '!')
                }
            };
            verdicts.push(sign);
            if let Some(memory) = memory {
                let at = append.len() as u32;
                append.remember(memory.entry(at));
                memories.push((at, memory));
                append.push(&Event::data("e", "stock", b"{}"));
            }
        }
        if !append.is_empty() {
            for (queue, position) in self.repeats.moved() {
                append.set_position("stock", &queue, position);
                self.repeats.noted(&queue, position);
            }
            let ticket = self.log.append(&mut append).expect("appended");
            self.repeats.appended(ticket.range.first, ticket.range.last, &memories);
            ticket.durable().await.expect("durable");
        }
        self.batches += 1;
        self.repeats.handed_over(self.token());
        verdicts
    }

    fn token(&self) -> AckToken {
        AckToken { connection: 1, batch: self.batches }
    }

    /// The broker has read the acknowledgement of all that was taken.
    fn acknowledge(&mut self) {
        self.repeats.acknowledged(self.token());
    }
}

#[tokio::test]
async fn an_id_is_known_whenever_it_comes() {
    let mut bench = Bench::new();
    let (one, other) = (Message(Some("a"), "1", false), Message(Some("a"), "2", false));
    assert_eq!(bench.take(&[one, one, Message(Some("b"), "1", false)]).await, "+=+");
    bench.acknowledge();
    assert_eq!(bench.take(&[one]).await, "=");
    bench.killed();
    assert_eq!(bench.take(&[one, Message(Some("a"), "1", true)]).await, "==");
    // Another payload under the id is not dropped, and is not stored twice either.
    assert_eq!(bench.take(&[other, other, one]).await, "!==");
    bench.killed();
    assert_eq!(bench.take(&[other, one]).await, "==");
}

#[tokio::test]
async fn equal_contents_are_as_many_events_as_were_sent() {
    let mut bench = Bench::new();
    assert_eq!(bench.take(&[fresh("x"), fresh("x"), fresh("y")]).await, "+++");
    bench.killed();
    assert_eq!(bench.take(&[again("x"), again("x"), again("y"), again("x")]).await, "===+");
    // Nothing was acknowledged: killed once more, all of it comes again.
    bench.killed();
    assert_eq!(bench.take(&[again("x"), again("x"), again("y"), again("x"), again("y")]).await, "====+");
}

#[tokio::test]
async fn many_equal_contents_are_found_again() {
    let mut bench = Bench::new();
    let many: Vec<_> = (0..100).map(|_| fresh("x")).collect();
    assert_eq!(bench.take(&many).await, "+".repeat(100));
    bench.killed();
    let many: Vec<_> = (0..101).map(|_| again("x")).collect();
    assert_eq!(bench.take(&many).await, format!("{}+", "=".repeat(100)));
}

#[tokio::test]
async fn what_was_acknowledged_never_swallows_an_equal_one() {
    let mut bench = Bench::new();
    assert_eq!(bench.take(&[fresh("x")]).await, "+");
    bench.acknowledge();
    // The note travels with the next append.
    assert_eq!(bench.take(&[fresh("y")]).await, "+");
    bench.killed();
    assert_eq!(bench.take(&[again("y"), again("x")]).await, "=+", "this x was delivered, and never stored");
    // Its place is free again, and found again.
    bench.killed();
    assert_eq!(bench.take(&[again("y"), again("x"), again("x")]).await, "==+");
}

#[tokio::test]
async fn a_new_record_or_silence_ends_what_may_come_again() {
    let mut bench = Bench::new();
    assert_eq!(bench.take(&[fresh("x"), fresh("y")]).await, "++");
    bench.killed();
    assert_eq!(bench.take(&[again("x"), fresh("z"), again("y")]).await, "=++", "its acknowledgement had been read");
    bench.acknowledge();
    let moved = bench.repeats.moved();
    assert_eq!(moved.len(), 1);
    assert_eq!(moved[0].1.next, bench.log.durable().borrow().get() + 1, "behind everything");
    let mut bench = Bench::new();
    assert_eq!(bench.take(&[fresh("x"), fresh("y")]).await, "++");
    bench.repeats.reset();
    assert_eq!(bench.take(&[again("x")]).await, "=");
    bench.repeats.quiet();
    assert_eq!(bench.take(&[again("y")]).await, "+");
}

/// While redeliveries may still come, an acknowledgement of some of them must not forget the others.
#[tokio::test]
async fn an_acknowledgement_between_redeliveries_keeps_the_rest() {
    let mut bench = Bench::new();
    assert_eq!(bench.take(&[fresh("x"), fresh("y")]).await, "++");
    bench.killed();
    assert_eq!(bench.take(&[again("x")]).await, "=");
    bench.acknowledge();
    assert_eq!(bench.take(&[again("y")]).await, "=");
}
