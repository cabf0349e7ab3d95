//! `check --live`: asks the databases what they have, and says what of it does not fit the rules. Changes nothing.

use std::sync::Arc;

use gravity_model::FaultKind;
use gravity_model::port::view::{Described, LiveFinding, TableRequest, ViewStore};
use gravity_model::shape::SharedShape;
use gravity_rules::RuleSet;
use gravity_rules::diagnose::{Finding, Findings};

use crate::assembly;
use crate::config::database::{DatabaseEntry, Ddl};
use crate::config::{Config, codes};

/// A statement that a DBA would run.
#[derive(Clone, Debug)]
pub struct Statement {
    pub database: String,
    pub client: Client,
    pub sql: String,
}

/// The database's own client, which a DBA runs statements in.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    name: &'static str,
    /// How its comments begin.
    comment: &'static str,
}

impl Client {
    fn of(entry: &DatabaseEntry) -> Client {
        match entry {
            DatabaseEntry::Postgres(_) => Client { name: "psql", comment: "--" },
            DatabaseEntry::MySql(_) => Client { name: "mysql", comment: "--" },
            DatabaseEntry::Sqlite(_) => Client { name: "sqlite3", comment: "--" },
            DatabaseEntry::MongoDb(_) => Client { name: "mongosh", comment: "//" },
        }
    }
}

/// What the databases said.
#[derive(Debug, Default)]
pub struct Inspection {
    pub findings: Findings,
    pub statements: Vec<Statement>,
}

/// Asks every database that a rule names, one after the other.
pub async fn inspect(config: &Config, set: &RuleSet) -> Inspection {
    let mut inspection = Inspection::default();
    let used = set.databases();
    for (name, entry) in config.databases.iter().filter(|(name, _)| used.contains(&name.as_str())) {
        one(config, set, name, entry, &mut inspection).await;
    }
    inspection
}

/// A database as it is asked: a SQLite file that is not there yet is asked as an empty one, because opening would create it.
struct Asked {
    store: Arc<dyn ViewStore>,
    _empty: Option<tempfile::TempDir>,
}

fn open(config: &Config, entry: &DatabaseEntry) -> Result<Asked, gravity_model::Fault> {
    let DatabaseEntry::Sqlite(keys) = entry else {
        return Ok(Asked { store: assembly::store(config, entry)?, _empty: None });
    };
    if config.path(&keys.path).exists() {
        return Ok(Asked { store: assembly::store(config, entry)?, _empty: None });
    }
    let cannot = |error: std::io::Error| {
        gravity_model::Fault::new(FaultKind::Transient, "", "make a temporary folder", error.to_string())
    };
    let folder = tempfile::tempdir().map_err(cannot)?;
    let mut keys = keys.clone();
    keys.path = folder.path().join("empty.db").display().to_string();
    let store = assembly::store(config, &DatabaseEntry::Sqlite(keys))?;
    Ok(Asked { store, _empty: Some(folder) })
}

async fn one(config: &Config, set: &RuleSet, name: &str, entry: &DatabaseEntry, inspection: &mut Inspection) {
    let requests = set.requests(name);
    let asked = match open(config, entry) {
        Ok(asked) => asked,
        Err(fault) => return inspection.findings.push(unreachable(name, &fault)),
    };
    let (create, client) = (entry.route().ddl == Ddl::Create, Client::of(entry));
    match asked.store.describe(&requests).await {
        Ok(described) => {
            let present = tables(set, (name, client), create, &requests, described, inspection);
            match asked.store.inspect(&requests).await {
                Ok(found) => {
                    for live in found.iter().filter(|live| present.contains(&live.table) || live.table.is_empty()) {
                        let finding = from_live(set, name, live);
                        // The rules' own finding about that place says the same in the rules' words.
                        let is_said = |f: &Finding| {
                            f.line > 0 && (&f.file, f.line, f.column) == (&finding.file, finding.line, finding.column)
                        };
                        if !inspection.findings.iter().any(is_said) {
                            inspection.findings.push(finding);
                        }
                        if let Some(sql) = &live.sql {
                            inspection.statements.push(Statement {
                                database: name.to_owned(),
                                client,
                                sql: sql.clone(),
                            });
                        }
                    }
                }
                Err(fault) => inspection.findings.push(unreachable(name, &fault)),
            }
        }
        Err(fault) => inspection.findings.push(unreachable(name, &fault)),
    }
    let sql = asked.store.bookkeeping_sql();
    inspection.statements.push(Statement { database: name.to_owned(), client, sql });
    asked.store.close().await;
}

