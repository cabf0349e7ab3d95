//! `bench`: ratios of interleaved runs, and the end-to-end harness. Nothing here is a test; see README.md.

mod e2e;
mod expressions;
mod figures;
mod log;
mod mariadb;
mod mongodb;
mod postgres;
mod process;
mod random;
mod rules;
mod sources;
mod sqlite;
mod topic;
mod views;
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
    /// Durable append: sled against the raw-segment twin
    Log(log::LogBench),
    /// Payload bytes to changes, against serde_json::Value
    Rules(rules::RulesBench),
    /// What a filter adds to an event, and the worst that loads
    Expressions(expressions::ExpressionsBench),
    /// Keyed upsert through the view port, against COPY
    Postgres(postgres::PostgresBench),
    /// Keyed upsert through the view port, against LOAD DATA
    Mariadb(mariadb::MariaDbBench),
    /// Keyed upsert through the view port, against inserts without a key
    Sqlite(sqlite::SqliteBench),
    /// Keyed upsert through the view port, against bare insertMany
    Mongodb(mongodb::MongoDbBench),
    /// Each broker's messages into the durable log, against a client that acknowledges each
    Sources(sources::SourcesBench),
}

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Arguments::parse().bench {
        Bench::E2e(bench) => bench.run().await,
        Bench::G1Config(config) => config.run(),
        Bench::Log(bench) => tokio::task::block_in_place(|| bench.run()),
        Bench::Rules(bench) => bench.run(),
        Bench::Expressions(bench) => bench.run(),
        Bench::Postgres(bench) => bench.run().await,
        Bench::Mariadb(bench) => bench.run().await,
        Bench::Sqlite(bench) => bench.run().await,
        Bench::Mongodb(bench) => bench.run().await,
        Bench::Sources(bench) => bench.run().await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("bench: {why}");
            ExitCode::FAILURE
        }
    }
}
