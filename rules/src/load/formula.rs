//! Filters and expressions of all rules: read one by one, then checked event by event, because a field has one type wherever it
//! is used.

use hashbrown::HashSet;

use super::DeclaredField;
use crate::codes;
use crate::diagnose::{Finding, Findings, Place};
use crate::expression::{Checker, FieldTypes, Kind, Known, Written};
use crate::ruleset::{Formula, MappedValue, Mapping, Rule};

/// The text of a filter or an expression, or a finding inside of it.
pub(super) fn read(text: &str, place: Place, findings: &mut Findings) -> Option<Formula> {
    match Written::parse(text, place.clone()) {
        Ok(written) => Some(Formula { written, checked: None }),
        Err(trouble) => {
            findings.push(trouble.finding(&place));
            None
        }
    }
}

/// Gives every filter and expression its types. With `complete` false some rules are missing, which may be the ones that tell
/// the type of a field: then nothing is said about fields without type.
pub(super) fn check(rules: &mut [Rule], fields: &[DeclaredField], complete: bool, findings: &mut Findings) {
    let events: HashSet<String> = rules.iter().map(|rule| rule.event.clone()).collect();
    for event in events {
        let declared = fields.iter().filter(|field| field.event == event);
        let declared = declared.map(|field| Known::declared(&field.origin, &field.field_type, &field.place)).collect();
        let written: Vec<(&Written, Option<Kind>)> =
            rules.iter().filter(|rule| rule.event == event).flat_map(formulas).collect();
        if written.is_empty() {
            continue;
        }
        let types = FieldTypes::of(declared, &written);
        let mut report = |trouble: crate::expression::Trouble, place: &Place| {
            if complete || trouble.code != codes::EXPRESSION_UNTYPED {
                findings.push(trouble.finding(place));
            }
        };
        for rule in rules.iter_mut().filter(|rule| rule.event == event) {
            if let Some(filter) = &mut rule.filter {
                match Checker::condition(&types, &filter.written.ast) {
                    Ok(checked) => filter.checked = Some(checked),
                    Err(trouble) => report(trouble, &filter.written.place),
                }
            }
            for mapping in rule.projection.iter_mut().flat_map(|projection| &mut projection.mappings) {
                let MappedValue::Expression(formula) = &mut mapping.value else { continue };
                match Checker::value(&types, &formula.written.ast) {
                    Ok(checked) => formula.checked = Some(checked),
                    Err(trouble) => report(trouble, &formula.written.place),
                }
            }
        }
        for mapping in rules.iter().filter(|rule| rule.event == event).flat_map(mappings) {
            findings.extend(unfit(mapping));
        }
    }
}

fn mappings(rule: &Rule) -> impl Iterator<Item = &Mapping> {
    rule.projection.iter().flat_map(|projection| &projection.mappings)
}

/// The expressions of a rule, and what each has to give: a condition, or a value of the mapping's type.
fn formulas(rule: &Rule) -> impl Iterator<Item = (&Written, Option<Kind>)> {
    let of_mappings = mappings(rule).filter_map(|mapping| match &mapping.value {
        MappedValue::Expression(formula) => Some((&formula.written, mapping.column_type.as_ref().map(Kind::of))),
        _ => None,
    });
    rule.filter.iter().map(|filter| (&filter.written, Some(Kind::Bool))).chain(of_mappings)
}

/// An expression of which the mapping's own type takes no value.
fn unfit(mapping: &Mapping) -> Option<Finding> {
    let (MappedValue::Expression(formula), Some(column)) = (&mapping.value, &mapping.column_type) else { return None };
    let kind = &formula.checked.as_ref()?.kind;
    if kind.fits(column) {
        return None;
    }
    let message = format!("this gives {kind}, which does not go into type {column}");
    let place = formula.written.place.within_text(formula.written.ast.range.clone());
    let found = place.text().to_owned();
    Some(Finding::at(codes::EXPRESSION_TYPE, &place, message).found(found).allowed([column.to_string()]))
}
