//! What the live catalogue says about tables, and the CREATE TABLE that would make a missing one.

use gravity_model::port::view::{Described, TableRequest};
use gravity_model::{ColumnShape, ColumnType, Fault, TableShape};
use sqlx::Row;
use sqlx::postgres::PgRow;

use super::client::Session;
use super::error::fault;
use crate::sql::name::{Name, TableName};
use crate::sql::statement::{StatementBuilder, TypeWord};

/// One column as `pg_attribute` has it.
#[derive(Debug)]
pub(super) struct LiveColumn {
    pub number: i16,
    pub name: String,
    /// As `format_type` writes it.
    pub declared: String,
    /// The type that a domain stands for; otherwise as `declared`.
    pub base: String,
    /// Its bare name in `pg_type` (`citext`, `bpchar`).
    pub base_name: String,
    pub is_enum: bool,
    pub not_null: bool,
    pub has_default: bool,
    pub generated: bool,
    /// Set where the collation is not deterministic.
    pub loose_collation: Option<String>,
}

#[derive(Debug)]
pub(super) struct LiveIndex {
    pub columns: Vec<i16>,
    pub primary: bool,
    /// Not partial, not on expressions, valid, checked at once.
    pub usable: bool,
}

/// A table, view or foreign table that exists.
#[derive(Debug)]
pub(super) struct LiveTable {
    pub oid: i64,
    /// `pg_class.relkind`.
    pub kind: String,
    pub columns: Vec<LiveColumn>,
    /// Unique ones only, the primary key first.
    pub indexes: Vec<LiveIndex>,
}

const TABLES: &str = "SELECT n.i, c.oid::int8, c.relkind::text \
     FROM UNNEST($1::text[]) WITH ORDINALITY AS n(name, i) JOIN pg_class c ON c.oid = to_regclass(n.name) ORDER BY n.i";

const COLUMNS: &str = "SELECT a.attrelid::int8, a.attnum, a.attname::text, format_type(a.atttypid, a.atttypmod), \
     format_type(coalesce(nullif(t.typbasetype, 0), t.oid), CASE WHEN t.typtype = 'd' THEN t.typtypmod ELSE a.atttypmod END), \
     coalesce(b.typtype, t.typtype) = 'e', a.attnotnull OR t.typnotnull, a.atthasdef OR a.attidentity <> '' OR t.typdefault IS NOT NULL, \
     a.attgenerated <> '' OR a.attidentity = 'a', \
     CASE WHEN NOT k.collisdeterministic THEN k.collname::text END, coalesce(b.typname, t.typname)::text \
     FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid LEFT JOIN pg_type b ON b.oid = t.typbasetype \
     LEFT JOIN pg_collation k ON k.oid = a.attcollation \
     WHERE a.attrelid::int8 = ANY($1::int8[]) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attrelid, a.attnum";

const INDEXES: &str = "SELECT i.indrelid::int8, string_to_array(i.indkey::text, ' ')::int2[], i.indnkeyatts, i.indisprimary, \
     i.indpred IS NULL AND i.indexprs IS NULL AND i.indisvalid AND i.indimmediate \
     FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid \
     WHERE i.indrelid::int8 = ANY($1::int8[]) AND i.indisunique ORDER BY i.indrelid, i.indisprimary DESC, c.relname";

/// Looks the tables up; `None` where there is none of that name.
pub(super) async fn live(session: &mut Session, requests: &[TableRequest]) -> Result<Vec<Option<LiveTable>>, Fault> {
    const DOING: &str = "read the catalogue";
    let unread = |e| fault(e, DOING);
    let names =
        requests.iter().map(|r| Ok(TableName::parse(&r.table)?.quoted())).collect::<Result<Vec<String>, Fault>>()?;
    let mut tables: Vec<Option<LiveTable>> = requests.iter().map(|_| None).collect();
    let mut oids: Vec<i64> = Vec::new();
    for row in session.fetch_all(sqlx::query(TABLES).bind(names), DOING).await? {
        let index: i64 = row.try_get(0).map_err(unread)?;
        let table = LiveTable {
            oid: row.try_get(1).map_err(unread)?,
            kind: row.try_get(2).map_err(unread)?,
            columns: Vec::new(),
            indexes: Vec::new(),
        };
        oids.push(table.oid);
        if let Some(slot) = usize::try_from(index - 1).ok().and_then(|i| tables.get_mut(i)) {
            *slot = Some(table);
        }
    }
    let columns = session.fetch_all(sqlx::query(COLUMNS).bind(oids.clone()), DOING).await?;
    let indexes = session.fetch_all(sqlx::query(INDEXES).bind(oids), DOING).await?;
    for table in tables.iter_mut().flatten() {
        for row in &columns {
            if row.try_get::<i64, _>(0).map_err(unread)? == table.oid {
                table.columns.push(column_of(row).map_err(unread)?);
            }
        }
        for row in &indexes {
            if row.try_get::<i64, _>(0).map_err(unread)? == table.oid {
                table.indexes.push(index_of(row).map_err(unread)?);
            }
        }
    }
    Ok(tables)
}

