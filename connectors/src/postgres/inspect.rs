//! What about live PostgreSQL tables, the account and the server forbids or endangers a rule.

use gravity_model::ColumnType;
use gravity_model::Fault;
use gravity_model::port::view::{ColumnRequest, LiveFinding, TableRequest};
use sqlx::Row;

use super::catalogue::{self, LiveColumn, LiveTable, column_type};
use super::client::Session;
use super::error::fault;
use crate::sql::Bookkeeping;
use crate::sql::bookkeeping::{CHECKPOINTS, VIEWS};
use crate::sql::inspect::{self, Report, SeenColumn};
use crate::sql::name::{Name, TableName};
use crate::sql::statement::StatementBuilder;

/// What `pg_class` and the privilege functions say of a table beyond its columns.
struct Standing {
    oid: i64,
    unlogged: bool,
    row_security: bool,
    triggers: Vec<String>,
    may_select: bool,
    may_delete: bool,
    /// Columns that the account may not both INSERT and UPDATE.
    unwritable: Vec<String>,
}

const STANDING: &str = "SELECT c.oid::int8, c.relpersistence = 'u', row_security_active(c.oid), \
     ARRAY(SELECT tgname::text FROM pg_trigger WHERE tgrelid = c.oid AND NOT tgisinternal AND tgenabled <> 'D' ORDER BY 1), \
     has_table_privilege(c.oid, 'SELECT'), has_table_privilege(c.oid, 'DELETE'), \
     ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
       AND NOT (has_column_privilege(c.oid, a.attnum, 'INSERT') AND has_column_privilege(c.oid, a.attnum, 'UPDATE')) ORDER BY 1) \
     FROM pg_class c WHERE c.oid::int8 = ANY($1::int8[])";

pub(super) async fn inspect(
    session: &mut Session,
    requests: &[TableRequest],
    bookkeeping: Bookkeeping,
    bookkeeping_sql: &str,
) -> Result<Vec<LiveFinding>, Fault> {
    let mut report = Report::default();
    let tables = catalogue::live(session, requests).await?;
    let oids: Vec<i64> = tables.iter().flatten().map(|t| t.oid).collect();
    let standings = standings(session, oids).await?;
    for (request, table) in requests.iter().zip(&tables) {
        match table {
            None => missing(&mut report, request)?,
            Some(table) => {
                let standing = standings.iter().find(|s| s.oid == table.oid);
                one_table(&mut report, request, table, standing);
            }
        }
    }
    server(session, &mut report).await?;
    books(session, &mut report, bookkeeping, bookkeeping_sql).await?;
    Ok(report.finish())
}

async fn standings(session: &mut Session, oids: Vec<i64>) -> Result<Vec<Standing>, Fault> {
    const DOING: &str = "read privileges and triggers";
    let read = |row: &sqlx::postgres::PgRow| {
        Ok(Standing {
            oid: row.try_get(0)?,
            unlogged: row.try_get(1)?,
            row_security: row.try_get(2)?,
            triggers: row.try_get(3)?,
            may_select: row.try_get(4)?,
            may_delete: row.try_get(5)?,
            unwritable: row.try_get(6)?,
        })
    };
    let rows = session.fetch_all(sqlx::query(STANDING).bind(oids), DOING).await?;
    rows.iter().map(read).collect::<Result<_, sqlx::Error>>().map_err(|e| fault(e, DOING))
}

fn missing(report: &mut Report, request: &TableRequest) -> Result<(), Fault> {
    let (sql, found) = match catalogue::create_table(request)? {
        Ok(sql) => (Some(format!("{sql};")), "no such table".to_owned()),
        Err(lacking) if lacking.is_empty() => (None, "no such table".to_owned()),
        Err(lacking) => (None, format!("no such table, and no `type` is given for {}", lacking.join(", "))),
    };
    report.add("live/no-table", true, &request.table, None, found, "a table of the database", sql);
    Ok(())
}

