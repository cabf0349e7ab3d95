//! Values that join those of the row (SEMANTICS 2.7): the same outcome on every database, exact or refused.

use std::collections::BTreeSet;
use std::sync::Arc;

use gravity_connectors::memory::view::MemoryViews;
use gravity_model::change::{ColumnOp, ColumnSet, RowGroup, RowOp, Step};
use gravity_model::port::view::{Applied, EventOutcome, ViewStore};
use gravity_model::shape::SharedShape;
use gravity_model::{ChangeBatch, ColumnType, FaultKind, Value, decimal};

use super::types::{mongodb_refusal, proposed};
use super::{
    Dialect, Place, PostgresPlace, Spec, at, attached, batch, group, int, made, refused, steps, table, text, write,
};

/// One group of rows whose columns are written with an op each.
fn joining(shape: &SharedShape, op: RowOp, set: &[(&str, ColumnOp)], rows: Vec<Vec<Value>>) -> Step {
    let names: Vec<&str> = set.iter().map(|(name, _)| *name).collect();
    let Step::Rows(plain) = group(shape, op, &names, &[], rows) else { panic!("rows") };
    let ops = set.iter().map(|(_, op)| *op).collect();
    Step::Rows(RowGroup { columns: Arc::new(ColumnSet { ops, ..(*plain.columns).clone() }), ..plain })
}

fn one(shape: &SharedShape, op: RowOp, of: ColumnOp, rows: Vec<Vec<Value>>) -> ChangeBatch {
    steps(shape, vec![joining(shape, op, &[("v", of)], rows)])
}

fn number(digits: &str) -> Value {
    Value::Decimal(digits.into())
}

fn json(document: &str) -> Value {
    Value::Json(document.into())
}

/// Type word, op, what is there, what comes, what is there then.
fn samples() -> Vec<(&'static str, ColumnOp, Value, Value, Value)> {
    use ColumnOp::{Add, Append, Max, Min};
    // 2024-02-29T13:14:15.678901
    let leap = 1_709_212_455_678_901;
    vec![
        ("i64", Add, int(5), int(-7), int(-2)),
        ("i64", Add, int(i64::MAX - 1), int(1), int(i64::MAX)),
        ("i16", Add, int(32_000), int(767), int(32_767)),
        ("u32", Add, int(4_294_967_000), int(295), int(4_294_967_295)),
        ("u64", Add, number("18446744073709551000"), int(615), number("18446744073709551615")),
        ("u64", Add, int(i64::MAX), int(1), number("9223372036854775808")),
        ("decimal(12,2)", Add, number("0.1"), number("0.2"), number("0.3")),
        ("decimal(12,2)", Add, number("9999999999.98"), number("0.01"), number("9999999999.99")),
        ("decimal(12,2)", Add, number("0.01"), number("-0.02"), number("-0.01")),
        (
            "decimal",
            Add,
            number("12345678901234567890123456789.000000000000000000000000000001"),
            number("0.1"),
            number("12345678901234567890123456789.100000000000000000000000000001"),
        ),
        // More digits than MySQL's DECIMAL has: there a text, added digit by digit.
        (
            "decimal(70,2)",
            Add,
            number("99999999999999999999999999999999999999999999999999999999999999999.99"),
            number("0.01"),
            number("100000000000000000000000000000000000000000000000000000000000000000"),
        ),
        ("decimal(70,2)", Max, number("9.5"), number("10"), number("10")),
        ("f64", Add, Value::Float(1.5), Value::Float(0.25), Value::Float(1.75)),
        ("f32", Add, Value::Float(1.5), Value::Float(0.25), Value::Float(1.75)),
        ("i64", Min, int(5), int(-7), int(-7)),
        ("i64", Max, int(5), int(-7), int(5)),
        // As texts 10 would be smaller than 9.5.
        ("decimal", Min, number("9.5"), number("10"), number("9.5")),
        ("decimal", Max, number("9.5"), number("10"), number("10")),
        ("decimal(12,2)", Min, number("-9.5"), number("-10"), number("-10")),
        ("u64", Max, int(i64::MAX), number("9223372036854775808"), number("9223372036854775808")),
        ("f64", Max, Value::Float(1.5), Value::Float(-2.5), Value::Float(1.5)),
        // By bytes, not as a collation has it.
        ("text", Min, text("b"), text("B"), text("B")),
        ("text", Max, text("f"), text("é"), text("é")),
        ("varchar(5)", Max, text("a"), text("a "), text("a ")),
        ("date", Min, Value::Date(19_782), Value::Date(-1), Value::Date(-1)),
        ("time", Max, Value::Time(1), Value::Time(86_399_999_999), Value::Time(86_399_999_999)),
        ("timestamp", Max, Value::Timestamp(leap), Value::Timestamp(-1), Value::Timestamp(leap)),
        ("timestamptz", Min, Value::TimestampTz(leap), Value::TimestampTz(-1), Value::TimestampTz(-1)),
        ("text", Append, text("a "), text(" é🦀\n'"), text("a  é🦀\n'")),
        ("varchar(4)", Append, text("éé"), text("éé"), text("éééé")),
        ("json", Append, json("[]"), json("[7]"), json("[7]")),
        (
            "json",
            Append,
            json(" [1.10, {\"a\":[2]}] "),
            json("[9007199254740993,\"x]\"]"),
            json("[1.10,{\"a\":[2]},9007199254740993,\"x]\"]"),
        ),
    ]
}

