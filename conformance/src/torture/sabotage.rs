//! `torture sabotage`: does the wrong thing on purpose, once per way, and demands that the gate made for it turns red.

use std::time::Instant;

use super::cutfs;
use super::ledger::Outcome;
use super::log::Store;
use super::log::power::PowerCut;
use super::stack::arms::{Arms, Peers};
use super::stack::fence::FenceGate;
use super::stack::gate::StackGate;
use super::stack::nemesis::Nemesis;
use super::stack::poison::PoisonGate;
use super::stack::single::{Moment, SingleGate};

/// One way to be wrong.
struct Sabotage {
    /// Name of the failpoint.
    point: &'static str,
    /// What is switched on there.
    action: &'static str,
    /// What the program does then.
    wrong: &'static str,
    gate: Gate,
    /// Delays that hold the dangerous moment open, so that few kills are enough to hit it.
    wider: &'static str,
    /// A failure must say this: red for another reason is not caught.
    sign: &'static str,
}

#[derive(Clone, Copy)]
enum Gate {
    PowerCut,
    StackKill {
        /// Events per second.
        rate: u64,
    },
    Single(Moment),
    Fence,
    Poison,
    Rebalance,
}

const ALL: [Sabotage; 10] = [
    Sabotage {
        point: "log.ack_before_sync",
        action: "sabotage",
        wrong: "acknowledges before the sync",
        gate: Gate::PowerCut,
        wider: ";log.sync=delay:15",
        sign: " lost, ",
    },
    Sabotage {
        point: "log.before_sync",
        action: "sabotage",
        wrong: "leaves fdatasync out",
        gate: Gate::PowerCut,
        wider: "",
        sign: "",
    },
    Sabotage {
        point: "view.checkpoint_apart",
        action: "sabotage",
        wrong: "commits the checkpoint in a transaction of its own",
        gate: Gate::StackKill { rate: 1_500 },
        wider: ";view.before_commit=delay:20",
        sign: "expected",
    },
    Sabotage {
        point: "export.cursor_before_confirm",
        action: "sabotage",
        wrong: "moves an exporter's cursor before the confirm",
        // As slow as it is wrong: with more it would not come to its end.
        gate: Gate::StackKill { rate: 200 },
        wider: "",
        sign: "without a message",
    },
    Sabotage {
        point: "project.park_after_checkpoint",
        action: "sabotage",
        wrong: "parks after the checkpoint has passed",
        gate: Gate::Single(Moment::ParkFirst),
        wider: "",
        sign: "expected 1, 1",
    },
    Sabotage {
        point: "view.cas_without_owner",
        action: "sabotage",
        wrong: "does not compare the owner",
        gate: Gate::Single(Moment::ForeignOwner),
        wider: "",
        sign: "another owner",
    },
    Sabotage {
        point: "project.retry_parked_on_redo",
        action: "sabotage",
        wrong: "tries a parked event again on redo",
        gate: Gate::Single(Moment::ParkRedo),
        wider: "",
        sign: "expected [2], 1, 1",
    },
    Sabotage {
        point: "project.believe_any_checkpoint",
        action: "sabotage",
        wrong: "goes on from whatever checkpoint it finds",
        gate: Gate::Fence,
        wider: "",
        sign: "no longer owns the checkpoint",
    },
    Sabotage {
        point: "project.after_park",
        action: "delay:3000",
        wrong: "takes three seconds more for each batch with a bad event",
        gate: Gate::Poison,
        wider: "",
        sign: "% of the speed",
    },
    Sabotage {
        point: "kafka.trust_the_group",
        action: "sabotage",
        wrong: "begins a partition where its consumer group stands",
        gate: Gate::Rebalance,
        wider: "",
        sign: "acknowledged items not in the log",
    },
];

/// Kills and cuts that a sabotaged gate gets. A healthy gate survives any number.
const CUTS: u64 = 12;
const KILLS: u64 = 12;

/// Runs every sabotage. The error says why the gates cannot run here.
pub fn run(seed: u64) -> Result<Outcome, String> {
    cutfs::available()?;
    let peers = Peers::from_environment(&Arms::at_hand())?;
    let started = Instant::now();
    let mut failures = Vec::new();
    for sabotage in &ALL {
        let points = format!("{}={}{}", sabotage.point, sabotage.action, sabotage.wider);
        let begun = Instant::now();
        let (gate, caught) = match sabotage.gate {
            Gate::PowerCut => {
                // One store is enough: what is sabotaged is common to both.
                let gate = PowerCut {
                    store: Store::Sled,
                    seed,
                    cuts: CUTS,
                    full: false,
                    generation_bytes: 8 << 20,
                    failpoints: Some(points),
                };
                ("power-cut", gate.run()?)
            }
            Gate::StackKill { rate } => {
                let nemesis = Nemesis::Engine { kills: KILLS };
                let gate = StackGate { nemesis, seed, rate, failpoints: Some(points) };
                (gate.name(), gate.run(peers.clone())?)
            }
            Gate::Fence => {
                let gate = FenceGate { wakes: 1, seed, failpoints: Some(points) };
                ("fence", gate.run(peers.clone())?)
            }
            Gate::Poison => {
                let gate = PoisonGate { events: 10_000, seed, failpoints: Some(points) };
                ("poison", gate.run(peers.clone())?)
            }
            Gate::Rebalance => {
                let nemesis = Nemesis::Rebalance { times: 8 };
                let gate = StackGate { nemesis, seed, rate: 1_500, failpoints: Some(points) };
                (gate.name(), gate.run(peers.clone())?)
            }
            Gate::Single(moment) => {
                let gate = SingleGate { moment, seed, failpoints: Some(points) };
                (gate.name(), gate.run(peers.clone())?)
            }
        };
        let why = caught.failures.iter().find(|failure| failure.contains(sabotage.sign));
        let verdict = if why.is_some() { "caught" } else { "NOT caught" };
        let seconds = begun.elapsed().as_secs();
        println!("{} ({}): {verdict} by {gate} in {seconds} s", sabotage.point, sabotage.wrong);
        match why {
            Some(why) => println!("    {}", why.chars().take(300).collect::<String>()),
            None => failures.push(format!("{}: {gate} said {}; {:?}", sabotage.point, caught.line, caught.failures)),
        }
    }
    let caught = ALL.len() as u64 - failures.len() as u64;
    Ok(Outcome {
        gate: "sabotage".to_owned(),
        seed,
        line: format!("{} sabotages, {caught} caught", ALL.len()),
        figures: vec![("sabotages", ALL.len() as u64), ("caught", caught)],
        failures,
        elapsed: started.elapsed(),
    })
}
