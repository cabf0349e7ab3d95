//! Debezium's change events, with and without schema, and what its connectors send beside them.
//!
//! The message is stored as received. Here it is only named, timed and told apart; what a rule reads of it is decided at
//! evaluation, from the same bytes (docs/decisions/0014).
//!
//! Format: <https://debezium.io/documentation/reference/stable/connectors/postgresql.html#postgresql-events>, and the same
//! section of the MySQL connector's page.

use std::borrow::Cow;

use gravity_model::{Captured, Micros, RowChange};
use serde_json::value::RawValue;

use super::json::{TopLevel, at_pointer, pointer_text, text_of, top_level};
use super::{Decoded, EnvelopeOptions, Message, NameFrom, Undecodable, excerpt, plain, undecodable};

/// What a message of a connector is.
pub(super) enum Found<'a> {
    Change {
        /// The change without its schema.
        text: &'a str,
        fields: Box<TopLevel<'a>>,
        op: Op,
    },
    /// Not a change of a row: an event of its own name, for rules that want it.
    Other(&'static str),
}

#[derive(Clone, Copy)]
pub(super) enum Op {
    Row(RowChange, &'static str),
    /// A message that an application wrote into PostgreSQL's write-ahead log.
    Message,
}

impl Op {
    fn of(letter: &str) -> Option<Op> {
        Some(match letter {
            "c" => Op::Row(RowChange::Create, "c"),
            "u" => Op::Row(RowChange::Update, "u"),
            "d" => Op::Row(RowChange::Delete, "d"),
            "r" => Op::Row(RowChange::Read, "r"),
            "t" => Op::Row(RowChange::Truncate, "t"),
            "m" => Op::Message,
            _ => return None,
        })
    }
}

const TRANSACTION: &str = "debezium.transaction";
const HEARTBEAT: &str = "debezium.heartbeat";
const SCHEMA_CHANGE: &str = "debezium.schema";
const MESSAGE: &str = "debezium.message";

/// Under `"envelope": "auto"`: nothing that could be a producer's own JSON is taken for Debezium's.
pub(super) fn recognise<'a>(message: &Message<'a>, fields: &TopLevel<'a>) -> Option<Found<'a>> {
    let (text, inner) = unwrapped(fields);
    let change = inner.as_ref().unwrap_or(fields);
    let is_schema_wrapped = text.is_some();
    if let Some(op) = change.other("op").and_then(text_of).and_then(|letter| Op::of(&letter))
        && change.source.is_some_and(is_object)
        && (change.other("after").is_some() || change.other("before").is_some() || matches!(op, Op::Message))
    {
        let fields = match (text, inner) {
            (Some(_), Some(inner)) => inner,
            _ => fields.clone(),
        };
        return Some(Found::Change { text: text.unwrap_or_default(), fields: Box::new(fields), op });
    }
    let of_connector = is_schema_wrapped && schema_name(fields).is_some_and(|name| name.starts_with("io.debezium."));
    if of_connector || message.subject.starts_with("__debezium-heartbeat") { other(message, change) } else { None }
}

/// Under `"envelope": "debezium"`: what is none is no event.
pub(super) fn declared<'a>(
    options: &EnvelopeOptions,
    message: &Message<'a>,
    text: &'a str,
    fields: &TopLevel<'a>,
) -> Result<Decoded<'a>, Undecodable> {
    if fields.other("schema").is_some() && fields.payload.is_some_and(|payload| payload.get() == "null") {
        return Ok(super::null_value(options, message));
    }
    let (inner_text, inner) = unwrapped(fields);
    let change = inner.as_ref().unwrap_or(fields);
    let found = match change.other("op") {
        Some(letter) => {
            let op = text_of(letter).and_then(|letter| Op::of(&letter)).ok_or_else(|| {
                bad(format!("`op` is one of \"c\", \"u\", \"d\", \"r\", \"t\", \"m\", found {}", excerpt(letter.get())))
            })?;
            let fields = inner.unwrap_or_else(|| fields.clone());
            Found::Change { text: inner_text.unwrap_or(text), fields: Box::new(fields), op }
        }
        None => other(message, change).ok_or_else(|| {
            bad("no `op`: neither a change event, nor transaction metadata, a heartbeat or a schema change")
        })?,
    };
    decode(options, message, text, &found)
}

pub(super) fn decode<'a>(
    options: &EnvelopeOptions,
    message: &Message<'a>,
    whole: &'a str,
    found: &Found<'a>,
) -> Result<Decoded<'a>, Undecodable> {
    let (text, fields, op) = match found {
        Found::Other(name) => return Ok(Decoded::plain(Cow::Borrowed(name), Some(whole))),
        Found::Change { text, fields, op } => (if text.is_empty() { whole } else { text }, fields, *op),
    };
    let Op::Row(change, letter) = op else {
        let time = time_of(fields);
        return Ok(Decoded { time, ..Decoded::plain(Cow::Borrowed(MESSAGE), Some(whole)) });
    };
    let row = match change {
        RowChange::Truncate | RowChange::Tombstone => None,
        RowChange::Delete => row("before", fields)?,
        RowChange::Create | RowChange::Update | RowChange::Read => {
            let after = row("after", fields)?;
            if after.is_none() {
                return Err(bad(format!(
                    "a change with `\"op\": \"{letter}\"` carries the row in `after`, found none"
                )));
            }
            after
        }
    };
    let (name, method_follows) = name(options, message, text, fields, change)?;
    Ok(Decoded {
        time: time_of(fields),
        captured: Some(Captured { change, method_follows }),
        row: row.map(str::as_bytes),
        ..Decoded::plain(name, Some(whole))
    })
}

