//! Restarts as an impatient supervisor makes them: the next engine is there before the last one has gone. One of them holds the data
//! directory; the other is refused and comes again.

use std::time::{Duration, Instant};

use super::{Deeds, READY_PATIENCE};
use crate::torture::random::Random;
use crate::torture::stack::engine::Engine;

/// A drain is bounded to 20 s, and there may be two: of the last engine, and of one that came too early and got in.
const GONE_PATIENCE: Duration = Duration::from_secs(60);

pub async fn restart(engine: &mut Engine, restarts: u64, seed: u64, deeds: &mut Deeds) -> Result<(), String> {
    let mut random = Random::new(seed);
    let mut refused = 0;
    while deeds.count < restarts {
        tokio::time::sleep(Duration::from_millis(random.within(20, 1_500))).await;
        // On another port, so that it is the data directory that refuses it.
        let mut early = engine.successor_at("127.0.0.1:0");
        let lead = Duration::from_millis(random.within(0, 300));
        if random.one_in(2) {
            early.start()?;
            tokio::time::sleep(lead).await;
            engine.terminate()?;
        } else {
            engine.terminate()?;
            tokio::time::sleep(lead).await;
            early.start()?;
        }
        let asked = Instant::now();
        while !engine.ended()? {
            if early.ended()? {
                refused += 1;
                early.start()?;
            }
            patient(asked)?;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // The early one is refused, or has the directory now and goes in turn.
        let mut next = engine.successor_at(engine.listen());
        let started = Instant::now();
        if !early.ended()? {
            early.terminate()?;
        }
        while !early.ended()? {
            patient(started)?;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        next.start()?;
        let ready = next.ready(READY_PATIENCE).await?;
        *engine = next;
        deeds.count += 1;
        deeds.restarts_ms.push(ready.as_millis() as u64);
    }
    if refused == 0 {
        return Err("no engine met another on the data directory: nothing was shown".to_owned());
    }
    Ok(())
}

fn patient(since: Instant) -> Result<(), String> {
    match since.elapsed() > GONE_PATIENCE {
        true => Err(format!("an engine still runs {} s after SIGTERM", GONE_PATIENCE.as_secs())),
        false => Ok(()),
    }
}
