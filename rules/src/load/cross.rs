//! Checks the rules with each other: where rows go, who is told, and whether tables and columns mean one thing.

use hashbrown::HashMap;
use indexmap::IndexMap;

use super::{Context, Ddl, DeclaredField};
use crate::codes;
use crate::convert::Cast;
use crate::diagnose::{Finding, Findings};
use crate::file::Method;
use crate::ruleset::{MappedValue, Mapping, Projection, Rule, Subscription};

/// Projections of one event in one database; a bound on the work that one event can cause (T14).
const MOST_PROJECTIONS: usize = 64;

/// Rules and subscriptions are numbered in 16 bits.
const MOST_RULES: usize = u16::MAX as usize;

/// Fills in where each rule's rows go and answers the subscriptions. With `complete` false some rules are missing, and only
/// what does not depend on them is said.
pub(super) fn check(
    rules: &mut [Rule],
    fields: &[DeclaredField],
    context: &Context,
    complete: bool,
    findings: &mut Findings,
) -> Vec<Subscription> {
    ids(rules, findings);
    let subscriptions = routings(rules, context, findings);
    if let Some(beyond) = rules.get(MOST_RULES).or(rules.last().filter(|_| subscriptions.len() > MOST_RULES)) {
        let message = format!("there are more than {MOST_RULES} rules or pairs of exporter and database");
        findings.push(Finding::at(codes::TOO_MANY_RULES, &beyond.place, message));
    }
    destinations(rules, context, complete, findings);
    fan_out(rules, context, findings);
    created_tables(rules, context, findings);
    one_meaning(rules, context, findings);
    declared_fields(rules, fields, findings);
    subscriptions
}

fn ids(rules: &[Rule], findings: &mut Findings) {
    let mut seen: HashMap<&str, String> = HashMap::new();
    for rule in rules {
        let Some(id) = &rule.id else { continue };
        if let Some(first) = seen.insert(id, rule.place.to_string()) {
            findings.push(
                Finding::at(codes::DUPLICATE_ID, &rule.place, format!("two rules have the id `{id}`"))
                    .found(id)
                    .suggest(Some(format!("the first one is at {first}"))),
            );
        }
    }
}

/// Which rules route, and to where; subscriptions in the order of their first mention.
fn routings(rules: &mut [Rule], context: &Context, findings: &mut Findings) -> Vec<Subscription> {
    let only = match context.databases.len() {
        1 => context.databases.keys().next(),
        _ => None,
    };
    let mut subscriptions: Vec<Subscription> = Vec::new();
    let mut seen: HashMap<(String, String, String), String> = HashMap::new();
    for rule in rules.iter_mut() {
        let told = !rule.exporters.is_empty();
        if told && rule.database.is_none() {
            rule.database = only.cloned();
            if rule.database.is_none() {
                findings.push(
                    Finding::at(
                        codes::DATABASE_CHOICE,
                        &rule.place,
                        "an exporter is told when a database has the event: which one?",
                    )
                    .allowed(context.databases.keys())
                    .suggest(Some("write \"database\": NAME")),
                );
                continue;
            }
        }
        rule.routing = rule.database.is_some() && (rule.projection.is_none() || told);
        let Some(database) = &rule.database else { continue };
        for exporter in &rule.exporters {
            let triple = (rule.event.clone(), database.clone(), exporter.clone());
            if let Some(first) = seen.insert(triple, rule.place.to_string()) {
                let message = format!("`{exporter}` is told of `{}` in `{database}` twice", rule.event);
                findings.push(
                    Finding::at(codes::DUPLICATE_ROUTING, &rule.place, message)
                        .found(exporter)
                        .suggest(Some(format!("the first one is at {first}"))),
                );
            }
            let subscription = Subscription { exporter: exporter.clone(), database: database.clone() };
            if !subscriptions.contains(&subscription) {
                subscriptions.push(subscription);
            }
        }
    }
    subscriptions
}

/// SEMANTICS 2.1: a projection with database goes there; else where routings of its event go; else to the only database.
fn destinations(rules: &mut [Rule], context: &Context, complete: bool, findings: &mut Findings) {
    let mut routed: IndexMap<String, Vec<String>> = IndexMap::new();
    for rule in rules.iter().filter(|rule| rule.routing) {
        if let Some(database) = &rule.database {
            let list = routed.entry(rule.event.clone()).or_default();
            if !list.contains(database) {
                list.push(database.clone());
            }
        }
    }
    for rule in rules.iter_mut().filter(|rule| rule.projection.is_some()) {
        if let Some(database) = &rule.database {
            rule.databases = vec![database.clone()];
        } else if let Some(databases) = routed.get(&rule.event) {
            rule.databases.clone_from(databases);
        } else if context.databases.len() == 1 {
            rule.databases = context.databases.keys().cloned().collect();
        } else if complete {
            let message = format!("nothing says which database the rows of `{}` go to", rule.event);
            findings.push(
                Finding::at(codes::DATABASE_CHOICE, &rule.place, message)
                    .allowed(context.databases.keys())
                    .suggest(Some("write \"database\": NAME, or add a rule with the event and a database")),
            );
        }
    }
}

fn fan_out(rules: &[Rule], context: &Context, findings: &mut Findings) {
    for database in context.databases.keys() {
        let mut counts: HashMap<&str, usize> = HashMap::new();
        for rule in rules.iter().filter(|rule| rule.projection.is_some() && rule.databases.contains(database)) {
            let count = counts.entry(&rule.event).or_default();
            *count += 1;
            if *count == MOST_PROJECTIONS + 1 {
                let message = format!("`{}` writes more than {MOST_PROJECTIONS} rows in `{database}`", rule.event);
                findings.push(Finding::at(codes::TOO_MANY_RULES, &rule.place, message));
            }
        }
    }
}

