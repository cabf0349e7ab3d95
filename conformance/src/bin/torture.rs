//! `torture`: the fault gates of `conformance/`, one subcommand each. Exit 0 green, 1 red, 2 wrong use or nothing to run on.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use gravity_conformance::torture::cutfs;
use gravity_conformance::torture::ledger::{self, Entry, Outcome};
use gravity_conformance::torture::log::check::{self, Acknowledged};
use gravity_conformance::torture::log::kill::LogKill;
use gravity_conformance::torture::log::power::PowerCut;
use gravity_conformance::torture::log::{LogTarget, Store, writer};
use gravity_conformance::torture::sabotage;
use gravity_conformance::torture::stack::arms::{self, Arms, Peers};
use gravity_conformance::torture::stack::engine;
use gravity_conformance::torture::stack::fence::{self, FenceGate};
use gravity_conformance::torture::stack::gate::StackGate;
use gravity_conformance::torture::stack::nemesis::Nemesis;
use gravity_conformance::torture::stack::poison::{self, PoisonGate};
use gravity_conformance::torture::stack::single::{Moment, SingleGate};

#[derive(Parser)]
#[command(about = "Fault gates: what was acknowledged must be there, whatever is killed on the way")]
struct Torture {
    /// Print the gates, one a line.
    #[arg(long)]
    list: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// kill -9 of a process that appends to the log.
    LogKill {
        /// Both where none is named.
        #[arg(long, value_enum)]
        store: Option<Store>,
        /// 1000 with --full, 30 otherwise.
        #[arg(long)]
        kills: Option<u64>,
        /// MiB per hot generation.
        #[arg(long, default_value_t = 8)]
        generation: u64,
        #[command(flatten)]
        run: Run,
    },
    /// Power cuts under the log, on a file system that forgets what was not synced.
    PowerCut {
        /// Both where none is named.
        #[arg(long, value_enum)]
        store: Option<Store>,
        /// 100 with --full, 15 otherwise.
        #[arg(long)]
        cuts: Option<u64>,
        /// MiB per hot generation.
        #[arg(long, default_value_t = 8)]
        generation: u64,
        #[command(flatten)]
        run: Run,
    },
    /// kill -9 of the whole engine under load from every source, into every database, out of every exporter.
    StackKill {
        /// 200 with --full, 8 otherwise.
        #[arg(long)]
        kills: Option<u64>,
        #[command(flatten)]
        load: Load,
        #[command(flatten)]
        run: Run,
    },
    /// kill -9 of every broker and every database under the same load.
    PeerKill {
        /// Of each of them: 12 with --full, 1 otherwise.
        #[arg(long)]
        kills: Option<u64>,
        #[command(flatten)]
        load: Load,
        #[command(flatten)]
        run: Run,
    },
    /// Cuts, delays, black holes, half-open and reset connections between the engine and each of its peers, under load.
    Toxic {
        /// 128 with --full: twice each toxic at each proxy; 8 otherwise: one for each proxy.
        #[arg(long)]
        episodes: Option<u64>,
        #[command(flatten)]
        load: Load,
        #[command(flatten)]
        run: Run,
    },
    /// A stranger joins the Kafka source's consumer group, reads, commits and leaves, again and again, under load.
    Rebalance {
        /// 30 with --full, 3 otherwise.
        #[arg(long)]
        times: Option<u64>,
        #[command(flatten)]
        load: Load,
        #[command(flatten)]
        run: Run,
    },
    /// An engine is frozen, a copy of its data takes over, the frozen one wakes: nothing of it may reach a database. And restarts
    /// whose two engines overlap.
    Fence {
        /// 50 with --full, 3 otherwise.
        #[arg(long)]
        wakes: Option<u64>,
        /// 30 with --full, 2 otherwise.
        #[arg(long)]
        restarts: Option<u64>,
        #[command(flatten)]
        load: Load,
        #[command(flatten)]
        run: Run,
    },
    /// One event in ten is bad: exact dead letters, half of the speed or more, flat memory.
    Poison {
        /// 100,000 with --full, 20,000 otherwise.
        #[arg(long)]
        events: Option<u64>,
        #[command(flatten)]
        run: Run,
    },
    /// A park record without its transaction, the reason gone meanwhile: the event stays parked.
    ParkRedo {
        #[command(flatten)]
        run: Run,
    },
    /// Death as soon as the checkpoint has passed a parked event: the dead letter is there.
    ParkFirst {
        #[command(flatten)]
        run: Run,
    },
    /// A checkpoint row of another owner: nothing more is written there.
    ForeignOwner {
        #[command(flatten)]
        run: Run,
    },
    /// Does the wrong thing on purpose in ten ways; each must turn its gate red.
    Sabotage {
        #[command(flatten)]
        run: Run,
    },
    /// The ledger, summed by gate.
    Report,
    #[command(hide = true)]
    LogWriter {
        #[command(flatten)]
        target: Target,
        #[arg(long)]
        rate: u64,
    },
    #[command(hide = true)]
    LogCheck {
        #[command(flatten)]
        target: Target,
        #[arg(long, default_value_t = 0)]
        events: u64,
        #[arg(long, default_value_t = 0)]
        sequence: u64,
        #[arg(long)]
        leave_open: bool,
    },
}

