//! `gravity explain`: the page of an error code, or what a config key means.

use gravity_rules::schema::explain_in;

use super::exit::{Exit, Failure};
use super::show;
use crate::config::key::{KEYS, Key};
use crate::config::{codes, schema};

/// Explain an error code or a config key.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  gravity explain config/unknown-key\n  gravity explain rules.mapping.source\n  gravity explain lanes"
)]
pub struct Args {
    /// A code (`config/unknown-key`), a key with its file (`databases.lanes`, `log.queue_size`), or a key alone (`lanes`).
    /// Without it: all codes.
    what: Option<String>,
}

pub fn run(args: &Args) -> Result<Exit, Failure> {
    let Some(what) = &args.what else {
        let codes: Vec<&str> = codes::PAGES.iter().map(|(code, _)| *code).collect();
        show::print(&codes.join("\n"))?;
        return Ok(Exit::Done);
    };
    if let Some(page) = codes::page(what) {
        show::print(page.trim_end())?;
        return Ok(Exit::Done);
    }
    let found = keys(what);
    if !found.is_empty() {
        show::print(found.join("\n").trim_end())?;
        return Ok(Exit::Done);
    }
    let settings: Vec<String> = KEYS.iter().map(Key::path).collect();
    let names = codes::PAGES.iter().map(|(code, _)| *code).chain(settings.iter().map(String::as_str));
    let failure = Failure::usage(format!("`{what}` is neither an error code nor a config key"));
    Err(match gravity_rules::diagnose::closest(what, names) {
        Some(word) => failure.hint(format!("did you mean `{word}`?")),
        None => failure.hint("`gravity explain` alone lists the codes, `gravity schema` the keys"),
    })
}

/// What the keys of a name mean, file by file. The first step may be the file: `databases.lanes`.
fn keys(what: &str) -> Vec<String> {
    let mut found: Vec<String> = KEYS
        .iter()
        .filter(|key| key.path() == what || key.name == what)
        .map(|key| {
            let default = if key.default.is_empty() { "not set".to_owned() } else { key.default.to_owned() };
            let flag = key.short_flag.map_or_else(|| key.flag(), str::to_owned);
            format!(
                "gravity.toml: {}\n  {}\n  default: {default}\n  environment: {}\n  flag: --{flag}\n",
                key.path(),
                key.doc,
                key.variable()
            )
        })
        .collect();
    let all = schema::all();
    let (first, rest) = what.split_once('.').unwrap_or((what, ""));
    let of_file = all.iter().find(|(name, _)| *name == first && !rest.is_empty());
    for (name, schema) in of_file.into_iter().chain(all.iter().filter(|_| of_file.is_none())) {
        let path = if of_file.is_some() { rest } else { what };
        if *name != "gravity" {
            found.extend(explain_in(schema, &format!("{name}.json"), path));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_every_file_are_found_with_and_without_their_path() {
        for (what, part) in [
            ("databases.lanes", "Parallel writers"),
            ("sources.kafka", "librdkafka"),
            ("rules.mapping.source", "Path of the event's field"),
            ("log.queue_size", "GRAVITY_LOG_QUEUE_SIZE"),
            ("on_refused", "\"park\""),
            ("ddl", "\"create\""),
            ("exporter.url", "scheme decides"),
        ] {
            let found = keys(what).join("\n");
            assert!(found.contains(part), "{what}: {found}");
        }
        assert!(keys("lane").is_empty());
    }
}
