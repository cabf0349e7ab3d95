//! kill -9: of the engine, in recovery too, or of every broker and every database while the engine stays.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use super::{Deeds, READY_PATIENCE};
use crate::torture::ledger::project_root;
use crate::torture::random::Random;
use crate::torture::stack::arms::Server;
use crate::torture::stack::engine::Engine;

pub async fn engine(engine: &mut Engine, kills: u64, seed: u64, deeds: &mut Deeds) -> Result<(), String> {
    let mut random = Random::new(seed);
    while deeds.count < kills {
        tokio::time::sleep(Duration::from_millis(random.within(20, 2_500))).await;
        engine.kill()?;
        deeds.count += 1;
        if random.one_in(3) {
            tokio::time::sleep(Duration::from_millis(random.within(1, 400))).await;
        }
        engine.start()?;
        if random.one_in(4) && deeds.count < kills {
            // Recovery has to survive its own death.
            tokio::time::sleep(Duration::from_millis(random.within(1, 300))).await;
            engine.kill()?;
            deeds.count += 1;
            engine.start()?;
        }
        deeds.restarts_ms.push(engine.ready(READY_PATIENCE).await?.as_millis() as u64);
    }
    Ok(())
}

pub async fn peers(servers: &[Server], kills: u64, seed: u64, deeds: &mut Deeds) -> Result<(), String> {
    let mut random = Random::new(seed);
    let mut left: Vec<(Server, u64)> = servers.iter().map(|server| (*server, kills)).collect();
    left.retain(|(_, kills)| *kills > 0);
    while !left.is_empty() {
        tokio::time::sleep(Duration::from_millis(random.within(500, 4_000))).await;
        let choice = random.below(left.len() as u64) as usize;
        let started = Instant::now();
        restart_killed(left[choice].0.name()).await?;
        deeds.count += 1;
        deeds.restarts_ms.push(started.elapsed().as_millis() as u64);
        left[choice].1 -= 1;
        left.retain(|(_, kills)| *kills > 0);
    }
    Ok(())
}

/// `conformance/servers restart --kill NAME`: kill -9 and start again on the same data.
async fn restart_killed(name: &'static str) -> Result<(), String> {
    let script: PathBuf = project_root().join("conformance/servers");
    let output = tokio::task::spawn_blocking(move || Command::new(script).args(["restart", "--kill", name]).output())
        .await
        .map_err(|error| format!("restarting {name}: {error}"))?
        .map_err(|error| format!("conformance/servers: {error}"))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(format!("restarting {name}: {}", String::from_utf8_lossy(&output.stderr).trim()))
    }
}