/// What all gates take.
#[derive(Args)]
struct Run {
    /// Printed and in the ledger; the same seed makes the same choices.
    #[arg(long)]
    seed: Option<u64>,
    /// Few rounds, for every change. The default.
    #[arg(long)]
    quick: bool,
    /// The counts of the issue; the result goes into conformance/ledger.jsonl.
    #[arg(long, conflicts_with = "quick", env = "GRAVITY_FULL", value_parser = clap::builder::BoolishValueParser::new())]
    full: bool,
}

impl Run {
    fn seed(&self) -> u64 {
        self.seed.unwrap_or_else(|| {
            let now = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH);
            now.map_or(1, |time| time.as_millis() as u64)
        })
    }

    fn count(&self, given: Option<u64>, full: u64, quick: u64) -> u64 {
        given.unwrap_or(if self.full { full } else { quick })
    }

    /// Prints what the runs of one gate found, last the line with its figures; keeps it where that is asked for.
    fn finish(&self, outcomes: &[Outcome]) -> Result<ExitCode, String> {
        for outcome in outcomes {
            let entry = Entry::of(outcome, self.full);
            println!("{}", serde_json::to_string(&entry).map_err(|error| error.to_string())?);
            for failure in &outcome.failures {
                eprintln!("{}: {failure}", outcome.gate);
            }
            if self.full {
                let path = ledger::path();
                ledger::append(&path, &entry).map_err(|error| format!("{}: {error}", path.display()))?;
            }
        }
        let green = outcomes.iter().all(Outcome::passed);
        for outcome in outcomes {
            println!("{}", outcome.line);
        }
        Ok(if green { ExitCode::SUCCESS } else { ExitCode::from(1) })
    }
}

/// A gate that cannot run here is said to be skipped; that is neither green nor red.
fn skipped(why: &str) -> ExitCode {
    println!("skipped: {why}");
    ExitCode::SUCCESS
}

#[derive(Args)]
struct Load {
    /// Events per second that the generator publishes.
    #[arg(long, default_value_t = 1_500)]
    rate: u64,
}

#[derive(Args)]
struct Target {
    #[arg(long)]
    directory: PathBuf,
    #[arg(long, value_enum)]
    store: Store,
    #[arg(long)]
    generation_bytes: u64,
    #[arg(long)]
    seed: u64,
}

impl Target {
    fn log(&self) -> LogTarget {
        LogTarget { directory: self.directory.clone(), store: self.store, generation_bytes: self.generation_bytes }
    }
}

/// Where they are; the error says why a gate on them cannot run.
fn peers(arms: &Arms) -> Result<Peers, String> {
    engine::program().and_then(|_| Peers::from_environment(arms))
}

fn stack(nemesis: Nemesis, load: &Load, run: &Run) -> Result<ExitCode, String> {
    let gate = StackGate { nemesis, seed: run.seed(), rate: load.rate, failpoints: None };
    let peers = match peers(&gate.nemesis.arms()) {
        Ok(peers) => peers,
        Err(why) => return Ok(skipped(&why)),
    };
    if let Some(why) = gate.nemesis.lacks() {
        println!("skipped: {why}");
    }
    println!(
        "{}: {} {}, --rate {} --seed {}",
        gate.name(),
        gate.nemesis.count(),
        gate.nemesis.word(),
        gate.rate,
        gate.seed
    );
    run.finish(&[gate.run(peers)?])
}

fn single(moment: Moment, run: &Run) -> Result<ExitCode, String> {
    let peers = match peers(&arms::FEW) {
        Ok(peers) => peers,
        Err(why) => return Ok(skipped(&why)),
    };
    let gate = SingleGate { moment, seed: run.seed(), failpoints: None };
    println!("{} --seed {}", gate.name(), gate.seed);
    run.finish(&[gate.run(peers)?])
}

fn stores(named: Option<Store>) -> Vec<Store> {
    named.map_or_else(|| vec![Store::Sled, Store::Raw], |store| vec![store])
}

fn main() -> ExitCode {
    let torture = Torture::parse();
    if torture.list {
        let command = <Torture as clap::CommandFactory>::command();
        // The report is no gate.
        for gate in command.get_subcommands().filter(|c| !c.is_hide_set() && c.get_name() != "report") {
            println!("{}", gate.get_name());
        }
        return ExitCode::SUCCESS;
    }
    let Some(command) = torture.command else {
        eprintln!("torture: name a gate; --list shows them");
        return ExitCode::from(2);
    };
    run(command).unwrap_or_else(|why| {
        eprintln!("torture: {why}");
        ExitCode::from(2)
    })
}

