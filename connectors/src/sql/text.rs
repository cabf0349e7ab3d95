//! Text forms of values: ISO 8601 for times, hyphens for uuids, exact digits for numbers.

use std::borrow::Cow;
use std::fmt::Write;

use gravity_model::{ColumnType, Value};

const MICROS_PER_DAY: i64 = 86_400_000_000;

/// Appends the text form; `false` for values that have none (null, binary, array).
pub(crate) fn write_text(value: &Value, out: &mut String) -> bool {
    // Writing to a String cannot fail, so the results of `write!` carry no news.
    match value {
        Value::Null | Value::Binary(_) | Value::Array(_) => return false,
        Value::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
        Value::Int(i) => _ = write!(out, "{i}"),
        Value::Float(x) => _ = write!(out, "{x}"),
        Value::Decimal(t) | Value::Text(t) | Value::Json(t) => out.push_str(t.as_str()),
        Value::Uuid(bytes) => {
            for (i, byte) in bytes.iter().enumerate() {
                if matches!(i, 4 | 6 | 8 | 10) {
                    out.push('-');
                }
                _ = write!(out, "{byte:02x}");
            }
        }
        Value::Date(days) => write_date(i64::from(*days), out),
        Value::Time(micros) => write_time(*micros, out),
        Value::Timestamp(micros) => write_timestamp(*micros, out),
        Value::TimestampTz(micros) => {
            write_timestamp(*micros, out);
            out.push('Z');
        }
    }
    true
}

/// Digits of a decimal column that is kept as text: with every digit of its scale, as a numeric column shows them.
pub(crate) fn decimal_text<'d>(digits: &'d str, column: &ColumnType) -> Cow<'d, str> {
    let ColumnType::Decimal(Some((_, scale))) = column else { return Cow::Borrowed(digits) };
    let (point, known) = match digits.split_once('.') {
        Some((_, fraction)) => ("", fraction.len()),
        None => (".", 0),
    };
    match usize::from(*scale).checked_sub(known).filter(|lacking| *lacking > 0) {
        Some(lacking) => Cow::Owned(format!("{digits}{point}{}", "0".repeat(lacking))),
        None => Cow::Borrowed(digits),
    }
}

/// A key value for a message: its text form, long ones cut.
pub(crate) fn shown(value: &Value) -> String {
    const LONGEST: usize = 64;
    let mut out = String::new();
    match value {
        Value::Binary(bytes) => {
            out.push_str("\\x");
            bytes.iter().take(LONGEST).for_each(|byte| _ = write!(out, "{byte:02x}"));
        }
        value => {
            if !write_text(value, &mut out) {
                _ = write!(out, "{value:?}");
            }
        }
    }
    if out.len() > LONGEST {
        out.truncate(out.floor_char_boundary(LONGEST));
        out.push('…');
    }
    out
}

fn write_timestamp(micros: i64, out: &mut String) {
    write_date(micros.div_euclid(MICROS_PER_DAY), out);
    out.push('T');
    write_time(micros.rem_euclid(MICROS_PER_DAY), out);
}

fn write_time(micros: i64, out: &mut String) {
    let (seconds, fraction) = (micros / 1_000_000, micros % 1_000_000);
    // Always six digits: texts of one column then sort as their times do.
    _ = write!(out, "{:02}:{:02}:{:02}.{fraction:06}", seconds / 3600, seconds / 60 % 60, seconds % 60);
}

/// Year, month and day of days since 1970-01-01, proleptic Gregorian.
pub(crate) fn civil(days: i64) -> (i64, u32, u32) {
    // Counting years from March puts the leap day last; one 400-year era has 146,097 days.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = (day_of_year - (153 * month_from_march + 2) / 5 + 1) as u32;
    let month = (if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 }) as u32;
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// The inverse of [`civil`]; `None` where there is no such day.
pub(crate) fn day_of(year: i64, month: u32, day: u32) -> Option<i64> {
    if !(1..=12).contains(&month) || !(-9_999_999..=9_999_999).contains(&year) {
        return None;
    }
    let year_from_march = if month <= 2 { year - 1 } else { year };
    let era = year_from_march.div_euclid(400);
    let year_of_era = year_from_march.rem_euclid(400);
    let month_from_march = i64::from((month + 9) % 12);
    let day_of_year = (153 * month_from_march + 2) / 5 + i64::from(day) - 1;
    let days = era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468;
    (civil(days) == (year, month, day)).then_some(days)
}

