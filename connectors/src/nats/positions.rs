//! Names of streams in the log, and where reading goes on in one: pure, so that every case is a table row in a test.

use std::sync::Arc;

use gravity_model::port::source::{Acceptance, BreakKind, Position, Start};
use gravity_model::{Fault, FaultKind};

/// Builds `STREAM/CREATED`, the time in nanoseconds since 1970: a stream that was deleted and made again has another one.
/// A stream's name holds no slash.
pub(super) fn slot_name(stream: &str, created: i128) -> String {
    format!("{stream}/{created}")
}

/// A stream as the server shows it now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shown<'a> {
    pub stream: &'a str,
    pub created: i128,
    /// Lowest sequence that is left; one behind `last` where nothing is.
    pub first: u64,
    /// Highest sequence that was ever given; 0 for none.
    pub last: u64,
    pub losses: Losses,
}

/// What it means that messages behind our position are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Losses {
    /// Retention or a purge took what we have not read.
    Halt,
    /// The stream keeps one message per subject: a newer one took its place, as in a compacted topic.
    Compaction,
    /// A work queue forgets what was acknowledged.
    Acknowledged,
}

/// Where to begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Begin {
    /// First sequence to read.
    pub next: u64,
    /// False: the log holds nothing of this stream.
    pub known: bool,
    /// Accepted: the stream does not go on from where the log stands, but from this sequence.
    pub broken: Option<(BreakKind, u64)>,
}

/// Finds the stream's slot name and first sequence. `begun`: where an earlier connection of this process began in it, when the
/// log has no record yet.
pub(super) fn resolve(
    source: &str,
    positions: &[(String, Position)],
    shown: Shown<'_>,
    start: Start,
    begun: Option<u64>,
    accept: Acceptance,
) -> Result<(Arc<str>, Begin), Fault> {
    let name = slot_name(shown.stream, shown.created);
    let broken = |code: &'static str, detail: String| {
        Fault::new(FaultKind::HistoryBroken, code, format!("resume source {source}"), detail)
    };
    let at = positions.iter().find(|(slot, _)| *slot == name).map(|(_, position)| position.next);
    let of_same_name =
        |(slot, _): &&(String, Position)| slot.rsplit_once('/').is_some_and(|(stream, _)| stream == shown.stream);
    // Of several former ones the one that was read furthest: the book has no order of its own.
    let former = positions.iter().filter(of_same_name).max_by_key(|(_, position)| position.next);
    if at.is_none()
        && let Some((slot, position)) = former
    {
        if accept.recreated {
            let next = shown.first.max(1);
            let broken = Some((BreakKind::Recreated { former: Arc::from(slot.as_str()), next: position.next }, next));
            return Ok((Arc::from(name), Begin { next, known: false, broken }));
        }
        let detail = format!(
            "stream {} is not the one that was read before: the log stands at sequence {} of {slot}, the server now shows \
             {name}; the stream was deleted and made again (`\"accept_recreated\": true` reads the new one from its \
             beginning), or the hosts lead to another server",
            shown.stream, position.next
        );
        return Err(broken("stream-recreated", detail));
    }
    let known = at.is_some();
    let Some(next) = at.or(begun) else {
        let next = if start == Start::Latest { shown.last + 1 } else { shown.first.max(1) };
        return Ok((Arc::from(name), Begin { next, known, broken: None }));
    };
    if next > shown.last + 1 {
        let detail = format!(
            "the log stands at sequence {next} of stream {}, but the stream ends at {}: the server lost messages that the log \
             holds, and will give their numbers to others",
            shown.stream, shown.last
        );
        return Err(broken("stream-truncated", detail));
    }
    if next < shown.first {
        match shown.losses {
            Losses::Halt if accept.gap => {
                let broken = Some((BreakKind::Gap { from: next, to: shown.first }, shown.first));
                return Ok((Arc::from(name), Begin { next: shown.first, known, broken }));
            }
            Losses::Halt => return Err(broken("stream-trimmed", trimmed(shown.stream, next, shown.first))),
            Losses::Compaction => {
                let (stream, first) = (shown.stream, shown.first);
                tracing::info!(source, stream, next, first, "older messages of the stream were replaced by newer ones");
            }
            Losses::Acknowledged => {}
        }
    }
    Ok((Arc::from(name), Begin { next, known, broken: None }))
}

