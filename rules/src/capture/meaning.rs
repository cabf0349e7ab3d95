//! Values that only their schema explains, in words that columns know: exact digits, ISO 8601.
//!
//! Names: <https://debezium.io/documentation/reference/stable/connectors/postgresql.html#postgresql-data-types> and Kafka
//! Connect's `org.apache.kafka.connect.data`. What does not look as its schema says is left as it is: the column then refuses it
//! with the value in the message.

use base64::Engine;

use crate::convert::{date_text, time_text, timestamp_text};

/// What a field means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// Bytes of a big-endian two's complement number, that many digits behind the point.
    Decimal(i32),
    /// The same with its own scale in each value.
    VariableDecimal,
    Days,
    /// Time of day, in units of this many nanoseconds.
    TimeOfDay(i64),
    /// Date and time without zone, counted from 1970, in units of this many nanoseconds.
    DateTime(i64),
    /// JSON as text.
    Document,
}

const MILLI: i64 = 1_000_000;
const MICRO: i64 = 1_000;
const NANO: i64 = 1;
/// Nanoseconds of a day.
const DAY: i64 = 86_400_000_000_000;

/// Longer numbers are left as they are: no column takes them.
const MOST_BYTES: usize = 512;
const MOST_SCALE: u32 = 1_000;

impl Meaning {
    pub fn of(name: &str, scale: Option<i32>) -> Option<Meaning> {
        Some(match name {
            "org.apache.kafka.connect.data.Decimal" => Meaning::Decimal(scale?),
            "io.debezium.data.VariableScaleDecimal" => Meaning::VariableDecimal,
            "io.debezium.time.Date" | "org.apache.kafka.connect.data.Date" => Meaning::Days,
            "io.debezium.time.Time" | "org.apache.kafka.connect.data.Time" => Meaning::TimeOfDay(MILLI),
            "io.debezium.time.MicroTime" => Meaning::TimeOfDay(MICRO),
            "io.debezium.time.NanoTime" => Meaning::TimeOfDay(NANO),
            "io.debezium.time.Timestamp" | "org.apache.kafka.connect.data.Timestamp" => Meaning::DateTime(MILLI),
            "io.debezium.time.MicroTimestamp" => Meaning::DateTime(MICRO),
            "io.debezium.time.NanoTimestamp" => Meaning::DateTime(NANO),
            "io.debezium.data.Json" => Meaning::Document,
            _ => return None,
        })
    }

    /// The JSON token to read instead; `None` to read the value as it is.
    pub fn words(self, token: &str) -> Option<String> {
        match self {
            Meaning::Decimal(scale) => decimal(&bytes_of(token)?, scale),
            Meaning::VariableDecimal => {
                #[derive(serde::Deserialize)]
                struct Variable {
                    scale: i32,
                    value: String,
                }
                let Variable { scale, value } = serde_json::from_str(token).ok()?;
                decimal(&base64::engine::general_purpose::STANDARD.decode(value).ok()?, scale)
            }
            Meaning::Days => Some(format!("\"{}\"", date_text(token.parse::<i32>().ok()?.into()))),
            Meaning::TimeOfDay(unit) => {
                let nanos = token.parse::<i64>().ok()?.checked_mul(unit)?;
                let in_day = (0..DAY).contains(&nanos);
                in_day.then(|| format!("\"{}\"", fine(time_text(nanos / 1_000_000_000 * 1_000_000), nanos)))
            }
            Meaning::DateTime(unit) => {
                let count = token.parse::<i64>().ok()?;
                let per_second = 1_000_000_000 / unit;
                let micros = count.div_euclid(per_second).checked_mul(1_000_000)?;
                let nanos = count.rem_euclid(per_second) * unit;
                Some(format!("\"{}\"", fine(timestamp_text(micros, false), nanos)))
            }
            Meaning::Document => None,
        }
    }
}

/// The document that a text token holds; `None` when it holds none.
pub(super) fn document(token: &str) -> Option<String> {
    let text: String = serde_json::from_str(token).ok()?;
    serde_json::from_str::<serde::de::IgnoredAny>(&text).ok()?;
    Some(text)
}

/// Adds the fraction of a second of `nanos`, as few digits as say it.
fn fine(mut whole: String, nanos: i64) -> String {
    let fraction = nanos.rem_euclid(1_000_000_000);
    if fraction != 0 {
        whole.push_str(format!(".{fraction:09}").trim_end_matches('0'));
    }
    whole
}

fn bytes_of(token: &str) -> Option<Vec<u8>> {
    let text: String = serde_json::from_str(token).ok()?;
    base64::engine::general_purpose::STANDARD.decode(text).ok()
}

