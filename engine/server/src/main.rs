//! The one binary: config, assembly, HTTP API, command line.

mod assembly;
mod assembly_mongodb;
mod assembly_nats;
mod assembly_rabbitmq;
mod cli;
mod config;
mod http;
mod live;
mod messages;
mod platform;
mod reload;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
