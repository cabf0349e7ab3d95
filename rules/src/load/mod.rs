//! Reads the rules files and says everything that is wrong with them at once, or answers the rules in force.

mod cross;
mod entry;
mod formula;
mod hash;
mod mapping;
pub(crate) mod op;
mod unsound;

use gravity_model::ColumnType;
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::codes;
use crate::diagnose::{Document, Finding, Findings, Place, Positions, SourceFile};
use crate::file::{EventEntry, RuleEntry, RulesFile, UnknownFields};
use crate::path::Origin;
use crate::ruleset::RuleSet;

/// What the rules are checked against: names from the other files.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Context {
    pub databases: IndexMap<String, DatabaseContext>,
    pub exporters: Vec<String>,
}

/// What the rules need to know of an entry of databases.json.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseContext {
    pub kind: DatabaseKind,
    pub ddl: Ddl,
    /// For pass-through rules that do not say it themselves.
    pub unknown_fields: Option<UnknownFields>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DatabaseKind {
    Postgres,
    Mysql,
    Mongodb,
    Sqlite,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ddl {
    /// Tables are the DBA's.
    #[default]
    None,
    /// Missing tables are created from the `type` of each mapping.
    Create,
}

/// Declared type of an event's field: event, path, type, where it stands.
#[derive(Debug)]
pub(crate) struct DeclaredField {
    pub event: String,
    pub origin: Origin,
    pub field_type: ColumnType,
    pub place: Place,
}

/// Reads `files` in their order and checks them with each other and with `context`. An `Err` holds warnings as well; those of
/// an `Ok` are in [`RuleSet::warnings`].
pub fn load(files: &[SourceFile], context: &Context) -> Result<RuleSet, Findings> {
    let mut findings = Findings::new();
    let mut rules = Vec::new();
    let mut fields = Vec::new();
    // A rule that could not be read may be the routing that another one needs: then nothing is said about the whole.
    let mut complete = true;
    for file in files {
        let Some(document) = Document::read::<RulesFile>(file, &mut findings) else {
            complete = false;
            continue;
        };
        complete &= document.positions().contains("/rules");
        for pointer in document.children("/rules") {
            let at = At { positions: document.positions(), pointer };
            let entry: Option<RuleEntry> = document.part(pointer, &mut findings);
            let rule = match entry {
                Some(entry) => entry::check(entry, &at, context, &mut findings),
                None => {
                    unsound::check(&document, &at, context, &mut findings);
                    None
                }
            };
            match rule {
                Some(rule) => rules.push(rule),
                None => complete = false,
            }
        }
        for pointer in document.children("/events") {
            let event = pointer["/events/".len()..].replace("~1", "/").replace("~0", "~");
            let entry: Option<EventEntry> = document.part(pointer, &mut findings);
            let at = At { positions: document.positions(), pointer };
            fields.extend(entry.map(|entry| declared(event, &entry, &at, &mut findings)).unwrap_or_default());
        }
    }
    if rules.is_empty() && complete && !findings.has_errors() {
        let file = files.first().map_or("rules.json", |file| file.name.as_str());
        let message = "there are no rules: events are kept in the log, nothing is written to a database";
        findings.push(Finding::of_file(codes::NO_RULES, file, message).warning());
    }
    let subscriptions = cross::check(&mut rules, &fields, context, complete, &mut findings);
    formula::check(&mut rules, &fields, complete, &mut findings);
    findings.sort();
    if findings.has_errors() || !complete {
        return Err(findings);
    }
    let hash = hash::of(&rules, &fields);
    Ok(RuleSet { rules, databases: context.databases.clone(), subscriptions, warnings: findings, hash })
}

fn declared(event: String, entry: &EventEntry, at: &At<'_>, findings: &mut Findings) -> Vec<DeclaredField> {
    let mut fields = Vec::new();
    for (path, word) in &entry.fields {
        let step = crate::diagnose::escape_step(path);
        let below = format!("/fields/{step}");
        let origin = mapping::path(path, &at.key(&below), findings);
        let field_type = mapping::column_type(word, &at.value(&below), findings);
        if let (Some(origin), Some(field_type)) = (origin, field_type) {
            fields.push(DeclaredField { event: event.clone(), origin, field_type, place: at.value(&below) });
        }
    }
    fields
}

/// An object of a file: where it stands and what stands in it.
pub(crate) struct At<'a> {
    positions: &'a Positions,
    pointer: &'a str,
}

impl At<'_> {
    /// The object's first character.
    pub fn itself(&self) -> Place {
        self.positions.value(self.pointer).start()
    }

    /// The value below (`/mapping/0/source`).
    pub fn value(&self, below: &str) -> Place {
        self.positions.value(&format!("{}{below}", self.pointer))
    }

    pub fn key(&self, below: &str) -> Place {
        self.positions.key(&format!("{}{below}", self.pointer))
    }
}
