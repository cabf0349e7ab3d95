//! Plays the matrix through an engine over one database, and reads back with that database's own client.

use std::collections::BTreeMap;
use std::sync::Arc;

use gravity_model::port::view::ViewStore;
use gravity_rules::DatabaseKind;
use serde_json::json;

use super::{Cell, Shown, Target, TypeRow};
use crate::engine_rig::EngineRig;
use crate::view_suite::places::unhex;
use crate::view_suite::{MongoPlace, MySqlPlace, Place, PostgresPlace, SqlitePlace};

/// A fresh database and its client.
pub trait Client: Place {
    fn target(&self) -> Target;

    fn kind(&self) -> DatabaseKind;

    /// Makes a table with `id` and a column `v` as a DBA would.
    fn make_table(&self, table: &str, ddl: &str);

    /// The column's type in the database's own words.
    fn column(&self, table: &str) -> String;

    /// Every row's `v`, by `id`, of a column of this type word.
    fn values(&self, table: &str, word: &str) -> impl Future<Output = BTreeMap<i64, Option<String>>> + Send;

    /// What the server at hand cannot keep, though the database that it stands for can.
    fn cannot_keep(&self, _word: &str, _cell: &Cell) -> Option<&'static str> {
        None
    }
}

fn by_id(rows: Vec<(String, Option<String>)>) -> BTreeMap<i64, Option<String>> {
    rows.into_iter().map(|(id, value)| (id.parse().expect("a number"), value)).collect()
}

impl Client for PostgresPlace {
    fn target(&self) -> Target {
        Target::Postgres
    }

    fn kind(&self) -> DatabaseKind {
        DatabaseKind::Postgres
    }

    fn make_table(&self, table: &str, ddl: &str) {
        self.client(&format!(
            "CREATE TYPE {ddl} AS ENUM ('sad', 'happy', '1'); CREATE TABLE {table} (id bigint PRIMARY KEY, v {ddl});\n"
        ));
    }

    fn column(&self, table: &str) -> String {
        let sql = format!(
            "SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = '{table}'::regclass AND attname = 'v';"
        );
        self.client(&sql).trim_end().to_owned()
    }

    async fn values(&self, table: &str, _word: &str) -> BTreeMap<i64, Option<String>> {
        let rows = self.rows(table, &["id", "v"]).await;
        by_id(rows.into_iter().map(|mut row| (row.remove(0).expect("an id"), row.remove(0))).collect())
    }
}

impl Client for MySqlPlace {
    fn target(&self) -> Target {
        Target::Mariadb
    }

    fn kind(&self) -> DatabaseKind {
        DatabaseKind::Mysql
    }

    fn make_table(&self, table: &str, ddl: &str) {
        self.client(&format!(
            "CREATE TABLE {table} (id bigint PRIMARY KEY, v {ddl}) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE={};\n",
            self.collation
        ));
    }

    fn column(&self, table: &str) -> String {
        let sql = format!(
            "SELECT COLUMN_TYPE FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE() \
             AND TABLE_NAME = '{table}' AND COLUMN_NAME = 'v';"
        );
        self.client(&sql).trim_end().to_owned()
    }

    async fn values(&self, table: &str, _word: &str) -> BTreeMap<i64, Option<String>> {
        // The client prints six digits of a FLOAT.
        let v = if self.column(table) == "float" { "CAST(v AS DOUBLE)" } else { "v" };
        let sql = format!(
            "SELECT id, IF(v IS NULL, '-', IF(CHARSET(CONCAT('', {v})) = 'binary', CONCAT('x', HEX({v})), \
             CONCAT('t', HEX(CONVERT(CONCAT('', {v}) USING utf8mb4))))) FROM {table};\n"
        );
        let shown = |field: &str| match field.split_at(1) {
            ("-", _) => None,
            ("x", digits) => Some(format!("x{digits}")),
            (_, digits) => Some(String::from_utf8(unhex(digits)).expect("UTF-8")),
        };
        let line = |line: &str| {
            let (id, field) = line.split_once('\t').expect("two columns");
            (id.to_owned(), shown(field))
        };
        by_id(self.client(&sql).lines().map(line).collect())
    }
}

impl Client for SqlitePlace {
    fn target(&self) -> Target {
        Target::Sqlite
    }

    fn kind(&self) -> DatabaseKind {
        DatabaseKind::Sqlite
    }

    fn make_table(&self, table: &str, ddl: &str) {
        self.client(&format!("CREATE TABLE {table} (id INTEGER PRIMARY KEY, v {ddl}) STRICT;\n"));
    }

