//! Checks a JSON tree against a generated JSON Schema and reports in words, with positions.
//!
//! Not a general validator: it knows what schemars generates from config types. Where alternatives are told apart by a tag
//! (`"type": "kafka"`), the tag is looked at first, so that errors speak of the right alternative; a validator would only
//! say "not valid under any of the schemas". Objects are closed unless their schema opens them (P8).
//!
//! One extension: `"x-removed": {KEY: WHAT_TO_WRITE_INSTEAD}` on an object for keys that the original had.

use std::collections::BTreeSet;
use std::sync::Arc;

use jsonc_parser::ast;
use jsonc_parser::common::Ranged;
use serde_json::{Map, Value};

use super::document::escape;
use super::finding::{Finding, Findings};
use super::source::{Place, Source};
use super::suggest::closest;
use crate::codes;

/// Adds a finding for everything in `root` that `schema` does not allow; answers the pointers at fault.
pub(super) fn check(
    source: &Arc<Source>,
    root: &ast::Value<'_>,
    schema: &Value,
    findings: &mut Findings,
) -> Vec<String> {
    let mut checker = Checker { source, root: schema, findings, faults: Vec::new() };
    checker.value(root, schema, &mut String::new());
    checker.faults
}

struct Checker<'c> {
    source: &'c Arc<Source>,
    root: &'c Value,
    findings: &'c mut Findings,
    faults: Vec<String>,
}

/// How deep alternatives and references may nest before the schema is taken to run in a circle.
const SCHEMA_DEPTH: usize = 32;

impl<'c> Checker<'c> {
    fn value(&mut self, node: &ast::Value<'_>, schema: &'c Value, pointer: &mut String) {
        let schema = self.resolve(schema);
        let accepted = self.types(schema, 0);
        if !accepted.iter().any(|accepts| fits(accepts, node)) {
            let allowed: Vec<&str> = accepted.iter().map(|t| plain_word(t)).collect();
            let place = self.place(node);
            let finding = Finding::at(
                codes::WRONG_TYPE,
                &place,
                format!(
                    "{} must be {}, this is {}",
                    subject(pointer),
                    with_article(&allowed),
                    with_article(&[type_word(node)])
                ),
            );
            let suggestion = self.with_unit(node, schema).or_else(|| mend_type(node, &accepted));
            self.report(finding.found(place.text()).allowed(allowed).suggest(suggestion), pointer);
            return;
        }
        if let ast::Value::StringLit(text) = node
            && let Some(words) = self.words(schema, 0)
            && !words.iter().any(|w| w == text.value.as_ref())
        {
            self.bad_word(node, &text.value, words, pointer);
            return;
        }
        let mut parts = Vec::new();
        if !self.parts(schema, node, pointer, &mut parts, 0) {
            return;
        }
        match node {
            ast::Value::Object(object) => self.object(object, node, &parts, pointer),
            ast::Value::Array(array) => self.array(array, node, &parts, pointer),
            ast::Value::NumberLit(number) => self.number(number.value, node, &parts, pointer),
            ast::Value::StringLit(text) => {
                let least = parts.iter().filter_map(|part| part["minLength"].as_u64()).max().unwrap_or(0);
                if (text.value.chars().count() as u64) < least {
                    let place = self.place(node);
                    let message = format!("{} must not be empty", subject(pointer));
                    self.report(Finding::at(codes::BAD_VALUE, &place, message).found(place.text()), pointer);
                }
            }
            _ => {}
        }
    }

