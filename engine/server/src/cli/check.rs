//! `gravity check`: every finding at once; with `--live` the databases are asked too. Changes nothing.

use gravity_rules::diagnose::{Finding, Severity, render};
use serde_json::json;

use super::client::block_on;
use super::exit::{Exit, Failure};
use super::flags::{ConfigDirectory, SettingFlags};
use super::show::{self, Paint};
use crate::assembly::rules;
use crate::config::Config;
use crate::live;

/// Check the config: every finding at once, nothing is changed.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  gravity check -c shop\n  gravity check -c shop --live\n  gravity check -c shop --live --sql > for-the-dba.sql\n\n\
                        Exit code 2 when a finding is an error."
)]
pub struct Args {
    #[command(flatten)]
    directory: ConfigDirectory,
    /// Ask the databases too: tables, columns, types, keys, rights.
    #[arg(long)]
    live: bool,
    /// Print the DDL that a DBA would run, bookkeeping tables included, on stdout.
    #[arg(long, requires = "live")]
    sql: bool,
    /// One JSON document: `{"findings": […]}`.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    flags: SettingFlags,
}

pub fn run(args: &Args) -> Result<Exit, Failure> {
    let config = Config::load(&args.directory.config, &args.flags.0);
    let mut findings = config.findings.clone();
    let mut statements = Vec::new();
    match rules(&config) {
        Ok(set) => {
            findings.extend(set.warnings().iter().cloned());
            // Databases are only asked about a config that could start.
            if args.live && !findings.has_errors() {
                let live = block_on(async { Ok(live::inspect(&config, &set).await) })?;
                findings.extend(live.findings);
                statements = live.statements;
            }
        }
        Err(of_rules) => findings.extend(of_rules),
    }
    findings.sort();
    let failed = findings.has_errors();
    if args.json {
        let mut document = json!({"findings": findings});
        if args.sql {
            document["sql"] =
                json!(statements.iter().map(|s| json!({"database": s.database, "sql": s.sql})).collect::<Vec<_>>());
        }
        show::json(&document)?;
    } else {
        for finding in findings.iter() {
            show::say(&format!("{}\n", render(finding, Paint::stderr().is_on())));
        }
        if args.sql {
            show::print(&live::script(&statements))?;
        }
        show::say(&summary(&config, findings.iter(), args.live));
    }
    Ok(if failed { Exit::Usage } else { Exit::Done })
}

fn summary<'f>(config: &Config, findings: impl Iterator<Item = &'f Finding>, live: bool) -> String {
    let (errors, warnings): (Vec<_>, Vec<_>) = findings.partition(|finding| finding.severity == Severity::Error);
    let plural = |n: usize, word: &str| format!("{n} {word}{}", if n == 1 { "" } else { "s" });
    let checked = format!(
        "{}, {}, {}, {}",
        plural(config.sources.len(), "source"),
        plural(config.databases.len(), "database"),
        plural(config.rules.len(), "rules file"),
        plural(config.exporters.len(), "exporter")
    );
    let how = if live { "checked with the databases" } else { "checked offline" };
    if errors.is_empty() {
        let with = if warnings.is_empty() { String::new() } else { format!(", {}", plural(warnings.len(), "warning")) };
        format!("{}: {checked}, {how}{with}", Paint::stderr().green("ok"))
    } else {
        format!(
            "{}, {} in {checked}",
            Paint::stderr().red(&plural(errors.len(), "error")),
            plural(warnings.len(), "warning")
        )
    }
}
