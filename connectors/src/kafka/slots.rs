//! Names of partitions in the log, and where reading goes on in one: pure, so that every case is a table row in a test.

use std::sync::Arc;

use gravity_model::port::source::{Position, Start};
use gravity_model::{Fault, FaultKind};

use super::identity::RECREATED;

/// Builds `CLUSTER/TOPIC/PARTITION`, with `/TOPIC_ID` behind it where the broker gives ids. Neither a topic nor a cluster id
/// that Kafka makes holds a slash; one that was set by hand is escaped.
pub fn slot_name(cluster: &str, topic: &str, partition: i32, topic_id: Option<&str>) -> String {
    let cluster = cluster.replace('%', "%25").replace('/', "%2F");
    match topic_id {
        Some(id) => format!("{cluster}/{topic}/{partition}/{id}"),
        None => format!("{cluster}/{topic}/{partition}"),
    }
}

/// A slot name taken apart again.
#[derive(Clone, Debug, PartialEq, Eq)]
struct SlotParts<'a> {
    cluster: &'a str,
    topic: &'a str,
    partition: i32,
    topic_id: Option<&'a str>,
}

fn parse(slot: &str) -> Option<SlotParts<'_>> {
    let mut parts = slot.splitn(4, '/');
    Some(SlotParts {
        cluster: parts.next()?,
        topic: parts.next()?,
        partition: parts.next()?.parse().ok()?,
        topic_id: parts.next(),
    })
}

/// One partition as the broker shows it now.
#[derive(Clone, Copy, Debug)]
pub struct Partition<'a> {
    pub cluster: &'a str,
    pub topic: &'a str,
    pub partition: i32,
    /// `None` where the broker gives none.
    pub topic_id: Option<&'a str>,
}

/// Where to begin reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// The log knows: this offset, read last under this leader epoch (`None` where unknown).
    At {
        offset: u64,
        leader_epoch: Option<i32>,
    },
    /// The log holds nothing of this partition.
    Earliest,
    Latest,
}

/// A partition's place in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    pub slot: Arc<str>,
    pub begin: Begin,
    /// Accepted: the slot that was read before under this topic's name, and where the log stands in it.
    pub former: Option<(Arc<str>, u64)>,
}

/// Where the log stands in this very partition.
pub fn standing(positions: &[(String, Position)], partition: Partition<'_>) -> Option<u64> {
    match resolve("", positions, partition, Start::Earliest, false, true) {
        Ok(Resolved { begin: Begin::At { offset, .. }, .. }) => Some(offset),
        _ => None,
    }
}

/// Finds the partition's slot name and first offset.
///
/// `grown`: the topic was read before, so a partition without position is one that was added since: it starts at its
/// beginning whatever `start` says, or what was published into it before we noticed would be lost.
///
/// `accept_recreated`: another topic under the same name in the same cluster is read from its beginning.
pub fn resolve(
    source: &str,
    positions: &[(String, Position)],
    partition: Partition<'_>,
    start: Start,
    grown: bool,
    accept_recreated: bool,
) -> Result<Resolved, Fault> {
    let name = slot_name(partition.cluster, partition.topic, partition.partition, partition.topic_id);
    let ours = parse(&name);
    let mut topic_known = grown;
    let mut nameless = None;
    let mut foreign = None;
    for (slot, position) in positions {
        if *slot == name {
            return Ok(Resolved { slot: Arc::from(name), begin: at(*position), former: None });
        }
        let (Some(parts), Some(ours)) = (parse(slot), &ours) else { continue };
        if parts.topic != ours.topic {
            continue;
        }
        topic_known = true;
        if parts.partition != ours.partition {
            continue;
        }
        // A position without topic id, from a broker that gave none, goes on under its old name; so does one with an id
        // while the broker shows none. Only the end offset can tell then whether the topic is still the same.
        let comparable = parts.topic_id.is_some() && ours.topic_id.is_some();
        if parts.cluster == ours.cluster && !comparable {
            nameless = Some(Resolved { slot: Arc::from(slot.as_str()), begin: at(*position), former: None });
        } else {
            let same_cluster = parts.cluster == ours.cluster;
            // Of several former ones the one that was read furthest: the book has no order of its own.
            if foreign.is_none_or(|(_, known, _): (_, &Position, _)| known.next < position.next) {
                foreign = Some((slot, position, same_cluster));
            }
        }
    }
    if let Some(found) = nameless {
        return Ok(found);
    }
    if let Some((slot, position, true)) = foreign
        && accept_recreated
    {
        let former = Some((Arc::from(slot.as_str()), position.next));
        return Ok(Resolved { slot: Arc::from(name), begin: Begin::Earliest, former });
    }
    if let Some((slot, position, same_cluster)) = foreign {
        let why = match same_cluster {
            true => "the topic was re-created (`\"accept_recreated\": true` reads the new one from its beginning)",
            false => "the hosts lead to another cluster",
        };
        let detail = format!(
            "topic {} partition {} is not the one that was read before: the log stands at offset {} of {slot}, the broker \
             now shows {name}; {why}",
            partition.topic, partition.partition, position.next
        );
        return Err(Fault::new(FaultKind::HistoryBroken, RECREATED, format!("resume source {source}"), detail));
    }
    let begin = if start == Start::Latest && !topic_known { Begin::Latest } else { Begin::Earliest };
    Ok(Resolved { slot: Arc::from(name), begin, former: None })
}

