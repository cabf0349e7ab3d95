//! The rules after all checks: what other packages ask about them.

use gravity_model::port::view::{ColumnRequest, TableRequest};
use gravity_model::{ColumnOp, ColumnType, shape::SharedShape};
use indexmap::IndexMap;
use serde::Serialize;

use crate::compile::{RouteProgram, compile};
use crate::diagnose::{Findings, Place};
use crate::expression::{Checked, Written};
use crate::file::{Constant, Method, OnConflict, OnMissing, UnknownFields};
use crate::load::DatabaseContext;
use crate::path::Origin;

/// An exporter that is told of what a database has: it has its own cursor (SEMANTICS 5.1).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Subscription {
    pub exporter: String,
    pub database: String,
}

/// All rules in force, checked. Made by [`load`](crate::load).
#[derive(Debug)]
pub struct RuleSet {
    pub(crate) rules: Vec<Rule>,
    pub(crate) databases: IndexMap<String, DatabaseContext>,
    pub(crate) subscriptions: Vec<Subscription>,
    pub(crate) warnings: Findings,
    pub(crate) hash: [u8; 32],
}

/// One rule, in file order.
#[derive(Debug)]
pub(crate) struct Rule {
    pub place: Place,
    pub id: Option<String>,
    pub event: String,
    pub projection: Option<Projection>,
    /// Where its rows or its routing go; for a projection without database, see [`Rule::databases`].
    pub database: Option<String>,
    pub exporters: Vec<String>,
    pub filter: Option<Formula>,
    /// Databases that the projection's rows go to, resolved by SEMANTICS 2.1.
    pub databases: Vec<String>,
    /// True when the rule sends the event to `database` (and its projections without database, and its exporters).
    pub routing: bool,
}

#[derive(Debug)]
pub(crate) struct Projection {
    pub table: String,
    pub table_place: Place,
    pub method: Method,
    pub mappings: Vec<Mapping>,
    /// Key columns in order; empty: the live table's.
    pub key: Vec<String>,
    pub key_place: Place,
    pub on_conflict: OnConflict,
    pub on_missing: OnMissing,
    pub unknown_fields: Option<UnknownFields>,
}

impl Projection {
    pub fn is_pass_through(&self) -> bool {
        self.mappings.is_empty() && self.method != Method::Truncate
    }
}

#[derive(Debug)]
pub(crate) struct Mapping {
    pub place: Place,
    pub target: String,
    pub value: MappedValue,
    pub column_type: Option<ColumnType>,
    pub default: Option<Constant>,
    pub op: ColumnOp,
    pub previous: Option<Origin>,
}

#[derive(Debug)]
pub(crate) enum MappedValue {
    Source(Origin),
    Constant(Constant),
    Expression(Formula),
}

/// A filter or an expression.
#[derive(Debug)]
pub(crate) struct Formula {
    pub written: Written,
    /// Set once all expressions of the event have been looked at.
    pub checked: Option<std::sync::Arc<Checked>>,
}

impl RuleSet {
    /// Names these rules: equal for files that differ only in layout, comments or order of keys.
    pub fn hash(&self) -> [u8; 32] {
        self.hash
    }

    /// Databases that a rule names or that rows go to, in the order of databases.json.
    pub fn databases(&self) -> Vec<&str> {
        let used = |name: &str| self.rules.iter().any(|rule| rule.concerns(name));
        self.databases.keys().map(String::as_str).filter(|name| used(name)).collect()
    }

    /// Findings of severity warning.
    pub fn warnings(&self) -> &Findings {
        &self.warnings
    }

    /// In the order in which the rules name them.
    /// The same rules for a database entry that has another name now (`"was"`). The hash stays: it is of the files' text.
    pub fn rename_database(&mut self, was: &str, name: &str) {
        let new = |database: &mut String| {
            if database == was {
                *database = name.to_owned();
            }
        };
        for rule in &mut self.rules {
            rule.database.iter_mut().chain(&mut rule.databases).for_each(new);
        }
        self.subscriptions.iter_mut().map(|subscription| &mut subscription.database).for_each(new);
        let databases = std::mem::take(&mut self.databases).into_iter();
        self.databases =
            databases.map(|(key, context)| (if key == was { name.to_owned() } else { key }, context)).collect();
    }

    pub fn subscriptions(&self) -> &[Subscription] {
        &self.subscriptions
    }

    /// True when a routing sends `event` to `database` and tells `exporter` of it.
    pub fn fires(&self, event: &str, database: &str, exporter: &str) -> bool {
        self.rules.iter().any(|rule| {
            rule.routing
                && rule.event == event
                && rule.database.as_deref() == Some(database)
                && rule.exporters.iter().any(|name| name == exporter)
        })
    }

    /// The number of a subscription, as [`RouteProgram::tells`] takes it.
    pub fn subscription(&self, database: &str, exporter: &str) -> Option<u16> {
        let same = |s: &Subscription| s.database == database && s.exporter == exporter;
        self.subscriptions.iter().position(same).map(|index| index as u16)
    }

    /// Tables that rows of this database go to, in the order in which rules name them.
    pub fn requests(&self, database: &str) -> Vec<TableRequest> {
        let mut requests: IndexMap<&str, TableRequest> = IndexMap::new();
        for (_, projection) in self.projections(database) {
            let request = requests.entry(&projection.table).or_insert_with(|| TableRequest {
                table: projection.table.clone(),
                columns: Vec::new(),
                key: Vec::new(),
            });
            if request.key.is_empty() {
                request.key.clone_from(&projection.key);
            }
            for mapping in &projection.mappings {
                match request.columns.iter_mut().find(|column| column.name == mapping.target) {
                    Some(column) => column.declared = column.declared.take().or_else(|| mapping.column_type.clone()),
                    None => request
                        .columns
                        .push(ColumnRequest { name: mapping.target.clone(), declared: mapping.column_type.clone() }),
                }
            }
        }
        requests.into_values().collect()
    }

    /// The line of the first rule that writes to a table, for findings of the live catalogue.
    pub fn place_of_table(&self, database: &str, table: &str) -> Option<&Place> {
        self.projections(database).find(|(_, p)| p.table == table).map(|(_, p)| &p.table_place)
    }

    /// The line of the first mapping to a column, else of the table.
    pub fn place_of_column(&self, database: &str, table: &str, column: &str) -> Option<&Place> {
        self.projections(database)
            .filter(|(_, p)| p.table == table)
            .flat_map(|(_, p)| &p.mappings)
            .find(|mapping| mapping.target == column)
            .map(|mapping| &mapping.place)
            .or_else(|| self.place_of_table(database, table))
    }

    /// Compiles what goes to `database` against its live tables. `only_tables` restricts it to some views (a view that is
    /// built beside the others). Every table needs a shape; findings carry the line of the rule.
    pub fn compile(
        &self,
        database: &str,
        only_tables: Option<&[String]>,
        shapes: &[SharedShape],
    ) -> Result<RouteProgram, Findings> {
        compile(self, database, only_tables, shapes)
    }

    pub(crate) fn projections(&self, database: &str) -> impl Iterator<Item = (usize, &Projection)> {
        self.rules.iter().enumerate().filter_map(move |(index, rule)| {
            let projection = rule.projection.as_ref()?;
            rule.databases.iter().any(|name| name == database).then_some((index, projection))
        })
    }
}

impl Rule {
    /// True when the rule sends rows or messages of its event to `database`.
    pub(crate) fn concerns(&self, database: &str) -> bool {
        self.database.as_deref() == Some(database) || self.databases.iter().any(|name| name == database)
    }
}
