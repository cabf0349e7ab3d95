//! What about live tables, the account and the server forbids or endangers a rule.

use gravity_model::port::view::{ColumnRequest, LiveFinding, TableRequest};
use gravity_model::{ColumnType, Fault, FaultKind};
use sqlx::Row;

use super::bookkeeping;
use super::catalogue::{self, LiveColumn, LiveTable};
use super::client::Session;
use super::codec::{holds_text, resolve, type_of_word};
use super::dialect::{Dialect, Flavor};
use super::error::fault;
use super::table_name;
use crate::sql::Bookkeeping;
use crate::sql::bookkeeping::{CHECKPOINTS, VIEWS};
use crate::sql::inspect::{self, Report, SeenColumn};
use crate::sql::name::Name;
use crate::sql::statement::StatementBuilder;

/// Redo log below which writes stall on checkpoints (performance notes): a matter of speed only.
const REDO_BYTES: i64 = 1 << 30;

/// Servers and sessions on which Protocol B would not hold.
pub(super) async fn refuse_unfit_server(session: &mut Session) -> Result<(), Fault> {
    const DOING: &str = "look at the server";
    let misfit = |detail: String| Err(Fault::new(FaultKind::Misconfigured, "live/server", DOING, detail));
    let dialect = session.facts.dialect;
    if dialect.version < dialect.oldest() {
        let (major, minor, patch) = dialect.oldest();
        return misfit(format!("the server is {dialect}, {major}.{minor}.{patch} or newer is needed"));
    }
    if session.facts.database.is_empty() {
        return misfit("no database is selected: name one with `dbName`".to_owned());
    }
    let isolation = match dialect.flavor {
        Flavor::MariaDb => "SELECT CAST(@@SESSION.tx_isolation AS CHAR)",
        Flavor::MySql => "SELECT CAST(@@SESSION.transaction_isolation AS CHAR)",
    };
    let row = session.fetch_one(sqlx::query(isolation), DOING).await?;
    let isolation: String = row.try_get(0).map_err(|e| fault(e, DOING))?;
    let query = sqlx::query(
        "SELECT CAST(@@GLOBAL.read_only AS SIGNED), CAST(@@GLOBAL.log_bin AS SIGNED), CAST(@@SESSION.binlog_format AS CHAR), \
         CAST(@@SESSION.sql_mode AS CHAR), CAST(@@SESSION.time_zone AS CHAR), CAST(@@SESSION.character_set_client AS CHAR), \
         CAST(@@SESSION.autocommit AS SIGNED)",
    );
    let row = session.fetch_one(query, DOING).await?;
    let number = |i: usize| row.try_get::<i64, _>(i).map_err(|e| fault(e, DOING));
    let text = |i: usize| row.try_get::<String, _>(i).map_err(|e| fault(e, DOING));
    if number(1)? != 0 && text(2)? == "STATEMENT" {
        return misfit(
            "binlog_format is STATEMENT: InnoDB refuses to write under READ COMMITTED; set MIXED or ROW".to_owned(),
        );
    }
    // What was set is asked for again: a proxy in between may have kept it to itself.
    let (mode, zone, characters) = (text(3)?, text(4)?, text(5)?);
    let strict = ["STRICT_ALL_TABLES", "STRICT_TRANS_TABLES", "NO_AUTO_VALUE_ON_ZERO"];
    let whole = strict.iter().all(|word| mode.split(',').any(|m| m == *word));
    if !whole || zone != "+00:00" || characters != "utf8mb4" || isolation != "READ-COMMITTED" || number(6)? != 1 {
        return misfit(format!(
            "the session does not keep its settings: sql_mode {mode}, time_zone {zone}, character set {characters}, \
             isolation {isolation}"
        ));
    }
    if number(0)? != 0 {
        // Also where the account could write all the same: a replica's rows are not ours to make.
        return Err(Fault::new(FaultKind::Transient, "1290", DOING, "the server is read-only"));
    }
    Ok(())
}

pub(super) async fn inspect(
    session: &mut Session,
    requests: &[TableRequest],
    bookkeeping: Bookkeeping,
    bookkeeping_sql: &str,
) -> Result<Vec<LiveFinding>, Fault> {
    let mut report = Report::default();
    let dialect = session.facts.dialect;
    for request in requests {
        match catalogue::live(session, request).await? {
            None => missing(&mut report, dialect, request)?,
            Some(table) => {
                if one_table(&mut report, dialect, request, &table) {
                    may_delete(session, &mut report, request).await?;
                    triggers(session, &mut report, request, &table).await?;
                }
            }
        }
    }
    server(session, &mut report).await?;
    books(session, &mut report, bookkeeping, bookkeeping_sql).await?;
    Ok(report.finish())
}