/// A cell and a value in a form that all clients' ways of showing come down to.
fn plain(place: &dyn Place, word: &str, shown: &str) -> String {
    if place.dialect() == Dialect::Memory && shown.ends_with(')') {
        return shown.to_owned();
    }
    match word.parse().expect("a type word") {
        ColumnType::Decimal(_) | ColumnType::F32 | ColumnType::F64 => {
            decimal::canonical(shown.trim_start_matches("decimal:")).expect("digits")
        }
        // A number in a document is a double there.
        ColumnType::Json if place.dialect() == Dialect::Mongodb => shown.replace(' ', "").replace("1.10", "1.1"),
        ColumnType::Json => shown.replace(' ', ""),
        ColumnType::Timestamp | ColumnType::TimestampTz => {
            shown.replace('T', " ").trim_end_matches('Z').trim_end_matches("+00").to_owned()
        }
        _ => shown.to_owned(),
    }
}

fn wanted(place: &dyn Place, word: &str, value: &Value) -> Option<String> {
    let shown = match value {
        Value::Null => return None,
        Value::Int(number) => number.to_string(),
        Value::Text(text) | Value::Decimal(text) | Value::Json(text) => text.to_string(),
        other if place.dialect() == Dialect::Memory => format!("{other:?}"),
        Value::Float(number) => number.to_string(),
        Value::Date(days) if place.dialect() == Dialect::Mongodb => format!("date:{}", i64::from(*days) * 86_400_000),
        Value::Date(-1) => "1969-12-31".to_owned(),
        Value::Date(19_782) => "2024-02-29".to_owned(),
        Value::Time(1) => "00:00:00.000001".to_owned(),
        Value::Time(86_399_999_999) => "23:59:59.999999".to_owned(),
        Value::Timestamp(-1) | Value::TimestampTz(-1) => "1969-12-31 23:59:59.999999".to_owned(),
        Value::Timestamp(_) | Value::TimestampTz(_) => "2024-02-29 13:14:15.678901".to_owned(),
        other => panic!("{other:?} has no form here"),
    };
    Some(plain(place, word, &shown))
}

/// The server at hand has no place for one of the values.
fn lacks(place: &dyn Place, word: &str, values: &[&Value]) -> bool {
    values.iter().any(|value| place.lacks(word, value))
}

/// One line for all that was left out.
fn skipped(words: &BTreeSet<&str>) {
    if !words.is_empty() {
        println!("skipped: values of {words:?}: need a server that stores them");
    }
}

