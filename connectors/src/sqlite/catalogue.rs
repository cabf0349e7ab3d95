//! What the live schema says about tables, and the CREATE TABLE that would make a missing one.

use gravity_model::port::view::{Described, TableRequest};
use gravity_model::{ColumnShape, ColumnType, Fault, TableShape};
use sqlx::Row;

use super::client::Session;
use super::codec::resolve;
use super::error::fault;
use crate::sql::name::{Name, TableName};
use crate::sql::statement::StatementBuilder;

#[derive(Debug)]
pub(super) struct LiveColumn {
    pub name: String,
    pub declared: String,
    pub not_null: bool,
    pub has_default: bool,
    pub generated: bool,
    /// Place in the primary key, 1 is the first; 0 outside.
    pub key_place: i64,
}

#[derive(Debug)]
pub(super) struct LiveIndex {
    pub name: String,
    /// Names and collations; `None` where an expression is indexed.
    pub columns: Vec<(Option<String>, String)>,
    pub partial: bool,
    pub primary: bool,
}

#[derive(Debug)]
pub(super) struct LiveTable {
    /// `table`, `view` or `virtual`.
    pub kind: String,
    pub columns: Vec<LiveColumn>,
    /// Unique ones only.
    pub indexes: Vec<LiveIndex>,
}

impl LiveTable {
    /// The table's own key, in key order.
    pub fn primary_key(&self) -> Vec<&LiveColumn> {
        let mut key: Vec<_> = self.columns.iter().filter(|c| c.key_place > 0).collect();
        key.sort_by_key(|c| c.key_place);
        key
    }
}

/// Looks the table up; `None` when there is none of that name.
pub(super) async fn live(session: &mut Session, request: &TableRequest) -> Result<Option<LiveTable>, Fault> {
    let name = TableName::parse(&request.table)?;
    let doing = format!("read the schema of {}", request.table);
    let unread = |e| fault(e, doing.as_str());
    let table = name.table.as_str();
    let schema = name.schema.as_ref().map_or("main", |s| s.as_str());
    let query = sqlx::query(
        "SELECT l.type FROM pragma_table_list AS l WHERE l.schema = ?1 COLLATE NOCASE AND l.name = ?2 COLLATE NOCASE",
    );
    let Some(found) = session.fetch_all(query.bind(schema).bind(table), &doing).await?.pop() else { return Ok(None) };
    let kind: String = found.try_get(0).map_err(unread)?;
    let query = sqlx::query(
        "SELECT name, type, \"notnull\", dflt_value IS NOT NULL, pk, hidden FROM pragma_table_xinfo(?1, ?2) \
         WHERE hidden <> 1 ORDER BY cid",
    );
    let mut columns = Vec::new();
    for row in session.fetch_all(query.bind(table).bind(schema), &doing).await? {
        let declared: String = row.try_get(1).map_err(unread)?;
        let not_null: i64 = row.try_get(2).map_err(unread)?;
        let default: i64 = row.try_get(3).map_err(unread)?;
        let hidden: i64 = row.try_get(5).map_err(unread)?;
        columns.push(LiveColumn {
            name: row.try_get(0).map_err(unread)?,
            declared,
            not_null: not_null != 0,
            has_default: default != 0,
            generated: hidden != 0,
            key_place: row.try_get(4).map_err(unread)?,
        });
    }
    // The one key column of type INTEGER is the row's number, which SQLite fills by itself.
    if let [key] = columns.iter_mut().filter(|c| c.key_place > 0).collect::<Vec<_>>().as_mut_slice()
        && key.declared.eq_ignore_ascii_case("INTEGER")
    {
        key.has_default = true;
    }
    let query = sqlx::query(
        "SELECT name, partial, origin = 'pk' FROM pragma_index_list(?1, ?2) WHERE \"unique\" = 1 ORDER BY name",
    );
    let mut indexes = Vec::new();
    for row in session.fetch_all(query.bind(table).bind(schema), &doing).await? {
        let partial: i64 = row.try_get(1).map_err(unread)?;
        let primary: i64 = row.try_get(2).map_err(unread)?;
        let name: String = row.try_get(0).map_err(unread)?;
        indexes.push(LiveIndex { name, columns: Vec::new(), partial: partial != 0, primary: primary != 0 });
    }
    for index in &mut indexes {
        let query = sqlx::query("SELECT name, coll FROM pragma_index_xinfo(?1, ?2) WHERE \"key\" = 1 ORDER BY seqno");
        for row in session.fetch_all(query.bind(index.name.as_str()).bind(schema), &doing).await? {
            let collation: Option<String> = row.try_get(1).map_err(unread)?;
            index.columns.push((row.try_get(0).map_err(unread)?, collation.unwrap_or_default()));
        }
    }
    Ok(Some(LiveTable { kind, columns, indexes }))
}