/// Compiles the rules against the tables that are there; collects the DDL of the others. Answers the tables that are there.
fn tables(
    set: &RuleSet,
    (name, client): (&str, Client),
    create: bool,
    requests: &[TableRequest],
    described: Vec<Described>,
    inspection: &mut Inspection,
) -> Vec<String> {
    let (mut shapes, mut present, mut compiled) = (Vec::<SharedShape>::new(), Vec::new(), Vec::new());
    for (request, described) in requests.iter().zip(described) {
        match described {
            Described::Present(shape) => {
                shapes.push(Arc::new(shape));
                present.push(request.table.clone());
                compiled.push(request.table.clone());
            }
            Described::Missing { ddl } => {
                // Where Gravity creates it, its absence is no finding.
                if !create {
                    compiled.push(request.table.clone());
                }
                let sql = ddl.unwrap_or_else(|untyped| {
                    format!("{} {}: no `type` is given for {}", client.comment, request.table, untyped.join(", "))
                });
                inspection.statements.push(Statement { database: name.to_owned(), client, sql });
            }
        }
    }
    if let Err(findings) = set.compile(name, Some(&compiled), &shapes) {
        inspection.findings.extend(findings);
    }
    present
}

/// A refusal is an error; a database that is away is a warning, because at run time it delays only its own route.
fn unreachable(name: &str, fault: &gravity_model::Fault) -> Finding {
    let finding = Finding::of_file(codes::UNREACHABLE, "databases.json", format!("`{name}`: {fault}"));
    match fault.kind {
        FaultKind::Misconfigured | FaultKind::NotOurs => finding,
        _ => finding.warning(),
    }
}

fn from_live(set: &RuleSet, database: &str, live: &LiveFinding) -> Finding {
    let place = match &live.column {
        Some(column) => set.place_of_column(database, &live.table, column),
        None => set.place_of_table(database, &live.table),
    };
    let subject = match (&live.column, live.table.is_empty()) {
        (Some(column), _) => format!("{database}.{}.{column}", live.table),
        (None, false) => format!("{database}.{}", live.table),
        (None, true) => database.to_owned(),
    };
    let message = format!("{subject}: {}", live.found);
    let finding = match place {
        Some(place) => Finding::at(live.code, place, message),
        None => Finding::of_file(live.code, "databases.json", message),
    };
    let finding = finding.found(live.found.as_str());
    let finding = if live.allowed.is_empty() { finding } else { finding.allowed([live.allowed.as_str()]) };
    let finding = finding.suggest(live.sql.as_ref().map(|sql| format!("run: {sql}")));
    if live.fatal { finding } else { finding.warning() }
}

/// The statements as a script, each database under a heading.
pub fn script(statements: &[Statement]) -> String {
    let mut out = String::new();
    let mut heading = "";
    for statement in statements {
        if statement.database != heading {
            heading = &statement.database;
            out.push_str(&format!("{} database {heading}, for {}\n", statement.client.comment, statement.client.name));
        }
        let sql = statement.sql.trim_end();
        out.push_str(sql);
        out.push_str(if sql.ends_with(';') || sql.starts_with(statement.client.comment) { "\n\n" } else { ";\n\n" });
    }
    out.trim_end().to_owned()
}
