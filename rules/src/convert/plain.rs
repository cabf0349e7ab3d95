//! Values in the forms of this package, for expressions: texts written out in rules, dates and times in words.

use super::{number, time};

/// `YYYY-MM-DD` as days since 1970-01-01.
pub(crate) fn read_date(text: &str) -> Option<i32> {
    time::date(text.as_bytes()).ok()
}

/// `HH:MM:SS` as µs since midnight.
pub(crate) fn read_time(text: &str) -> Option<i64> {
    time::time(text.as_bytes()).ok()
}

/// RFC 3339, with zone, as µs since 1970 UTC.
pub(crate) fn read_timestamp(text: &str) -> Option<i64> {
    time::timestamp(text.as_bytes(), true).ok()
}

pub(crate) fn date(days: i32) -> String {
    time::date_text(i64::from(days))
}

pub(crate) fn time(micros: i64) -> String {
    time::time_text(micros)
}

pub(crate) fn timestamp(micros: i64) -> String {
    time::timestamp_text(micros, true)
}

/// The day of a timestamp in UTC. Saturates: beyond it lie years that no column has.
pub(crate) fn day_of(micros: i64) -> i32 {
    i32::try_from(micros.div_euclid(time::DAY_MICROS)).unwrap_or(i32::MAX)
}

/// Plain digits that surely fit; `None` for every other number token.
#[inline]
pub(crate) fn short_integer(token: &[u8]) -> Option<i64> {
    number::short_integer(token)
}