    /// Storage classes of what stands in the column, then its declared type.
    fn column(&self, table: &str) -> String {
        let declared = format!("SELECT type FROM pragma_table_info('{table}') WHERE name = 'v'");
        let classes = format!("SELECT group_concat(DISTINCT typeof(v)) FROM {table} WHERE v IS NOT NULL");
        self.client(&format!("SELECT ({classes}) || ' ' || ({declared});\n")).trim_end().to_owned()
    }

    async fn values(&self, table: &str, _word: &str) -> BTreeMap<i64, Option<String>> {
        // Doubles as mantissa and exponent, because the client's own digits are not exact; texts as hexadecimal digits, so that
        // no byte is lost.
        let sql = format!(
            "SELECT id, CASE typeof(v) WHEN 'null' THEN '-' \
             WHEN 'real' THEN 'r' || ieee754_mantissa(v) || ' ' || ieee754_exponent(v) \
             WHEN 'blob' THEN 'x' || hex(v) ELSE 't' || hex(v) END FROM {table};\n"
        );
        let shown = |field: &str| match field.split_at(1) {
            ("-", _) => None,
            ("x", digits) => Some(format!("x{digits}")),
            ("r", parts) => Some(double(parts)),
            (_, digits) => Some(String::from_utf8(unhex(digits)).expect("UTF-8")),
        };
        let line = |line: &str| {
            let (id, field) = line.split_once('|').expect("two columns");
            (id.to_owned(), shown(field))
        };
        by_id(self.client(&sql).lines().map(line).collect())
    }
}

impl Client for MongoPlace {
    fn target(&self) -> Target {
        Target::Mongodb
    }

    fn kind(&self) -> DatabaseKind {
        DatabaseKind::Mongodb
    }

    fn make_table(&self, table: &str, _ddl: &str) {
        self.client(json!({"do": "make", "table": table, "unique": []}));
    }

    /// Types of what stands in the field.
    fn column(&self, table: &str) -> String {
        let found = self.client(json!({"do": "values", "table": table, "json": false}));
        found["kinds"].as_str().expect("a text").to_owned()
    }

    async fn values(&self, table: &str, word: &str) -> BTreeMap<i64, Option<String>> {
        // A text that is a JSON value is shown as one.
        let found = self.client(json!({"do": "values", "table": table, "json": word == "json"}));
        let rows: Vec<(i64, Option<String>)> = serde_json::from_value(found["values"].clone()).expect("rows");
        rows.into_iter().collect()
    }

    fn cannot_keep(&self, word: &str, cell: &Cell) -> Option<&'static str> {
        if self.decimals || matches!(cell.shows[&Target::Mongodb], Shown::Refused(_)) {
            return None;
        }
        match cell.given.as_str() {
            _ if word.starts_with("decimal") => Some("Decimal128"),
            "-0.0" => Some("the sign of zero"),
            given if given.contains("\\u0000") => Some("NUL in a text"),
            given if given.starts_with("[[") => Some("lists in lists"),
            _ => None,
        }
    }
}

/// `MANTISSA EXPONENT`, of base 2, as the shortest digits that name the same double.
fn double(parts: &str) -> String {
    let (mantissa, exponent) = parts.split_once(' ').expect("two parts");
    let (mantissa, exponent): (i64, i32) = (mantissa.parse().expect("a number"), exponent.parse().expect("a number"));
    // In two steps, each exact: one power of two would be below the smallest double.
    let half = exponent / 2;
    let value = mantissa as f64 * 2f64.powi(half) * 2f64.powi(exponent - half);
    format!("{value:?}")
}

/// Ids beyond those of the cells: a value that a later event makes null, and one that a later event does not mention.
const NULLED: usize = 1_000_000;
const KEPT: usize = 2_000_000;

fn table(number: usize) -> String {
    format!("t{number}")
}

/// One rule per row of the matrix: event and table share their name.
fn rules(rows: &[TypeRow]) -> String {
    let rule = |(number, row): (usize, &TypeRow)| {
        json!({"event": table(number), "table": table(number), "method": "update", "mapping": [
            {"source": "id", "target": "id", "type": "i64", "primary": true},
            {"source": "v", "target": "v", "type": row.word}]})
    };
    json!({"rules": rows.iter().enumerate().map(rule).collect::<Vec<_>>()}).to_string()
}

/// Cells of one row that the server at hand can show, by number.
fn cells<'r>(place: &impl Client, row: &'r TypeRow) -> Vec<(usize, &'r Cell)> {
    row.cells.iter().enumerate().filter(|(_, cell)| place.cannot_keep(row.word, cell).is_none()).collect()
}

