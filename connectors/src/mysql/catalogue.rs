//! What the live catalogue says about tables, and the CREATE TABLE that would make a missing one.

use gravity_model::port::view::{Described, TableRequest};
use gravity_model::{ColumnShape, ColumnType, Fault, TableShape};
use sqlx::Row;
use sqlx::mysql::MySqlRow;

use super::client::Session;
use super::codec::resolve;
use super::dialect::{Dialect, Flavor};
use super::error::fault;
use super::table_name;
use crate::sql::name::Name;
use crate::sql::statement::StatementBuilder;

/// One column as `information_schema.COLUMNS` has it.
#[derive(Debug)]
pub(super) struct LiveColumn {
    pub name: String,
    /// `COLUMN_TYPE`: `decimal(12,2)`, `int(10) unsigned`, `enum('a','b')`.
    pub declared: String,
    pub not_null: bool,
    pub has_default: bool,
    pub generated: bool,
    /// The server writes the current time into it whenever the row changes.
    pub on_update: bool,
    pub collation: Option<String>,
    /// Digits behind the seconds, for times.
    pub fraction_digits: Option<i64>,
    /// What the account may do with it: `select,insert,update,references`.
    pub privileges: String,
    /// A check keeps it valid JSON: what MariaDB makes of the type JSON.
    pub json: bool,
}

#[derive(Debug)]
pub(super) struct LiveIndex {
    pub name: String,
    /// `None` where only a part of a column, or an expression, is indexed.
    pub columns: Vec<Option<String>>,
}

impl LiveIndex {
    pub fn primary(&self) -> bool {
        self.name == "PRIMARY"
    }

    /// Over whole columns.
    pub fn usable(&self) -> Option<Vec<&str>> {
        self.columns.iter().map(Option::as_deref).collect()
    }
}

/// A table or view that exists.
#[derive(Debug)]
pub(super) struct LiveTable {
    pub database: String,
    pub name: String,
    /// `BASE TABLE`, `VIEW`, `SYSTEM VERSIONED`, `SEQUENCE`.
    pub kind: String,
    pub engine: String,
    pub partitioned: bool,
    pub columns: Vec<LiveColumn>,
    /// Unique ones only, the primary key first.
    pub indexes: Vec<LiveIndex>,
}

const TABLE: &str = "SELECT CAST(TABLE_NAME AS CHAR), CAST(TABLE_TYPE AS CHAR), CAST(COALESCE(ENGINE, '') AS CHAR), \
     CAST(COALESCE(CREATE_OPTIONS, '') LIKE '%partitioned%' AS SIGNED) \
     FROM information_schema.TABLES WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ?";

// MariaDB writes a default of NULL as the word.
const COLUMNS: &str = "SELECT CAST(TABLE_NAME AS CHAR), CAST(COLUMN_NAME AS CHAR), CAST(COLUMN_TYPE AS CHAR), \
     CAST(IS_NULLABLE = 'NO' AS SIGNED), \
     CAST(COALESCE(COLUMN_DEFAULT, 'NULL') <> 'NULL' OR EXTRA LIKE '%auto_increment%' AS SIGNED), \
     CAST(COALESCE(GENERATION_EXPRESSION, '') <> '' AS SIGNED), CAST(EXTRA LIKE '%on update%' AS SIGNED), \
     CAST(COLLATION_NAME AS CHAR), CAST(DATETIME_PRECISION AS SIGNED), CAST(PRIVILEGES AS CHAR) \
     FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ? ORDER BY ORDINAL_POSITION";

const INDEXES: &str = "SELECT CAST(TABLE_NAME AS CHAR), CAST(INDEX_NAME AS CHAR), \
     CAST(CASE WHEN SUB_PART IS NULL THEN COLUMN_NAME END AS CHAR) \
     FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ? AND NON_UNIQUE = 0 \
     ORDER BY INDEX_NAME <> 'PRIMARY', INDEX_NAME, SEQ_IN_INDEX";

const JSON_CHECKS: &str = "SELECT CAST(TABLE_NAME AS CHAR), CAST(CHECK_CLAUSE AS CHAR) \
     FROM information_schema.CHECK_CONSTRAINTS \
     WHERE CONSTRAINT_SCHEMA = ? AND TABLE_NAME = ? AND CHECK_CLAUSE LIKE 'json_valid(`%`)'";