/// Event name of a null value that follows no delete: what the delete would have been called, as far as the topic tells.
pub(super) fn tombstone_name<'a>(options: &EnvelopeOptions, message: &Message<'a>) -> Cow<'a, str> {
    match &options.event_from {
        Some(NameFrom::Field(pointer)) if pointer == "/op" => Cow::Borrowed("d"),
        _ => {
            let table = message.subject.rsplit('.').next().unwrap_or(message.subject);
            Cow::Owned(named_after(table, RowChange::Delete))
        }
    }
}

fn named_after(table: &str, change: RowChange) -> String {
    format!("{table}.{}", change.word())
}

/// The event's name, and whether the method of its rules follows the operation, which the name does not tell.
fn name<'a>(
    options: &EnvelopeOptions,
    message: &Message<'a>,
    text: &'a str,
    fields: &TopLevel<'a>,
    change: RowChange,
) -> Result<(Cow<'a, str>, bool), Undecodable> {
    let none = |detail: String| undecodable("decode/no-event-name", detail);
    match &options.event_from {
        None => {
            let source = fields.source.map(RawValue::get).unwrap_or_default();
            let table = ["/table", "/collection"].iter().find_map(|at| pointer_text(source, at));
            match table.filter(|table| !table.is_empty()) {
                Some(table) => Ok((Cow::Owned(named_after(&table, change)), false)),
                None => {
                    Err(none("`source.table` does not name the table: set `event_name` or `event_from`".to_owned()))
                }
            }
        }
        Some(NameFrom::Field(pointer)) => match pointer_text(text, pointer) {
            Some(name) if !name.is_empty() => Ok((name, pointer != "/op")),
            _ => Err(none(format!("no text at {pointer} of the change to name the event"))),
        },
        Some(_) => match plain::constant_name(options, message).filter(|name| !name.is_empty()) {
            Some(name) => Ok((name, true)),
            None => Err(none("the header that `event_from` names is not there".to_owned())),
        },
    }
}

/// The payload behind a schema, where the message has one.
fn unwrapped<'a>(fields: &TopLevel<'a>) -> (Option<&'a str>, Option<TopLevel<'a>>) {
    if fields.other("schema").is_none() || fields.other("op").is_some() {
        return (None, None);
    }
    let Some(payload) = fields.payload.filter(|payload| is_object(payload)) else { return (None, None) };
    (Some(payload.get()), top_level(payload.get()).ok())
}

fn schema_name<'a>(fields: &TopLevel<'a>) -> Option<Cow<'a, str>> {
    pointer_text(fields.other("schema")?.get(), "/name")
}

/// Records that connectors write beside changes, told by their shape: Debezium gives them no mark without schema.
fn other<'a>(message: &Message<'_>, fields: &TopLevel<'a>) -> Option<Found<'a>> {
    let has = |name: &str| fields.other(name).is_some();
    let name = if has("status") && fields.id.is_some() && has("data_collections") {
        TRANSACTION
    } else if has("ddl") && (has("tableChanges") || has("databaseName")) {
        SCHEMA_CHANGE
    } else if has("ts_ms") && (fields.others.len() == 1 || message.subject.starts_with("__debezium-heartbeat")) {
        HEARTBEAT
    } else {
        return None;
    };
    Some(Found::Other(name))
}

/// A row of the change; `None` where it is null or absent.
fn row<'a>(name: &str, fields: &TopLevel<'a>) -> Result<Option<&'a str>, Undecodable> {
    match fields.other(name) {
        None => Ok(None),
        Some(value) if value.get() == "null" => Ok(None),
        Some(value) if is_object(value) => Ok(Some(value.get())),
        Some(value) => Err(bad(format!("`{name}` must be an object, found {}", excerpt(value.get())))),
    }
}

/// When the row changed, by the database's clock; else when the connector saw it.
fn time_of(fields: &TopLevel<'_>) -> Option<Micros> {
    let source = fields.source.map(RawValue::get).unwrap_or_default();
    let number = |text: Option<&str>| text?.parse::<i64>().ok().filter(|time| *time > 0);
    let millis = |text| number(text)?.checked_mul(1_000);
    number(at_pointer(source, "/ts_us"))
        .or_else(|| millis(at_pointer(source, "/ts_ms")))
        .or_else(|| millis(fields.other("ts_ms").map(RawValue::get)))
}

fn is_object(value: &RawValue) -> bool {
    value.get().starts_with('{')
}

fn bad(detail: impl Into<String>) -> Undecodable {
    undecodable("decode/bad-debezium", detail)
}
