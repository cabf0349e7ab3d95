//! Values and names that want to be more than that (T1, T2, T5, O35).

use std::sync::Arc;

use gravity_model::change::RowOp;
use gravity_model::port::view::TableRequest;
use gravity_model::{ColumnShape, FaultKind, TableShape};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{Dialect, Place, Spec, USERS, attached, batch, int, kind, made, refused, strings, text, write};

/// Pieces that break quoting, comments, escapes, encodings and printf somewhere.
const PIECES: &[&str] = &[
    "'",
    "''",
    "\"",
    "\"\"",
    "`",
    "\\",
    "\\'",
    ";",
    "--",
    "/*",
    "*/",
    "$1",
    "$$",
    ":a",
    "?",
    "?1",
    "%s",
    "%",
    "_",
    "{",
    "}",
    "[",
    "]",
    "(",
    ")",
    ",",
    "NULL",
    "null",
    "\\N",
    "\t",
    "\n",
    "\r",
    "\u{1}",
    "\u{7f}",
    "\u{85}",
    "\u{2028}",
    "\u{feff}",
    "é",
    "e\u{301}",
    "ß",
    "İ",
    "ı",
    "中",
    "🦀",
    "👩‍👩‍👧",
    "\u{202e}",
    "A",
    "a",
    " ",
    "  ",
    "0",
    "-0",
    "1e5",
    "0x1f",
    "true",
    "drop table users",
    "' OR '1'='1",
    "'); DROP TABLE users; --",
    "{\"a\":1}",
    "<script>",
    "\u{10ffff}",
];

/// T1: 10,000 hostile strings come back byte for byte, as keys and as values, and nothing else happens.
pub async fn t1_ten_thousand_hostile_strings(place: &dyn Place) {
    let (store, mut now) = attached(place).await;
    let spec = Spec { table: "notes", columns: &[("k", "text", true), ("v", "text", false)], key: &["k"], unique: &[] };
    let notes = made(place, &*store, &spec).await;
    made(place, &*store, &USERS).await;
    let seed = 20_261_124;
    let mut random = StdRng::seed_from_u64(seed);
    let mut wanted = std::collections::BTreeMap::new();
    while wanted.len() < place.many(10_000) as usize {
        let word = |random: &mut StdRng| {
            (0..random.random_range(1..6)).map(|_| PIECES[random.random_range(0..PIECES.len())]).collect::<String>()
        };
        let (key, value) = (word(&mut random), word(&mut random));
        wanted.insert(key, value);
    }
    println!("seed {seed}");
    let rows = wanted.iter().map(|(k, v)| vec![text(k), text(v)]).collect();
    write(&*store, &mut now, &batch(&notes, RowOp::Insert, &["v"], rows)).await.expect("insert");
    let found = place.rows("notes", &["k", "v"]).await;
    let want: Vec<_> = wanted.iter().map(|(k, v)| vec![Some(k.clone()), Some(v.clone())]).collect();
    assert!(found == want, "first difference: {:?}", found.iter().zip(&want).find(|(a, b)| a != b));
    // Found again by these keys: equality is equality of bytes.
    let patches = wanted.keys().map(|k| vec![text(k), text("patched")]).collect();
    let applied = write(&*store, &mut now, &batch(&notes, RowOp::Patch, &["v"], patches)).await.expect("patch");
    assert_eq!(applied.missed, []);
    let keys = wanted.keys().map(|k| vec![text(k)]).collect();
    write(&*store, &mut now, &batch(&notes, RowOp::Delete, &[], keys)).await.expect("delete");
    assert!(!store.has_rows("notes").await.expect("ask"));
    assert!(!store.has_rows("users").await.expect("the table is still there"));
}

/// NUL cannot stand in PostgreSQL's text: refused as content, by its code. SQLite and MySQL keep it.
pub async fn trap12_a_nul_in_text_is_kept_or_refused(place: &dyn Place) {
    let (store, mut now) = attached(place).await;
    let users = made(place, &*store, &USERS).await;
    let changes = batch(&users, RowOp::Upsert, &["name"], vec![vec![int(1), text("a\0b")]]);
    let result = write(&*store, &mut now, &changes).await;
    if place.dialect() == Dialect::Mongodb && result.is_err() {
        println!("skipped: needs a server that keeps NUL; FerretDB's database has no place for it");
        let fault = refused(result);
        assert!(fault.code.starts_with("22"), "{fault}");
    } else if place.dialect() == Dialect::Postgres {
        assert_eq!(refused(result).code, "22021");
    } else {
        result.expect("kept");
        assert_eq!(place.rows("users", &["name"]).await, [[Some("a\0b".to_owned())]]);
    }
}

/// T5: a value beyond our own limit is refused before it reaches the wire.
pub async fn t5_trap12_huge_values_are_refused(place: &dyn Place) {
    let (store, mut now) = attached(place).await;
    let users = made(place, &*store, &USERS).await;
    let big = "x".repeat(8 << 20);
    let changes = batch(&users, RowOp::Upsert, &["name"], vec![vec![int(1), text(&big)]]);
    write(&*store, &mut now, &changes).await.expect("8 MiB");
    let found = place.rows("users", &["name"]).await;
    assert!(found[0][0].as_deref() == Some(&big), "8 MiB come back");
    if place.dialect() == Dialect::Memory {
        return;
    }
    let changes = batch(&users, RowOp::Upsert, &["name"], vec![vec![int(2), text(&"x".repeat(65 << 20))]]);
    let fault = refused(write(&*store, &mut now, &changes).await);
    assert!(["54000", "SQLITE_TOOBIG", "1153", "10334"].contains(&&*fault.code), "{fault}");
}