/// Looks the table up; `None` when there is none of that name.
pub(super) async fn live(session: &mut Session, request: &TableRequest) -> Result<Option<LiveTable>, Fault> {
    let name = table_name(&request.table)?;
    let facts = session.facts.clone();
    let database = name.schema.as_ref().map_or(facts.database.as_str(), |s| s.as_str()).to_owned();
    let table = name.table.as_str();
    let doing = format!("read the schema of {}", request.table);
    let unread = |e| fault(e, doing.as_str());
    // The catalogue's own comparison ignores case; the server's names may not.
    let same = |found: &str| found == table || facts.folds_names && found.eq_ignore_ascii_case(table);
    let mut found = None;
    for row in session.fetch_all(sqlx::query(TABLE).bind(&database).bind(table), &doing).await? {
        let name: String = row.try_get(0).map_err(unread)?;
        if same(&name) {
            found = Some(LiveTable {
                database: database.clone(),
                name,
                kind: row.try_get(1).map_err(unread)?,
                engine: row.try_get(2).map_err(unread)?,
                partitioned: row.try_get::<i64, _>(3).map_err(unread)? != 0,
                columns: Vec::new(),
                indexes: Vec::new(),
            });
        }
    }
    let Some(mut found) = found else { return Ok(None) };
    let of_table = |row: &MySqlRow| row.try_get::<String, _>(0).map(|name| name == found.name);
    let mut json: Vec<String> = Vec::new();
    if facts.dialect.flavor == Flavor::MariaDb {
        for row in session.fetch_all(sqlx::query(JSON_CHECKS).bind(&database).bind(table), &doing).await? {
            if of_table(&row).map_err(unread)? {
                json.push(row.try_get(1).map_err(unread)?);
            }
        }
    }
    for row in session.fetch_all(sqlx::query(COLUMNS).bind(&database).bind(table), &doing).await? {
        if of_table(&row).map_err(unread)? {
            found.columns.push(column_of(&row, &json).map_err(unread)?);
        }
    }
    let rows = session.fetch_all(sqlx::query(INDEXES).bind(&database).bind(table), &doing).await?;
    for row in rows {
        if row.try_get::<String, _>(0).map_err(unread)? != found.name {
            continue;
        }
        let name: String = row.try_get(1).map_err(unread)?;
        let column: Option<String> = row.try_get(2).map_err(unread)?;
        match found.indexes.last_mut().filter(|index| index.name == name) {
            Some(index) => index.columns.push(column),
            None => found.indexes.push(LiveIndex { name, columns: vec![column] }),
        }
    }
    Ok(Some(found))
}

fn column_of(row: &MySqlRow, json: &[String]) -> Result<LiveColumn, sqlx::Error> {
    let flag = |i: usize| row.try_get::<i64, _>(i).map(|flag| flag != 0);
    let name: String = row.try_get(1)?;
    let check = format!("json_valid(`{name}`)");
    Ok(LiveColumn {
        declared: row.try_get(2)?,
        not_null: flag(3)?,
        has_default: flag(4)?,
        generated: flag(5)?,
        on_update: flag(6)?,
        collation: row.try_get(7)?,
        fraction_digits: row.try_get(8)?,
        privileges: row.try_get(9)?,
        json: json.contains(&check),
        name,
    })
}

pub(super) async fn describe(session: &mut Session, requests: &[TableRequest]) -> Result<Vec<Described>, Fault> {
    let mut described = Vec::with_capacity(requests.len());
    for request in requests {
        described.push(match live(session, request).await? {
            Some(table) => Described::Present(shape_of(request, &table)),
            None => Described::Missing { ddl: create_table(session.facts.dialect, request)? },
        });
    }
    Ok(described)
}

