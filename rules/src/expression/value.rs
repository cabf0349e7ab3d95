//! Values while an expression runs.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::sync::Arc;

use super::number::Number;

/// A value of an event, or made from some. Text is borrowed from the payload wherever it can be.
#[derive(Clone, Debug)]
pub(super) enum Val<'v> {
    /// The event has no such field. Everything but `has` takes it for null.
    Absent,
    Null,
    Bool(bool),
    Number(Number),
    Text(Cow<'v, str>),
    Uuid([u8; 16]),
    /// Days since 1970-01-01.
    Date(i32),
    /// µs since midnight.
    Time(i64),
    /// µs since 1970-01-01T00:00:00Z.
    Timestamp(i64),
    /// There is a value, of which nothing else is known.
    Present,
    List(Arc<[Val<'v>]>),
}

impl<'v> Val<'v> {
    pub fn is_null(&self) -> bool {
        matches!(self, Val::Absent | Val::Null)
    }

    pub fn is_true(&self) -> bool {
        matches!(self, Val::Bool(true))
    }

    /// `None` where one of them is null: no comparison with null is true.
    pub fn compare(&self, other: &Val<'_>) -> Option<Ordering> {
        Some(match (self, other) {
            (Val::Bool(a), Val::Bool(b)) => a.cmp(b),
            (Val::Number(a), Val::Number(b)) => a.compare(b),
            (Val::Text(a), Val::Text(b)) => a.as_bytes().cmp(b.as_bytes()),
            (Val::Uuid(a), Val::Uuid(b)) => a.cmp(b),
            (Val::Date(a), Val::Date(b)) => a.cmp(b),
            (Val::Time(a), Val::Time(b)) | (Val::Timestamp(a), Val::Timestamp(b)) => a.cmp(b),
            // The checker lets nothing else meet, so what is left holds a null.
            _ => return None,
        })
    }

    /// A value that shares this one's text.
    pub fn borrowed(&'v self) -> Val<'v> {
        match self {
            Val::Text(text) => Val::Text(Cow::Borrowed(text)),
            other => other.clone(),
        }
    }
}
