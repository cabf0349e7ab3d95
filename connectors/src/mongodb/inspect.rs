//! What about live collections and the server forbids or endangers a rule.

use gravity_model::Fault;
use gravity_model::port::view::{LiveFinding, TableRequest};

use super::catalogue::{self, Live, has_option};
use super::client::{Kind, Server};
use super::overlay::{DELETED, MARK};

pub(super) async fn inspect(server: &Server, requests: &[TableRequest]) -> Result<Vec<LiveFinding>, Fault> {
    let live = catalogue::live(server, requests).await?;
    let mut report = Report::default();
    for request in requests {
        names(&mut report, request);
        match live.get(&request.table) {
            None => report.add(
                ("live/no-table", true),
                &request.table,
                None,
                "no such collection".to_owned(),
                "a collection that is there",
                Some(format!("db.createCollection(\"{}\")", request.table)),
            ),
            Some(live) => collection(&mut report, request, live, server.kind),
        }
    }
    if server.kind == Kind::StandAlone {
        report.add(
            ("live/stand-alone", false),
            "",
            None,
            format!(
                "the server is no replica set: documents carry `{MARK}`, deleted ones stay for a while, and a batch becomes \
                 visible document by document"
            ),
            &format!("a replica set, or readers that filter with {{\"{DELETED}\": {{\"$exists\": false}}}}"),
            None,
        );
    }
    Ok(report.0)
}

#[derive(Default)]
struct Report(Vec<LiveFinding>);

impl Report {
    fn add(
        &mut self,
        (code, fatal): (&'static str, bool),
        table: &str,
        column: Option<&str>,
        found: String,
        allowed: &str,
        sql: Option<String>,
    ) {
        let (table, column) = (table.to_owned(), column.map(str::to_owned));
        self.0.push(LiveFinding { code, fatal, table, column, found, allowed: allowed.to_owned(), sql });
    }
}

fn names(report: &mut Report, request: &TableRequest) {
    if request.columns.is_empty() {
        let found = "the rule passes every field through, and a collection has no columns to take them".to_owned();
        report.add(("live/pass-through", true), &request.table, None, found, "a mapping that names the fields", None);
    }
    let single = request.key.len() == 1;
    for column in &request.columns {
        let name = column.name.as_str();
        let taken = name == MARK || name == DELETED || (name == "_id" && !(single && request.key[0] == "_id"));
        if taken {
            let found = format!("`{name}` is kept for bookkeeping");
            let allowed = "another name; `_id` only as the one key column";
            report.add(("live/name", true), &request.table, Some(name), found, allowed, None);
        }
    }
}

fn collection(report: &mut Report, request: &TableRequest, live: &Live, kind: Kind) {
    let table = request.table.as_str();
    if live.kind != "collection" {
        let found = format!("it is a {}", live.kind);
        report.add(("live/not-a-table", true), table, None, found, "a collection", None);
        return;
    }
    if has_option(live, "capped") {
        let found = "the collection is capped: it drops documents by itself".to_owned();
        report.add(("live/not-a-table", true), table, None, found, "a collection that is not capped", None);
    }
    if has_option(live, "collation") {
        let found = "the collection has a collation: it takes different keys for one".to_owned();
        report.add(("live/key-equality", true), table, None, found, "a collection without collation", None);
    }
    if has_option(live, "validator") {
        let found = match kind {
            Kind::StandAlone => {
                "the collection has a validator: what it refuses is parked, and it must let tombstones pass"
            }
            Kind::Transactions => "the collection has a validator: what it refuses is parked",
        };
        report.add(("live/validator", false), table, None, found.to_owned(), "", None);
    }
    for index in &live.unique {
        let fields = index.fields.join(", ");
        if kind == Kind::StandAlone && !index.partial {
            // A tombstone has none of the fields, which counts as null.
            let found =
                format!("the unique index {} ({fields}) takes one document without these fields only", index.name);
            let allowed = "a unique index that is sparse or partial: two tombstones would meet in it";
            report.add(("live/unique-index", true), table, None, found, allowed, None);
        } else {
            let found = format!("the unique index {} ({fields}) refuses what meets another document", index.name);
            let allowed = "events that give up a value before another takes it; others are parked";
            report.add(("live/unique-index", false), table, None, found, allowed, None);
        }
    }
}
