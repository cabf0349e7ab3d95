//! Names of tables and columns: an allow-list, so that no rule can reach beyond an identifier (T2).

/// Why a name may not be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadName {
    Grammar,
    /// Belongs to the database or to Gravity itself.
    Reserved,
}

/// In words, for `allowed`.
pub(crate) const GRAMMAR: &str = "a letter or _, then up to 62 letters, digits or _";

/// Longest name in bytes; PostgreSQL cuts longer ones silently.
const LONGEST: usize = 63;

const SYSTEM_SCHEMAS: [&str; 6] =
    ["information_schema", "mysql", "performance_schema", "sys", "pg_catalog", "pg_toast"];

pub(crate) fn check_column(name: &str) -> Result<(), BadName> {
    if is_identifier(name) { Ok(()) } else { Err(BadName::Grammar) }
}

/// `table` or `schema.table`.
pub(crate) fn check_table(name: &str) -> Result<(), BadName> {
    let (schema, table) = match name.split_once('.') {
        Some((schema, table)) => (Some(schema), table),
        None => (None, name),
    };
    if !is_identifier(table) || schema.is_some_and(|schema| !is_identifier(schema)) {
        return Err(BadName::Grammar);
    }
    let system = |name: &str| {
        let name = name.to_ascii_lowercase();
        SYSTEM_SCHEMAS.contains(&name.as_str()) || name.starts_with("pg_")
    };
    let lower = table.to_ascii_lowercase();
    if schema.is_some_and(system) || ["gravity_", "sqlite_", "pg_"].iter().any(|prefix| lower.starts_with(prefix)) {
        return Err(BadName::Reserved);
    }
    Ok(())
}

fn is_identifier(name: &str) -> bool {
    let bytes = name.as_bytes();
    bytes.len() <= LONGEST
        && bytes.first().is_some_and(|b| b.is_ascii_alphabetic() || *b == b'_')
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_')
}
