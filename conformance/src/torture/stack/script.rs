//! What the generator publishes: item i, its bytes and its place are functions of the seed, and so is what has to become of it.
//!
//! A small shop. *Entity* e owns at most one row of `users` (under the id e or, once moved, e + [`MOVED`]) and its orders. All
//! events of an entity go through one lane, in order; entities share nothing. So the right tables follow from each
//! entity's own events, however lanes interleave.

use std::collections::HashMap;

use super::arms::Lane;
use crate::torture::random::Random;

/// Distance between an entity's two ids.
pub const MOVED: i64 = 1_000_000;

/// Entities below this make the whole of what a slow database gets: whole, so that their histories are, and of every lane.
pub const SHARE: u64 = 100;

/// A user's columns beside the key; `None` is NULL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    pub name: Option<String>,
    pub email: Option<String>,
    /// Any i64, so that a detour through a float shows.
    pub age: Option<i64>,
    /// Four digits after the point, as sent.
    pub amount: Option<String>,
    pub active: Option<bool>,
}

/// What item i says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// The whole row, created or overwritten.
    Create(User),
    /// One column; the others stay. Creates the row if it is missing.
    Rename(String),
    /// `"email": null`: writes NULL, unlike an absent field.
    ClearEmail,
    /// The row goes to the entity's other id. Creates it there if it is missing.
    Move {
        from: i64,
    },
    Delete,
    /// `insert` of a new order.
    Place {
        number: i64,
        total: String,
    },
    /// `patch` of the entity's last order.
    Ship {
        number: i64,
    },
    /// A user whose age is a word: parks on every route.
    WrongType,
    /// An order whose total is a word.
    WrongTotal {
        number: i64,
    },
    /// A user without an id: parks, and blocks nothing.
    NoKey,
    /// An event that no rule names.
    Unknown,
    /// Not JSON. Stored raw from a broker, refused over HTTP.
    Malformed,
}

/// One thing to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    pub index: u64,
    pub entity: u64,
    pub lane: Lane,
    pub act: Act,
    /// The id of the entity's user row: after a move the new one.
    pub id: i64,
}

