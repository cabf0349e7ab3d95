//! Every column type there and back: written through a declared type, read with the database's own client (peers' losses).

use gravity_model::change::RowOp;
use gravity_model::port::view::Described;
use gravity_model::shape::SharedShape;
use gravity_model::{ColumnType, Value};

use super::{Dialect, Place, attached, batch, int, request, text, write};

/// Type word, value, what `psql` shows, what `sqlite3` shows.
fn samples() -> Vec<(&'static str, Value, &'static str, &'static str)> {
    let decimal = |t: &str| Value::Decimal(t.into());
    let json = |t: &str| Value::Json(t.into());
    let binary = |b: &[u8]| Value::Binary(b.into());
    let array = |items: Vec<Value>| Value::Array(items.into());
    let uuid =
        Value::Uuid([0x12, 0x3e, 0x45, 0x67, 0xe8, 0x9b, 0x12, 0xd3, 0xa4, 0x56, 0x42, 0x66, 0x14, 0x17, 0x40, 0]);
    let uuid_text = "123e4567-e89b-12d3-a456-426614174000";
    // 2024-02-29T13:14:15.678901
    let leap = 1_709_212_455_678_901;
    vec![
        ("bool", Value::Bool(true), "t", "1"),
        ("bool", Value::Bool(false), "f", "0"),
        ("i8", int(-128), "-128", "-128"),
        ("i16", int(-32_768), "-32768", "-32768"),
        ("i32", int(i32::MIN.into()), "-2147483648", "-2147483648"),
        ("i64", int(i64::MIN), "-9223372036854775808", "-9223372036854775808"),
        ("i64", int(9_007_199_254_740_993), "9007199254740993", "9007199254740993"),
        ("i64", int(i64::MAX), "9223372036854775807", "9223372036854775807"),
        ("u8", int(255), "255", "255"),
        ("u16", int(65_535), "65535", "65535"),
        ("u32", int(4_294_967_295), "4294967295", "4294967295"),
        ("u64", int(7), "7", "7"),
        ("u64", decimal("18446744073709551615"), "18446744073709551615", "18446744073709551615"),
        ("f32", Value::Float(1.5), "1.5", "1.5"),
        ("f32", Value::Float(f64::from(0.1f32)), "0.1", "0.100000001490116"),
        ("f64", Value::Float(0.1), "0.1", "0.1"),
        ("f64", Value::Float(-2.5e-300), "-2.5e-300", "-2.5e-300"),
        ("decimal", decimal("0"), "0", "0"),
        ("decimal", decimal("-1"), "-1", "-1"),
        ("decimal", decimal("10000"), "10000", "10000"),
        (
            "decimal",
            decimal("123456789012345678901234567890123456789.000000000000000000001"),
            "123456789012345678901234567890123456789.000000000000000000001",
            "123456789012345678901234567890123456789.000000000000000000001",
        ),
        (
            "decimal",
            decimal("-0.00000000000000000000000000000000000001"),
            "-0.00000000000000000000000000000000000001",
            "-0.00000000000000000000000000000000000001",
        ),
        ("decimal(12,2)", decimal("1.1"), "1.10", "1.10"),
        ("decimal(12,2)", decimal("-9999999999.99"), "-9999999999.99", "-9999999999.99"),
        ("text", text(""), "", ""),
        ("text", text("é🦀\n\t\\'\""), "é🦀\n\t\\'\"", "é🦀\n\t\\'\""),
        ("text", text("007"), "007", "007"),
        ("varchar(5)", text("12🦀45"), "12🦀45", "12🦀45"),
        ("uuid", uuid.clone(), uuid_text, uuid_text),
        ("date", Value::Date(0), "1970-01-01", "1970-01-01"),
        ("date", Value::Date(19_782), "2024-02-29", "2024-02-29"),
        ("date", Value::Date(2_932_897), "10000-01-01", "+010000-01-01"),
        ("date", Value::Date(-719_163), "0001-12-31 BC", "0000-12-31"),
        ("time", Value::Time(0), "00:00:00", "00:00:00.000000"),
        ("time", Value::Time(86_399_999_999), "23:59:59.999999", "23:59:59.999999"),
        ("timestamp", Value::Timestamp(leap), "2024-02-29 13:14:15.678901", "2024-02-29T13:14:15.678901"),
        ("timestamp", Value::Timestamp(-1), "1969-12-31 23:59:59.999999", "1969-12-31T23:59:59.999999"),
        ("timestamptz", Value::TimestampTz(leap), "2024-02-29 13:14:15.678901+00", "2024-02-29T13:14:15.678901Z"),
        (
            "timestamptz",
            Value::TimestampTz(-62_135_596_800_000_000),
            "0001-01-01 00:00:00+00",
            "0001-01-01T00:00:00.000000Z",
        ),
        (
            "json",
            json(r#"{"a": 1.10, "b": [9007199254740993, null]}"#),
            r#"{"a": 1.10, "b": [9007199254740993, null]}"#,
            r#"{"a": 1.10, "b": [9007199254740993, null]}"#,
        ),
        ("json", json("12345678901234567890.123"), "12345678901234567890.123", "12345678901234567890.123"),
        ("binary", binary(b""), "\\x", "x"),
        ("binary", binary(b"\x00\xff'\\"), "\\x00ff275c", "x00FF275C"),
        ("i64[]", array(vec![int(1), Value::Null, int(-3)]), "{1,NULL,-3}", "[1,null,-3]"),
        ("i64[]", array(vec![]), "{}", "[]"),
        (
            "text[]",
            array(vec![text("a\"b\\"), text("NULL"), text(""), text("x,y{}")]),
            r#"{"a\"b\\","NULL","","x,y{}"}"#,
            r#"["a\"b\\","NULL","","x,y{}"]"#,
        ),
        (
            "decimal[]",
            array(vec![decimal("0.10"), decimal("18446744073709551615")]),
            "{0.10,18446744073709551615}",
            "[0.10,18446744073709551615]",
        ),
        ("bool[]", array(vec![Value::Bool(true), Value::Bool(false)]), "{t,f}", "[true,false]"),
        (
            "uuid[]",
            array(vec![uuid.clone()]),
            "{123e4567-e89b-12d3-a456-426614174000}",
            "[\"123e4567-e89b-12d3-a456-426614174000\"]",
        ),
        (
            "timestamptz[]",
            array(vec![Value::TimestampTz(leap)]),
            "{\"2024-02-29 13:14:15.678901+00\"}",
            "[\"2024-02-29T13:14:15.678901Z\"]",
        ),
        ("date[]", array(vec![Value::Date(0)]), "{1970-01-01}", "[\"1970-01-01\"]"),
        ("json[]", array(vec![json(r#"{"a":"b"}"#)]), r#"{"{\"a\": \"b\"}"}"#, r#"[{"a":"b"}]"#),
        ("binary[]", array(vec![binary(b"\x00\xff")]), r#"{"\\x00ff"}"#, r#"["AP8="]"#),
    ]
}

/// What MariaDB's client shows of a sample, or the code by which it is refused: SQLite's form but where the type is MySQL's own.
fn mysql_shows(word: &str, value: &Value, psql: &str, sqlite: &str) -> Result<String, &'static str> {
    const INCORRECT_TIME: &str = "1292";
    Ok(match (word, value) {
        // DATE and DATETIME hold the years 1 to 9999.
        ("date", Value::Date(days)) if !(-719_162..=2_932_896).contains(days) => return Err(INCORRECT_TIME),
        ("timestamp" | "timestamptz", _) => sqlite.replace('T', " ").replace('Z', ""),
        // DECIMAL(65,30): what has more digits on either side is refused, what has fewer is filled.
        ("decimal", Value::Decimal(digits)) => {
            let (whole, fraction) = digits.as_str().split_once('.').unwrap_or((digits.as_str(), ""));
            match () {
                () if fraction.len() > 30 => return Err("1265"),
                () if whole.trim_start_matches('-').len() > 35 => return Err("1264"),
                () => format!("{whole}.{fraction:0<30}"),
            }
        }
        ("decimal(12,2)" | "f32", _) => psql.to_owned(),
        _ => sqlite.to_owned(),
    })
}

/// What pymongo shows of a sample, or the code by which it is refused.
fn mongodb_shows(word: &str, value: &Value, sqlite: &str) -> Result<String, &'static str> {
    let millis =
        |micros: i64| if micros % 1_000 == 0 { Ok(format!("date:{}", micros / 1_000)) } else { Err("map/lossy") };
    Ok(match (word, value) {
        ("bool", Value::Bool(bool)) => bool.to_string(),
        ("f32", Value::Float(number)) => number.to_string(),
        ("u64", Value::Decimal(_)) => return Err("map/out-of-range"),
        (_, Value::Decimal(digits)) => {
            let significant = digits.as_str().bytes().filter(u8::is_ascii_digit).skip_while(|d| *d == b'0').count();
            return if significant > 34 { Err("map/out-of-range") } else { Ok(format!("decimal:{digits}")) };
        }
        ("uuid", _) => format!("uuid:{sqlite}"),
        ("date", Value::Date(days)) => format!("date:{}", i64::from(*days) * 86_400_000),
        (_, Value::Timestamp(micros) | Value::TimestampTz(micros)) => return millis(*micros),
        ("json", Value::Json(text)) if text.as_str().starts_with('{') => {
            r#"{"a":1.1,"b":[9007199254740993,null]}"#.to_owned()
        }
        // More digits than a double has.
        ("json", _) => return Err("map/lossy"),
        ("uuid[]", _) => format!("[uuid:{}]", sqlite.trim_matches(['[', ']', '"'])),
        ("timestamptz[]", _) => return Err("map/lossy"),
        ("date[]", _) => "[date:0]".to_owned(),
        ("decimal[]", _) => "[decimal:0.10,decimal:18446744073709551615]".to_owned(),
        ("binary[]", _) => "[x00FF]".to_owned(),
        _ => sqlite.to_owned(),
    })
}

/// Values that MongoDB itself has no place for.
pub fn mongodb_refusal(word: &str, value: &Value) -> Option<&'static str> {
    mongodb_shows(word, value, "").err()
}

fn shows(dialect: Dialect, word: &str, value: &Value, psql: &str, sqlite: &str) -> Result<String, &'static str> {
    match dialect {
        Dialect::Mysql => mysql_shows(word, value, psql, sqlite),
        Dialect::Mongodb => mongodb_shows(word, value, sqlite),
        _ => Ok(String::new()),
    }
}

/// Makes the table that `describe` proposes; its shape as the store describes it afterwards, types declared again.
pub(super) async fn proposed(place: &dyn Place, name: &str, columns: &[(&str, &str)], key: &[&str]) -> SharedShape {
    let store = place.store();
    let request = request(name, columns, key);
    let described = store.describe(std::slice::from_ref(&request)).await.expect("describe").pop();
    let Some(Described::Missing { ddl: Ok(ddl) }) = described else { panic!("{name}: {described:?}") };
    store.create(&[ddl]).await.expect("create");
    match store.describe(&[request]).await.expect("describe").pop() {
        Some(Described::Present(shape)) => shape.into(),
        other => panic!("{name}: {other:?}"),
    }
}

pub async fn trap12_every_type_comes_back_exactly(place: &dyn Place) {
    let (store, mut now) = attached(place).await;
    let (mut cells, mut refusals) = (0, 0);
    for (number, (word, value, psql, sqlite)) in samples().into_iter().enumerate() {
        if place.lacks(word, &value) {
            println!("skipped: {word} {value:?}: needs a server that stores it");
            continue;
        }
        let name = format!("t{number}");
        let shape = proposed(place, &name, &[("id", "i64"), ("v", word)], &["id"]).await;
        let want = match place.dialect() {
            Dialect::Postgres => Some(psql.to_owned()),
            Dialect::Sqlite => Some(sqlite.to_owned()),
            Dialect::Memory => None,
            Dialect::Mysql | Dialect::Mongodb => match shows(place.dialect(), word, &value, psql, sqlite) {
                Ok(shown) => Some(shown),
                Err(code) => {
                    let changes = batch(&shape, RowOp::Upsert, &["v"], vec![vec![int(1), value.clone()]]);
                    let fault = super::refused(write(&*store, &mut now, &changes).await);
                    assert_eq!(fault.code, code, "{word} {value:?}");
                    refusals += 1;
                    continue;
                }
            },
        };
        // Once per way of writing a value, and once more so that the comparison of an insert runs.
        let ops = [RowOp::Insert, RowOp::Upsert, RowOp::UpdateElseInsert];
        for op in ops.into_iter().chain(ops) {
            let id = int(op as i64);
            let rows = vec![vec![id.clone(), value.clone()], vec![int(100 + op as i64), Value::Null]];
            write(&*store, &mut now, &batch(&shape, op, &["v"], rows))
                .await
                .unwrap_or_else(|f| panic!("{word} {op:?}: {f}"));
            cells += 1;
        }
        let patch = batch(&shape, RowOp::Patch, &["v"], vec![vec![int(RowOp::Upsert as i64), value.clone()]]);
        assert_eq!(write(&*store, &mut now, &patch).await.expect("patch").missed, [], "{word}");
        let Some(want) = want else { continue };
        let found = place.rows(&name, &["id", "v"]).await;
        for row in &found {
            let is_null = row[0].as_deref().expect("an id").len() == 3;
            assert_eq!(row[1].as_deref(), (!is_null).then_some(want.as_str()), "{word} {value:?}");
        }
        assert_eq!(found.len(), 6, "{word}");
    }
    println!("types: {cells} writes over {} samples, {refusals} of them refused as documented", samples().len());
}

/// O36: every type that can be a key is one: written, found, moved, deleted by it.
pub async fn o36_every_key_type(place: &dyn Place) {
    let (store, mut now) = attached(place).await;
    let mut done = std::collections::BTreeMap::<&str, usize>::new();
    for (number, (word, value, psql, sqlite)) in samples().into_iter().enumerate() {
        if matches!(word.parse().expect("a word"), ColumnType::Array(_) | ColumnType::Json) {
            continue;
        }
        if shows(place.dialect(), word, &value, psql, sqlite).is_err() {
            continue;
        }
        if place.lacks(word, &value) {
            println!("skipped: key {word} {value:?}: needs a server that stores it");
            continue;
        }
        *done.entry(word).or_default() += 1;
        let name = format!("k{number}");
        let shape = proposed(place, &name, &[("k", word), ("v", "text"), ("n", "i64")], &["k", "n"]).await;
        let key = |n: i64| vec![value.clone(), int(n)];
        let row = |n: i64, v: &str| [key(n), vec![text(v)]].concat();
        for (op, v) in
            [(RowOp::Insert, "a"), (RowOp::Insert, "a"), (RowOp::Upsert, "b"), (RowOp::UpdateElseInsert, "c")]
        {
            let changes = batch(&shape, op, &["v"], vec![row(1, v), row(2, v)]);
            write(&*store, &mut now, &changes).await.unwrap_or_else(|f| panic!("{word} {op:?}: {f}"));
        }
        let patch = batch(&shape, RowOp::Patch, &["v"], vec![row(1, "d"), row(3, "d")]);
        assert_eq!(write(&*store, &mut now, &patch).await.expect(word).missed, [(0, 0, 1)], "{word}");
        let moved = [key(2), key(3), vec![text("m")]].concat();
        write(&*store, &mut now, &batch(&shape, RowOp::Move, &["v"], vec![moved])).await.expect(word);
        write(&*store, &mut now, &batch(&shape, RowOp::Delete, &[], vec![key(1)])).await.expect(word);
        assert_eq!(place.rows(&name, &["n", "v"]).await, super::table(&[&["3", "m"]]), "{word}");
    }
    println!("key types: {done:?}");
}

/// What PostgreSQL and MySQL would round or cut without a word is refused, by the code that they have for the loud case.
pub async fn nothing_is_shortened_in_silence(place: &dyn Place) {
    let mysql = place.dialect() == Dialect::Mysql;
    if !mysql && place.dialect() != Dialect::Postgres {
        return;
    }
    let (store, mut now) = attached(place).await;
    let shape = proposed(place, "short", &[("id", "i64"), ("d", "decimal(12,2)"), ("v", "varchar(3)")], &["id"]).await;
    let decimal = |t: &str| Value::Decimal(t.into());
    for (column, value, postgres, mysql_code) in [
        ("d", decimal("1.005"), "22003", "1265"),
        ("d", decimal("12345678901"), "22003", "1264"),
        ("v", text("abc  "), "22001", "1406"),
        ("v", text("abcd"), "22001", "1406"),
    ] {
        let changes = batch(&shape, RowOp::Upsert, &[column], vec![vec![int(1), value.clone()]]);
        let fault = super::refused(write(&*store, &mut now, &changes).await);
        assert_eq!(fault.code, if mysql { mysql_code } else { postgres }, "{value:?}");
    }
    for (column, value) in [("d", decimal("1.01")), ("v", text("éé ")), ("d", decimal("-9999999999.99"))] {
        let changes = batch(&shape, RowOp::Upsert, &[column], vec![vec![int(1), value]]);
        write(&*store, &mut now, &changes).await.expect("fits");
    }
    assert_eq!(place.rows("short", &["id", "d", "v"]).await, super::table(&[&["1", "-9999999999.99", "éé "]]));
}