fn one_table(report: &mut Report, request: &TableRequest, table: &LiveTable, standing: Option<&Standing>) {
    let name = &request.table;
    let kind = match table.kind.as_str() {
        "r" => None,
        "p" => {
            let found = "the table is partitioned".to_owned();
            report.warn("live/partitioned", name, None, found, "every unique key contains the partition key");
            None
        }
        "v" => Some("a view"),
        "m" => Some("a materialized view"),
        "f" => Some("a foreign table"),
        _ => Some("not a table"),
    };
    if let Some(kind) = kind {
        report.fatal("live/not-a-table", name, None, format!("it is {kind}"), "a table of this database");
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
    let column = |number: &i16| table.columns.iter().find(|c| c.number == *number);
    let usable: Vec<Vec<&str>> = table
        .indexes
        .iter()
        .filter(|i| i.usable)
        .filter_map(|i| i.columns.iter().map(|n| column(n).map(|c| c.name.as_str())).collect())
        .collect();
    inspect::key(report, request, &usable, table.indexes.iter().any(|i| i.primary && i.usable));
    let own_key: Vec<&str> = usable.first().cloned().unwrap_or_default();
    for live in &table.columns {
        let wanted = request.columns.iter().find(|c| c.name == live.name);
        let is_key =
            request.key.contains(&live.name) || request.key.is_empty() && own_key.contains(&live.name.as_str());
        if wanted.is_some() || is_key {
            one_column(report, name, live, wanted, is_key);
        }
    }
    if let Some(standing) = standing {
        privileges(report, request, standing);
    }
}

fn one_column(report: &mut Report, table: &str, live: &LiveColumn, wanted: Option<&ColumnRequest>, is_key: bool) {
    let column = Some(live.name.as_str());
    let Some(live_type) = column_type(live) else {
        let found = format!("its type is {}", live.declared);
        let allowed =
            "numbers, text, uuid, date, time, timestamp, json, bytea, enums, domains over these, arrays of these";
        report.fatal("live/column-type", table, column, found, allowed);
        return;
    };
    if let Some(wanted) = wanted {
        inspect::conversion(report, table, wanted, &live_type, &live.declared);
    }
    if let Some(precision) = fraction_digits(&live.base) {
        let found = format!("its type is {}: digits of a second beyond {precision} are rounded", live.declared);
        report.warn("live/precision", table, column, found, "six digits, PostgreSQL's default");
    }
    if !is_key {
        return;
    }
    let loose = match (&live.loose_collation, &live_type) {
        (Some(collation), _) => Some(format!("its collation {collation} is not deterministic")),
        _ if live.base_name == "citext" => Some("citext takes upper and lower case for the same".to_owned()),
        _ if live.base_name == "bpchar" => {
            Some("character(n) takes texts with and without trailing blanks for the same".to_owned())
        }
        (_, ColumnType::Json) => Some("JSON documents can be equal without being the same text".to_owned()),
        _ => None,
    };
    if let Some(found) = loose {
        let allowed = "a key column whose values are equal only when their bytes are";
        report.fatal("live/key-equality", table, column, found, allowed);
    }
}

/// The `3` of `timestamp(3) without time zone`; `None` where nothing is rounded.
fn fraction_digits(word: &str) -> Option<u32> {
    let rest = word.strip_prefix("timestamp(").or_else(|| word.strip_prefix("time("))?;
    rest.split_once(')')?.0.parse().ok().filter(|digits| *digits < 6)
}

fn privileges(report: &mut Report, request: &TableRequest, standing: &Standing) {
    let table = &request.table;
    if !standing.may_select {
        report.fatal(
            "live/privilege",
            table,
            None,
            "the account may not SELECT".to_owned(),
            "GRANT SELECT, INSERT, UPDATE, DELETE",
        );
    }
    for name in standing.unwritable.iter().filter(|n| request.columns.iter().any(|c| c.name == **n)) {
        let found = "the account may not INSERT and UPDATE it".to_owned();
        report.fatal("live/privilege", table, Some(name), found, "GRANT SELECT, INSERT, UPDATE, DELETE");
    }
    if !standing.may_delete {
        let found = "the account may not DELETE: rules with method delete or truncate will stop the route".to_owned();
        report.warn("live/privilege", table, None, found, "GRANT DELETE");
    }
    if standing.row_security {
        let found = "row security applies to the account: rows can be refused, or written and not seen".to_owned();
        report.warn("live/row-security", table, None, found, "an account with BYPASSRLS, or policies that let it pass");
    }
    if !standing.triggers.is_empty() {
        let found = format!("triggers run on its rows: {}", standing.triggers.join(", "));
        report.warn("live/trigger", table, None, found, "triggers that change no mapped column and skip no row");
    }
    if standing.unlogged {
        // Not a warning: rows would go without their checkpoint, and nothing would write them again (P3).
        let found = "the table is unlogged: a crash of the database empties it while the checkpoint stays".to_owned();
        report.fatal("live/unlogged", table, None, found, "ALTER TABLE … SET LOGGED");
    }
}

fn add_column(request: &TableRequest, column: &ColumnRequest) -> Option<String> {
    let mut b = StatementBuilder::new();
    b.add("ALTER TABLE ").table(&TableName::parse(&request.table).ok()?).add(" ADD COLUMN ");
    b.name(&Name::parse(&column.name).ok()?).add(" ");
    catalogue::write_type(&mut b, column.declared.as_ref()?);
    b.add(";");
    Some(b.into_text())
}

async fn server(session: &mut Session, report: &mut Report) -> Result<(), Fault> {
    const DOING: &str = "read the server's settings";
    let query = sqlx::query(
        "SELECT current_setting('synchronous_commit'), current_setting('fsync'), current_setting('full_page_writes')",
    );
    let row = session.fetch_one(query, DOING).await?;
    let setting = |i: usize| row.try_get::<String, _>(i).map_err(|e| fault(e, DOING));
    if setting(0)? == "off" {
        let found = "synchronous_commit is off: a crash can take the last commits back, rows and checkpoint together"
            .to_owned();
        report.warn("live/asynchronous-commit", "", None, found, "on; the log replays what a crash took back");
    }
    for (i, name) in [(1, "fsync"), (2, "full_page_writes")] {
        if setting(i)? == "off" {
            let found = format!("{name} is off: a crash of the machine can damage tables");
            report.warn("live/no-sync", "", None, found, "on");
        }
    }
    Ok(())
}

async fn books(session: &mut Session, report: &mut Report, bookkeeping: Bookkeeping, sql: &str) -> Result<(), Fault> {
    const DOING: &str = "look at the bookkeeping tables";
    let query = sqlx::query(
        "SELECT n.name, c.oid IS NOT NULL, \
         coalesce(has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT') \
           AND has_table_privilege(c.oid, 'UPDATE') AND has_table_privilege(c.oid, 'DELETE'), false), \
         coalesce(has_schema_privilege(current_schema(), 'CREATE'), false) \
         FROM UNNEST($1::text[]) AS n(name) LEFT JOIN pg_class c ON c.relname = n.name AND pg_table_is_visible(c.oid)",
    );
    for row in session.fetch_all(query.bind(vec![CHECKPOINTS, VIEWS]), DOING).await? {
        let unread = |e| fault(e, DOING);
        let name: String = row.try_get(0).map_err(unread)?;
        let present: bool = row.try_get(1).map_err(unread)?;
        let may_use: bool = row.try_get(2).map_err(unread)?;
        let may_create: bool = row.try_get(3).map_err(unread)?;
        let found = match (present, may_use) {
            (true, true) => continue,
            (true, false) => "the account may not SELECT, INSERT, UPDATE and DELETE in it",
            (false, _) if bookkeeping == Bookkeeping::Manual => "it is missing, and bookkeeping is manual",
            (false, _) if !may_create => "it is missing, and the account may not create it",
            (false, _) => continue,
        };
        let sql = (!present).then(|| sql.to_owned());
        let allowed = "the bookkeeping tables, with SELECT, INSERT, UPDATE and DELETE";
        report.add("live/bookkeeping", true, &name, None, found.to_owned(), allowed, sql);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounded_fractions_are_read_from_the_type() {
        assert_eq!(fraction_digits("timestamp(3) without time zone"), Some(3));
        assert_eq!(fraction_digits("time(0) without time zone"), Some(0));
        for word in ["timestamp(6) with time zone", "timestamp without time zone", "numeric(3,2)"] {
            assert_eq!(fraction_digits(word), None, "{word}");
        }
    }
}