/// The first of them that can be read back.
fn readable<'r>(cells: &[(usize, &'r Cell)], target: Target) -> Option<(&'r str, &'r str)> {
    cells.iter().find_map(|(_, cell)| match &cell.shows[&target] {
        Shown::Reads(text) => Some((cell.given.as_str(), text.as_str())),
        Shown::Refused(_) => None,
    })
}

/// The events of one row; each names itself in its key, so that a dead letter does. `given` is kept as it is written.
fn events(number: usize, cells: &[(usize, &Cell)], target: Target) -> String {
    let name = table(number);
    let event = |id: usize, v: Option<&str>| {
        let v = v.map(|given| format!(",\"v\":{given}")).unwrap_or_default();
        format!(r#"{{"event":"{name}","key":"{name}/{id}","payload":{{"id":{id}{v}}}}}"#)
    };
    let mut events: Vec<String> = cells.iter().map(|(id, cell)| event(*id, Some(&cell.given))).collect();
    if let Some((given, _)) = readable(cells, target) {
        events.extend([event(NULLED, Some(given)), event(NULLED, Some("null"))]);
        events.extend([event(KEPT, Some(given)), event(KEPT, None)]);
    }
    format!("[{}]", events.join(","))
}

/// Plays all rows; what is not as the matrix says, one line each.
pub async fn play(place: &impl Client, rows: &[TypeRow]) -> Vec<String> {
    let target = place.target();
    for (number, row) in rows.iter().enumerate() {
        if let Some(made) = &row.made {
            place.make_table(&table(number), made[&target]);
        }
    }
    let store: Arc<dyn ViewStore> = place.store();
    let engine = EngineRig::new(place.kind(), store, rules(rows)).start().await;
    let mut last = 0;
    for (number, row) in rows.iter().enumerate() {
        last = engine.post(&events(number, &cells(place, row), target)).await;
    }
    engine.in_view(last).await;
    let letters = engine.0.dead_letters(Some("db1")).await.expect("listed");
    let letters: BTreeMap<String, (String, String)> =
        letters.into_iter().map(|letter| (letter.key.unwrap_or_default(), (letter.code, letter.error))).collect();
    engine.0.shutdown().await;
    let mut wrong = Vec::new();
    for (number, row) in rows.iter().enumerate() {
        let (name, cells) = (table(number), cells(place, row));
        let readable = readable(&cells, target);
        let column = place.column(&name);
        if column != row.columns[&target] && readable.is_some() {
            wrong.push(format!("{}: the column is {column}, expected {}", row.word, row.columns[&target]));
        }
        let values = place.values(&name, row.word).await;
        for (id, cell) in cells {
            let found = match (values.get(&(id as i64)), letters.get(&format!("{name}/{id}"))) {
                (Some(Some(text)), None) => Ok(Shown::Reads(text.clone())),
                (None, Some((code, error))) => Err((code.as_str(), error.as_str())),
                _ => Err(("", "neither a value nor a dead letter, or both")),
            };
            let fits = match (&cell.shows[&target], &found) {
                (Shown::Refused(code), Err((found, _))) => code == found,
                (shown, Ok(found)) => shown == found,
                _ => false,
            };
            if !fits {
                wrong.push(format!("{}: {} gives {found:?}, expected {:?}", row.word, cell.given, cell.shows[&target]));
            }
        }
        let Some((_, first)) = readable else { continue };
        if values.get(&(NULLED as i64)) != Some(&None) {
            wrong.push(format!("{}: null is {:?}", row.word, values.get(&(NULLED as i64))));
        }
        if values.get(&(KEPT as i64)) != Some(&Some(first.to_owned())) {
            wrong.push(format!("{}: absent is no longer {first:?} but {:?}", row.word, values.get(&(KEPT as i64))));
        }
    }
    let mut lacking: BTreeMap<&str, usize> = BTreeMap::new();
    for why in rows.iter().flat_map(|row| row.cells.iter().filter_map(|cell| place.cannot_keep(row.word, cell))) {
        *lacking.entry(why).or_default() += 1;
    }
    if !lacking.is_empty() {
        println!("skipped: cells in {} that need another server: {lacking:?}", target.heading());
    }
    let cells: usize = rows.iter().map(|row| row.cells.len() + 2).sum::<usize>() - lacking.values().sum::<usize>();
    println!("types: {} rows, {cells} cells in {}, {} wrong", rows.len(), target.heading(), wrong.len());
    wrong.iter_mut().for_each(shorten);
    wrong
}

/// The longest values are megabytes.
fn shorten(line: &mut String) {
    const LONGEST: usize = 600;
    if line.len() > LONGEST {
        line.truncate(line.floor_char_boundary(LONGEST));
        line.push('…');
    }
}
