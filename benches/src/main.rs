//! `bench`: ratios of interleaved runs, and the end-to-end harness. Nothing here is a test; see README.md.

mod e2e;
mod figures;
mod random;
mod workload;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Benchmarks of Gravity: ratios of one interleaved run, and the end-to-end workload G-1")]
struct Arguments {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// Kafka to PostgreSQL: any command against workload G-1
    E2e(e2e::E2e),
    /// Writes the config directory with which Gravity does workload G-1
    G1Config(e2e::G1Config),
}

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Arguments::parse().bench {
        Bench::E2e(bench) => bench.run().await,
        Bench::G1Config(config) => config.run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("bench: {why}");
            ExitCode::FAILURE
        }
    }
}