/// Rows with a value, with null, and no row at all; for every way of writing.
pub async fn s2_7_every_op_on_present_null_and_missing(place: &dyn Place) {
    let (store, mut now) = attached(place).await;
    let (mut refusals, mut lacking) = (0, BTreeSet::new());
    for (number, (word, of, present, carried, want)) in samples().into_iter().enumerate() {
        if lacks(place, word, &[&present, &carried, &want]) {
            lacking.insert(word);
            continue;
        }
        let name = format!("j{number}");
        let shape = proposed(place, &name, &[("id", "i64"), ("v", word)], &["id"]).await;
        let limit = |value: &Value| if word == "json" { None } else { mongodb_refusal(word, value) };
        if place.dialect() == Dialect::Mongodb
            && let Some(code) = [&present, &carried, &want].into_iter().find_map(limit)
        {
            // BSON has no place for it: what was there stays, whether it is the value that does not fit or what it joins to.
            let set = batch(&shape, RowOp::Upsert, &["v"], vec![vec![int(1), present.clone()]]);
            let is_there = limit(&present).is_none();
            match write(&*store, &mut now, &set).await {
                Err(fault) => assert_eq!((is_there, &*fault.code), (false, code), "{word} {of:?}: {fault}"),
                Ok(_) => assert!(is_there, "{word} {of:?}"),
            }
            let before = place.rows(&name, &["id", "v"]).await;
            assert_eq!(before.len(), usize::from(is_there), "{word} {of:?}");
            let value = if is_there { &carried } else { &present };
            for op in [RowOp::Upsert, RowOp::UpdateElseInsert] {
                let join = one(&shape, op, of, vec![vec![int(1), value.clone()]]);
                assert_eq!(refused(write(&*store, &mut now, &join).await).code, code, "{word} {of:?} {op:?}");
            }
            assert_eq!(place.rows(&name, &["id", "v"]).await, before, "{word} {of:?}");
            refusals += 1;
            continue;
        }
        for op in [RowOp::Upsert, RowOp::UpdateElseInsert, RowOp::Patch, RowOp::PatchRequired, RowOp::Move] {
            let context = format!("{word} {of:?} {op:?}");
            let before = vec![vec![int(1), present.clone()], vec![int(2), Value::Null], vec![int(9), present.clone()]];
            let reset = steps(&shape, vec![Step::DeleteAll, group(&shape, RowOp::Upsert, &["v"], &[], before)]);
            write(&*store, &mut now, &reset).await.expect(&context);
            let new = |id: i64| if op == RowOp::Move { vec![int(id + 10)] } else { Vec::new() };
            let row = |id: i64| [vec![int(id)], new(id), vec![carried.clone()]].concat();
            let ids = if op == RowOp::PatchRequired { 1..3 } else { 1..4 };
            let applied = write(&*store, &mut now, &one(&shape, op, of, ids.map(row).collect())).await.expect(&context);
            let missed = if op == RowOp::Patch { vec![(0, 0, 2)] } else { Vec::new() };
            assert_eq!(applied, Applied { missed }, "{context}");
            let key = |id: i64| Some(if op == RowOp::Move { id + 10 } else { id }.to_string());
            let mut rows = vec![
                vec![key(1), wanted(place, word, &want)],
                vec![key(2), wanted(place, word, &carried)],
                vec![Some("9".to_owned()), wanted(place, word, &present)],
            ];
            if !matches!(op, RowOp::Patch | RowOp::PatchRequired) {
                rows.push(vec![key(3), wanted(place, word, &carried)]);
            }
            rows.sort();
            let mut found = place.rows(&name, &["id", "v"]).await;
            for row in &mut found {
                row[1] = row[1].take().map(|shown| plain(place, word, &shown));
            }
            assert_eq!(found, rows, "{context}");
        }
    }
    skipped(&lacking);
    println!("{refusals} of {} samples refused as documented", samples().len());
}

