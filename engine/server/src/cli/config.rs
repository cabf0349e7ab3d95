//! `gravity config show`: each key of gravity.toml with the value in force and where it came from.

use super::exit::{Exit, Failure};
use super::flags::{ConfigDirectory, SettingFlags};
use super::show::{self, Rows, text};
use crate::config::Config;

/// The engine's settings.
#[derive(clap::Subcommand, Debug)]
pub enum Command {
    /// Show each setting with the value in force and where it came from.
    #[command(after_help = "Examples:\n  gravity config show\n  gravity config show -c /etc/gravity --json")]
    Show(ShowArgs),
}

#[derive(clap::Args, Debug)]
pub struct ShowArgs {
    #[command(flatten)]
    directory: ConfigDirectory,
    /// One JSON document instead of a table.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    flags: SettingFlags,
}

pub fn run(command: &Command) -> Result<Exit, Failure> {
    let Command::Show(args) = command;
    let config = Config::load(&args.directory.config, &args.flags.0);
    let shown = config.settings.show();
    if args.json {
        show::json(&shown)?;
    } else {
        let mut rows = Rows::new(&[text("KEY"), text("VALUE"), text("FROM")]);
        for line in shown {
            rows.add([line.key, line.value.unwrap_or_else(|| "-".to_owned()), line.origin]);
        }
        show::print(&rows.render())?;
    }
    // The other files have a command of their own; here only the settings matter.
    let of_settings = |file: &str| !file.ends_with(".json");
    let wrong: Vec<_> = config.findings.iter().filter(|finding| of_settings(&finding.file)).collect();
    for finding in &wrong {
        show::say(&gravity_rules::diagnose::render(finding, show::Paint::stderr().is_on()));
    }
    let has_error = wrong.iter().any(|finding| finding.severity == gravity_rules::diagnose::Severity::Error);
    Ok(if has_error { Exit::Usage } else { Exit::Done })
}
