//! `gravity test`: cases beside the rules. Given these events, are these the rows, messages and dead letters?
//!
//! No server, no disk: the engine itself runs, over a log, views and targets in memory.

mod case;
mod coverage;
mod node;
mod play;
mod update;

use std::collections::BTreeSet;

use serde::Serialize;

use super::client::block_on;
use super::exit::{Exit, Failure};
use super::flags::ConfigDirectory;
use super::show::{self, Paint};
use crate::assembly;
use crate::config::{Config, Flags};
use case::{CaseFile, Groups, Outcome};
use coverage::{Coverage, Unused};
use node::Node;
use play::Stage;

/// Try the rules on the cases in `tests/*.json`. No server is needed and none is touched.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  gravity test -c shop\n  gravity test -c shop --update && git diff shop/tests\n\n\
                  Exit codes: 0 all cases hold, 1 a case could not be played, 2 bad config or cases, 3 a difference.")]
pub struct Args {
    #[command(flatten)]
    directory: ConfigDirectory,
    /// Write what came out into the files as what is expected. Nothing else in them changes.
    #[arg(long)]
    update: bool,
    /// One JSON document on stdout.
    #[arg(long)]
    json: bool,
}

/// One value that is expected and did not come, or the other way round.
#[derive(Debug, Serialize)]
struct Difference {
    /// `rows db1.users`, `messages hook`, `dead letters`
    place: String,
    missing: Vec<String>,
    surplus: Vec<String>,
}

#[derive(Debug, Serialize)]
struct CaseReport {
    file: String,
    name: String,
    passed: bool,
    differences: Vec<Difference>,
    /// Why it could not be played.
    error: Option<String>,
}

#[derive(Debug, Serialize)]
struct Report {
    cases: Vec<CaseReport>,
    unused: Unused,
    updated: Vec<String>,
}

pub fn run(args: &Args) -> Result<Exit, Failure> {
    let config = Config::load(&args.directory.config, &Flags::new());
    let set = assembly::rules(&config);
    let mut findings = config.findings.clone();
    if let Err(of_rules) = &set {
        findings.extend(of_rules.iter().cloned());
    }
    let set = match set {
        Ok(set) if !findings.has_errors() => set,
        _ => {
            for finding in findings.iter() {
                show::say(&format!("{}\n", gravity_rules::diagnose::render(finding, Paint::stderr().is_on())));
            }
            return Err(Failure::usage("the config is not sound, so no case was played"));
        }
    };
    let files = CaseFile::all(&args.directory.config)?;
    let mut coverage = Coverage::default();
    let mut report = Report { cases: Vec::new(), unused: Unused::default(), updated: Vec::new() };
    for file in &files {
        play_file(&config, &set, file, args.update, &mut coverage, &mut report)?;
    }
    report.unused = coverage.unused(&set);
    tell(&report);
    if args.json {
        show::json(&report)?;
    }
    let failed = |case: &CaseReport| case.error.is_some();
    let differs = report.cases.iter().any(|case| !case.passed && !failed(case));
    Ok(match report.cases.iter().any(failed) {
        true => Exit::Failed,
        false if differs && !args.update => Exit::Difference,
        false => Exit::Done,
    })
}

fn play_file(
    config: &Config,
    set: &gravity_rules::RuleSet,
    file: &CaseFile,
    is_update: bool,
    coverage: &mut Coverage,
    report: &mut Report,
) -> Result<(), Failure> {
    let bad = |why: String| Failure::usage(format!("{}: {why}", file.name)).code(crate::config::codes::BAD_CASE);
    let cases = file.cases()?;
    let own_set = assembly::rules(config).map_err(|findings| Failure::usage(findings.to_string()))?;
    let stage = Stage {
        rules: assembly::rules_in_force(config, own_set, "test"),
        envelopes: assembly::envelopes(config),
        tables: play::tables(set, &cases).map_err(bad)?,
        set,
    };
    let mut edits = Vec::new();
    for case in &cases.cases {
        let expected = case.expected().map_err(bad)?;
        let played = block_on(async { Ok(stage.play(case, coverage).await) })?;
        let mut shown = CaseReport {
            file: file.name.clone(),
            name: case.name.clone(),
            passed: false,
            differences: Vec::new(),
            error: None,
        };
        match played {
            Ok(got) => {
                shown.differences = differences(&expected, &got);
                shown.passed = shown.differences.is_empty();
                if is_update && !shown.passed {
                    edits.extend(update::edits(&file.text, case, &expected, &got));
                }
            }
            Err(why) => shown.error = Some(why),
        }
        report.cases.push(shown);
    }
    if !edits.is_empty() {
        let text = update::apply(&file.text, edits);
        std::fs::write(&file.path, text)
            .map_err(|error| Failure::failed(format!("cannot write {}", file.path.display())).because(&error))?;
        report.updated.push(file.name.clone());
    }
    Ok(())
}

fn differences(expected: &Outcome, got: &Outcome) -> Vec<Difference> {
    let mut all = Vec::new();
    let mut groups = |kind: &str, expected: &Groups, got: &Groups| {
        let names: BTreeSet<&String> = expected.keys().chain(got.keys()).collect();
        for name in names {
            let of = |groups: &Groups| groups.get(name).cloned().unwrap_or_default();
            all.extend(difference(format!("{kind} {name}"), &of(expected), &of(got)));
        }
    };
    groups("rows", &expected.rows, &got.rows);
    groups("messages", &expected.messages, &got.messages);
    all.extend(difference("dead letters".to_owned(), &expected.dead_letters, &got.dead_letters));
    all
}

fn difference(place: String, expected: &[Node], got: &[Node]) -> Option<Difference> {
    if expected == got {
        return None;
    }
    let without = |from: &[Node], these: &[Node]| {
        let mut left = these.to_vec();
        let mut rest = Vec::new();
        for node in from {
            match left.iter().position(|other| other == node) {
                Some(at) => drop(left.swap_remove(at)),
                None => rest.push(node.to_string()),
            }
        }
        rest
    };
    let (mut missing, mut surplus) = (without(expected, got), without(got, expected));
    if missing.is_empty() && surplus.is_empty() {
        // The same ones in another order, where order counts.
        missing = expected.iter().map(Node::to_string).collect();
        surplus = got.iter().map(Node::to_string).collect();
    }
    Some(Difference { place, missing, surplus })
}

fn tell(report: &Report) {
    let paint = Paint::stderr();
    for case in report.cases.iter().filter(|case| !case.passed) {
        show::say(&format!("{} {}: {}", paint.red("differs"), case.file, case.name));
        if let Some(error) = &case.error {
            show::say(&format!("  cannot be played: {error}"));
        }
        for difference in &case.differences {
            show::say(&format!("  {}", difference.place));
            difference.missing.iter().for_each(|line| show::say(&paint.red(&format!("  - {line}"))));
            difference.surplus.iter().for_each(|line| show::say(&paint.green(&format!("  + {line}"))));
        }
    }
    for rule in &report.unused.rules {
        show::say(&format!("no case uses the rule {rule}"));
    }
    for mapping in &report.unused.mappings {
        show::say(&format!("no case uses the mapping {mapping}"));
    }
    for file in &report.updated {
        show::say(&format!("wrote {file}"));
    }
    let passed = report.cases.iter().filter(|case| case.passed).count();
    let legend = if passed == report.cases.len() { "" } else { " (- is expected, + came out)" };
    show::say(&format!("{passed} of {} cases hold{legend}", report.cases.len()));
}
