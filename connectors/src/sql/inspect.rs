//! Findings about live tables that both dialects share: columns, keys, conversions that lose something.

use gravity_model::ColumnType;
use gravity_model::port::view::{ColumnRequest, LiveFinding, TableRequest};

/// Collects findings about one table after another.
#[derive(Default)]
pub(crate) struct Report {
    findings: Vec<LiveFinding>,
}

impl Report {
    /// Forbids the rule.
    pub fn fatal(&mut self, code: &'static str, table: &str, column: Option<&str>, found: String, allowed: &str) {
        self.add(code, true, table, column, found, allowed, None);
    }

    /// Endangers it.
    pub fn warn(&mut self, code: &'static str, table: &str, column: Option<&str>, found: String, allowed: &str) {
        self.add(code, false, table, column, found, allowed, None);
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of a finding, in their order")]
    pub fn add(
        &mut self,
        code: &'static str,
        fatal: bool,
        table: &str,
        column: Option<&str>,
        found: String,
        allowed: &str,
        sql: Option<String>,
    ) {
        self.findings.push(LiveFinding {
            code,
            fatal,
            table: table.to_owned(),
            column: column.map(str::to_owned),
            found,
            allowed: allowed.to_owned(),
            sql,
        });
    }

    pub fn finish(self) -> Vec<LiveFinding> {
        self.findings
    }
}

/// What both catalogues say of a column.
pub(crate) struct SeenColumn<'a> {
    pub name: &'a str,
    pub not_null: bool,
    pub has_default: bool,
    pub generated: bool,
    /// The name passes the grammar.
    pub nameable: bool,
}

/// Requested columns that are missing or computed; others that an INSERT cannot leave out.
pub(crate) fn columns(
    report: &mut Report,
    request: &TableRequest,
    seen: &[SeenColumn<'_>],
    add_column: impl Fn(&ColumnRequest) -> Option<String>,
) {
    let table = &request.table;
    for column in &request.columns {
        match seen.iter().find(|s| s.name == column.name) {
            None => {
                let names: Vec<_> = seen.iter().map(|s| s.name).collect();
                let found = format!("no such column; the table has {}", names.join(", "));
                let sql = add_column(column);
                report.add("live/no-column", true, table, Some(&column.name), found, "a column of the live table", sql);
            }
            Some(s) if s.generated => {
                let found = "the database computes it".to_owned();
                report.fatal("live/generated", table, Some(s.name), found, "a column that can be written");
            }
            Some(_) => {}
        }
    }
    for s in seen.iter().filter(|s| request.columns.iter().all(|c| c.name != s.name)) {
        if s.not_null && !s.has_default && !s.generated && !request.columns.is_empty() {
            let found = "NOT NULL without a default, and no rule writes it: new rows are refused".to_owned();
            report.warn("live/column-required", table, Some(s.name), found, "a mapping or a default");
        }
    }
    for s in seen.iter().filter(|s| !s.nameable) {
        let found = format!("the name {:?} is outside of what statements use; the column is passed over", s.name);
        let allowed = "letters, digits and underscores, at most 63, no digit first";
        // Pass-through rules might mean it; a rule that names it is refused with its line before.
        report.warn("live/column-name", table, Some(s.name), found, allowed);
    }
}

/// The rule's key must be a unique key of the table, whole.
pub(crate) fn key(report: &mut Report, request: &TableRequest, usable: &[Vec<&str>], has_primary: bool) {
    let same = |key: &Vec<&str>| {
        let (mut have, mut want) = (key.clone(), request.key.iter().map(String::as_str).collect::<Vec<_>>());
        have.sort_unstable();
        want.sort_unstable();
        have == want
    };
    let fits = if request.key.is_empty() { has_primary } else { usable.iter().any(same) };
    if fits {
        return;
    }
    let found = match usable {
        [] => "the table has no primary key and no unique key over whole columns".to_owned(),
        keys => {
            let keys: Vec<_> = keys.iter().map(|k| format!("({})", k.join(", "))).collect();
            let wanted = if request.key.is_empty() { "none".to_owned() } else { request.key.join(", ") };
            format!("the rule's key is {wanted}; unique are {}", keys.join(" and "))
        }
    };
    let allowed = "the primary key, or a unique key over exactly these columns, not partial, not deferrable";
    report.fatal("live/key", &request.table, None, found, allowed);
}

/// How much a conversion can lose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// Some values do not fit and are refused, event by event.
    Narrower,
    /// Values that fit are stored as others.
    Rounded,
}

