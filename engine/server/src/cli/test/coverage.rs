//! Which rules and mappings the cases made use of.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gravity_engine::Engine;
use gravity_log::ReadLimits;
use gravity_model::{Sequence, TableShape};
use gravity_rules::{Evaluation, RuleSet, Verdict};
use serde::Serialize;

/// Counted over all cases.
#[derive(Debug, Default)]
pub struct Coverage {
    /// Rules that wrote, or whose event came.
    rules: BTreeSet<usize>,
    /// Columns that a rule carried a value for.
    mappings: BTreeSet<(usize, String)>,
}

/// What no case used.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Unused {
    /// `file:line` and what the rule is about.
    pub rules: Vec<String>,
    pub mappings: Vec<String>,
}

impl Coverage {
    /// Evaluates once more what is in the log of a case: the engine does not tell which rule a row came from.
    pub fn look(
        &mut self,
        engine: &Engine,
        source: &str,
        set: &RuleSet,
        tables: &BTreeMap<String, Vec<TableShape>>,
    ) -> Result<(), String> {
        let outline = set.outline();
        let limits = ReadLimits { events: usize::MAX, bytes: usize::MAX };
        let blocks = engine.log().read(Sequence::ZERO, limits).map_err(|error| error.to_string())?;
        let mut came = BTreeSet::new();
        for (database, shapes) in tables {
            let shapes: Vec<_> = shapes.iter().cloned().map(Arc::new).collect();
            let program = set.compile(database, None, &shapes).map_err(|findings| findings.to_string())?;
            for block in &blocks {
                for recorded in block.iter().filter(|recorded| recorded.event.source == source) {
                    came.insert(recorded.event.name.to_owned());
                    let mut evaluation = Evaluation::new();
                    let verdict = program.evaluate(&recorded, block.records(), &mut evaluation);
                    if !matches!(verdict, Verdict::Matched) {
                        continue;
                    }
                    for change in &evaluation.changes {
                        let rule = usize::from(change.rule);
                        self.rules.insert(rule);
                        let shape = &program.tables()[usize::from(change.table)];
                        let carried = program.column_set(change.columns);
                        let columns = carried.set.iter().chain(&shape.primary_key);
                        let names = columns.map(|column| shape.columns[usize::from(*column)].name.clone());
                        self.mappings.extend(names.map(|name| (rule, name)));
                    }
                }
            }
        }
        let routings =
            outline.iter().enumerate().filter(|(_, rule)| rule.table.is_none() && came.contains(&rule.event));
        self.rules.extend(routings.map(|(index, _)| index));
        Ok(())
    }

    pub fn unused(&self, set: &RuleSet) -> Unused {
        let mut unused = Unused::default();
        for (index, rule) in set.outline().into_iter().enumerate() {
            let about = rule.table.as_ref().map_or_else(|| rule.databases.join(", "), Clone::clone);
            if !self.rules.contains(&index) {
                unused.rules.push(format!("{}: {} → {about}", rule.place, rule.event));
                continue;
            }
            let missing =
                rule.mappings.into_iter().filter(|(column, _)| !self.mappings.contains(&(index, column.clone())));
            unused
                .mappings
                .extend(missing.map(|(column, place)| format!("{place}: {} → {about}.{column}", rule.event)));
        }
        unused
    }
}
