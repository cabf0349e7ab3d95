//! The JSON Schemas of the config files: what `gravity schema` prints and what ships in `deploy/schemas/`.

use serde_json::Value;

use super::database::DatabasesFile;
use super::exporter::ExporterFile;
use super::key;
use super::source::SourcesFile;

/// File names with the schema of each, in the order in which a config is written.
pub fn all() -> Vec<(&'static str, Value)> {
    vec![
        ("sources", gravity_rules::schema::of::<SourcesFile>()),
        ("databases", gravity_rules::schema::of::<DatabasesFile>()),
        ("rules", gravity_rules::schema::rules()),
        ("exporter", gravity_rules::schema::of::<ExporterFile>()),
        ("gravity", key::schema()),
    ]
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn shipped_schemas_are_those_of_the_code() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/schemas");
        for (name, schema) in all() {
            let path = folder.join(format!("{name}.schema.json"));
            let text = serde_json::to_string_pretty(&schema).expect("plain JSON") + "\n";
            if std::env::var_os("GRAVITY_UPDATE").is_some() {
                std::fs::write(&path, text).expect("written");
            } else {
                let shipped = std::fs::read_to_string(&path).unwrap_or_default();
                assert!(shipped == text, "{name}.schema.json is not up to date: run the test with GRAVITY_UPDATE=1");
            }
        }
    }

    /// Editors refuse what Gravity refuses: every object of a fixed shape is closed.
    #[test]
    fn every_entry_is_a_closed_object_told_apart_by_its_type() {
        for (name, schema) in all().into_iter().filter(|(name, _)| ["sources", "databases", "exporter"].contains(name))
        {
            let entries = schema["$defs"]
                .as_object()
                .expect("definitions")
                .iter()
                .filter(|(_, d)| d["properties"]["type"]["const"].is_string());
            let mut count = 0;
            for (entry, definition) in entries {
                let closed =
                    definition["additionalProperties"] == false || definition["unevaluatedProperties"] == false;
                assert!(closed, "{name}: {entry}");
                count += 1;
            }
            assert!(count >= 4, "{name}: {count} entries");
        }
    }
}