pub(super) async fn describe(session: &mut Session, requests: &[TableRequest]) -> Result<Vec<Described>, Fault> {
    let mut described = Vec::with_capacity(requests.len());
    for request in requests {
        described.push(match live(session, request).await? {
            Some(table) => Described::Present(shape_of(request, &table)),
            None => Described::Missing { ddl: create_table(request)? },
        });
    }
    Ok(described)
}

/// The shape that rules compile against. Columns that no statement can name or write are left out; `inspect` names them.
pub(super) fn shape_of(request: &TableRequest, table: &LiveTable) -> TableShape {
    let mut columns: Vec<ColumnShape> = Vec::new();
    for column in &table.columns {
        let wanted = request.columns.iter().find(|c| c.name == column.name).and_then(|c| c.declared.as_ref());
        let Some(column_type) = resolve(&column.declared, wanted) else { continue };
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
    let own: Option<Vec<u16>> = table.primary_key().iter().map(|c| place(&c.name)).collect();
    let mut keys: Vec<Vec<u16>> = own.into_iter().filter(|key| !key.is_empty()).collect();
    for index in table.indexes.iter().filter(|i| !i.partial && !i.primary) {
        keys.extend(index.columns.iter().map(|(name, _)| place(name.as_deref()?)).collect::<Option<Vec<_>>>());
    }
    let has_own = table.primary_key().first().is_some_and(|c| place(&c.name).is_some());
    let fits = |key: &&Vec<u16>| {
        let mut have: Vec<_> = key.iter().map(|c| columns[usize::from(*c)].name.as_str()).collect();
        let mut want: Vec<_> = request.key.iter().map(String::as_str).collect();
        have.sort_unstable();
        want.sort_unstable();
        have == want
    };
    let primary_key = keys.iter().find(fits).or_else(|| keys.first().filter(|_| has_own)).cloned().unwrap_or_default();
    keys.retain(|key| *key != primary_key);
    TableShape { table: request.table.clone(), columns, primary_key, unique: keys }
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
        let name = Name::parse(&column.name)?;
        b.add("\n    ").name(&name).add(" ");
        if let Some(declared) = &column.declared {
            b.add(storage_word(declared));
            if request.key.contains(&column.name) {
                b.add(" NOT NULL");
            }
            match declared {
                ColumnType::Bool => _ = b.add(" CHECK (").name(&name).add(" IN (0, 1))"),
                ColumnType::Json => _ = b.add(" CHECK (json_valid(").name(&name).add("))"),
                _ => {}
            }
        }
        b.add(",");
    }
    let keys = request.key.iter().map(|k| Name::parse(k)).collect::<Result<Vec<_>, _>>()?;
    b.add("\n    PRIMARY KEY (");
    b.list(", ", keys.len(), |b, i| _ = b.name(&keys[i]));
    // STRICT: a value of another class than the column's is refused instead of kept.
    b.add(")\n) STRICT");
    Ok(Ok(b.into_text()))
}

/// The storage class that keeps every digit; texts compare by their bytes unless told otherwise.
pub(super) fn storage_word(declared: &ColumnType) -> &'static str {
    use ColumnType::*;
    match declared {
        Bool | I8 | I16 | I32 | I64 | U8 | U16 | U32 => "INTEGER",
        F32 | F64 => "REAL",
        Binary => "BLOB",
        U64 | Decimal(_) | Text | Varchar(_) | Uuid | Date | Time | Timestamp | TimestampTz | Json | Array(_) => "TEXT",
    }
}
