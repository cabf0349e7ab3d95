//! `gravity route`: hold a route back, let it go on.

use serde_json::{Value, json};

use super::client::{EngineArgs, block_on, step};
use super::exit::{Exit, Failure};
use super::show;

/// Pause and resume routes.
#[derive(clap::Subcommand, Debug)]
pub enum Command {
    /// Stop writing to a database; events go on into the log.
    #[command(
        after_help = "Examples:\n  gravity route pause db1\n  gravity route pause db1 --url http://10.0.0.5:7420 --json"
    )]
    Pause(PauseArgs),
    /// Go on from the checkpoint.
    #[command(after_help = "Examples:\n  gravity route resume db1\n  gravity route resume db1 --active-rules")]
    Resume(ResumeArgs),
}

#[derive(clap::Args, Debug)]
pub struct PauseArgs {
    /// Name of the route: the database's.
    name: String,
    /// One JSON document on stdout.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    engine: EngineArgs,
}

#[derive(clap::Args, Debug)]
pub struct ResumeArgs {
    /// Name of the route: the database's.
    name: String,
    /// A stopped route takes the rules in force from its checkpoint on; recorded in the history of its views.
    #[arg(long)]
    active_rules: bool,
    /// One JSON document on stdout.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    engine: EngineArgs,
}

pub fn run(command: Command) -> Result<Exit, Failure> {
    let (engine, name, verb, body, as_json) = match command {
        Command::Pause(args) => (args.engine, args.name, "pause", json!({}), args.json),
        Command::Resume(args) => {
            (args.engine, args.name, "resume", json!({"active_rules": args.active_rules}), args.json)
        }
    };
    block_on(async move {
        let client = engine.connect()?;
        let answer: Value = client.post(&format!("/v1/routes/{}/{verb}", step(&name)), &body).await?;
        if as_json {
            show::json(&answer)?;
        } else {
            show::say(&format!("route {name}: {verb}d"));
        }
        Ok(Exit::Done)
    })
}
