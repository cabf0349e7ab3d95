//! Workload G-1, "orders": 85 % upsert, 10 % patch of a few fields, 5 % delete, as JSON of about 250 bytes; and its oracle.

use std::collections::HashMap;
use std::io::Write;

use serde_json::Value;

use crate::random::{KeyLaw, Keys, Random};

/// The table that every system under test fills; made by the harness before the command starts. All columns but the key
/// may be null, because a patch of a deleted order creates a row with its few fields.
pub const CREATE_TABLE: &str = "CREATE TABLE orders (id bigint PRIMARY KEY, customer text, status text, note text, \
     amount numeric(12,2), placed_at timestamptz, express boolean, details jsonb, quantity integer)";
/// An upsert draws a new customer, so that almost every upsert changes the index: the harder case.
pub const CREATE_INDEX: &str = "CREATE INDEX orders_customer ON orders (customer)";

/// What an event does.
#[derive(Clone, Debug, PartialEq)]
pub enum Operation {
    Upsert(Row),
    /// Only status, note and quantity.
    Patch {
        status: &'static str,
        note: String,
        quantity: i32,
    },
    Delete,
}

/// Everything but the key.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    pub customer: Option<String>,
    pub status: Option<String>,
    pub note: Option<String>,
    /// As PostgreSQL prints a numeric(12,2).
    pub amount: Option<String>,
    /// Microseconds since 1970-01-01T00:00:00Z.
    pub placed_at: Option<i64>,
    pub express: Option<bool>,
    pub details: Option<Value>,
    pub quantity: Option<i32>,
}

#[derive(Clone, Debug)]
pub struct Order {
    pub id: i64,
    pub operation: Operation,
}

/// An endless, seeded stream of orders.
pub struct Workload {
    random: Random,
    keys: Keys,
}

const STATUS: [&str; 5] = ["placed", "paid", "packed", "shipped", "delivered"];
const CHANNEL: [&str; 4] = ["web", "store", "phone", "partner"];
const NOTE: [&str; 6] = [
    "ring twice",
    "leave at the door",
    "call before delivery, the gate is closed",
    "gift, no invoice in the parcel",
    "fragile",
    "Grüße an den Nachbarn",
];
/// 2024-01-01T00:00:00Z in seconds.
const EPOCH: i64 = 1_704_067_200;

impl Workload {
    pub fn new(seed: u64, law: KeyLaw, keys: u64) -> Workload {
        Workload { random: Random::new(seed), keys: Keys::new(law, keys) }
    }

    pub fn next(&mut self) -> Order {
        let id = self.keys.draw(&mut self.random) as i64;
        let r = &mut self.random;
        let operation = match r.below(100) {
            0..85 => Operation::Upsert(row(r)),
            85..95 => Operation::Patch {
                status: r.pick(&STATUS),
                note: r.pick(&NOTE).to_owned(),
                quantity: r.below(20) as i32,
            },
            _ => Operation::Delete,
        };
        Order { id, operation }
    }

    /// An upsert of a given order: the end marks of the drain.
    pub fn mark(&mut self, id: i64) -> Order {
        Order { id, operation: Operation::Upsert(row(&mut self.random)) }
    }
}

fn row(r: &mut Random) -> Row {
    let cents = r.below(1_000_000);
    let details = format!(
        r#"{{"channel":"{}","items":[{{"sku":"A-{}","qty":{}}}],"weight":{}.{}}}"#,
        r.pick(&CHANNEL),
        r.below(100_000),
        1 + r.below(9),
        r.below(40),
        1 + r.below(9)
    );
    Row {
        customer: Some(format!("customer-{:06}", r.below(200_000))),
        status: Some(r.pick(&STATUS).to_owned()),
        note: Some(r.pick(&NOTE).to_owned()),
        amount: Some(format!("{}.{:02}", cents / 100, cents % 100)),
        placed_at: Some((EPOCH + r.below(31_536_000) as i64) * 1_000_000 + r.below(1_000_000) as i64),
        express: Some(r.below(4) == 0),
        details: serde_json::from_str(&details).ok(),
        quantity: Some(r.below(20) as i32),
    }
}

impl Order {
    pub fn event(&self) -> &'static str {
        match self.operation {
            Operation::Upsert(_) => "upsert",
            Operation::Patch { .. } => "patch",
            Operation::Delete => "delete",
        }
    }

    /// Sets the quantity; false for a delete, which has none.
    pub fn set_quantity(&mut self, to: i32) -> bool {
        match &mut self.operation {
            Operation::Upsert(row) => row.quantity = Some(to),
            Operation::Patch { quantity, .. } => *quantity = to,
            Operation::Delete => return false,
        }
        true
    }

    /// The message's value. `out` is overwritten.
    pub fn write_json(&self, out: &mut Vec<u8>) -> std::io::Result<()> {
        out.clear();
        write!(out, r#"{{"op":"{}","id":{}"#, self.event(), self.id)?;
        match &self.operation {
            Operation::Upsert(row) => {
                let text = |value: &Option<String>| value.clone().unwrap_or_default();
                write!(
                    out,
                    r#","customer":"{}","status":"{}","note":"{}","amount":{},"placed_at":"{}","express":{},"details":{},"quantity":{}"#,
                    text(&row.customer),
                    text(&row.status),
                    text(&row.note),
                    text(&row.amount),
                    rfc3339(row.placed_at.unwrap_or_default()),
                    row.express.unwrap_or_default(),
                    row.details.as_ref().unwrap_or(&Value::Null),
                    row.quantity.unwrap_or_default()
                )?;
            }
            Operation::Patch { status, note, quantity } => {
                write!(out, r#","status":"{status}","note":"{note}","quantity":{quantity}"#)?;
            }
            Operation::Delete => {}
        }
        write!(out, "}}")
    }
}

/// Days of the civil calendar, the algorithm of every date library, for times after 1970.
pub fn rfc3339(micros: i64) -> String {
    let (seconds, fraction) = (micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000));
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:06}Z")
}

/// What the table must hold in the end: the fold of the events in the order in which they were produced.
#[derive(Default)]
pub struct Oracle {
    pub rows: HashMap<i64, Row>,
}

impl Oracle {
    pub fn take(&mut self, order: Order) {
        match order.operation {
            Operation::Upsert(row) => {
                self.rows.insert(order.id, row);
            }
            Operation::Patch { status, note, quantity } => {
                let row = self.rows.entry(order.id).or_default();
                row.status = Some(status.to_owned());
                row.note = Some(note);
                row.quantity = Some(quantity);
            }
            Operation::Delete => {
                self.rows.remove(&order.id);
            }
        }
    }
}
