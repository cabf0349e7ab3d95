//! What is done to a running engine and its peers while the generator publishes.

mod kill;
mod overlap;
mod rebalance;
mod toxic;

use std::time::Duration;

use super::arms::{self, Arms};
use super::config::Layout;
use super::engine::Engine;
pub use toxic::Network;

/// Start to `/readyz`, a recovery of everything included.
pub const READY_PATIENCE: Duration = Duration::from_secs(30);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Nemesis {
    /// kill -9 of the engine, this often.
    Engine { kills: u64 },
    /// kill -9 of every broker and every database, each this often, while the engine stays.
    Peers { kills: u64 },
    /// The next engine is started while the one before still runs on the same data directory.
    Overlap { restarts: u64 },
    /// Something happens to the bytes between the engine and one of its peers, this often.
    Toxic { episodes: u64 },
    /// A stranger joins the source's consumer group and leaves it again, this often.
    Rebalance { times: u64 },
}

/// What the nemesis did.
#[derive(Debug, Default)]
pub struct Deeds {
    pub count: u64,
    pub restarts_ms: Vec<u64>,
    /// Requests and batches that the generator had to send again.
    pub repeats: u64,
    pub problems: Vec<String>,
}

impl Nemesis {
    /// Of the gate.
    pub fn gate(&self) -> &'static str {
        match self {
            Nemesis::Engine { .. } => "stack-kill",
            Nemesis::Peers { .. } => "peer-kill",
            Nemesis::Overlap { .. } => "fence overlap",
            Nemesis::Toxic { .. } => "toxic",
            Nemesis::Rebalance { .. } => "rebalance",
        }
    }

    /// What is counted.
    pub fn word(&self) -> &'static str {
        match self {
            Nemesis::Engine { .. } | Nemesis::Peers { .. } => "kills",
            Nemesis::Overlap { .. } => "overlapping restarts",
            Nemesis::Toxic { .. } => "toxic episodes",
            Nemesis::Rebalance { .. } => "rebalances",
        }
    }

    /// How often in all.
    pub fn count(&self) -> u64 {
        match self {
            Nemesis::Engine { kills } => *kills,
            Nemesis::Peers { kills } => *kills * self.arms().servers().len() as u64,
            Nemesis::Overlap { restarts } => *restarts,
            Nemesis::Toxic { episodes } => *episodes,
            Nemesis::Rebalance { times } => *times,
        }
    }

    /// Its run's peers.
    pub fn arms(&self) -> Arms {
        match self {
            Nemesis::Engine { .. } | Nemesis::Peers { .. } | Nemesis::Toxic { .. } => Arms::at_hand(),
            Nemesis::Overlap { .. } | Nemesis::Rebalance { .. } => arms::FEW,
        }
    }

    /// What its run has to do without on this machine.
    pub fn lacks(&self) -> Option<String> {
        let whole = matches!(self, Nemesis::Engine { .. } | Nemesis::Peers { .. } | Nemesis::Toxic { .. });
        Arms::lacking().filter(|_| whole)
    }

    /// `network` is there where the nemesis needs one.
    pub async fn act(
        &self,
        seed: u64,
        layout: &Layout,
        engine: &mut Engine,
        network: Option<&Network>,
        deeds: &mut Deeds,
    ) -> Result<(), String> {
        match self {
            Nemesis::Engine { kills } => kill::engine(engine, *kills, seed, deeds).await,
            Nemesis::Peers { kills } => kill::peers(&layout.arms.servers(), *kills, seed, deeds).await,
            Nemesis::Overlap { restarts } => overlap::restart(engine, *restarts, seed, deeds).await,
            Nemesis::Toxic { episodes } => {
                let network = network.ok_or("no proxies stand before the peers")?;
                toxic::poison(network, *episodes, seed, deeds).await
            }
            Nemesis::Rebalance { times } => rebalance::disturb(layout, *times, seed, deeds).await,
        }
    }
}