/// SEMANTICS 2.5: where tables are created, every mapping names its type; and a key is needed as well.
fn created_tables(rules: &[Rule], context: &Context, findings: &mut Findings) {
    let creates = |rule: &Rule| {
        let made = |name: &&String| context.databases.get(*name).is_some_and(|database| database.ddl == Ddl::Create);
        rule.databases.iter().find(made).cloned()
    };
    for rule in rules {
        let (Some(projection), Some(database)) = (&rule.projection, creates(rule)) else { continue };
        for mapping in projection.mappings.iter().filter(|mapping| mapping.column_type.is_none()) {
            let message =
                format!("`{database}` has \"ddl\": \"create\", so the mapping of `{}` needs a `type`", mapping.target);
            findings.push(
                Finding::at(codes::TYPE_MISSING, &mapping.place, message)
                    .allowed(gravity_model::ColumnType::WORDS.iter().copied().chain(["T[]"])),
            );
        }
        let typed_elsewhere = || {
            let other = |p: &Projection| p.table == projection.table && !p.mappings.is_empty();
            rules.iter().any(|rule| rule.databases.contains(&database) && rule.projection.as_ref().is_some_and(other))
        };
        if projection.is_pass_through() && !typed_elsewhere() {
            let message = format!(
                "`{database}` has \"ddl\": \"create\", but without `mapping` nothing says which columns `{}` has",
                projection.table
            );
            findings.push(
                Finding::at(codes::TYPE_MISSING, &rule.place, message).suggest(Some("write a `mapping` with types")),
            );
        }
        if projection.method == Method::Insert && projection.key.is_empty() && !projection.is_pass_through() {
            let message = format!("`{database}` has \"ddl\": \"create\", so table `{}` needs a key", projection.table);
            findings.push(
                Finding::at(codes::KEY_MISSING, &projection.key_place, message).suggest(Some(
                    "mark the key's mapping with \"primary\": true, or write \"primaryKey\": \"COLUMN\"",
                )),
            );
        }
    }
}

/// Rules that write one table agree on its key and on the types of its columns.
fn one_meaning(rules: &[Rule], context: &Context, findings: &mut Findings) {
    let mut told: Vec<usize> = Vec::new();
    for database in context.databases.keys() {
        let mut keys: HashMap<&str, &Projection> = HashMap::new();
        let mut types: HashMap<(&str, &str), &Mapping> = HashMap::new();
        for (index, rule) in rules.iter().enumerate() {
            let Some(projection) = rule.projection.as_ref().filter(|_| rule.databases.contains(database)) else {
                continue;
            };
            let mut conflicts = Vec::new();
            if !projection.key.is_empty() {
                let first = *keys.entry(&projection.table).or_insert(projection);
                let sorted = |p: &Projection| {
                    let mut key = p.key.clone();
                    key.sort();
                    key
                };
                if sorted(first) != sorted(projection) {
                    let message = format!("two rules give table `{}` different keys", projection.table);
                    conflicts.push(
                        Finding::at(codes::KEY_CONFLICT, &projection.key_place, message)
                            .found(projection.key.join(", "))
                            .allowed([first.key.join(", ")])
                            .suggest(Some(format!("the other rule is at {}", first.table_place))),
                    );
                }
            }
            for mapping in &projection.mappings {
                let Some(column_type) = &mapping.column_type else { continue };
                let first = *types.entry((&projection.table, &mapping.target)).or_insert(mapping);
                if first.column_type.as_ref() != Some(column_type) {
                    let message =
                        format!("two rules give column `{}` of `{}` different types", mapping.target, projection.table);
                    let other = first.column_type.as_ref().map(ToString::to_string).unwrap_or_default();
                    conflicts.push(
                        Finding::at(codes::TYPE_CONFLICT, &mapping.place, message)
                            .found(column_type.to_string())
                            .allowed([other])
                            .suggest(Some(format!("the other mapping is at {}", first.place))),
                    );
                }
            }
            // The same two rules may meet in several databases; once is enough.
            if !conflicts.is_empty() && !told.contains(&index) {
                told.push(index);
                findings.extend(conflicts);
            }
        }
    }
}

/// What `events` says of a field must agree with itself and with the mappings that read it.
fn declared_fields(rules: &[Rule], fields: &[DeclaredField], findings: &mut Findings) {
    let mut first: HashMap<(&str, String), &DeclaredField> = HashMap::new();
    for field in fields {
        let known = *first.entry((&field.event, field.origin.to_string())).or_insert(field);
        if known.field_type != field.field_type {
            let message = format!("field `{}` of `{}` is declared with two types", field.origin, field.event);
            findings.push(
                Finding::at(codes::TYPE_CONFLICT, &field.place, message)
                    .found(field.field_type.to_string())
                    .allowed([known.field_type.to_string()])
                    .suggest(Some(format!("the other one is at {}", known.place))),
            );
        }
    }
    for rule in rules {
        for mapping in rule.projection.iter().flat_map(|projection| &projection.mappings) {
            let (MappedValue::Source(origin), Some(column_type)) = (&mapping.value, &mapping.column_type) else {
                continue;
            };
            let Some(field) = first.get(&(rule.event.as_str(), origin.to_string())) else { continue };
            if Cast::between(&field.field_type, column_type).is_none() {
                let message = format!(
                    "`{origin}` is declared as {} at {}, which does not go into type {column_type}",
                    field.field_type, field.place
                );
                findings
                    .push(Finding::at(codes::TYPE_CONFLICT, &mapping.place, message).found(column_type.to_string()));
            }
        }
    }
}