/// The sentence for messages that went before they were read.
pub(super) fn trimmed(stream: &str, next: u64, first: u64) -> String {
    format!(
        "the log stands at sequence {next} of stream {stream}, but the stream begins at {first}: retention or a purge took \
         {} before they were read (`\"accept_gap\": true` goes on behind them)",
        if first - next == 1 { format!("sequence {next}") } else { format!("sequences {next} to {}", first - 1) }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(
        book: &[(&str, u64)],
        (first, last): (u64, u64),
        losses: Losses,
        start: Start,
        begun: Option<u64>,
    ) -> Result<(u64, bool), String> {
        let book: Vec<_> =
            book.iter().map(|(slot, next)| ((*slot).to_owned(), Position { next: *next, detail: 0 })).collect();
        let shown = Shown { stream: "S", created: 9, first, last, losses };
        resolve("s", &book, shown, start, begun, Acceptance::default())
            .map(|(name, begin)| {
                assert_eq!(&*name, "S/9");
                (begin.next, begin.known)
            })
            .map_err(|fault| {
                assert_eq!(fault.kind, FaultKind::HistoryBroken, "{fault}");
                fault.code.into_owned()
            })
    }

    #[test]
    fn the_book_decides_where_it_knows() {
        let (halt, late) = (Losses::Halt, Start::Latest);
        assert_eq!(look(&[("S/9", 7)], (1, 20), halt, late, None), Ok((7, true)));
        assert_eq!(look(&[("S/9", 7)], (1, 20), halt, late, Some(3)), Ok((7, true)), "the hint is older");
        assert_eq!(look(&[("S/9", 21)], (1, 20), halt, late, None), Ok((21, true)), "at the end");
        assert_eq!(look(&[("S/9", 22)], (1, 20), halt, late, None), Err("stream-truncated".to_owned()));
        assert_eq!(look(&[("S/8", 7)], (1, 20), halt, late, None), Err("stream-recreated".to_owned()));
        assert_eq!(look(&[("S/8", 7), ("S/9", 2)], (1, 20), halt, late, None), Ok((2, true)), "accepted earlier");
        assert_eq!(look(&[("T/8", 7)], (1, 20), halt, late, None), Ok((21, false)), "another stream says nothing");
    }

    #[test]
    fn what_went_unread_halts_unless_the_stream_is_made_so() {
        let early = Start::Earliest;
        assert_eq!(look(&[("S/9", 7)], (8, 20), Losses::Halt, early, None), Err("stream-trimmed".to_owned()));
        assert_eq!(look(&[("S/9", 7)], (21, 20), Losses::Halt, early, None), Err("stream-trimmed".to_owned()), "empty");
        assert_eq!(look(&[("S/9", 7)], (8, 20), Losses::Compaction, early, None), Ok((7, true)));
        assert_eq!(look(&[("S/9", 7)], (8, 20), Losses::Acknowledged, early, None), Ok((7, true)));
        assert_eq!(look(&[], (8, 20), Losses::Halt, early, Some(7)), Err("stream-trimmed".to_owned()));
        let fault = trimmed("S", 20, 60);
        assert!(fault.contains("20 to 59") && fault.contains("begins at 60"), "{fault}");
    }

    #[test]
    fn what_is_accepted_is_told() {
        let look = |slot: &str, next, accept| {
            let book =
                [("S/1".to_owned(), Position { next: 3, detail: 0 }), (slot.to_owned(), Position { next, detail: 0 })];
            let shown = Shown { stream: "S", created: 9, first: 8, last: 20, losses: Losses::Halt };
            let found = resolve("s", &book, shown, Start::Latest, None, accept);
            found.map(|(_, begin)| (begin.next, begin.broken)).map_err(|fault| fault.code.into_owned())
        };
        let (recreated, gap) = (Acceptance { recreated: true, gap: false }, Acceptance { recreated: false, gap: true });
        let anew = BreakKind::Recreated { former: Arc::from("S/8"), next: 7 };
        assert_eq!(look("S/8", 7, recreated), Ok((8, Some((anew, 8)))), "from its beginning, whatever start says");
        assert_eq!(look("S/8", 7, gap), Err("stream-recreated".to_owned()));
        assert_eq!(look("S/9", 7, gap), Ok((8, Some((BreakKind::Gap { from: 7, to: 8 }, 8)))));
        assert_eq!(look("S/9", 7, recreated), Err("stream-trimmed".to_owned()));
        assert_eq!(look("S/9", 8, gap), Ok((8, None)));
    }

    #[test]
    fn start_counts_only_for_a_stream_never_read() {
        assert_eq!(look(&[], (5, 20), Losses::Halt, Start::Earliest, None), Ok((5, false)));
        assert_eq!(look(&[], (5, 20), Losses::Halt, Start::Latest, None), Ok((21, false)));
        assert_eq!(look(&[], (5, 20), Losses::Halt, Start::Latest, Some(9)), Ok((9, false)));
        assert_eq!(look(&[], (0, 0), Losses::Halt, Start::Earliest, None), Ok((1, false)), "a new stream");
    }
}