/// What the column cannot hold is a refusal of that event, and of nothing else; no sum becomes a float, no text is cut.
pub async fn s2_7_what_does_not_fit_is_refused(place: &dyn Place) {
    let (store, mut now) = attached(place).await;
    let mut lacking = BTreeSet::new();
    for (number, (word, of, present, carried)) in [
        ("i64", ColumnOp::Add, int(i64::MAX), int(1)),
        ("i64", ColumnOp::Add, int(i64::MIN), int(-1)),
        ("i16", ColumnOp::Add, int(32_767), int(1)),
        ("decimal(5,2)", ColumnOp::Add, self::number("999.99"), self::number("0.01")),
        ("decimal(5,2)", ColumnOp::Add, self::number("-999.99"), self::number("-0.01")),
        ("f64", ColumnOp::Add, Value::Float(f64::MAX), Value::Float(f64::MAX)),
        ("varchar(3)", ColumnOp::Append, text("ab"), text("cd")),
        ("varchar(3)", ColumnOp::Append, text("abc"), text("  ")),
        ("json", ColumnOp::Append, json("{\"a\":[1]}"), json("[1]")),
        ("json", ColumnOp::Append, json("7"), json("[1]")),
        ("json", ColumnOp::Append, json("\"[]\""), json("[1]")),
    ]
    .into_iter()
    .enumerate()
    {
        if lacks(place, word, &[&present, &carried]) {
            lacking.insert(word);
            continue;
        }
        let name = format!("f{number}");
        let shape = proposed(place, &name, &[("id", "i64"), ("v", word)], &["id"]).await;
        let before = batch(&shape, RowOp::Upsert, &["v"], vec![vec![int(1), present.clone()]]);
        write(&*store, &mut now, &before).await.expect(word);
        let shown = place.rows(&name, &["v"]).await;
        for op in [RowOp::Upsert, RowOp::UpdateElseInsert, RowOp::Patch] {
            let rows = vec![vec![int(1), carried.clone()], vec![int(2), carried.clone()]];
            let fault = refused(write(&*store, &mut now, &one(&shape, op, of, rows)).await);
            let codes = match place.dialect() {
                Dialect::Mongodb => &["map/out-of-range", "map/too-long", "map/wrong-type"][..],
                _ => &["22003", "22001", "22023", "SQLITE_MISMATCH", "SQLITE_TOOBIG", "1264", "1690", "1406", "1366"],
            };
            assert!(codes.contains(&&*fault.code), "{word} {of:?} {op:?}: {fault}");
            assert_eq!(place.rows(&name, &["v"]).await, shown, "{word} {of:?} {op:?}");
        }
        // Alone under its savepoint it takes nothing else with it.
        let mut transaction = store.begin(std::slice::from_ref(&now)).await.expect("begin");
        let bad = one(&shape, RowOp::Upsert, of, vec![vec![int(1), carried.clone()]]);
        let good = one(&shape, RowOp::Upsert, of, vec![vec![int(2), carried.clone()]]);
        assert!(matches!(transaction.apply_event(&good).await, Ok(EventOutcome::Applied(_))), "{word}");
        assert!(matches!(transaction.apply_event(&bad).await, Ok(EventOutcome::Refused(_))), "{word}");
        now = at(&now, now.sequence.0 + 1);
        transaction.commit(std::slice::from_ref(&now)).await.expect("commit");
        assert_eq!(place.rows(&name, &["id"]).await, table(&[&["1"], &["2"]]), "{word}");
    }
    skipped(&lacking);
}

