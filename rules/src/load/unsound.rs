//! A rule whose shape is wrong cannot be read as a rule. What stands in it where it may is checked all the same, so that one check
//! finds everything (P8). Nothing is said about what is missing: it may be what was found wrong.

use hashbrown::HashMap;

use super::{At, Context, entry, formula, mapping};
use crate::diagnose::{Document, Findings};

pub(super) fn check(document: &Document, at: &At<'_>, context: &Context, findings: &mut Findings) {
    if let Some(name) = text(document, at, "/event", findings) {
        entry::event(&name, at, findings);
    }
    for key in ["/table", "/collection"] {
        if let Some(name) = text(document, at, key, findings) {
            entry::table_name(&name, &at.value(key), findings);
        }
    }
    if let Some(name) = text(document, at, "/database", findings) {
        entry::database(&name, at, context, findings);
    }
    let exporters = document.part::<Option<Vec<String>>>(&format!("{}/exporter", at.pointer), findings);
    entry::exporters(&exporters.flatten().unwrap_or_default(), at, context, findings);
    if let Some(filter) = text(document, at, "/filter", findings) {
        formula::read(&filter, at.value("/filter"), findings);
    }
    let mut seen = HashMap::new();
    for pointer in document.children(&format!("{}/mapping", at.pointer)) {
        let at = At { positions: at.positions, pointer };
        if let Some(name) = text(document, &at, "/target", findings) {
            mapping::target(&name, &at, &mut seen, findings);
        }
        if let Some(word) = text(document, &at, "/type", findings) {
            mapping::column_type(&word, &at.value("/type"), findings);
        }
        for key in ["/source", "/previous"] {
            if let Some(path) = text(document, &at, key, findings) {
                mapping::path(&path, &at.value(key), findings);
            }
        }
        if let Some(expression) = text(document, &at, "/expression", findings) {
            formula::read(&expression, at.value("/expression"), findings);
        }
    }
}

/// The text below the rule or mapping, where there is one and its shape is right.
fn text(document: &Document, at: &At<'_>, below: &str, findings: &mut Findings) -> Option<String> {
    document.part::<Option<String>>(&format!("{}{below}", at.pointer), findings).flatten()
}
