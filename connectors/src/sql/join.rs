//! Values that join those of the row, for databases that do not compute them exactly by themselves: present values are read
//! under the transaction's locks, joined here, and written like any other.
//!
//! SQLite turns an overflowing sum into a float and compares decimals as texts; MySQL computes with texts as floats. What the
//! columns hold is read by its digits instead, so the outcome is PostgreSQL's.

use std::sync::Arc;

use gravity_model::join::JoinRefusal;
use gravity_model::{ColumnOp, ColumnSet, ColumnType, Fault, FaultKind, RowGroup, TableShape, Value, decimal};

use super::text::day_of;

/// Present values of the joining columns, per row of a group; `None` where there is no such row.
pub(crate) type Present = Vec<Option<Vec<Value>>>;

/// The same group with the values that its rows are to have: nothing joins any more. `code` gives the database's own words.
pub(crate) fn joined(
    shape: &TableShape,
    group: &RowGroup,
    set_from: usize,
    present: Present,
    code: impl Fn(JoinRefusal) -> &'static str,
    doing: &str,
) -> Result<RowGroup, Fault> {
    let mut values = group.values.clone();
    for (row, present) in values.chunks_mut(group.width).zip(present) {
        let Some(present) = present else { continue };
        for ((index, column), present) in joining(&group.columns).zip(present) {
            let (cell, column) = (&mut row[set_from + index], &shape.columns[usize::from(column)]);
            let joined = group.columns.op(index).join(&column.column_type, &present, cell);
            *cell = joined.map_err(|refusal| {
                let word = group.columns.op(index).word();
                let detail = format!("column {}, {word}: {refusal}", column.name);
                Fault::new(FaultKind::RefusedEvent, code(refusal), doing, detail)
            })?;
        }
    }
    let columns = Arc::new(ColumnSet { ops: Box::default(), ..(*group.columns).clone() });
    Ok(RowGroup { op: group.op, columns, width: group.width, values })
}

/// Columns that join, with their place in `set`.
pub(crate) fn joining(columns: &ColumnSet) -> impl Iterator<Item = (usize, u16)> {
    let joins = |(index, _): &(usize, u16)| columns.op(*index) != ColumnOp::Set;
    columns.set.iter().copied().enumerate().filter(joins)
}

/// A present value from its text; `None` where the text is none of the column's type. Dates and times with `T` or a blank
/// between, as both databases write them.
pub(crate) fn read_text(column: &ColumnType, text: &str) -> Option<Value> {
    Some(match column {
        ColumnType::Text | ColumnType::Varchar(_) => Value::Text(text.into()),
        ColumnType::Json => Value::Json(text.into()),
        ColumnType::Decimal(_) => Value::Decimal(decimal::canonical(text)?.into()),
        ColumnType::Date => Value::Date(i32::try_from(date(text)?).ok()?),
        ColumnType::Time => Value::Time(time(text)?),
        ColumnType::Timestamp => Value::Timestamp(timestamp(text)?),
        ColumnType::TimestampTz => Value::TimestampTz(timestamp(text.strip_suffix('Z').unwrap_or(text))?),
        integer => {
            integer.integer_range()?;
            match text.parse() {
                Ok(number) => Value::Int(number),
                Err(_) => Value::Decimal(decimal::canonical(text).filter(|_| !text.contains('.'))?.into()),
            }
        }
    })
}

fn timestamp(text: &str) -> Option<i64> {
    let (day, clock) = text.split_once(['T', ' '])?;
    date(day)?.checked_mul(86_400_000_000)?.checked_add(time(clock)?)
}

/// `2024-02-29`, or with a sign and more digits of the year.
fn date(text: &str) -> Option<i64> {
    let mut parts = text.rsplitn(3, '-');
    let (day, month, year) = (parts.next()?, parts.next()?, parts.next()?);
    let two = |part: &str| (part.len() == 2).then(|| digits(part)).flatten();
    day_of(year.parse().ok()?, u32::try_from(two(month)?).ok()?, u32::try_from(two(day)?).ok()?)
}

/// `13:14:15.678901`, any number of digits behind the seconds up to six.
fn time(text: &str) -> Option<i64> {
    let (clock, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let mut parts = clock.splitn(3, ':').map(|part| (part.len() == 2).then(|| digits(part)).flatten());
    let (hours, minutes, seconds) = (parts.next()??, parts.next()??, parts.next()??);
    if hours > 23 || minutes > 59 || seconds > 59 || fraction.len() > 6 {
        return None;
    }
    let micros = digits(fraction)? * 10_i64.pow(6 - fraction.len() as u32);
    Some(((hours * 60 + minutes) * 60 + seconds) * 1_000_000 + micros)
}

fn digits(text: &str) -> Option<i64> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::text::write_text;

    #[test]
    fn texts_are_read_as_they_are_written() {
        for (word, value) in [
            ("date", Value::Date(0)),
            ("date", Value::Date(2_932_897)),
            ("date", Value::Date(-719_529)),
            ("time", Value::Time(86_399_999_999)),
            ("timestamp", Value::Timestamp(-1)),
            ("timestamp", Value::Timestamp(1_709_212_455_678_901)),
            ("timestamptz", Value::TimestampTz(-62_135_596_800_000_000)),
            ("decimal", Value::Decimal("-0.5".into())),
            ("u64", Value::Decimal("18446744073709551615".into())),
            ("i8", Value::Int(-128)),
            ("text", Value::Text("x".into())),
        ] {
            let column = word.parse().expect("a type word");
            let mut text = String::new();
            assert!(write_text(&value, &mut text));
            assert_eq!(read_text(&column, &text), Some(value), "{word}: {text}");
        }
    }

    #[test]
    fn what_is_no_value_of_the_type_is_none() {
        for (word, text) in [
            ("date", "2023-02-29"),
            ("date", "2024-2-1"),
            ("date", "yesterday"),
            ("time", "24:00:00"),
            ("time", "-01:00:00"),
            ("time", "838:59:59"),
            ("timestamp", "2024-01-01"),
            ("timestamp", "2024-01-01T00:00:00Z"),
            ("decimal", "1e3"),
            ("i64", "1.0"),
            ("bool", "true"),
            ("binary", "00"),
        ] {
            assert_eq!(read_text(&word.parse().expect("a type word"), text), None, "{word}: {text}");
        }
        let server = read_text(&ColumnType::Timestamp, "2024-02-29 13:14:15.5");
        assert_eq!(server, Some(Value::Timestamp(1_709_212_455_500_000)));
    }
}