fn column_of(row: &PgRow) -> Result<LiveColumn, sqlx::Error> {
    Ok(LiveColumn {
        number: row.try_get(1)?,
        name: row.try_get(2)?,
        declared: row.try_get(3)?,
        base: row.try_get(4)?,
        is_enum: row.try_get(5)?,
        not_null: row.try_get(6)?,
        has_default: row.try_get(7)?,
        generated: row.try_get(8)?,
        loose_collation: row.try_get(9)?,
        base_name: row.try_get(10)?,
    })
}

fn index_of(row: &PgRow) -> Result<LiveIndex, sqlx::Error> {
    let mut columns: Vec<i16> = row.try_get(1)?;
    let key_columns: i16 = row.try_get(2)?;
    // Columns behind the key are only carried (INCLUDE).
    columns.truncate(usize::try_from(key_columns).unwrap_or_default());
    Ok(LiveIndex { columns, primary: row.try_get(3)?, usable: row.try_get(4)? })
}

pub(super) async fn describe(session: &mut Session, requests: &[TableRequest]) -> Result<Vec<Described>, Fault> {
    let tables = live(session, requests).await?;
    requests
        .iter()
        .zip(tables)
        .map(|(request, table)| match table {
            Some(table) => Ok(Described::Present(shape_of(request, &table))),
            None => Ok(Described::Missing { ddl: create_table(request)? }),
        })
        .collect()
}

/// The shape that rules compile against. Columns that no statement can name or write are left out; `inspect` names them.
pub(super) fn shape_of(request: &TableRequest, table: &LiveTable) -> TableShape {
    let mut columns = Vec::new();
    let mut numbers = Vec::new();
    for column in &table.columns {
        let Some(column_type) = column_type(column) else { continue };
        if Name::parse(&column.name).is_err() {
            continue;
        }
        numbers.push(column.number);
        columns.push(ColumnShape {
            name: column.name.clone(),
            column_type,
            database_type: column.declared.clone(),
            not_null: column.not_null,
            has_default: column.has_default,
            generated: column.generated,
        });
    }
    let place = |number: &i16| numbers.iter().position(|n| n == number).map(|i| i as u16);
    let keys: Vec<(bool, Vec<u16>)> = table
        .indexes
        .iter()
        .filter(|i| i.usable)
        .filter_map(|i| Some((i.primary, i.columns.iter().map(place).collect::<Option<Vec<u16>>>()?)))
        .collect();
    let wanted: Vec<&str> = request.key.iter().map(String::as_str).collect();
    let names = |key: &[u16]| key.iter().map(|c| columns[usize::from(*c)].name.as_str()).collect::<Vec<_>>();
    let primary_key = chosen_key(&wanted, &keys, names);
    let unique = keys.into_iter().map(|(_, key)| key).filter(|key| *key != primary_key).collect();
    TableShape { table: request.table.clone(), columns, primary_key, unique }
}

/// The unique key that the rules mean: the one with exactly the wanted columns, or the primary key where none are wanted or
/// none fits (then `inspect` says so).
fn chosen_key<'a>(wanted: &[&str], keys: &[(bool, Vec<u16>)], names: impl Fn(&[u16]) -> Vec<&'a str>) -> Vec<u16> {
    let fits = |key: &[u16]| {
        let mut have = names(key);
        let mut want = wanted.to_vec();
        have.sort_unstable();
        want.sort_unstable();
        have == want
    };
    keys.iter()
        .find(|(_, key)| fits(key))
        .or_else(|| keys.iter().find(|(primary, _)| *primary))
        .map(|(_, key)| key.clone())
        .unwrap_or_default()
}

/// `None`: a type that no value of ours can be written to.
pub(super) fn column_type(column: &LiveColumn) -> Option<ColumnType> {
    // Some types can only be cast to by their name.
    TypeWord::parse(&column.declared).ok()?;
    if column.is_enum || column.base_name == "citext" {
        return Some(ColumnType::Text);
    }
    type_of_word(&column.base)
}

