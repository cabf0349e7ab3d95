//! What a rule set consists of, for those who count what of it was used.

use crate::ruleset::RuleSet;

/// One rule of a set, in file order: its index is [`Change::rule`](crate::Change::rule).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleOutline {
    /// `file:line`
    pub place: String,
    pub event: String,
    /// Databases that the rule writes to, or that it sends its event to.
    pub databases: Vec<String>,
    pub exporters: Vec<String>,
    pub table: Option<String>,
    /// Column and `file:line` of each mapping.
    pub mappings: Vec<(String, String)>,
}

impl RuleSet {
    pub fn outline(&self) -> Vec<RuleOutline> {
        let outline = |rule: &crate::ruleset::Rule| {
            let mappings = rule.projection.iter().flat_map(|projection| &projection.mappings);
            RuleOutline {
                place: rule.place.to_string(),
                event: rule.event.clone(),
                databases: match &rule.database {
                    Some(database) => vec![database.clone()],
                    None => rule.databases.clone(),
                },
                exporters: rule.exporters.clone(),
                table: rule.projection.as_ref().map(|projection| projection.table.clone()),
                mappings: mappings.map(|mapping| (mapping.target.clone(), mapping.place.to_string())).collect(),
            }
        };
        self.rules.iter().map(outline).collect()
    }
}