impl Item {
    /// Name of the event, as the rules know it.
    pub fn event(&self) -> &'static str {
        match self.act {
            Act::Create(_) | Act::WrongType | Act::NoKey | Act::Malformed => "userCreated",
            Act::Rename(_) => "userRenamed",
            Act::ClearEmail => "userCleared",
            Act::Move { .. } => "userMoved",
            Act::Delete => "userDeleted",
            Act::Place { .. } | Act::WrongTotal { .. } => "orderPlaced",
            Act::Ship { .. } => "orderShipped",
            Act::Unknown => "somethingElse",
        }
    }

    /// The message's key: all of an entity's events share one Kafka partition and one order.
    pub fn key(&self) -> String {
        format!("entity-{}", self.entity)
    }

    /// JSON text of the payload. Numbers are written digit by digit: what arrives must be what stands here.
    pub fn payload(&self) -> String {
        let (i, id) = (self.index, self.id);
        match &self.act {
            Act::Create(user) => format!(
                r#"{{"i":{i},"user":{{"id":{id},"name":{},"email":{},"age":{},"amount":{},"active":{}}}}}"#,
                json(user.name.as_deref()),
                json(user.email.as_deref()),
                user.age.unwrap_or_default(),
                user.amount.as_deref().unwrap_or("null"),
                user.active.unwrap_or_default(),
            ),
            Act::Rename(name) => format!(r#"{{"i":{i},"user":{{"id":{id},"name":{}}}}}"#, json(Some(name))),
            Act::ClearEmail => format!(r#"{{"i":{i},"user":{{"id":{id},"email":null}}}}"#),
            Act::Move { from } => format!(r#"{{"i":{i},"user":{{"id":{id},"was":{from}}}}}"#),
            Act::Delete => format!(r#"{{"i":{i},"user":{{"id":{id}}}}}"#),
            Act::Place { number, total } => {
                format!(r#"{{"i":{i},"order":{{"entity":{},"number":{number},"total":{total}}}}}"#, self.entity)
            }
            Act::Ship { number } => format!(r#"{{"i":{i},"order":{{"entity":{},"number":{number}}}}}"#, self.entity),
            Act::WrongType => {
                format!(
                    r#"{{"i":{i},"user":{{"id":{id},"name":"n","email":null,"age":"old","amount":1,"active":true}}}}"#
                )
            }
            Act::WrongTotal { number } => {
                format!(r#"{{"i":{i},"order":{{"entity":{},"number":{number},"total":"much"}}}}"#, self.entity)
            }
            Act::NoKey => format!(r#"{{"i":{i},"user":{{"name":"nobody"}}}}"#),
            Act::Unknown => format!(r#"{{"i":{i}}}"#),
            Act::Malformed => format!(r#"{{"i":{i},"user":{{"id":{id},"#),
        }
    }

    /// Name of the item for whoever drops repeats.
    pub fn message_id(&self) -> String {
        format!("item-{}", self.index)
    }

    /// The whole message in Gravity's envelope. `with_id` adds the producer's id and key, where the message has none of its own.
    pub fn envelope(&self, with_id: bool) -> String {
        let (event, payload) = (self.event(), self.payload());
        let extra = match with_id {
            true => format!(r#""id":"{}","key":"{}","#, self.message_id(), self.key()),
            false => String::new(),
        };
        // A malformed payload leaves the envelope open as well.
        let end = if self.act == Act::Malformed { "" } else { "}" };
        format!(r#"{{"event":"{event}",{extra}"payload":{payload}{end}"#)
    }
}

fn json(text: Option<&str>) -> String {
    text.map_or_else(|| "null".to_owned(), |text| serde_json::Value::from(text).to_string())
}

/// What a script is made from.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub seed: u64,
    /// Fewer entities mean more events per key.
    pub entities: u64,
    /// Entities are dealt out to them in turn.
    pub lanes: &'static [Lane],
}

impl Plan {
    pub fn script(self) -> Script {
        Script { plan: self, next: 0, known: HashMap::new() }
    }
}

/// Items in order, for ever. Two scripts of one plan are equal.
pub struct Script {
    plan: Plan,
    next: u64,
    known: HashMap<u64, Known>,
}

#[derive(Clone, Copy, Default)]
struct Known {
    moved: bool,
    /// The last order, shipped or not.
    order: Option<i64>,
}

impl Iterator for Script {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        let index = self.next;
        self.next += 1;
        let mut random = Random::of(self.plan.seed, index);
        let entity = random.below(self.plan.entities);
        let lane = self.plan.lanes[(entity % self.plan.lanes.len() as u64) as usize];
        let known = self.known.entry(entity).or_default();
        // Poison goes to one entity in ten, so that what waits behind it stays a part of the whole.
        let poisoned = entity % 10 < 2;
        let place = Act::Place { number: index as i64, total: amount(&mut random) };
        let act = match random.below(1_000) {
            0..=3 if poisoned => Act::WrongType,
            4..=7 if poisoned => Act::WrongTotal { number: index as i64 },
            8..=9 => Act::NoKey,
            10..=13 => Act::Unknown,
            14..=16 => Act::Malformed,
            17..=400 => Act::Create(user(&mut random)),
            401..=550 => Act::Rename(words(&mut random)),
            551..=600 => Act::ClearEmail,
            601..=680 => {
                let from = id(entity, known.moved);
                known.moved = !known.moved;
                Act::Move { from }
            }
            681..=740 => Act::Delete,
            741..=880 => match known.order {
                Some(number) => Act::Ship { number },
                None => place,
            },
            _ => place,
        };
        if let Act::Place { number, .. } | Act::WrongTotal { number } = act {
            known.order = Some(number);
        }
        Some(Item { index, entity, lane, act, id: id(entity, known.moved) })
    }
}

fn id(entity: u64, moved: bool) -> i64 {
    entity as i64 + if moved { MOVED } else { 0 }
}

fn user(random: &mut Random) -> User {
    User {
        name: Some(words(random)),
        email: (!random.one_in(4)).then(|| format!("{}@example.org", random.below(1_000_000))),
        age: Some(match random.below(10) {
            // Not representable as a float.
            0 => (1 << 53) + 1,
            1 => i64::MAX - random.below(1_000) as i64,
            2 => -(random.below(1 << 60) as i64),
            _ => random.below(120) as i64,
        }),
        amount: Some(amount(random)),
        active: Some(random.one_in(2)),
    }
}

fn amount(random: &mut Random) -> String {
    let sign = if random.one_in(5) { "-" } else { "" };
    format!("{sign}{}.{:04}", random.within(1, 9_999_999_999_999), random.below(10_000))
}

/// Text with what breaks quoting: quotes, backslashes, line ends, other scripts.
fn words(random: &mut Random) -> String {
    const WORDS: [&str; 12] =
        ["anna", "O'Hara", "a\"b", "c\\d", "x;y", "größe", "名前", "🙂", "tab\there", "line\nend", "%s", "$1"];
    (0..random.within(1, 4)).map(|_| WORDS[random.below(WORDS.len() as u64) as usize]).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::super::arms::ALL;
    use super::*;

    fn script(seed: u64, entities: u64) -> Script {
        Plan { seed, entities, lanes: ALL.lanes }.script()
    }

    #[test]
    fn the_same_seed_gives_the_same_items() {
        let one: Vec<Item> = script(3, 50).take(2_000).collect();
        let other: Vec<Item> = script(3, 50).take(2_000).collect();
        assert!(one == other);
        assert!(one != script(4, 50).take(2_000).collect::<Vec<_>>());
    }

    #[test]
    fn bodies_are_json_but_for_the_malformed_ones() {
        let mut malformed = 0;
        for item in script(1, 50).take(5_000) {
            for with_id in [false, true] {
                let parsed = serde_json::from_str::<serde_json::Value>(&item.envelope(with_id));
                assert_eq!(parsed.is_err(), item.act == Act::Malformed, "{}", item.envelope(with_id));
                if let Ok(value) = parsed {
                    assert_eq!(value["payload"]["i"], item.index);
                    assert_eq!(value["event"], item.event());
                }
            }
            malformed += u32::from(item.act == Act::Malformed);
        }
        assert!(malformed > 2);
    }

    #[test]
    fn every_act_occurs_in_every_lane() {
        let mut seen = std::collections::BTreeMap::new();
        for item in script(1, 200).take(40_000) {
            let act = format!("{:?}", item.act);
            let act = act.split(['(', ' ']).next().unwrap_or_default().to_owned();
            *seen.entry((act, format!("{:?}", item.lane))).or_insert(0) += 1;
        }
        assert_eq!(seen.len(), 4 * 12, "{seen:?}");
    }
}