/// What storing values of type `from` in a column of type `to` loses; `None` where nothing is lost, and where the types are
/// no kin at all: then the rules say whether a conversion exists.
pub(crate) fn loss(from: &ColumnType, to: &ColumnType) -> Option<Loss> {
    use ColumnType::*;
    let narrower = |is: bool| is.then_some(Loss::Narrower);
    if let Some((low, high)) = from.integer_range() {
        return match to {
            F32 => (high > 1 << 24).then_some(Loss::Rounded),
            F64 => (high > 1 << 53).then_some(Loss::Rounded),
            Decimal(Some((precision, scale))) => narrower(high >= 10i128.pow(u32::from((precision - scale).min(38)))),
            _ => {
                let (to_low, to_high) = to.integer_range()?;
                narrower(low < to_low || high > to_high)
            }
        };
    }
    match (from, to) {
        (F64, F32) | (Decimal(_), F32 | F64) => Some(Loss::Rounded),
        (Timestamp | TimestampTz, Date | Time) => Some(Loss::Rounded),
        (Decimal(None), Decimal(Some(_))) | (Text, Varchar(_)) => Some(Loss::Narrower),
        (Decimal(Some((p, s))), Decimal(Some((to_p, to_s)))) => narrower(to_s < s || to_p - to_s < p - s),
        (Varchar(n), Varchar(to_n)) => narrower(to_n < n),
        (Array(from), Array(to)) => loss(from, to),
        _ => None,
    }
}

/// Reports what the declared type loses in the live one.
pub(crate) fn conversion(report: &mut Report, table: &str, column: &ColumnRequest, live: &ColumnType, word: &str) {
    let Some(declared) = &column.declared else { return };
    match loss(declared, live) {
        None => {}
        Some(Loss::Narrower) => {
            let found =
                format!("the mapping's type is {declared}, the column is {word}: values that do not fit are parked");
            report.warn(
                "live/narrower",
                table,
                Some(&column.name),
                found,
                "a column that holds every value of the type",
            );
        }
        Some(Loss::Rounded) => {
            let found = format!("the mapping's type is {declared}, the column is {word}: digits would be lost");
            report.fatal("live/lossy", table, Some(&column.name), found, "a column that keeps the type's values");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_known() {
        for (from, to, want) in [
            ("i64", "i64", None),
            ("i32", "i64", None),
            ("i64", "i32", Some(Loss::Narrower)),
            ("u64", "decimal(20,0)", None),
            ("u64", "i64", Some(Loss::Narrower)),
            ("i64", "decimal(18,0)", Some(Loss::Narrower)),
            ("i64", "f64", Some(Loss::Rounded)),
            ("i32", "f64", None),
            ("i32", "f32", Some(Loss::Rounded)),
            ("decimal", "f64", Some(Loss::Rounded)),
            ("decimal(12,2)", "decimal(12,2)", None),
            ("decimal(12,3)", "decimal(12,2)", Some(Loss::Narrower)),
            ("decimal(12,2)", "decimal(12,4)", Some(Loss::Narrower)),
            ("f64", "f32", Some(Loss::Rounded)),
            ("text", "varchar(3)", Some(Loss::Narrower)),
            ("varchar(3)", "text", None),
            ("timestamp", "date", Some(Loss::Rounded)),
            ("i64[]", "i32[]", Some(Loss::Narrower)),
            ("text", "i64", None),
        ] {
            let word = |w: &str| w.parse::<ColumnType>().expect("a type word");
            assert_eq!(loss(&word(from), &word(to)), want, "{from} into {to}");
        }
    }
}
