//! JSON Schemas of the files, generated from the types, and their keys explained in words.

use std::fmt::Write;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::Value;

use crate::file::RulesFile;

/// The JSON Schema (draft 2020-12) of a config file's type.
pub fn of<T: JsonSchema>() -> Value {
    SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>().to_value()
}

/// The schema of rules.json, as shipped in deploy/schemas.
pub fn rules() -> Value {
    of::<RulesFile>()
}

/// What a key of rules.json means: `mapping.primary`, `rules.mapping.primary`, or just `primary`. `None`: no such key.
pub fn explain(key_path: &str) -> Option<String> {
    explain_in(&rules(), "rules.json", key_path)
}

/// The same for any schema; `file` heads the paths in the answer.
pub fn explain_in(schema: &Value, file: &str, key_path: &str) -> Option<String> {
    let mut found = Vec::new();
    walk(schema, schema, &mut Vec::new(), &mut found, 0);
    let wanted: Vec<&str> = key_path.split(['.', '/']).filter(|step| !step.is_empty() && *step != "[]").collect();
    let wanted: Vec<&str> = wanted.iter().map(|step| step.trim_end_matches("[]")).collect();
    let mut out = String::new();
    let mut paths: Vec<&Vec<String>> = Vec::new();
    for (path, key) in &found {
        let ends =
            path.len() >= wanted.len() && path[path.len() - wanted.len()..].iter().zip(&wanted).all(|(a, b)| a == b);
        if wanted.is_empty() || !ends || paths.contains(&path) {
            continue;
        }
        paths.push(path);
        if !out.is_empty() {
            out.push('\n');
        }
        // Writing into a String cannot fail.
        let _ = writeln!(out, "{file}: {}", path.join("."));
        let description = key["description"].as_str().or_else(|| resolve(schema, key)["description"].as_str());
        if let Some(description) = description {
            let _ = writeln!(out, "  {}", description.replace('\n', "\n  "));
        }
        for (word, meaning) in words(schema, key, 0) {
            let _ = match meaning {
                Some(meaning) => writeln!(out, "  \"{word}\": {meaning}"),
                None => writeln!(out, "  \"{word}\""),
            };
        }
    }
    (!out.is_empty()).then_some(out)
}

const DEPTH: usize = 16;

fn resolve<'s>(root: &'s Value, schema: &'s Value) -> &'s Value {
    let target = schema["$ref"].as_str().and_then(|reference| root.pointer(reference.strip_prefix('#')?));
    target.unwrap_or(schema)
}

fn walk<'s>(
    root: &'s Value,
    schema: &'s Value,
    path: &mut Vec<String>,
    out: &mut Vec<(Vec<String>, &'s Value)>,
    depth: usize,
) {
    if depth > DEPTH {
        return;
    }
    if schema["$ref"].is_string() {
        walk(root, resolve(root, schema), path, out, depth + 1);
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        path.push(name.clone());
        out.push((path.clone(), property));
        walk(root, property, path, out, depth + 1);
        path.pop();
    }
    if schema["items"].is_object() {
        walk(root, &schema["items"], path, out, depth + 1);
    }
    if schema["additionalProperties"].is_object() {
        path.push("NAME".to_owned());
        walk(root, &schema["additionalProperties"], path, out, depth + 1);
        path.pop();
    }
    for key in ["allOf", "anyOf", "oneOf"] {
        for branch in schema[key].as_array().into_iter().flatten() {
            walk(root, branch, path, out, depth + 1);
        }
    }
}

/// Words that the key may have, with their meaning where the type documents it.
fn words<'s>(root: &'s Value, schema: &'s Value, depth: usize) -> Vec<(&'s str, Option<&'s str>)> {
    if depth > DEPTH {
        return Vec::new();
    }
    if let Some(word) = schema["const"].as_str() {
        return vec![(word, schema["description"].as_str())];
    }
    let mut all: Vec<_> =
        schema["enum"].as_array().into_iter().flatten().filter_map(Value::as_str).map(|word| (word, None)).collect();
    if schema["$ref"].is_string() {
        all.extend(words(root, resolve(root, schema), depth + 1));
    }
    for key in ["oneOf", "anyOf"] {
        for branch in schema[key].as_array().into_iter().flatten() {
            all.extend(words(root, branch, depth + 1));
        }
    }
    all
}