/// Steps of one batch in their order: joins see what was set, deleted and emptied before them.
pub async fn s2_7_joins_in_one_batch_with_deletes(place: &dyn Place) {
    let (store, mut now) = attached(place).await;
    // Doubles say as much about the order of steps; these digits come out the same.
    let doubles = lacks(place, "decimal(12,2)", &[&self::number("1.5")]);
    skipped(&doubles.then_some("decimal(12,2)").into_iter().collect());
    let number = |digits: &str| match doubles {
        true => Value::Float(digits.parse().expect("a number")),
        false => self::number(digits),
    };
    let word = if doubles { "f64" } else { "decimal(12,2)" };
    let columns = [("id", "i64"), ("v", word), ("n", "i64"), ("log", "text"), ("name", "text")];
    let shape = proposed(place, "totals", &columns, &["id"]).await;
    let add = |rows: Vec<(i64, &str)>| {
        joining(
            &shape,
            RowOp::Upsert,
            &[("v", ColumnOp::Add)],
            rows.into_iter().map(|(id, by)| vec![int(id), number(by)]).collect(),
        )
    };
    let delete = |id: i64| group(&shape, RowOp::Delete, &[], &[], vec![vec![int(id)]]);
    let all = [("v", ColumnOp::Add), ("n", ColumnOp::Max), ("log", ColumnOp::Append), ("name", ColumnOp::Set)];
    let mixed = |id: i64, v: &str, n: i64, log: &str, name: &str| {
        let row = vec![int(id), number(v), int(n), text(log), text(name)];
        joining(&shape, RowOp::Upsert, &all, vec![row])
    };
    let changes = steps(
        &shape,
        vec![
            add(vec![(7, "1")]),
            Step::DeleteAll,
            add(vec![(1, "1.5"), (2, "2.5")]),
            add(vec![(1, "0.25"), (3, "3")]),
            delete(2),
            add(vec![(2, "7.77"), (3, "-1")]),
            group(&shape, RowOp::Upsert, &["v"], &[], vec![vec![int(3), number("100")]]),
            add(vec![(3, "0.01")]),
            mixed(4, "1", 5, "a", "first"),
            mixed(4, "2", 3, "b", "second"),
            delete(9),
        ],
    );
    write(&*store, &mut now, &changes).await.expect("one batch");
    let found = place.rows("totals", &["id", "v", "n", "log", "name"]).await;
    let canonical = |row: &Vec<Option<String>>| {
        let digits = row[1].as_deref().map(|shown| plain(place, word, shown));
        [vec![row[0].clone(), digits], row[2..].to_vec()].concat()
    };
    let want = table(&[
        &["1", "1.75", "∅", "∅", "∅"],
        &["2", "7.77", "∅", "∅", "∅"],
        &["3", "100.01", "∅", "∅", "∅"],
        &["4", "3", "5", "ab", "second"],
    ]);
    assert_eq!(found.iter().map(canonical).collect::<Vec<_>>(), want);
}

/// A sum counts once: what was rolled back did not happen, and a default of a new row joins nothing.
pub async fn s2_7_rolled_back_sums_did_not_happen(place: &dyn Place) {
    let (store, mut now) = attached(place).await;
    let columns = [("id", "i64"), ("v", "i64"), ("name", "text")];
    let shape = proposed(place, "counts", &columns, &["id"]).await;
    let Step::Rows(plain) = group(&shape, RowOp::Upsert, &["v"], &["name"], vec![vec![int(1), int(3), text("new")]])
    else {
        panic!("rows")
    };
    let columns = Arc::new(ColumnSet { ops: Box::new([ColumnOp::Add]), ..(*plain.columns).clone() });
    let changes = steps(&shape, vec![Step::Rows(RowGroup { columns, ..plain })]);
    for _ in 0..3 {
        let mut transaction = store.begin(std::slice::from_ref(&now)).await.expect("begin");
        transaction.apply(&changes).await.expect("apply");
        transaction.rollback().await;
        write(&*store, &mut now, &changes).await.expect("once");
    }
    assert_eq!(place.rows("counts", &["id", "v", "name"]).await, table(&[&["1", "9", "new"]]));
}

/// Groups beyond one statement's limits, rows there and not there mixed, with and without a second unique key.
pub async fn s2_7_ten_thousand_sums(place: &dyn Place) {
    let (store, mut now) = attached(place).await;
    for (name, unique) in [("one_key", &[][..]), ("two_keys", &[&["code"][..]][..])] {
        let columns = &[("id", "i64", true), ("v", "i64", false), ("code", "varchar(12)", false)];
        let shape = made(place, &*store, &Spec { table: name, columns, key: &["id"], unique }).await;
        let count = place.many(10_000);
        let rows =
            |step: usize| (0..i64::from(count)).step_by(step).map(|id| vec![int(id), int(1)]).collect::<Vec<_>>();
        for (op, step) in [(RowOp::Upsert, 3), (RowOp::Upsert, 1), (RowOp::UpdateElseInsert, 2), (RowOp::Patch, 5)] {
            let applied = write(&*store, &mut now, &one(&shape, op, ColumnOp::Add, rows(step))).await;
            assert_eq!(applied.expect("write"), Applied::default(), "{name} {op:?}");
        }
        let mut want: Vec<Vec<Option<String>>> = (0..count)
            .map(|id| {
                let sum = 1 + [3, 2, 5].iter().filter(|step| id % **step == 0).count();
                vec![Some(id.to_string()), Some(sum.to_string())]
            })
            .collect();
        want.sort();
        assert!(place.rows(name, &["id", "v"]).await == want, "{name}");
    }
}