/// O35: names outside the grammar are refused, wherever they come from, and nothing runs.
pub async fn o35_hostile_names_are_refused(place: &dyn Place) {
    if place.dialect() == Dialect::Memory {
        return;
    }
    let (store, mut now) = attached(place).await;
    let users = made(place, &*store, &USERS).await;
    let long = "a".repeat(64);
    let names = [
        "a\"b",
        "a;drop table users",
        "users\"; drop table users; --",
        "a b",
        "a-b",
        "é",
        "",
        "1a",
        "a.b.c",
        "a\0b",
        "a'b",
        "a`b",
        "[a]",
        "a\\",
        "pg_catalog.pg_class",
        "information_schema.tables",
        "sqlite_master",
        "gravity_checkpoints",
        "gravity_views",
        "GRAVITY_views",
        &long,
    ];
    for name in names {
        let request = TableRequest { table: name.to_owned(), columns: Vec::new(), key: Vec::new() };
        assert_eq!(kind(store.describe(&[request]).await), FaultKind::Misconfigured, "describe {name:?}");
        assert_eq!(kind(store.has_rows(name).await), FaultKind::Misconfigured, "has_rows {name:?}");
        let shape = Arc::new(TableShape { table: name.to_owned(), ..(*users).clone() });
        let changes = batch(&shape, RowOp::Upsert, &["name"], vec![vec![int(1), text("x")]]);
        assert_eq!(kind(write(&*store, &mut now, &changes).await), FaultKind::Misconfigured, "table {name:?}");
        if name.contains('.') || name.contains('_') {
            continue; // As column names these are wrong or harmless.
        }
        let mut columns = users.columns.clone();
        columns[1] = ColumnShape { name: name.to_owned(), ..columns[1].clone() };
        let shape = Arc::new(TableShape { columns, ..(*users).clone() });
        for op in [RowOp::Upsert, RowOp::Patch, RowOp::Insert, RowOp::UpdateElseInsert] {
            let changes = batch(&shape, op, &[name], vec![vec![int(1), text("x")]]);
            assert_eq!(kind(write(&*store, &mut now, &changes).await), FaultKind::Misconfigured, "column {name:?}");
        }
    }
    let seed = 35;
    let mut random = StdRng::seed_from_u64(seed);
    let mut refusals = 0;
    while refusals < 500 {
        let name: String =
            (0..random.random_range(1..5)).map(|_| PIECES[random.random_range(0..PIECES.len())]).collect();
        let plain =
            name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') && !name.as_bytes()[0].is_ascii_digit();
        if !plain {
            assert_eq!(kind(store.has_rows(&name).await), FaultKind::Misconfigured, "{name:?}");
            refusals += 1;
        }
    }
    println!("identifiers: {refusals} hostile ones refused, seed {seed}");
    for ddl in ["DROP TABLE users", "CREATE TABLE a (id int); DROP TABLE users", "CREATE INDEX i ON users (name)"] {
        assert_eq!(kind(store.create(&strings(&[ddl])).await), FaultKind::Misconfigured, "{ddl}");
    }
    assert!(!store.has_rows("users").await.expect("still there, still empty"));
}

/// Reserved words and mixed case mean themselves.
pub async fn o35_reserved_words_and_case_are_plain_names(place: &dyn Place) {
    let (store, mut now) = attached(place).await;
    let longest = "n".repeat(63);
    let spec = Spec {
        table: "Order",
        columns: &[("Select", "i64", true), ("from", "text", false), ("t", "text", false), (&longest, "text", false)],
        key: &["Select"],
        unique: &[],
    };
    let order = made(place, &*store, &spec).await;
    let set = ["from", "t", &longest];
    let row = |v: &str| vec![vec![int(1), text(v), text(v), text(v)]];
    for op in [RowOp::Insert, RowOp::Upsert, RowOp::Patch, RowOp::UpdateElseInsert, RowOp::InsertIgnore] {
        write(&*store, &mut now, &batch(&order, op, &set, row("v"))).await.expect("write");
    }
    let moved = vec![vec![int(1), int(2), text("a"), text("b"), text("c")]];
    write(&*store, &mut now, &batch(&order, RowOp::Move, &set, moved)).await.expect("move");
    let quoted = if place.dialect() == Dialect::Memory { "Order" } else { "\"Order\"" };
    let found = place.rows(quoted, &["Select", "from", "t", &longest]).await;
    assert_eq!(found, super::table(&[&["2", "a", "b", "c"]]));
    // Names that our own statements use inside.
    for name in ["u", "d", "excluded", "n", "c0"] {
        let shape = made(place, &*store, &Spec { table: name, ..USERS }).await;
        for op in [RowOp::Upsert, RowOp::Patch, RowOp::UpdateElseInsert, RowOp::Insert] {
            write(&*store, &mut now, &batch(&shape, op, &["name"], vec![vec![int(1), text("x")]])).await.expect(name);
        }
        let moved = vec![vec![int(1), int(2), text("y")]];
        write(&*store, &mut now, &batch(&shape, RowOp::Move, &["name"], moved)).await.expect(name);
        write(&*store, &mut now, &batch(&shape, RowOp::Delete, &[], vec![vec![int(2)]])).await.expect(name);
        assert!(!store.has_rows(name).await.expect(name));
    }
}