    fn object(&mut self, object: &ast::Object<'_>, node: &ast::Value<'_>, parts: &[&'c Value], pointer: &mut String) {
        let sections: Vec<&Map<String, Value>> = parts.iter().filter_map(|p| p["properties"].as_object()).collect();
        let known = |name: &str| sections.iter().find_map(|section| section.get(name));
        // A map such as `databases`: any name, each value of one shape.
        let members =
            parts.iter().map(|p| &p["additionalProperties"]).find(|a| a.is_object() || **a == Value::Bool(true));
        let mut seen = BTreeSet::new();
        for property in &object.properties {
            let name = property.name.as_str();
            let first = seen.insert(name.to_owned());
            let depth = pointer.len();
            pointer.push('/');
            pointer.push_str(&escape(name));
            match known(name).or(members) {
                Some(schema) if first => self.value(&property.value, schema, pointer),
                // Duplicates were reported; the schemaless object accepts anything.
                Some(_) => {}
                None if sections.is_empty() && members.is_none() => {}
                None => {
                    let place = Place::new(self.source.clone(), property.name.start()..property.name.end());
                    let finding = unknown_key(name, &place, parts, &sections);
                    self.report(finding, pointer);
                }
            }
            pointer.truncate(depth);
        }
        let required: BTreeSet<&str> =
            parts.iter().filter_map(|p| p["required"].as_array()).flatten().filter_map(Value::as_str).collect();
        for name in required {
            if !seen.contains(name) {
                let place = Place::new(self.source.clone(), node.start()..node.start() + 1);
                let mut finding =
                    Finding::at(codes::MISSING_KEY, &place, format!("{} needs `{name}`", subject(pointer)));
                if let Some(words) = known(name).and_then(|schema| self.words(schema, 0)) {
                    finding = finding.allowed(words);
                }
                self.report(finding, pointer);
            }
        }
    }

    fn array(&mut self, array: &ast::Array<'_>, node: &ast::Value<'_>, parts: &[&'c Value], pointer: &mut String) {
        if let Some(least) = parts.iter().filter_map(|part| part["minItems"].as_u64()).max()
            && (array.elements.len() as u64) < least
        {
            let place = self.place(node);
            let message = format!("{} must not be empty", subject(pointer));
            self.report(Finding::at(codes::BAD_VALUE, &place, message).found(place.text()), pointer);
        }
        let Some(items) = parts.iter().map(|part| &part["items"]).find(|items| !items.is_null()) else { return };
        for (index, element) in array.elements.iter().enumerate() {
            let depth = pointer.len();
            pointer.push('/');
            pointer.push_str(&index.to_string());
            self.value(element, items, pointer);
            pointer.truncate(depth);
        }
    }

    fn number(&mut self, text: &str, node: &ast::Value<'_>, parts: &[&'c Value], pointer: &str) {
        let bound = |key: &str| parts.iter().find_map(|part| part[key].as_f64());
        let (least, most) = (bound("minimum"), bound("maximum"));
        let Ok(number) = text.parse::<f64>() else { return };
        if least.is_some_and(|least| number < least) || most.is_some_and(|most| number > most) {
            let range = match (least, most) {
                (Some(least), Some(most)) => format!("{least} to {most}"),
                (Some(least), None) => format!("{least} or more"),
                (_, most) => format!("at most {}", most.unwrap_or(f64::MAX)),
            };
            let place = self.place(node);
            let message = format!("{} is out of range", subject(pointer));
            self.report(Finding::at(codes::BAD_VALUE, &place, message).found(text).allowed([range]), pointer);
        }
    }

    fn bad_word(&mut self, node: &ast::Value<'_>, found: &str, words: Vec<String>, pointer: &str) {
        let place = self.place(node);
        let suggestion = closest(found, words.iter().map(String::as_str)).map(|word| format!("did you mean `{word}`?"));
        let message = format!("{} cannot be `{found}`", subject(pointer));
        self.report(
            Finding::at(codes::BAD_WORD, &place, message).found(found).allowed(words).suggest(suggestion),
            pointer,
        );
    }

    /// The schema objects that speak about `node`: the schema itself, what it refers to, and of its alternatives the one that
    /// the node chose. False when the choice itself is wrong; that was reported.
    fn parts(
        &mut self,
        schema: &'c Value,
        node: &ast::Value<'_>,
        pointer: &str,
        out: &mut Vec<&'c Value>,
        depth: usize,
    ) -> bool {
        if depth > SCHEMA_DEPTH {
            return true;
        }
        out.push(schema);
        if let Some(target) = self.referred(schema)
            && !self.parts(target, node, pointer, out, depth + 1)
        {
            return false;
        }
        for part in schema["allOf"].as_array().into_iter().flatten() {
            if !self.parts(part, node, pointer, out, depth + 1) {
                return false;
            }
        }
        for branches in [&schema["oneOf"], &schema["anyOf"]].into_iter().filter_map(Value::as_array) {
            match self.choose(branches, node, pointer) {
                Choice::Branch(branch) => {
                    if !self.parts(branch, node, pointer, out, depth + 1) {
                        return false;
                    }
                }
                Choice::Nothing => {}
                Choice::Refused => return false,
            }
        }
        true
    }

    fn choose(&mut self, branches: &'c [Value], node: &ast::Value<'_>, pointer: &str) -> Choice<'c> {
        let fitting: Vec<&'c Value> =
            branches.iter().filter(|b| self.types(b, 0).iter().any(|accepts| fits(accepts, node))).collect();
        let (ast::Value::Object(object), true) = (node, fitting.len() > 1) else {
            return fitting.first().map_or(Choice::Nothing, |branch| Choice::Branch(branch));
        };
        let Some((tag, tagged)) = self.tag(&fitting) else { return Choice::Branch(fitting[0]) };
        let words: Vec<String> = tagged.iter().map(|(word, _)| (*word).to_owned()).collect();
        let Some(property) = object.properties.iter().find(|p| p.name.as_str() == tag) else {
            let place = Place::new(self.source.clone(), object.range.start..object.range.start + 1);
            let message = format!("{} needs `{tag}`", subject(pointer));
            self.report(Finding::at(codes::MISSING_KEY, &place, message).allowed(words), pointer);
            return Choice::Refused;
        };
        let below = format!("{pointer}/{}", escape(tag));
        let ast::Value::StringLit(found) = &property.value else {
            let place = self.place(&property.value);
            let message = format!("`{tag}` must be text, this is {}", with_article(&[type_word(&property.value)]));
            self.report(Finding::at(codes::WRONG_TYPE, &place, message).found(place.text()).allowed(words), &below);
            return Choice::Refused;
        };
        match tagged.iter().find(|(word, _)| *word == found.value) {
            Some((_, branch)) => Choice::Branch(branch),
            None => {
                self.bad_word(&property.value, &found.value, words, &below);
                Choice::Refused
            }
        }
    }

