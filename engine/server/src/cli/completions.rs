//! `gravity completions`: the shell's completion script.

use std::io::Write;

use clap_complete::Shell;

use super::exit::{Exit, Failure};

/// Print the completion script of a shell.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  gravity completions bash > /etc/bash_completion.d/gravity\n  gravity completions zsh > \"${fpath[1]}/_gravity\""
)]
pub struct Args {
    #[arg(value_enum)]
    shell: Shell,
}

pub fn run(args: &Args) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::parser(), "gravity", &mut script);
    std::io::stdout().write_all(&script)?;
    Ok(Exit::Done)
}