/// The shape that rules compile against. Columns that no statement can name or write are left out; `inspect` names them. A
/// unique key over parts of columns or over expressions is an empty list: it is one more key that a row can meet.
pub(super) fn shape_of(request: &TableRequest, table: &LiveTable) -> TableShape {
    let mut columns: Vec<ColumnShape> = Vec::new();
    for column in &table.columns {
        let wanted = request.columns.iter().find(|c| c.name == column.name).and_then(|c| c.declared.as_ref());
        let Some(column_type) = resolve(&column.declared, column.json, wanted) else { continue };
        if Name::parse(&column.name).is_err() {
            continue;
        }
        columns.push(ColumnShape {
            name: column.name.clone(),
            column_type,
            database_type: column.declared.clone(),
            not_null: column.not_null,
            has_default: column.has_default,
            generated: column.generated,
        });
    }
    let place = |name: &str| columns.iter().position(|c| c.name == name).map(|i| i as u16);
    let mut keys: Vec<(bool, Vec<u16>)> = table
        .indexes
        .iter()
        .map(|index| {
            let places = index.columns.iter().map(|name| place(name.as_deref()?)).collect::<Option<Vec<_>>>();
            (index.primary(), places.unwrap_or_default())
        })
        .collect();
    let fits = |key: &[u16]| {
        let mut have: Vec<_> = key.iter().map(|c| columns[usize::from(*c)].name.as_str()).collect();
        let mut want: Vec<_> = request.key.iter().map(String::as_str).collect();
        have.sort_unstable();
        want.sort_unstable();
        !have.is_empty() && have == want
    };
    let chosen = keys.iter().position(|(_, key)| fits(key)).or_else(|| keys.iter().position(|(primary, _)| *primary));
    let primary_key = chosen.map(|i| keys.remove(i).1).unwrap_or_default();
    let unique = keys.into_iter().map(|(_, key)| key).collect();
    TableShape { table: request.table.clone(), columns, primary_key, unique }
}

/// CREATE TABLE from the declared types; `Err` names the columns that declare none.
pub(super) fn create_table(dialect: Dialect, request: &TableRequest) -> Result<Result<String, Vec<String>>, Fault> {
    let untyped: Vec<String> =
        request.columns.iter().filter(|c| c.declared.is_none()).map(|c| c.name.clone()).collect();
    let unlisted = request.key.iter().filter(|k| request.columns.iter().all(|c| &c.name != *k)).cloned();
    let lacking: Vec<String> = untyped.into_iter().chain(unlisted).collect();
    if !lacking.is_empty() || request.columns.is_empty() || request.key.is_empty() {
        return Ok(Err(lacking));
    }
    let key_types: Vec<&ColumnType> =
        request.columns.iter().filter(|c| request.key.contains(&c.name)).filter_map(|c| c.declared.as_ref()).collect();
    let share = key_share(&key_types);
    let mut b = StatementBuilder::with_backticks();
    b.add("CREATE TABLE ").table(&table_name(&request.table)?).add(" (");
    for column in &request.columns {
        let key = request.key.contains(&column.name);
        let name = Name::parse(&column.name)?;
        b.add("\n    ").name(&name).add(" ");
        if let Some(declared) = &column.declared {
            write_type(&mut b, dialect, declared, key.then_some(share));
            b.add(if key { " NOT NULL" } else { " NULL" });
            match declared {
                ColumnType::Json | ColumnType::Array(_) => _ = b.add(" CHECK (json_valid(").name(&name).add("))"),
                ColumnType::Varchar(length) if *length > LONGEST_VARCHAR => {
                    b.add(" CHECK (char_length(").name(&name).add(") <= ").number(*length as usize).add(")");
                }
                _ => {}
            }
        }
        b.add(",");
    }
    b.add("\n    PRIMARY KEY (");
    let keys = request.key.iter().map(|k| Name::parse(k)).collect::<Result<Vec<_>, _>>()?;
    b.list(", ", keys.len(), |b, i| _ = b.name(&keys[i]));
    // Texts are equal only when their bytes are (SEMANTICS 1.1), whatever the database's own collation does.
    b.add(")\n) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=").add(dialect.exact_collation());
    Ok(Ok(b.into_text()))
}

/// Beyond this a row of a few such columns would pass InnoDB's 65,535 bytes.
const LONGEST_VARCHAR: u32 = 4_000;
/// Longest key of an InnoDB index with pages of 16 KiB, in bytes.
const KEY_BYTES: usize = 3_072;

/// Characters that each key column of unlimited length may have, so that all of them fit one index.
fn key_share(key: &[&ColumnType]) -> usize {
    let fixed: usize = key
        .iter()
        .map(|declared| match declared {
            ColumnType::Varchar(length) => *length as usize * 4,
            ColumnType::Decimal(_) => 30,
            _ => 16,
        })
        .sum();
    let open = key.iter().filter(|declared| is_open(declared)).count();
    (KEY_BYTES.saturating_sub(fixed) / 4 / open.max(1)).clamp(1, 512)
}

fn is_open(declared: &ColumnType) -> bool {
    matches!(declared, ColumnType::Text | ColumnType::Binary | ColumnType::Json | ColumnType::Array(_))
}