/// Whether a row is the same that was inserted before cannot be told of a sum: no statement is made for it.
pub async fn s2_7_no_insert_joins(place: &dyn Place) {
    if place.dialect() == Dialect::Memory {
        return;
    }
    let (store, mut now) = attached(place).await;
    let shape = proposed(place, "inserts", &[("id", "i64"), ("v", "i64")], &["id"]).await;
    for op in [RowOp::Insert, RowOp::InsertIgnore] {
        let fault = write(&*store, &mut now, &one(&shape, op, ColumnOp::Add, vec![vec![int(1), int(1)]])).await;
        assert_eq!(fault.expect_err("refused").kind, FaultKind::Misconfigured, "{op:?}");
    }
}

/// Enums, domains and `json`, which keeps its text: what only PostgreSQL has.
pub async fn s2_7_postgres_own_types(place: &PostgresPlace) {
    let (store, mut now) = attached(place).await;
    place
        .dba(
            "CREATE TYPE \"Mood\" AS ENUM ('sad', 'happy'); CREATE DOMAIN short AS varchar(4); \
             CREATE TABLE own (id bigint PRIMARY KEY, j json, m \"Mood\", s short, n numeric(5,2), small smallint)",
        )
        .await;
    let own = super::shape(&*store, "own", &["id"]).await;
    let first = vec![int(1), json(" [1.10, 2] "), text("sad"), text("ab")];
    write(&*store, &mut now, &batch(&own, RowOp::Upsert, &["j", "m", "s"], vec![first])).await.expect("set");
    let with = |op: RowOp, column: &str, of: ColumnOp, value: Value| {
        steps(&own, vec![joining(&own, op, &[(column, of)], vec![vec![int(1), value]])])
    };
    for (column, of, value) in [
        ("j", ColumnOp::Append, json("[3]")),
        // By its label's bytes, not by its place in the type.
        ("m", ColumnOp::Min, text("happy")),
        ("s", ColumnOp::Append, text("c")),
        ("s", ColumnOp::Max, text("a")),
    ] {
        for op in [RowOp::Upsert, RowOp::Patch] {
            write(&*store, &mut now, &with(op, column, of, value.clone()))
                .await
                .unwrap_or_else(|f| panic!("{column}: {f}"));
        }
    }
    let want = table(&[&["1", " [1.10, 2,3,3]", "happy", "abcc"]]);
    assert_eq!(place.rows("own", &["id", "j", "m", "s"]).await, want);
    for (column, of, value, code) in [
        ("s", ColumnOp::Append, text("d"), "22001"),
        ("s", ColumnOp::Append, text(" "), "22001"),
        ("m", ColumnOp::Append, text("sad"), "22P02"),
    ] {
        for op in [RowOp::Upsert, RowOp::UpdateElseInsert] {
            let fault = refused(write(&*store, &mut now, &with(op, column, of, value.clone())).await);
            assert_eq!(fault.code, code, "{column} {op:?}: {fault}");
        }
    }
    assert_eq!(place.rows("own", &["id", "j", "m", "s"]).await, want);
    let other = batch(&own, RowOp::Upsert, &["j"], vec![vec![int(1), json("{\"a\": 1}")]]);
    write(&*store, &mut now, &other).await.expect("set");
    let fault = refused(write(&*store, &mut now, &with(RowOp::Upsert, "j", ColumnOp::Append, json("[1]"))).await);
    assert_eq!(fault.code, "22023", "{fault}");
}