/// From `format_type`'s word.
fn type_of_word(word: &str) -> Option<ColumnType> {
    if let Some(of) = word.strip_suffix("[]") {
        return match type_of_word(of)? {
            ColumnType::Array(_) => None,
            of => Some(ColumnType::Array(Box::new(of))),
        };
    }
    // `timestamp(3) with time zone`, `numeric(12,2)`, `character varying(40)`
    let (name, arguments) = match (word.find('('), word.find(')')) {
        (Some(open), Some(close)) if open < close => {
            (format!("{}{}", &word[..open], &word[close + 1..]), Some(&word[open + 1..close]))
        }
        _ => (word.to_owned(), None),
    };
    Some(match name.as_str() {
        "boolean" => ColumnType::Bool,
        "smallint" => ColumnType::I16,
        "integer" => ColumnType::I32,
        "bigint" => ColumnType::I64,
        "real" => ColumnType::F32,
        "double precision" => ColumnType::F64,
        "numeric" => match arguments {
            None => ColumnType::Decimal(None),
            Some(arguments) => {
                let (precision, scale) = arguments.split_once(',')?;
                // A negative scale rounds whole digits away, which a decimal of ours never asks for.
                ColumnType::Decimal(Some((precision.trim().parse().ok()?, scale.trim().parse().ok()?)))
            }
        },
        "text" => ColumnType::Text,
        "character varying" | "character" => match arguments {
            None => ColumnType::Text,
            Some(length) => ColumnType::Varchar(length.trim().parse().ok()?),
        },
        "uuid" => ColumnType::Uuid,
        "date" => ColumnType::Date,
        "time without time zone" => ColumnType::Time,
        "timestamp without time zone" => ColumnType::Timestamp,
        "timestamp with time zone" => ColumnType::TimestampTz,
        "json" | "jsonb" => ColumnType::Json,
        "bytea" => ColumnType::Binary,
        _ => return None,
    })
}

/// CREATE TABLE from the declared types; `Err` names the columns that declare none.
pub(super) fn create_table(request: &TableRequest) -> Result<Result<String, Vec<String>>, Fault> {
    let untyped: Vec<String> =
        request.columns.iter().filter(|c| c.declared.is_none()).map(|c| c.name.clone()).collect();
    let unlisted = request.key.iter().filter(|k| request.columns.iter().all(|c| &c.name != *k)).cloned();
    let lacking: Vec<String> = untyped.into_iter().chain(unlisted).collect();
    if !lacking.is_empty() || request.columns.is_empty() || request.key.is_empty() {
        return Ok(Err(lacking));
    }
    let mut b = StatementBuilder::new();
    b.add("CREATE TABLE ").table(&TableName::parse(&request.table)?).add(" (");
    for column in &request.columns {
        let key = request.key.contains(&column.name);
        b.add("\n    ").name(&Name::parse(&column.name)?).add(" ");
        if let Some(declared) = &column.declared {
            write_type(&mut b, declared);
            // Equality of keys is equality of their bytes (SEMANTICS 1.1), whatever the database's own collation does.
            if key && matches!(declared, ColumnType::Text | ColumnType::Varchar(_)) {
                b.add(" COLLATE \"C\"");
            }
        }
        b.add(if key { " NOT NULL," } else { "," });
    }
    b.add("\n    PRIMARY KEY (");
    let keys = request.key.iter().map(|k| Name::parse(k)).collect::<Result<Vec<_>, _>>()?;
    b.list(", ", keys.len(), |b, i| _ = b.name(&keys[i]));
    b.add(")\n)");
    Ok(Ok(b.into_text()))
}

/// PostgreSQL's type for ours; unsigned types take the next wider one.
pub(super) fn write_type(b: &mut StatementBuilder, declared: &ColumnType) {
    match declared {
        ColumnType::Bool => b.add("boolean"),
        ColumnType::I8 | ColumnType::U8 | ColumnType::I16 => b.add("smallint"),
        ColumnType::U16 | ColumnType::I32 => b.add("integer"),
        ColumnType::U32 | ColumnType::I64 => b.add("bigint"),
        ColumnType::U64 => b.add("numeric(20,0)"),
        ColumnType::F32 => b.add("real"),
        ColumnType::F64 => b.add("double precision"),
        ColumnType::Decimal(None) => b.add("numeric"),
        ColumnType::Decimal(Some((precision, scale))) => {
            b.add("numeric(").number(usize::from(*precision)).add(",").number(usize::from(*scale)).add(")")
        }
        ColumnType::Text => b.add("text"),
        ColumnType::Varchar(length) => b.add("character varying(").number(*length as usize).add(")"),
        ColumnType::Uuid => b.add("uuid"),
        ColumnType::Date => b.add("date"),
        ColumnType::Time => b.add("time without time zone"),
        ColumnType::Timestamp => b.add("timestamp without time zone"),
        ColumnType::TimestampTz => b.add("timestamp with time zone"),
        ColumnType::Json => b.add("jsonb"),
        ColumnType::Binary => b.add("bytea"),
        ColumnType::Array(of) => {
            write_type(b, of);
            b.add("[]")
        }
    };
}