fn run(command: Command) -> Result<ExitCode, String> {
    match command {
        Command::LogKill { store, kills, generation, run } => {
            let (kills, seed) = (run.count(kills, 1000, 30), run.seed());
            let mut outcomes = Vec::new();
            for store in stores(store) {
                println!("log-kill --store {} --kills {kills} --seed {seed}", store.word());
                outcomes.push(
                    LogKill {
                        store,
                        seed,
                        kills,
                        full: run.full,
                        generation_bytes: generation << 20,
                        failpoints: None,
                    }
                    .run()?,
                );
            }
            run.finish(&outcomes)
        }
        Command::PowerCut { store, cuts, generation, run } => {
            if let Err(why) = cutfs::available() {
                return Ok(skipped(&why));
            }
            let (cuts, seed) = (run.count(cuts, 100, 15), run.seed());
            let mut outcomes = Vec::new();
            for store in stores(store) {
                println!("power-cut --store {} --cuts {cuts} --seed {seed}", store.word());
                outcomes.push(
                    PowerCut {
                        store,
                        seed,
                        cuts,
                        full: run.full,
                        generation_bytes: generation << 20,
                        failpoints: None,
                    }
                    .run()?,
                );
            }
            run.finish(&outcomes)
        }
        Command::StackKill { kills, load, run } => {
            let kills = run.count(kills, 200, 8);
            stack(Nemesis::Engine { kills }, &load, &run)
        }
        Command::PeerKill { kills, load, run } => {
            let kills = run.count(kills, 12, 1);
            stack(Nemesis::Peers { kills }, &load, &run)
        }
        Command::Toxic { episodes, load, run } => {
            let episodes = run.count(episodes, 128, 8);
            stack(Nemesis::Toxic { episodes }, &load, &run)
        }
        Command::Rebalance { times, load, run } => {
            let times = run.count(times, 30, 3);
            stack(Nemesis::Rebalance { times }, &load, &run)
        }
        Command::Fence { wakes, restarts, load, run } => {
            let (wakes, restarts) = (run.count(wakes, 50, 3), run.count(restarts, 30, 2));
            let overlap = Nemesis::Overlap { restarts };
            let (on_fence, on_overlap) = match peers(&fence::arms()).and_then(|p| Ok((p, peers(&overlap.arms())?))) {
                Ok(peers) => peers,
                Err(why) => return Ok(skipped(&why)),
            };
            if let Some(why) = Arms::lacking() {
                println!("skipped: {why}");
            }
            let seed = run.seed();
            println!("fence: {wakes} wake-ups, {restarts} {}, --seed {seed}", overlap.word());
            let woken = FenceGate { wakes, seed, failpoints: None }.run(on_fence)?;
            let overlapped = StackGate { nemesis: overlap, seed, rate: load.rate, failpoints: None }.run(on_overlap)?;
            run.finish(&[woken, overlapped])
        }
        Command::Poison { events, run } => {
            let peers = match peers(&poison::ARMS) {
                Ok(peers) => peers,
                Err(why) => return Ok(skipped(&why)),
            };
            let gate = PoisonGate { events: run.count(events, 100_000, 20_000), seed: run.seed(), failpoints: None };
            println!("poison --events {} --seed {}", gate.events, gate.seed);
            run.finish(&[gate.run(peers)?])
        }
        Command::ParkRedo { run } => single(Moment::ParkRedo, &run),
        Command::ParkFirst { run } => single(Moment::ParkFirst, &run),
        Command::ForeignOwner { run } => single(Moment::ForeignOwner, &run),
        Command::Sabotage { run } => {
            let able = cutfs::available();
            if let Err(why) = able.and_then(|()| peers(&Arms::at_hand()).map(drop)) {
                return Ok(skipped(&why));
            }
            let seed = run.seed();
            println!("sabotage --seed {seed}");
            run.finish(&[sabotage::run(seed)?])
        }
        Command::Report => {
            let path = ledger::path();
            print!("{}", ledger::report(&path).map_err(|error| format!("{}: {error}", path.display()))?);
            Ok(ExitCode::SUCCESS)
        }
        Command::LogWriter { target, rate } => {
            writer::run(&target.log(), target.seed, rate)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::LogCheck { target, events, sequence, leave_open } => {
            let findings = check::run(&target.log(), target.seed, Acknowledged { events, sequence }, !leave_open)?;
            println!("{}", serde_json::to_string(&findings).map_err(|error| error.to_string())?);
            // Nothing is closed on the way out where the log is to be left as it stands.
            std::process::exit(0)
        }
    }
}
