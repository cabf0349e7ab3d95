//! Dates and times: ISO 8601 in the profile of RFC 3339, to the microsecond, never a guess.

use chrono::{Datelike, NaiveDate};
use gravity_model::ColumnType;

use super::{Given, Reject};
use crate::codes;

/// Why a text is no date or time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadTime {
    Unreadable(&'static str),
    /// Digits beyond the microsecond that are not zero.
    TooFine,
}

impl BadTime {
    pub fn reject(self, given: Given<'_>, column_type: &ColumnType) -> Reject {
        match self {
            BadTime::Unreadable(why) => {
                Reject::new(codes::UNREADABLE, format!("no {column_type} can be read from {}: {why}", given.excerpt()))
            }
            BadTime::TooFine => Reject::new(
                codes::LOSSY,
                format!("{} is finer than the microsecond that {column_type} keeps", given.excerpt()),
            ),
        }
    }
}

const DAY_MICROS: i64 = 86_400_000_000;
/// Days from 0001-01-01 (day 1) to 1970-01-01.
const EPOCH_DAYS: i32 = 719_163;

/// `YYYY-MM-DD` as days since 1970-01-01.
pub(super) fn date(text: &str) -> Result<i32, BadTime> {
    match text.as_bytes() {
        bytes @ [_, _, _, _, b'-', _, _, b'-', _, _] => date_of(bytes),
        _ => Err(BadTime::Unreadable("a date is YYYY-MM-DD")),
    }
}

/// `HH:MM`, `HH:MM:SS` with optional fraction, as µs since midnight.
pub(super) fn time(text: &str) -> Result<i64, BadTime> {
    let (micros, rest) = clock(text.as_bytes())?;
    if rest.is_empty() { Ok(micros) } else { Err(BadTime::Unreadable("a time is HH:MM:SS, without zone")) }
}

/// Date, `T` or space, time, zone. µs since 1970 in UTC; a column without zone (`zoned` false) also takes text without zone.
pub(super) fn timestamp(text: &str, zoned: bool) -> Result<i64, BadTime> {
    let bytes = text.as_bytes();
    let (day, rest) = match bytes.split_at_checked(10) {
        Some((day, [b'T' | b't' | b' ', rest @ ..])) => (day, rest),
        _ => return Err(BadTime::Unreadable("a timestamp is YYYY-MM-DDTHH:MM:SS with zone")),
    };
    if day[4] != b'-' || day[7] != b'-' {
        return Err(BadTime::Unreadable("a timestamp is YYYY-MM-DDTHH:MM:SS with zone"));
    }
    let days = date_of(day)?;
    let (micros, zone) = clock(rest)?;
    let offset_minutes = match zone {
        b"Z" | b"z" => 0,
        b"" if zoned => return Err(BadTime::Unreadable("the zone is missing (Z or +HH:MM)")),
        b"" => 0,
        [sign @ (b'+' | b'-'), digits @ ..] => {
            let (hours, minutes) = match digits {
                [h1, h2, b':', m1, m2] | [h1, h2, m1, m2] => (pair(*h1, *h2)?, pair(*m1, *m2)?),
                [h1, h2] => (pair(*h1, *h2)?, 0),
                _ => return Err(BadTime::Unreadable("a zone is Z or +HH:MM")),
            };
            if hours > 23 || minutes > 59 {
                return Err(BadTime::Unreadable("a zone is Z or +HH:MM"));
            }
            let offset = i64::from(hours * 60 + minutes);
            if *sign == b'-' { -offset } else { offset }
        }
        _ => return Err(BadTime::Unreadable("a zone is Z or +HH:MM")),
    };
    Ok(i64::from(days) * DAY_MICROS + micros - offset_minutes * 60_000_000)
}

fn date_of(bytes: &[u8]) -> Result<i32, BadTime> {
    let year = pair(bytes[0], bytes[1])? * 100 + pair(bytes[2], bytes[3])?;
    let (month, day) = (pair(bytes[5], bytes[6])?, pair(bytes[8], bytes[9])?);
    if year == 0 {
        return Err(BadTime::Unreadable("there is no year 0"));
    }
    NaiveDate::from_ymd_opt(year as i32, month, day)
        .map(|date| date.num_days_from_ce() - EPOCH_DAYS)
        .ok_or(BadTime::Unreadable("the calendar has no such day"))
}

/// Time of day in µs and what stands behind it.
fn clock(bytes: &[u8]) -> Result<(i64, &[u8]), BadTime> {
    let [h1, h2, b':', m1, m2, rest @ ..] = bytes else {
        return Err(BadTime::Unreadable("a time is HH:MM:SS"));
    };
    let (hours, minutes) = (pair(*h1, *h2)?, pair(*m1, *m2)?);
    let (seconds, rest) = match rest {
        [b':', s1, s2, rest @ ..] => (pair(*s1, *s2)?, rest),
        [b':', ..] => return Err(BadTime::Unreadable("a time is HH:MM:SS")),
        rest => (0, rest),
    };
    if hours > 23 || minutes > 59 || seconds > 59 {
        return Err(BadTime::Unreadable("a day goes from 00:00:00 to 23:59:59, without leap seconds"));
    }
    let (fraction, rest) = match rest {
        [b'.' | b',', rest @ ..] => fraction(rest)?,
        rest => (0, rest),
    };
    Ok((i64::from(hours * 3600 + minutes * 60 + seconds) * 1_000_000 + fraction, rest))
}

fn fraction(bytes: &[u8]) -> Result<(i64, &[u8]), BadTime> {
    let count = bytes.iter().take_while(|b| b.is_ascii_digit()).count();
    let (digits, rest) = bytes.split_at(count);
    if digits.is_empty() {
        return Err(BadTime::Unreadable("digits are missing behind the point"));
    }
    if digits.iter().skip(6).any(|digit| *digit != b'0') {
        return Err(BadTime::TooFine);
    }
    let micros = (0..6).fold(0, |sum, at| sum * 10 + digits.get(at).map_or(0, |digit| i64::from(digit - b'0')));
    Ok((micros, rest))
}

fn pair(high: u8, low: u8) -> Result<u32, BadTime> {
    if high.is_ascii_digit() && low.is_ascii_digit() {
        Ok(u32::from(high - b'0') * 10 + u32::from(low - b'0'))
    } else {
        Err(BadTime::Unreadable("a digit was expected"))
    }
}

pub(super) fn date_text(days: i32) -> String {
    match NaiveDate::from_num_days_from_ce_opt(days.saturating_add(EPOCH_DAYS)) {
        Some(date) => date.format("%Y-%m-%d").to_string(),
        None => days.to_string(),
    }
}

pub(super) fn time_text(micros: i64) -> String {
    let seconds = micros.div_euclid(1_000_000);
    let mut out = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    let fraction = micros.rem_euclid(1_000_000);
    if fraction != 0 {
        out.push_str(format!(".{fraction:06}").trim_end_matches('0'));
    }
    out
}

/// RFC 3339; `Z` behind it when the value has a zone.
pub(super) fn timestamp_text(micros: i64, zoned: bool) -> String {
    let days = micros.div_euclid(DAY_MICROS);
    let date = date_text(i32::try_from(days).unwrap_or(i32::MAX));
    format!("{date}T{}{}", time_text(micros.rem_euclid(DAY_MICROS)), if zoned { "Z" } else { "" })
}