    /// The property that is a different constant in every branch.
    fn tag(&self, branches: &[&'c Value]) -> Option<(&'c str, Vec<(&'c str, &'c Value)>)> {
        let first = self.resolve(branches[0])["properties"].as_object().or(branches[0]["properties"].as_object())?;
        first.keys().find_map(|name| {
            let words: Option<Vec<(&'c str, &'c Value)>> = branches
                .iter()
                .map(|branch| {
                    let own = branch["properties"][name]["const"].as_str();
                    let word = own.or_else(|| self.resolve(branch)["properties"][name]["const"].as_str())?;
                    Some((word, *branch))
                })
                .collect();
            words.map(|words| (name.as_str(), words))
        })
    }

    /// Follows a bare reference; a schema with more than a reference is kept, its parts are looked up later.
    fn resolve(&self, schema: &'c Value) -> &'c Value {
        match schema.as_object() {
            Some(object) if object.keys().all(|key| key == "$ref" || key == "description" || key == "default") => {
                self.referred(schema).unwrap_or(schema)
            }
            _ => schema,
        }
    }

    fn referred(&self, schema: &'c Value) -> Option<&'c Value> {
        self.root.pointer(schema["$ref"].as_str()?.strip_prefix('#')?)
    }

    /// JSON type words that a schema accepts.
    fn types(&self, schema: &'c Value, depth: usize) -> BTreeSet<&'c str> {
        const ANY: [&str; 6] = ["null", "boolean", "number", "text", "object", "array"];
        let any = || ANY.into_iter().map(|t| if t == "text" { "string" } else { t }).collect::<BTreeSet<_>>();
        if depth > SCHEMA_DEPTH {
            return any();
        }
        match &schema["type"] {
            Value::String(word) => return BTreeSet::from([word.as_str()]),
            Value::Array(words) => return words.iter().filter_map(Value::as_str).collect(),
            _ => {}
        }
        if let Some(constant) = schema.get("const") {
            return BTreeSet::from([json_type(constant)]);
        }
        if let Some(words) = schema["enum"].as_array() {
            return words.iter().map(json_type).collect();
        }
        for key in ["oneOf", "anyOf"] {
            if let Some(branches) = schema[key].as_array() {
                return branches.iter().flat_map(|branch| self.types(branch, depth + 1)).collect();
            }
        }
        if let Some(target) = self.referred(schema) {
            return self.types(target, depth + 1);
        }
        if let Some(parts) = schema["allOf"].as_array() {
            return parts.first().map_or_else(any, |part| self.types(part, depth + 1));
        }
        if schema["properties"].is_object() { BTreeSet::from(["object"]) } else { any() }
    }

    /// What to write for a bare number where a text with one of `x-units` is wanted.
    fn with_unit(&self, node: &ast::Value<'_>, schema: &'c Value) -> Option<String> {
        let ast::Value::NumberLit(number) = node else { return None };
        let branches = schema["anyOf"].as_array().map_or(std::slice::from_ref(schema), Vec::as_slice);
        let units = branches.iter().find_map(|branch| self.resolve(branch)["x-units"].as_array())?;
        let forms = units.iter().filter_map(Value::as_str).map(|unit| format!("\"{}{unit}\"", number.value));
        Some(format!("write it with its unit: {}", forms.collect::<Vec<_>>().join(", ")))
    }

    /// The words that a schema allows for text, if it is closed: `None` where any text will do.
    fn words(&self, schema: &'c Value, depth: usize) -> Option<Vec<String>> {
        if depth > SCHEMA_DEPTH {
            return None;
        }
        if let Some(word) = schema["const"].as_str() {
            return Some(vec![word.to_owned()]);
        }
        if let Some(words) = schema["enum"].as_array() {
            return Some(words.iter().filter_map(Value::as_str).map(str::to_owned).collect());
        }
        if let Some(target) = self.referred(schema) {
            return self.words(target, depth + 1);
        }
        for key in ["oneOf", "anyOf"] {
            if let Some(branches) = schema[key].as_array() {
                let mut all = Vec::new();
                for branch in branches.iter().filter(|b| self.types(b, 0).contains("string")) {
                    all.extend(self.words(branch, depth + 1)?);
                }
                return Some(all);
            }
        }
        None
    }

    fn place(&self, node: &ast::Value<'_>) -> Place {
        Place::new(self.source.clone(), node.start()..node.end())
    }

    fn report(&mut self, finding: Finding, pointer: &str) {
        self.findings.push(finding);
        self.faults.push(pointer.to_owned());
    }
}

enum Choice<'c> {
    Branch(&'c Value),
    /// No alternative fits by type; the caller has reported that already.
    Nothing,
    Refused,
}

fn unknown_key(name: &str, place: &Place, parts: &[&Value], sections: &[&Map<String, Value>]) -> Finding {
    if let Some(instead) = parts.iter().find_map(|part| part["x-removed"][name].as_str()) {
        let message = format!("`{name}` is a key of the original Gravity that this one does not have");
        return Finding::at(codes::REMOVED_KEY, place, message).found(name).suggest(Some(instead));
    }
    let allowed: Vec<&str> = sections.iter().flat_map(|section| section.keys()).map(String::as_str).collect();
    let suggestion = closest(name, allowed.iter().copied()).map(|word| format!("did you mean `{word}`?"));
    Finding::at(codes::UNKNOWN_KEY, place, format!("unknown key `{name}`"))
        .found(name)
        .allowed(allowed)
        .suggest(suggestion)
}

/// The thing at a pointer, in words.
fn subject(pointer: &str) -> String {
    match pointer.rsplit_once('/') {
        None => "the file".to_owned(),
        Some((above, last)) if last.bytes().all(|b| b.is_ascii_digit()) => {
            let list = above.rsplit('/').next().unwrap_or("");
            format!("entry {} of `{list}`", last.parse::<usize>().map_or(0, |index| index + 1))
        }
        Some((_, last)) => format!("`{}`", last.replace("~1", "/").replace("~0", "~")),
    }
}

fn fits(accepts: &str, node: &ast::Value<'_>) -> bool {
    match node {
        ast::Value::StringLit(_) => accepts == "string",
        ast::Value::NumberLit(number) => {
            accepts == "number" || accepts == "integer" && !number.value.contains(['.', 'e', 'E'])
        }
        ast::Value::BooleanLit(_) => accepts == "boolean",
        ast::Value::Object(_) => accepts == "object",
        ast::Value::Array(_) => accepts == "array",
        ast::Value::NullKeyword(_) => accepts == "null",
    }
}

fn type_word(node: &ast::Value<'_>) -> &'static str {
    match node {
        ast::Value::StringLit(_) => "text",
        ast::Value::NumberLit(number) if number.value.contains(['.', 'e', 'E']) => "number",
        ast::Value::NumberLit(_) => "whole number",
        ast::Value::BooleanLit(_) => "true/false",
        ast::Value::Object(_) => "object",
        ast::Value::Array(_) => "list",
        ast::Value::NullKeyword(_) => "null",
    }
}

fn plain_word(json_type: &str) -> &str {
    match json_type {
        "string" => "text",
        "integer" => "whole number",
        "boolean" => "true/false",
        "array" => "list",
        other => other,
    }
}

fn with_article(words: &[&str]) -> String {
    let one = |word: &&str| match *word {
        "text" | "null" | "true/false" => (*word).to_owned(),
        "object" => "an object".to_owned(),
        other => format!("a {other}"),
    };
    words.iter().map(one).collect::<Vec<_>>().join(" or ")
}

fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// The two slips that hands make most: quotes around a number, and one thing where a list stands.
fn mend_type(node: &ast::Value<'_>, accepted: &BTreeSet<&str>) -> Option<String> {
    match node {
        ast::Value::StringLit(text) if accepted.contains("integer") && text.value.parse::<i64>().is_ok() => {
            Some(format!("write {} without quotes", text.value))
        }
        ast::Value::StringLit(text) if accepted.contains("boolean") && matches!(&*text.value, "true" | "false") => {
            Some(format!("write {} without quotes", text.value))
        }
        ast::Value::NumberLit(number) if accepted.contains("string") => Some(format!("write \"{}\"", number.value)),
        ast::Value::StringLit(text) if accepted.contains("array") => Some(format!("write [\"{}\"]", text.value)),
        _ => None,
    }
}
