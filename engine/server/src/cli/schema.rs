//! `gravity schema`: the JSON Schemas of the config files, for editors.

use super::exit::{Exit, Failure};
use super::show;
use crate::config::schema;

/// Print the JSON Schema of a config file.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  gravity schema rules > rules.schema.json\n  gravity schema databases.json | jq '.title'\n\n\
                        Name the file in `\"$schema\"` at the top of a config file, and editors complete and check it."
)]
pub struct Args {
    /// sources, databases, rules, exporter or gravity; with or without `.json`, `.toml`. Without it: all, by name.
    file: Option<String>,
}

pub fn run(args: &Args) -> Result<Exit, Failure> {
    let all = schema::all();
    let Some(asked) = &args.file else {
        let all: serde_json::Map<String, serde_json::Value> =
            all.into_iter().map(|(name, schema)| (name.to_owned(), schema)).collect();
        show::json(&all)?;
        return Ok(Exit::Done);
    };
    let base = asked.rsplit('/').next().unwrap_or(asked);
    let base = base.strip_suffix(".json").or_else(|| base.strip_suffix(".toml")).unwrap_or(base);
    let names: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
    match all.iter().find(|(name, _)| *name == base) {
        Some((_, schema)) => {
            show::json(schema)?;
            Ok(Exit::Done)
        }
        None => {
            let failure = Failure::usage(format!("no config file is named `{asked}`; there are {}", names.join(", ")));
            Err(match gravity_rules::diagnose::closest(base, names) {
                Some(word) => failure.hint(format!("did you mean `{word}`?")),
                None => failure,
            })
        }
    }
}
