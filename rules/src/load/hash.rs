//! The name of a version of the rules: equal meaning, equal name.

use serde_json::{Value, json};

use super::DeclaredField;
use crate::file::Method;
use crate::ruleset::{MappedValue, Mapping, Rule};

/// BLAKE3 over the rules in normal form: no layout, no comments, no order of keys, one spelling of everything. The form's
/// version is hashed with it, so that a change of the form gives new names instead of false equality.
pub(super) fn of(rules: &[Rule], fields: &[DeclaredField]) -> [u8; 32] {
    let normal = json!({
        "form": 1,
        "rules": rules.iter().map(rule).collect::<Vec<_>>(),
        "fields": fields.iter().map(|f| json!([f.event, f.origin.to_string(), f.field_type])).collect::<Vec<_>>(),
    });
    *blake3::hash(normal.to_string().as_bytes()).as_bytes()
}

fn rule(rule: &Rule) -> Value {
    let projection = rule.projection.as_ref().map(|p| {
        json!({
            "table": p.table,
            "method": if p.method == Method::Upsert { Method::Update } else { p.method },
            "mapping": p.mappings.iter().map(mapping).collect::<Vec<_>>(),
            "key": p.key,
            "on_conflict": p.on_conflict,
            "on_missing": p.on_missing,
            "unknown_fields": p.unknown_fields,
        })
    });
    let mut normal = json!({
        "id": rule.id,
        "event": rule.event,
        "projection": projection,
        "database": rule.database,
        "exporters": rule.exporters,
        "databases": rule.databases,
    });
    // Only where there is one: rules that were named before filters existed keep their names.
    if let Some(filter) = &rule.filter {
        normal["filter"] = json!(filter.written.normal);
    }
    normal
}

fn mapping(mapping: &Mapping) -> Value {
    let (source, value, expression) = match &mapping.value {
        MappedValue::Source(origin) => (Some(origin.to_string()), None, None),
        MappedValue::Constant(constant) => (None, Some(constant.text()), None),
        MappedValue::Expression(formula) => (None, None, Some(&formula.written.normal)),
    };
    let mut normal = json!({
        "target": mapping.target,
        "source": source,
        "value": value,
        "type": mapping.column_type,
        "default": mapping.default.as_ref().map(|constant| constant.text()),
        "previous": mapping.previous.as_ref().map(ToString::to_string),
    });
    if let Some(expression) = expression {
        normal["expression"] = json!(expression);
    }
    normal
}