/// Digits of a big-endian two's complement number, the point `scale` places from the right.
fn decimal(bytes: &[u8], scale: i32) -> Option<String> {
    if bytes.is_empty() || bytes.len() > MOST_BYTES || scale.unsigned_abs() > MOST_SCALE {
        return None;
    }
    let is_negative = bytes[0] & 0x80 != 0;
    // Base 10^9, smallest first.
    let mut groups: Vec<u64> = vec![0];
    let add = |groups: &mut Vec<u64>, factor: u64, mut carry: u64| {
        for group in groups.iter_mut() {
            let sum = *group * factor + carry;
            (*group, carry) = (sum % 1_000_000_000, sum / 1_000_000_000);
        }
        if carry > 0 {
            groups.push(carry);
        }
    };
    for byte in bytes {
        // Of a negative number the magnitude is the complement plus one.
        add(&mut groups, 256, u64::from(if is_negative { !byte } else { *byte }));
    }
    if is_negative {
        add(&mut groups, 1, 1);
    }
    let mut digits = groups.pop().unwrap_or_default().to_string();
    groups.iter().rev().for_each(|group| digits.push_str(&format!("{group:09}")));
    if scale < 0 && digits != "0" {
        digits.extend(std::iter::repeat_n('0', scale.unsigned_abs() as usize));
    } else if scale > 0 {
        let scale = scale as usize;
        if digits.len() <= scale {
            digits.insert_str(0, &"0".repeat(scale + 1 - digits.len()));
        }
        digits.insert(digits.len() - scale, '.');
    }
    Some(if is_negative { format!("-{digits}") } else { digits })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, scale: Option<i32>, token: &str, expect: &str) {
        let words = Meaning::of(name, scale).expect("a known name").words(token);
        assert_eq!(words.as_deref().unwrap_or("as it is"), expect, "{name} {token}");
    }

    #[test]
    fn decimals_are_exact() {
        let decimal = |scale, bytes: &[u8], expect| {
            let token = format!("\"{}\"", base64::engine::general_purpose::STANDARD.encode(bytes));
            check("org.apache.kafka.connect.data.Decimal", Some(scale), &token, expect);
        };
        decimal(2, &[0x30, 0x39], "123.45");
        decimal(2, &[0x05], "0.05");
        decimal(2, &[0xfb], "-0.05");
        decimal(2, &[0x00], "0.00");
        decimal(0, &[0x80], "-128");
        decimal(0, &[0x00, 0x80], "128");
        decimal(0, &[0xff], "-1");
        decimal(-3, &[0x07], "7000");
        decimal(-3, &[0x00], "0");
        decimal(4, &i64::MIN.to_be_bytes(), "-922337203685477.5808");
        decimal(0, &i128::MAX.to_be_bytes(), "170141183460469231731687303715884105727");
        decimal(10, &i128::MIN.to_be_bytes(), "-17014118346046923173168730371.5884105728");
        // The converter's `decimal.format` may be NUMERIC: a number needs no schema.
        check("org.apache.kafka.connect.data.Decimal", Some(2), "12.50", "as it is");
        check("io.debezium.data.VariableScaleDecimal", None, r#"{"scale":3,"value":"AYag"}"#, "100.000");
    }

    #[test]
    fn every_i128_comes_back() {
        let mut number: i128 = 1;
        for step in 0..400_i128 {
            number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(step | 1);
            let number = number >> (step % 120);
            assert_eq!(decimal(&number.to_be_bytes(), 0), Some(number.to_string()));
        }
    }

    #[test]
    fn times_are_iso_8601() {
        check("io.debezium.time.Date", None, "19797", "\"2024-03-15\"");
        check("org.apache.kafka.connect.data.Date", None, "-1", "\"1969-12-31\"");
        check("io.debezium.time.Time", None, "45296789", "\"12:34:56.789\"");
        check("io.debezium.time.MicroTime", None, "45296000001", "\"12:34:56.000001\"");
        check("io.debezium.time.NanoTime", None, "1", "\"00:00:00.000000001\"");
        // MySQL's TIME is a span as well: what is no time of day is not made one.
        check("io.debezium.time.MicroTime", None, "86400000000", "as it is");
        check("io.debezium.time.MicroTime", None, "-1", "as it is");
        check("io.debezium.time.Timestamp", None, "1710505845123", "\"2024-03-15T12:30:45.123\"");
        check("io.debezium.time.MicroTimestamp", None, "-1", "\"1969-12-31T23:59:59.999999\"");
        check("io.debezium.time.NanoTimestamp", None, "1500000000", "\"1970-01-01T00:00:01.5\"");
        check("org.apache.kafka.connect.data.Timestamp", None, "0", "\"1970-01-01T00:00:00\"");
        check("io.debezium.time.Timestamp", None, "\"2024\"", "as it is");
    }
}