/// MySQL's type for ours; `key` is the number of characters that a text in a key may have.
pub(super) fn write_type(b: &mut StatementBuilder, dialect: Dialect, declared: &ColumnType, key: Option<usize>) {
    match (declared, key) {
        (ColumnType::Bool, _) => b.add("tinyint(1)"),
        (ColumnType::I8, _) => b.add("tinyint"),
        (ColumnType::I16, _) => b.add("smallint"),
        (ColumnType::I32, _) => b.add("int"),
        (ColumnType::I64, _) => b.add("bigint"),
        (ColumnType::U8, _) => b.add("tinyint unsigned"),
        (ColumnType::U16, _) => b.add("smallint unsigned"),
        (ColumnType::U32, _) => b.add("int unsigned"),
        (ColumnType::U64, _) => b.add("bigint unsigned"),
        (ColumnType::F32, _) => b.add("float"),
        (ColumnType::F64, _) => b.add("double"),
        (ColumnType::Decimal(None), _) => b.add("decimal(65,30)"),
        (ColumnType::Decimal(Some((precision, scale))), _) if *precision <= 65 && *scale <= 30 => {
            b.add("decimal(").number(usize::from(*precision)).add(",").number(usize::from(*scale)).add(")")
        }
        // Beyond what DECIMAL holds only a text keeps all digits: sign, point and a zero before it.
        (ColumnType::Decimal(Some((precision, _))), _) => {
            b.add("varchar(").number(usize::from(*precision) + 3).add(")")
        }
        (ColumnType::Varchar(length), None) if *length > LONGEST_VARCHAR => b.add("longtext"),
        (ColumnType::Varchar(length), _) => b.add("varchar(").number(*length as usize).add(")"),
        (ColumnType::Uuid, _) => b.add(if dialect.has_uuid() { "uuid" } else { "binary(16)" }),
        (ColumnType::Date, _) => b.add("date"),
        (ColumnType::Time, _) => b.add("time(6)"),
        // Not TIMESTAMP, which ends in 2038 and begins in 1970; UTC by the session's time zone.
        (ColumnType::Timestamp | ColumnType::TimestampTz, _) => b.add("datetime(6)"),
        (ColumnType::Text, Some(characters)) => b.add("varchar(").number(characters).add(")"),
        (ColumnType::Binary, Some(characters)) => b.add("varbinary(").number(characters * 4).add(")"),
        // A text under a check: MySQL's own JSON would turn long numbers into floats.
        (ColumnType::Json | ColumnType::Array(_), Some(characters)) => b.add("varchar(").number(characters).add(")"),
        (ColumnType::Text | ColumnType::Json | ColumnType::Array(_), None) => b.add("longtext"),
        (ColumnType::Binary, None) => b.add("longblob"),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_open_length_share_one_index() {
        let types = |words: &[&str]| -> Vec<ColumnType> {
            words.iter().map(|word| word.parse().expect("a type word")).collect()
        };
        for (words, want) in [
            (&["text"][..], 512),
            (&["text", "text"], 384),
            (&["text", "i64", "varchar(600)"], 160),
            (&["binary"], 512),
            (&["i64"], 512),
        ] {
            let types = types(words);
            let share = key_share(&types.iter().collect::<Vec<_>>());
            assert!(share <= want && share + 16 > want, "{words:?}: {share}");
        }
    }

    #[test]
    fn each_dialect_has_its_own_words() {
        let request = TableRequest {
            table: "t".to_owned(),
            columns: [("id", "uuid"), ("j", "json"), ("at", "timestamptz")]
                .map(|(name, word)| gravity_model::port::view::ColumnRequest {
                    name: name.to_owned(),
                    declared: word.parse().ok(),
                })
                .into(),
            key: vec!["id".to_owned()],
        };
        let ddl = |version| create_table(Dialect::parse(version), &request).expect("names").expect("types");
        assert_eq!(
            ddl("10.11.2-MariaDB"),
            "CREATE TABLE `t` (\n    `id` uuid NOT NULL,\n    `j` longtext NULL CHECK (json_valid(`j`)),\n    \
             `at` datetime(6) NULL,\n    PRIMARY KEY (`id`)\n) \
             ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_nopad_bin"
        );
        assert!(ddl("8.0.36").contains("`id` binary(16) NOT NULL"));
        assert!(ddl("8.0.36").ends_with("COLLATE=utf8mb4_0900_bin"));
    }
}