/// Events without plan, one after the other: applied here and refused there as in memory, with the same rows afterwards.
pub async fn s2_7_random_events_as_in_memory(place: &dyn Place) {
    use ColumnOp::{Add, Append, Max, Min, Set};
    const NAMES: [&str; 5] = ["id", "small", "money", "words", "list"];
    let (store, mut now) = attached(place).await;
    let doubles = lacks(place, "decimal(4,1)", &[&number("1.5")]);
    skipped(&doubles.then_some("decimal(4,1)").into_iter().collect());
    let words = ["i64", "i16", if doubles { "f64" } else { "decimal(4,1)" }, "varchar(5)", "json"];
    let columns: Vec<(&str, &str)> = NAMES.into_iter().zip(words).collect();
    let shape = proposed(place, "dice", &columns, &["id"]).await;
    let memory = MemoryViews::new();
    memory.put_table((*shape).clone());
    super::attach(&memory, &now).await;
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut roll = |sides: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) % sides
    };
    let (mut applied, mut refused) = (0, 0);
    let mut here = store.begin(std::slice::from_ref(&now)).await.expect("begin");
    let mut there = memory.begin(std::slice::from_ref(&now)).await.expect("begin");
    for event in 0..400 {
        let op = [RowOp::Upsert, RowOp::Upsert, RowOp::UpdateElseInsert, RowOp::Patch, RowOp::Delete][roll(5) as usize];
        let id = int(roll(4) as i64);
        let changes = if op == RowOp::Delete && roll(4) > 0 {
            steps(&shape, vec![group(&shape, RowOp::Delete, &[], &[], vec![vec![id]])])
        } else {
            let op = if op == RowOp::Delete { RowOp::Upsert } else { op };
            let (mut set, mut row) = (Vec::new(), vec![id]);
            for (column, name) in NAMES.into_iter().enumerate().skip(1) {
                if roll(2) == 0 {
                    continue;
                }
                let number = roll(40_000) as i64 - 15_000;
                let (ops, value): (&[ColumnOp], Value) = match column {
                    1 => (&[Set, Add, Add, Min, Max], int(number)),
                    // Quarters add up without rounding.
                    2 if doubles => (&[Set, Add, Add, Min, Max], Value::Float(number as f64 / 4.0)),
                    2 => (
                        &[Set, Add, Add, Min, Max],
                        Value::Decimal(
                            decimal::canonical(&format!("{}.{}", number / 40, roll(10))).expect("digits").into(),
                        ),
                    ),
                    3 => (&[Set, Min, Max, Append, Append], text(["", "a", "é", "b ", "Z", "zz"][roll(6) as usize])),
                    _ => (&[Set, Append, Append], json(["[1]", "[]", "[{\"a\":2}]", "[3,4]"][roll(4) as usize])),
                };
                let of = ops[roll(ops.len() as u64) as usize];
                set.push((name, of));
                row.push(match of {
                    Set if roll(6) == 0 => Value::Null,
                    Set if column == 4 && roll(3) == 0 => json("{\"no\":\"list\"}"),
                    _ => value,
                });
            }
            steps(&shape, vec![joining(&shape, op, &set, vec![row])])
        };
        let want = there.apply_event(&changes).await.expect("an answer");
        let found = here.apply_event(&changes).await.expect("an answer");
        match (&want, &found) {
            (EventOutcome::Applied(want), EventOutcome::Applied(found)) => {
                assert_eq!(want, found, "event {event}: {changes:?}");
                applied += 1;
            }
            (EventOutcome::Refused(_), EventOutcome::Refused(_)) => refused += 1,
            _ => panic!("event {event}: {want:?} in memory, {found:?} here: {changes:?}"),
        }
    }
    now = at(&now, 400);
    here.commit(std::slice::from_ref(&now)).await.expect("commit");
    there.commit(std::slice::from_ref(&now)).await.expect("commit");
    assert!(applied > 200 && refused > 10, "{applied} applied, {refused} refused");
    let found: Vec<Vec<Option<String>>> = place.rows("dice", &NAMES).await;
    let plainly = |row: Vec<Option<String>>| {
        let cells = row.into_iter().zip(words);
        cells.map(|(cell, word)| cell.map(|shown| plain(place, word, &shown))).collect::<Vec<_>>()
    };
    let mut want: Vec<Vec<Option<String>>> = memory
        .rows("dice")
        .iter()
        .map(|row| row.iter().zip(words).map(|(v, w)| wanted(place, w, v)).collect())
        .collect();
    let mut found: Vec<_> = found.into_iter().map(plainly).collect();
    want.sort();
    found.sort();
    assert_eq!(found, want);
}
