//! Dates and times: ISO 8601 in the profile of RFC 3339, to the microsecond, never a guess.

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

pub(super) const DAY_MICROS: i64 = 86_400_000_000;

/// `YYYY-MM-DD` as days since 1970-01-01.
pub(super) fn date(text: &[u8]) -> Result<i32, BadTime> {
    match text {
        bytes @ [_, _, _, _, b'-', _, _, b'-', _, _] => date_of(bytes),
        _ => Err(BadTime::Unreadable("a date is YYYY-MM-DD")),
    }
}

/// `HH:MM`, `HH:MM:SS` with optional fraction, as µs since midnight.
pub(super) fn time(text: &[u8]) -> Result<i64, BadTime> {
    let (micros, rest) = clock(text)?;
    if rest.is_empty() { Ok(micros) } else { Err(BadTime::Unreadable("a time is HH:MM:SS, without zone")) }
}

/// Date, `T` or space, time, zone. µs since 1970 in UTC; a column without zone (`zoned` false) also takes text without zone.
pub(super) fn timestamp(bytes: &[u8], zoned: bool) -> Result<i64, BadTime> {
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
    if month == 0 || month > 12 || day == 0 || day > days_in(year, month) {
        return Err(BadTime::Unreadable("the calendar has no such day"));
    }
    Ok(days_of(i64::from(year), month, day) as i32)
}

fn is_leap(year: u32) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_in(year: u32, month: u32) -> u32 {
    match month {
        2 => 28 + u32::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days of 400 years, after which the Gregorian calendar repeats itself.
const ERA_DAYS: i64 = 146_097;
/// Days from 0000-03-01 to 1970-01-01.
const EPOCH: i64 = 719_468;

/// Days since 1970-01-01. Years are counted from March, so that the leap day is the last one of its year; the months then have
/// 153 days for every five.
fn days_of(year: i64, month: u32, day: u32) -> i64 {
    let year = if month > 2 { year } else { year - 1 };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let month_from_march = i64::from((month + 9) % 12);
    let day_of_year = (153 * month_from_march + 2) / 5 + i64::from(day) - 1;
    era * ERA_DAYS + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - EPOCH
}

/// The inverse: year, month, day.
fn calendar_day(days: i64) -> (i64, i64, i64) {
    let days = days + EPOCH;
    let (era, day_of_era) = (days.div_euclid(ERA_DAYS), days.rem_euclid(ERA_DAYS));
    // Leap days so far are taken out, so that every year has 365 days.
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let month = (month_from_march + 2) % 12 + 1;
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day_of_year - (153 * month_from_march + 2) / 5 + 1)
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

/// `YYYY-MM-DD`; years beyond four digits get a sign, as ISO 8601 has it.
pub(crate) fn date_text(days: i64) -> String {
    let (year, month, day) = calendar_day(days);
    match year {
        0..=9999 => format!("{year:04}-{month:02}-{day:02}"),
        _ => format!("{year:+05}-{month:02}-{day:02}"),
    }
}

pub(crate) fn time_text(micros: i64) -> String {
    let seconds = micros.div_euclid(1_000_000);
    let mut out = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    let fraction = micros.rem_euclid(1_000_000);
    if fraction != 0 {
        out.push_str(format!(".{fraction:06}").trim_end_matches('0'));
    }
    out
}

/// RFC 3339; `Z` behind it when the value has a zone.
pub(crate) fn timestamp_text(micros: i64, zoned: bool) -> String {
    let days = micros.div_euclid(DAY_MICROS);
    let date = date_text(days);
    format!("{date}T{}{}", time_text(micros.rem_euclid(DAY_MICROS)), if zoned { "Z" } else { "" })
}

#[cfg(test)]
mod tests {
    use chrono::{Datelike, NaiveDate};

    use super::*;

    #[test]
    fn the_calendar_is_chronos() {
        let epoch = NaiveDate::from_ymd_opt(1970, 1, 1).expect("a day");
        let mut day = NaiveDate::from_ymd_opt(1, 1, 1).expect("a day");
        while day.year() < 10_000 {
            let text = day.format("%Y-%m-%d").to_string();
            let days = (day - epoch).num_days();
            assert_eq!(date(text.as_bytes()), Ok(days as i32), "{text}");
            assert_eq!(date_text(days), text);
            day = day.succ_opt().expect("before the last day");
        }
        for year in 1..10_000 {
            for month in 0..14 {
                for day in [0, 28, 29, 30, 31, 32] {
                    let text = format!("{year:04}-{month:02}-{day:02}");
                    let there = NaiveDate::from_ymd_opt(year, month, day).is_some();
                    assert_eq!(date(text.as_bytes()).is_ok(), there, "{text}");
                }
            }
        }
        assert_eq!((date_text(-719_529), date_text(2_932_897)), ("-0001-12-31".into(), "+10000-01-01".into()));
    }
}