fn at(position: Position) -> Begin {
    let leader_epoch = i32::try_from(position.detail).ok().and_then(|detail| detail.checked_sub(1)).filter(|e| *e >= 0);
    Begin::At { offset: position.next, leader_epoch }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(next: u64) -> Position {
        Position { next, detail: 0 }
    }

    fn look(book: &[(&str, u64)], id: Option<&str>, start: Start, grown: bool) -> Result<(String, Begin), FaultKind> {
        let book: Vec<_> = book.iter().map(|(slot, next)| ((*slot).to_owned(), position(*next))).collect();
        let partition = Partition { cluster: "C", topic: "orders", partition: 3, topic_id: id };
        let found = resolve("s", &book, partition, start, grown, false);
        found.map(|found| (found.slot.to_string(), found.begin)).map_err(|fault| fault.kind)
    }

    fn at(offset: u64) -> Begin {
        Begin::At { offset, leader_epoch: None }
    }

    #[test]
    fn the_book_decides_where_it_knows() {
        let cases = [
            (look(&[("C/orders/3/ID", 7)], Some("ID"), Start::Latest, false), Ok(("C/orders/3/ID".to_owned(), at(7)))),
            (look(&[("C/orders/3", 7)], Some("ID"), Start::Latest, false), Ok(("C/orders/3".to_owned(), at(7)))),
            (look(&[("C/orders/3/ID", 7)], None, Start::Latest, false), Ok(("C/orders/3/ID".to_owned(), at(7)))),
            (look(&[("C/orders/3/OLD", 7)], Some("ID"), Start::Latest, false), Err(FaultKind::HistoryBroken)),
            (look(&[("D/orders/3/ID", 7)], Some("ID"), Start::Earliest, false), Err(FaultKind::HistoryBroken)),
            // Accepted earlier: old and new epoch both stand in the log.
            (
                look(&[("C/orders/3/OLD", 7), ("C/orders/3/ID", 2)], Some("ID"), Start::Latest, false),
                Ok(("C/orders/3/ID".to_owned(), at(2))),
            ),
        ];
        for (found, expected) in cases {
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn a_topic_made_anew_is_read_from_its_beginning_where_that_is_accepted() {
        let look = |book: &[(&str, u64)]| {
            let book: Vec<_> = book.iter().map(|(slot, next)| ((*slot).to_owned(), position(*next))).collect();
            let partition = Partition { cluster: "C", topic: "orders", partition: 3, topic_id: Some("ID") };
            let standing = standing(&book, partition);
            let found = resolve("s", &book, partition, Start::Latest, false, true);
            (
                found.map(|found| (found.slot.to_string(), found.begin, found.former)).map_err(|fault| fault.kind),
                standing,
            )
        };
        let name = || "C/orders/3/ID".to_owned();
        let former = Some((Arc::from("C/orders/3/OLD"), 7));
        let expected = Ok((name(), Begin::Earliest, former));
        assert_eq!(look(&[("C/orders/3/OLDER", 5), ("C/orders/3/OLD", 7)]), (expected, None));
        let known = [("C/orders/3/OLD", 7), ("C/orders/3/ID", 2)];
        assert_eq!(look(&known), (Ok((name(), at(2), None)), Some(2)), "told once");
        assert_eq!(look(&[("D/orders/3/OLD", 7)]).0, Err(FaultKind::HistoryBroken), "another cluster is no new topic");
    }

    #[test]
    fn start_counts_only_for_a_topic_never_read() {
        let name = || "C/orders/3/ID".to_owned();
        assert_eq!(look(&[], Some("ID"), Start::Latest, false), Ok((name(), Begin::Latest)));
        assert_eq!(look(&[], Some("ID"), Start::Earliest, false), Ok((name(), Begin::Earliest)));
        assert_eq!(look(&[], Some("ID"), Start::Latest, true), Ok((name(), Begin::Earliest)), "S5: a new partition");
        assert_eq!(look(&[("C/orders/0/ID", 9)], Some("ID"), Start::Latest, false), Ok((name(), Begin::Earliest)));
        assert_eq!(look(&[("C/bills/3/X", 9)], Some("ID"), Start::Latest, false), Ok((name(), Begin::Latest)));
    }

    #[test]
    fn names_survive_slashes() {
        assert_eq!(slot_name("a/b%", "t", 1, Some("x/y")), "a%2Fb%25/t/1/x/y");
        let parts = parse("a%2Fb%25/t/1/x/y").expect("own form");
        assert_eq!((parts.topic, parts.partition, parts.topic_id), ("t", 1, Some("x/y")));
        assert_eq!(parse("web"), None);
    }

    #[test]
    fn leader_epoch_is_kept_plus_one() {
        let begin = super::at(Position { next: 4, detail: 6 });
        assert_eq!(begin, Begin::At { offset: 4, leader_epoch: Some(5) });
    }
}