fn write_date(days: i64, out: &mut String) {
    let (year, month, day) = civil(days);
    // ISO 8601: four digits, or a sign and six beyond them.
    _ = match year {
        0..=9999 => write!(out, "{year:04}-{month:02}-{day:02}"),
        _ => write!(out, "{year:+07}-{month:02}-{day:02}"),
    };
}

/// Arrays are JSON arrays: numbers as numbers with their digits, everything else as strings. `column` is the array's type.
pub(crate) fn write_json_array(items: &[Value], column: &ColumnType, out: &mut String) {
    let of = match column {
        ColumnType::Array(of) => of,
        other => other,
    };
    out.push('[');
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        match item {
            Value::Null => out.push_str("null"),
            Value::Array(items) => write_json_array(items, of, out),
            Value::Decimal(digits) => out.push_str(&decimal_text(digits.as_str(), of)),
            Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Json(_) => {
                write_text(item, out);
            }
            other => {
                let mut text = String::new();
                if let Value::Binary(bytes) = other {
                    use base64::Engine;
                    base64::engine::general_purpose::STANDARD.encode_string(bytes, &mut text);
                } else {
                    write_text(other, &mut text);
                }
                write_json_string(&text, out);
            }
        }
    }
    out.push(']');
}

fn write_json_string(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c < ' ' => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: Value) -> String {
        let mut out = String::new();
        assert!(write_text(&value, &mut out));
        out
    }

    #[test]
    fn times_are_iso_8601() {
        for (value, want) in [
            (Value::Date(0), "1970-01-01"),
            (Value::Date(-1), "1969-12-31"),
            (Value::Date(11_016), "2000-02-29"),
            (Value::Date(2_932_896), "9999-12-31"),
            (Value::Date(2_932_897), "+010000-01-01"),
            (Value::Date(-719_529), "-000001-12-31"),
            (Value::Date(-719_528), "0000-01-01"),
            (Value::Time(86_399_999_999), "23:59:59.999999"),
            (Value::Timestamp(-1), "1969-12-31T23:59:59.999999"),
            (Value::TimestampTz(1_000_001), "1970-01-01T00:00:01.000001Z"),
        ] {
            assert_eq!(text(value), want);
        }
    }

    #[test]
    fn every_day_of_eight_centuries_follows_its_predecessor() {
        let mut last = civil(-150_000);
        for days in -149_999..150_000 {
            let now = civil(days);
            let next_day = now == (last.0, last.1, last.2 + 1);
            let next_month = now.2 == 1 && (now.0, now.1) == (last.0, last.1 + 1);
            let next_year = (now.1, now.2) == (1, 1) && now.0 == last.0 + 1 && last.1 == 12;
            assert!(next_day || next_month || next_year, "{last:?} {now:?}");
            last = now;
            assert_eq!(day_of(now.0, now.1, now.2), Some(days));
        }
        assert_eq!((day_of(2023, 2, 29), day_of(2024, 13, 1), day_of(2024, 4, 31)), (None, None, None));
        assert_eq!(civil(19_782), (2024, 2, 29));
    }

    #[test]
    fn uuids_have_hyphens() {
        assert_eq!(text(Value::Uuid([0x12; 16])), "12121212-1212-1212-1212-121212121212");
    }

    #[test]
    fn arrays_are_json() {
        let mut out = String::new();
        let items = [Value::Int(1), Value::Null, Value::Text("a\"\\\u{1}".into()), Value::Decimal("1.5".into())];
        let json = ColumnType::Array(Box::new(ColumnType::Json));
        write_json_array(&items, &json, &mut out);
        assert_eq!(out, r#"[1,null,"a\"\\\u0001",1.5]"#);
        out.clear();
        let money = ColumnType::Array(Box::new(ColumnType::Decimal(Some((12, 2)))));
        write_json_array(&[Value::Decimal("1.5".into()), Value::Decimal("-3".into())], &money, &mut out);
        assert_eq!(out, "[1.50,-3.00]");
    }

    #[test]
    fn decimals_show_every_digit_of_their_scale() {
        for (digits, scale, want) in
            [("0", 2, "0.00"), ("-1.1", 2, "-1.10"), ("1.25", 2, "1.25"), ("7", 0, "7"), ("0.5", 1, "0.5")]
        {
            assert_eq!(decimal_text(digits, &ColumnType::Decimal(Some((12, scale)))), want);
        }
        assert_eq!(decimal_text("1.1", &ColumnType::Decimal(None)), "1.1");
        assert_eq!(decimal_text("1.1", &ColumnType::Text), "1.1");
    }
}
