//! The command line: one file per command. People's talk goes to stderr, data to stdout, the exit code tells how it ended.

mod check;
mod client;
mod completions;
mod config;
mod demo;
mod dlq;
mod exit;
mod explain;
mod flags;
mod import;
mod init;
pub mod log;
mod route;
mod run;
mod schema;
mod send;
mod show;
mod status;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use log::{range_of, verified_document};

/// Events go in. Correct, fast, restorable views come out.
#[derive(Parser)]
#[command(
    name = "gravity",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    subcommand_required = true,
    disable_help_subcommand = true,
    after_help = "Begin with `gravity demo`: the whole chain, no server needed.\n\
                  Exit codes: 0 done, 1 failed, 2 usage or bad config, 3 difference found, 4 refused for safety, 74 the disk failed."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Demo(demo::Args),
    Init(init::Args),
    Check(check::Args),
    Test(test::Args),
    Run(run::Args),
    Status(status::Args),
    Send(send::Args),
    Import(import::Args),
    #[command(subcommand)]
    Log(log::Command),
    #[command(subcommand)]
    Dlq(dlq::Command),
    #[command(subcommand)]
    Route(route::Command),
    #[command(subcommand)]
    Config(config::Command),
    Schema(schema::Args),
    Completions(completions::Args),
    Explain(explain::Args),
}

/// Parses the command line, runs the command, reports a failure.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    // Two TLS providers may be linked; whoever asks for the default gets this one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let outcome = match cli.command {
        Command::Demo(args) => demo::run(args),
        Command::Init(args) => init::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Run(args) => run::run(args),
        Command::Status(args) => status::run(&args),
        Command::Send(args) => send::run(args),
        Command::Import(args) => import::run(args),
        Command::Log(command) => log::run(command),
        Command::Dlq(command) => dlq::run(command),
        Command::Route(command) => route::run(command),
        Command::Config(command) => config::run(&command),
        Command::Schema(args) => schema::run(&args),
        Command::Completions(args) => completions::run(&args),
        Command::Explain(args) => explain::run(&args),
    };
    match outcome {
        Ok(exit) => exit.into(),
        Err(failure) => {
            failure.print();
            failure.exit.into()
        }
    }
}

/// The parser itself, for completions and tests.
pub fn parser() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parser_is_consistent() {
        parser().debug_assert();
    }

    /// Every command that does something shows at least two examples.
    #[test]
    fn every_command_has_two_examples() {
        fn visit(command: &mut clap::Command, name: &str, without: &mut Vec<String>) {
            if command.get_subcommands().next().is_none() {
                let help = command.render_long_help().to_string();
                if help.matches("\n  gravity ").count() < 2 {
                    without.push(name.to_owned());
                }
            }
            for below in command.get_subcommands_mut() {
                let name = format!("{name} {}", below.get_name());
                visit(below, &name, without);
            }
        }
        let mut without = Vec::new();
        visit(&mut parser(), "gravity", &mut without);
        assert!(without.is_empty(), "{without:?}");
    }

    /// O55: no flag without a test that uses it. The flags of settings are gone through one by one in a test of their own.
    #[test]
    fn o55_every_flag_is_used_by_a_test() {
        const TESTS: &str = concat!(
            include_str!("../../tests/cli/bad.rs"),
            include_str!("../../tests/cli/check.rs"),
            include_str!("../../tests/cli/commands.rs"),
            include_str!("../../tests/cli/demo.rs"),
            include_str!("../../tests/cli/import.rs"),
            include_str!("../../tests/cli/run.rs"),
            include_str!("../../tests/cli/rule_tests.rs"),
            include_str!("../../tests/cli/tokens.rs"),
            include_str!("../../tests/cli/support.rs"),
        );
        fn visit(command: &clap::Command, name: &str, without: &mut Vec<String>) {
            for flag in command.get_arguments().filter_map(clap::Arg::get_long) {
                let of_a_setting = crate::config::key::KEYS.iter().any(|key| key.flag() == flag);
                if !of_a_setting
                    && !["help", "version", "config"].contains(&flag)
                    && !TESTS.contains(&format!("\"--{flag}\""))
                {
                    without.push(format!("{name} --{flag}"));
                }
            }
            for below in command.get_subcommands() {
                visit(below, &format!("{name} {}", below.get_name()), without);
            }
        }
        let mut without = Vec::new();
        visit(&parser(), "gravity", &mut without);
        assert!(without.is_empty(), "{without:?}");
    }
}
