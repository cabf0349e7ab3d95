//! A checked expression joined with the slots of a scan: what runs for every event.

use std::sync::Arc;

use bytes::Bytes;
use gravity_model::Recorded;
use smallvec::SmallVec;

use super::bind::{Field, Source};
use super::check::Checked;
use super::kind::Kind;
use super::native::Native;
use super::value::Val;
use crate::convert::{Given, Reject};
use crate::path::Origin;
use crate::scan::Slot;

/// What an expression reads from.
pub(crate) struct Event<'e> {
    pub recorded: &'e Recorded<'e>,
    /// Empty where the payload is null; then every slot is absent.
    pub payload: &'e [u8],
    pub slots: &'e [Slot],
}

/// A filter or an expression of one route.
#[derive(Debug)]
pub(crate) struct Program {
    checked: std::sync::Arc<Checked>,
    fields: Vec<Field>,
    /// Conjunctions of plain comparisons need no values.
    native: Option<Native>,
}

/// Why a filter or expression cannot run on an event: a field holds a value of another type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Misfit {
    pub reject: Reject,
    /// The path.
    pub field: Box<str>,
}

/// What an expression gives.
#[derive(Debug)]
pub(crate) enum Outcome<'o> {
    Null,
    Bool(bool),
    /// Canonical digits.
    Number(String),
    Text(std::borrow::Cow<'o, str>),
    /// µs since 1970 UTC.
    Micros(i64),
}

type Bound<'e> = SmallVec<[Val<'e>; 6]>;

impl Program {
    /// `slot_of` gives the slot in which the scan leaves a path.
    pub fn new(checked: std::sync::Arc<Checked>, mut slot_of: impl FnMut(&Origin) -> Source) -> Program {
        let fields: Vec<Field> =
            checked.fields.iter().map(|(origin, reading)| Field::new(origin, reading, slot_of(origin))).collect();
        let native = Native::of(&checked.root, &fields);
        Program { checked, fields, native }
    }

    /// Reads something of the payload.
    pub fn reads_payload(&self) -> bool {
        self.fields.iter().any(|field| matches!(field.source, Source::Slot(_)))
    }

    pub fn kind(&self) -> &Kind {
        &self.checked.kind
    }

    /// True when the event passes: the filter is true, not false and not null.
    pub fn holds(&self, event: &Event<'_>) -> Result<bool, Misfit> {
        if let Some(native) = &self.native
            && let Some(outcome) = native.holds(event)
        {
            return Ok(outcome);
        }
        let bound = self.bind(event)?;
        Ok(self.checked.root.eval(&bound, &mut Vec::new()).is_true())
    }

    /// The value, handed to `take` while everything that it borrows is alive.
    pub fn value<T>(&self, event: &Event<'_>, take: impl FnOnce(Outcome<'_>) -> T) -> Result<T, Misfit> {
        let bound = self.bind(event)?;
        let value = self.checked.root.eval(&bound, &mut Vec::new());
        Ok(take(match value {
            Val::Bool(value) => Outcome::Bool(value),
            Val::Number(number) => Outcome::Number(number.to_string()),
            Val::Text(text) => Outcome::Text(text),
            Val::Timestamp(micros) => Outcome::Micros(micros),
            other => match super::evaluate::text_of(&other) {
                Some(text) => Outcome::Text(text),
                None => Outcome::Null,
            },
        }))
    }

    /// Reads every field that the expression names, also those that a short cut would pass over: whether an event is refused
    /// must not depend on the order of evaluation.
    fn bind<'e>(&self, event: &Event<'e>) -> Result<Bound<'e>, Misfit> {
        self.fields.iter().map(|field| field.read(event)).collect()
    }
}

impl<'o> Outcome<'o> {
    /// As a mapping's `source` would give it. `None`: null.
    pub fn given(&'o self) -> Given<'o> {
        match self {
            Outcome::Null => Given::Null,
            Outcome::Bool(value) => Given::Bool(*value),
            Outcome::Number(digits) => Given::Number(digits.as_bytes()),
            Outcome::Text(text) => Given::Plain(text),
            Outcome::Micros(micros) => Given::Micros(*micros),
        }
    }
}

/// So that a converted text never claims bytes of the block it was not cut from.
pub(crate) const NOT_OF_A_BLOCK: Option<&Arc<Bytes>> = None;
