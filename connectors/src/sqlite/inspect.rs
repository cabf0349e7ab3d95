//! What about live SQLite tables forbids or endangers a rule.

use gravity_model::Fault;
use gravity_model::port::view::{ColumnRequest, LiveFinding, TableRequest};
use sqlx::Row;

use super::catalogue::{self, LiveTable};
use super::client::Session;
use super::codec::{Affinity, keeps, resolve, type_of_word};
use super::error::fault;
use crate::sql::inspect::{self, Report, SeenColumn};
use crate::sql::name::{Name, TableName};
use crate::sql::statement::StatementBuilder;

pub(super) async fn inspect(session: &mut Session, requests: &[TableRequest]) -> Result<Vec<LiveFinding>, Fault> {
    let mut report = Report::default();
    for request in requests {
        match catalogue::live(session, request).await? {
            None => missing(&mut report, request)?,
            Some(table) => {
                one_table(&mut report, request, &table);
                triggers(session, &mut report, request).await?;
            }
        }
    }
    Ok(report.finish())
}

fn missing(report: &mut Report, request: &TableRequest) -> Result<(), Fault> {
    let (sql, found) = match catalogue::create_table(request)? {
        Ok(sql) => (Some(format!("{sql};")), "no such table".to_owned()),
        Err(lacking) if lacking.is_empty() => (None, "no such table".to_owned()),
        Err(lacking) => (None, format!("no such table, and no `type` is given for {}", lacking.join(", "))),
    };
    report.add("live/no-table", true, &request.table, None, found, "a table of the file", sql);
    Ok(())
}

fn one_table(report: &mut Report, request: &TableRequest, table: &LiveTable) {
    let name = &request.table;
    if table.kind != "table" {
        report.fatal(
            "live/not-a-table",
            name,
            None,
            format!("it is a {} table or view", table.kind),
            "a table of this file",
        );
        return;
    }
    let seen: Vec<SeenColumn<'_>> = table
        .columns
        .iter()
        .map(|c| SeenColumn {
            name: &c.name,
            not_null: c.not_null,
            has_default: c.has_default,
            generated: c.generated,
            nameable: Name::parse(&c.name).is_ok(),
        })
        .collect();
    inspect::columns(report, request, &seen, |column| add_column(request, column));
    let own: Vec<&str> = table.primary_key().iter().map(|c| c.name.as_str()).collect();
    let mut usable: Vec<Vec<&str>> = Vec::new();
    if !own.is_empty() {
        usable.push(own.clone());
    }
    for index in table.indexes.iter().filter(|i| !i.partial && !i.primary) {
        usable.extend(index.columns.iter().map(|(name, _)| name.as_deref()).collect::<Option<Vec<_>>>());
    }
    inspect::key(report, request, &usable, !own.is_empty());
    let key: Vec<&str> = if request.key.is_empty() { own } else { request.key.iter().map(String::as_str).collect() };
    loose_keys(report, name, table, &key);
    for live in &table.columns {
        let wanted = request.columns.iter().find(|c| c.name == live.name);
        if wanted.is_some() || key.contains(&live.name.as_str()) {
            one_column(report, name, &live.name, &live.declared, wanted);
        }
    }
}

/// Unique indexes over the key that take different bytes for the same.
fn loose_keys(report: &mut Report, table: &str, live: &LiveTable, key: &[&str]) {
    for index in live.indexes.iter().filter(|i| !i.partial) {
        let mut names: Vec<_> = index.columns.iter().filter_map(|(name, _)| name.as_deref()).collect();
        let mut wanted = key.to_vec();
        names.sort_unstable();
        wanted.sort_unstable();
        if names != wanted {
            continue;
        }
        for (column, collation) in index.columns.iter().filter(|(_, c)| !c.eq_ignore_ascii_case("BINARY")) {
            let found = format!("the key's collation is {collation}: it takes different texts for the same");
            report.fatal("live/key-equality", table, column.as_deref(), found, "collation BINARY, the default");
        }
    }
}

fn one_column(report: &mut Report, table: &str, name: &str, declared: &str, wanted: Option<&ColumnRequest>) {
    let affinity = Affinity::of(declared);
    let mapping = wanted.and_then(|c| c.declared.as_ref());
    let Some(column_type) = mapping.cloned().or_else(|| type_of_word(declared)) else {
        let found = format!("its declared type {declared:?} means no type, and the mapping has none");
        report.fatal(
            "live/column-type",
            table,
            Some(name),
            found,
            "a type word of the rules, or a `type` in the mapping",
        );
        return;
    };
    if !keeps(affinity, &column_type) {
        let found = format!(
            "declared {declared}, SQLite would store {column_type} values with other digits or as another class"
        );
        let allowed =
            "TEXT for decimal, json, u64 and text; INTEGER for integers and bool; REAL for floats; BLOB for binary";
        report.fatal("live/affinity", table, Some(name), found, allowed);
        return;
    }
    if let (Some(wanted), Some(live)) = (wanted, resolve(declared, None)) {
        // Length and range are not SQLite's to hold; what the declared word promises its readers still is.
        if inspect::loss(&column_type, &live) == Some(inspect::Loss::Narrower) && live != column_type {
            inspect::conversion(report, table, wanted, &live, declared);
        }
    }
}

async fn triggers(session: &mut Session, report: &mut Report, request: &TableRequest) -> Result<(), Fault> {
    const DOING: &str = "look for triggers";
    let table = TableName::parse(&request.table)?;
    let query = sqlx::query(
        "SELECT name FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = ? COLLATE NOCASE ORDER BY name",
    );
    let rows = session.fetch_all(query.bind(table.table.as_str()), DOING).await?;
    let names =
        rows.iter().map(|r| r.try_get::<String, _>(0)).collect::<Result<Vec<_>, _>>().map_err(|e| fault(e, DOING))?;
    if !names.is_empty() {
        let found = format!("triggers run on its rows: {}", names.join(", "));
        let allowed = "triggers that change no mapped column and skip no row";
        report.warn("live/trigger", &request.table, None, found, allowed);
    }
    Ok(())
}

fn add_column(request: &TableRequest, column: &ColumnRequest) -> Option<String> {
    let mut b = StatementBuilder::new();
    b.add("ALTER TABLE ").table(&TableName::parse(&request.table).ok()?).add(" ADD COLUMN ");
    b.name(&Name::parse(&column.name).ok()?).add(" ");
    b.add(catalogue::storage_word(column.declared.as_ref()?)).add(";");
    Some(b.into_text())
}