fn missing(report: &mut Report, dialect: Dialect, request: &TableRequest) -> Result<(), Fault> {
    let (sql, found) = match catalogue::create_table(dialect, request)? {
        Ok(sql) => (Some(format!("{sql};")), "no such table".to_owned()),
        Err(lacking) if lacking.is_empty() => (None, "no such table".to_owned()),
        Err(lacking) => (None, format!("no such table, and no `type` is given for {}", lacking.join(", "))),
    };
    report.add("live/no-table", true, &request.table, None, found, "a table of the database", sql);
    Ok(())
}

/// False where it is no table, so that nothing more can be said.
fn one_table(report: &mut Report, dialect: Dialect, request: &TableRequest, table: &LiveTable) -> bool {
    let name = &request.table;
    if !matches!(table.kind.as_str(), "BASE TABLE" | "SYSTEM VERSIONED") {
        let found = format!("it is a {}", table.kind.to_ascii_lowercase());
        report.fatal("live/not-a-table", name, None, found, "a table of this database");
        return false;
    }
    if !table.engine.eq_ignore_ascii_case("InnoDB") {
        let found = format!("its engine is {}: rows would stay when their checkpoint is rolled back", table.engine);
        let mut b = StatementBuilder::with_backticks();
        let sql = table_name(name).ok().map(|name| {
            b.add("ALTER TABLE ").table(&name).add(" ENGINE=InnoDB;");
            b.into_text()
        });
        report.add("live/engine", true, name, None, found, "InnoDB", sql);
    }
    if table.partitioned {
        let found = "the table is partitioned".to_owned();
        report.warn("live/partitioned", name, None, found, "every unique key contains the partition key");
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
    inspect::columns(report, request, &seen, |column| add_column(dialect, request, column));
    let usable: Vec<Vec<&str>> = table.indexes.iter().filter_map(|i| i.usable()).collect();
    let own_key: Vec<&str> = table.indexes.iter().find(|i| i.primary()).and_then(|i| i.usable()).unwrap_or_default();
    inspect::key(report, request, &usable, !own_key.is_empty());
    for live in &table.columns {
        let wanted = request.columns.iter().find(|c| c.name == live.name);
        let is_key =
            request.key.contains(&live.name) || request.key.is_empty() && own_key.contains(&live.name.as_str());
        if wanted.is_some() || is_key {
            one_column(report, dialect, request, live, wanted, is_key);
        } else if live.on_update {
            let found = "the server writes the current time into it whenever a row changes".to_owned();
            report.warn("live/on-update", name, Some(&live.name), found, "a column that only rules write");
        }
    }
    true
}

fn one_column(
    report: &mut Report,
    dialect: Dialect,
    request: &TableRequest,
    live: &LiveColumn,
    wanted: Option<&ColumnRequest>,
    is_key: bool,
) {
    let (table, column) = (&request.table, Some(live.name.as_str()));
    if wanted.is_some() {
        let lacks: Vec<_> = ["select", "insert", "update"]
            .into_iter()
            .filter(|word| live.privileges.split(',').all(|p| p != *word))
            .map(str::to_ascii_uppercase)
            .collect();
        if !lacks.is_empty() {
            let found = format!("the account may not {}", lacks.join(", "));
            report.fatal("live/privilege", table, column, found, "GRANT SELECT, INSERT, UPDATE, DELETE");
        }
    }
    let declared = wanted.and_then(|w| w.declared.as_ref());
    let Some(live_type) = resolve(&live.declared, live.json, declared) else {
        let found = format!("its type is {}", live.declared);
        let allowed = "numbers, texts, enum, uuid, date, time, datetime, timestamp, json, binary, blobs, bit(1)";
        report.fatal("live/column-type", table, column, found, allowed);
        return;
    };
    if let Some(wanted) = wanted {
        inspect::conversion(report, table, wanted, &live_type, &live.declared);
    }
    if let Some(digits) = live.fraction_digits.filter(|digits| *digits < 6)
        && matches!(live_type, ColumnType::Time | ColumnType::Timestamp | ColumnType::TimestampTz)
        && !holds_text(&live.declared)
    {
        let found = format!("its type is {}: digits of a second beyond {digits} are rounded", live.declared);
        match is_key {
            // Two keys would become one row.
            true => report.fatal("live/precision", table, column, found, "six digits: datetime(6), time(6)"),
            false => report.warn("live/precision", table, column, found, "six digits: datetime(6), time(6)"),
        }
    }
    if ["float(", "double("].iter().any(|word| live.declared.starts_with(word)) {
        let found = format!("its type is {}: digits beyond its own are rounded", live.declared);
        report.warn("live/precision", table, column, found, "float or double without digits, or decimal");
    }
    if live.declared == "json" && dialect.flavor == Flavor::MySql {
        let found = "MySQL keeps JSON numbers beyond 64 bits, and fractions, as floats".to_owned();
        report.warn(
            "live/precision",
            table,
            column,
            found,
            "longtext with CHECK (json_valid(…)), which keeps every digit",
        );
    }
    if is_key {
        key_equality(report, dialect, table, live, &live_type);
    }
}

/// Two keys that differ in any byte must be two keys for the database as well (SEMANTICS 1.1).
fn key_equality(report: &mut Report, dialect: Dialect, table: &str, live: &LiveColumn, live_type: &ColumnType) {
    let exact = dialect.exact_collation();
    let found = match (live_type, &live.collation) {
        (ColumnType::Json | ColumnType::Array(_), _) => {
            "JSON documents can be equal without being the same text".to_owned()
        }
        // Values are the labels themselves, byte for byte, and no two labels are equal.
        _ if live.declared.starts_with("enum(") => return,
        // Strips blanks whatever its collation.
        _ if live.declared.starts_with("char") => "CHAR drops blanks at the end of a text".to_owned(),
        (_, Some(collation)) if collation != exact => {
            format!("its collation {collation} can take different texts for the same: case, accents, blanks at the end")
        }
        _ => return,
    };
    let allowed = "a key column whose values are equal only when their bytes are";
    let sql = match holds_text(&live.declared) && !live.declared.starts_with("char") {
        true => modify(dialect, table, live),
        false => None,
    };
    report.add("live/key-equality", true, table, Some(&live.name), found, allowed, sql);
}

/// `ALTER TABLE t MODIFY k varchar(40) CHARACTER SET utf8mb4 COLLATE … NOT NULL`
fn modify(dialect: Dialect, table: &str, live: &LiveColumn) -> Option<String> {
    let Some(ColumnType::Varchar(length)) = type_of_word(&live.declared, live.json) else { return None };
    let mut b = StatementBuilder::with_backticks();
    b.add("ALTER TABLE ").table(&table_name(table).ok()?).add(" MODIFY ").name(&Name::parse(&live.name).ok()?);
    b.add(" varchar(").number(length as usize).add(") CHARACTER SET utf8mb4 COLLATE ").add(dialect.exact_collation());
    b.add(if live.not_null { " NOT NULL;" } else { ";" });
    Some(b.into_text())
}

fn add_column(dialect: Dialect, request: &TableRequest, column: &ColumnRequest) -> Option<String> {
    let mut b = StatementBuilder::with_backticks();
    b.add("ALTER TABLE ").table(&table_name(&request.table).ok()?).add(" ADD COLUMN ");
    b.name(&Name::parse(&column.name).ok()?).add(" ");
    catalogue::write_type(&mut b, dialect, column.declared.as_ref()?, None);
    b.add(";");
    Some(b.into_text())
}

/// DELETE is a privilege of the table, which no catalogue shows for roles and wildcards; the server is asked how it would do it.
async fn may_delete(session: &mut Session, report: &mut Report, request: &TableRequest) -> Result<(), Fault> {
    let table = table_name(&request.table)?;
    let mut b = StatementBuilder::with_backticks();
    b.add("EXPLAIN DELETE FROM ").table(&table).add(" WHERE FALSE");
    match session.run(&b.finish(), "ask for the privilege to delete").await {
        Ok(()) => {}
        // Table access, column access, database access denied.
        Err(fault) if matches!(&*fault.code, "1142" | "1143" | "1044") => {
            let found =
                "the account may not DELETE: rules with method delete or truncate will stop the route".to_owned();
            report.warn("live/privilege", &request.table, None, found, "GRANT DELETE");
        }
        Err(fault) => return Err(fault),
    }
    Ok(())
}

async fn triggers(
    session: &mut Session,
    report: &mut Report,
    request: &TableRequest,
    table: &LiveTable,
) -> Result<(), Fault> {
    const DOING: &str = "look for triggers";
    let query = sqlx::query(
        "SELECT CAST(TRIGGER_NAME AS CHAR) FROM information_schema.TRIGGERS \
         WHERE EVENT_OBJECT_SCHEMA = ? AND EVENT_OBJECT_TABLE = ? ORDER BY TRIGGER_NAME",
    );
    let rows = session.fetch_all(query.bind(&table.database).bind(&table.name), DOING).await?;
    let names =
        rows.iter().map(|r| r.try_get::<String, _>(0)).collect::<Result<Vec<_>, _>>().map_err(|e| fault(e, DOING))?;
    if !names.is_empty() {
        let found = format!("triggers run on its rows: {}", names.join(", "));
        let allowed = "triggers that change no mapped column and skip no row";
        report.warn("live/trigger", &request.table, None, found, allowed);
    }
    Ok(())
}

async fn server(session: &mut Session, report: &mut Report) -> Result<(), Fault> {
    const DOING: &str = "read the server's settings";
    let query = sqlx::query(
        "SELECT CAST(@@GLOBAL.innodb_flush_log_at_trx_commit AS SIGNED), CAST(@@GLOBAL.innodb_doublewrite AS CHAR)",
    );
    let row = session.fetch_one(query, DOING).await?;
    let flush: i64 = row.try_get(0).map_err(|e| fault(e, DOING))?;
    let doublewrite: String = row.try_get(1).map_err(|e| fault(e, DOING))?;
    if flush != 1 && flush != 3 {
        let found = format!(
            "innodb_flush_log_at_trx_commit is {flush}: a crash can take the last commits back, rows and checkpoint together"
        );
        report.warn("live/asynchronous-commit", "", None, found, "1; the log replays what a crash took back");
    }
    if matches!(doublewrite.as_str(), "0" | "OFF") {
        let found = "innodb_doublewrite is off: a crash of the machine can damage tables".to_owned();
        report.warn("live/no-sync", "", None, found, "on");
    }
    // Its name since MySQL 8.0.30; MariaDB kept the old one.
    for sql in
        ["SHOW GLOBAL VARIABLES LIKE 'innodb_redo_log_capacity'", "SHOW GLOBAL VARIABLES LIKE 'innodb_log_file_size'"]
    {
        let rows = session.fetch_all(sqlx::query(sql), DOING).await?;
        let Some(row) = rows.first() else { continue };
        let value: String = row.try_get(1).map_err(|e| fault(e, DOING))?;
        if let Ok(bytes) = value.parse::<i64>()
            && bytes < REDO_BYTES
        {
            let found = format!("the redo log holds {} MiB: writes stall whenever it is full", bytes >> 20);
            report.warn("live/small-redo-log", "", None, found, "1 GiB or more (innodb_log_file_size)");
        }
        break;
    }
    Ok(())
}

async fn books(session: &mut Session, report: &mut Report, bookkeeping: Bookkeeping, sql: &str) -> Result<(), Fault> {
    let present = bookkeeping::present(session).await?;
    for table in [CHECKPOINTS, VIEWS] {
        let found = match present.iter().find(|(name, _)| name == table) {
            Some((_, engine)) if !engine.eq_ignore_ascii_case("InnoDB") => {
                let found = format!("its engine is {engine}: a checkpoint would stay when its rows are rolled back");
                report.fatal("live/engine", table, None, found, "InnoDB");
                continue;
            }
            Some(_) => match usable(session, table).await? {
                true => continue,
                false => "the account may not SELECT, INSERT, UPDATE and DELETE in it",
            },
            None if bookkeeping == Bookkeeping::Manual => "it is missing, and bookkeeping is manual",
            None => continue,
        };
        let missing = present.iter().all(|(name, _)| name != table);
        let allowed = "the bookkeeping tables, with SELECT, INSERT, UPDATE and DELETE";
        report.add("live/bookkeeping", true, table, None, found.to_owned(), allowed, missing.then(|| sql.to_owned()));
    }
    Ok(())
}

/// Whether the account may do with a bookkeeping table what the protocol does; asked for, not done.
async fn usable(session: &mut Session, table: &str) -> Result<bool, Fault> {
    let statements: [&'static str; 3] = match table {
        CHECKPOINTS => [
            "EXPLAIN UPDATE gravity_checkpoints SET epoch = epoch WHERE FALSE",
            "EXPLAIN DELETE FROM gravity_checkpoints WHERE FALSE",
            "EXPLAIN INSERT INTO gravity_checkpoints SELECT * FROM gravity_checkpoints WHERE FALSE",
        ],
        _ => [
            "EXPLAIN UPDATE gravity_views SET state = state WHERE FALSE",
            "EXPLAIN DELETE FROM gravity_views WHERE FALSE",
            "EXPLAIN INSERT INTO gravity_views SELECT * FROM gravity_views WHERE FALSE",
        ],
    };
    for statement in statements {
        match session.command(statement, "ask for privileges on the bookkeeping tables").await {
            Ok(()) => {}
            Err(fault) if matches!(&*fault.code, "1142" | "1143" | "1044") => return Ok(false),
            Err(fault) => return Err(fault),
        }
    }
    Ok(true)
}
