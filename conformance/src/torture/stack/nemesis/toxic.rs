//! A proxy before every peer of the engine, and before the engine's own intake: one at a time does something to its bytes.

use std::time::{Duration, Instant};

use super::Deeds;
use crate::torture::random::Random;
use crate::torture::stack::arms::Server;
use crate::torture::stack::config::Layout;
use crate::torture::toxic::{Proxy, Toxic, Way};

/// After an episode bytes flow again within this: a client's own limit for an answer that never comes is 75 s.
const HEAL_PATIENCE: Duration = Duration::from_secs(120);
/// A toxic that meets nobody for this long is tried at another time.
const BITE_PATIENCE: Duration = Duration::from_secs(5);

/// All proxies of a run, named.
pub struct Network {
    proxies: Vec<(&'static str, Proxy)>,
}

impl Network {
    /// Puts itself between the engine and everything, and writes the engine's config anew.
    pub async fn between(layout: &mut Layout) -> Result<Network, String> {
        let mut proxies = Vec::new();
        for server in layout.arms.servers() {
            let place = layout.peers.place(server)?;
            let upstream = place.authority();
            let proxy = match server {
                Server::Kafka => Proxy::start_kafka(&upstream).await?,
                _ => Proxy::start(&upstream).await?,
            };
            let address = layout.peers.at(server)?.replace(&upstream, &proxy.address.to_string());
            layout.engine_peers = layout.engine_peers.clone().with(server, address);
            proxies.push((server.name(), proxy));
        }
        let hook = layout.hook.clone();
        let upstream = hook.trim_start_matches("http://").split('/').next().unwrap_or_default();
        let proxy = Proxy::start(upstream).await?;
        layout.hook = hook.replace(upstream, &proxy.address.to_string());
        proxies.push(("endpoint", proxy));
        let proxy = Proxy::start(&layout.listen).await?;
        layout.intake = proxy.address.to_string();
        proxies.push(("intake", proxy));
        layout.statement_timeout = Some(STATEMENT_TIMEOUT);
        layout.write_config()?;
        Ok(Network { proxies })
    }
}

const KINDS: u64 = 8;
/// Of the databases: what [`SLOWER`] outlasts, with the second that an answer may take longer.
const STATEMENT_TIMEOUT: &str = "3s";
/// So that every answer comes after it was given up: a BEGIN that the server has executed and nobody waits for any more must not
/// hold a later write.
const SLOWER: Duration = Duration::from_millis(4_500);

/// The kind's toxic, and how long it stays.
fn toxic(kind: u64, random: &mut Random) -> (Toxic, Duration) {
    let way = if random.one_in(2) { Way::ToServer } else { Way::ToClient };
    let lasting = Duration::from_millis(random.within(300, 2_000));
    match kind {
        0 => (Toxic::Cut { after: random.below(400), way: Way::ToServer }, lasting),
        1 => (Toxic::Cut { after: random.below(400), way: Way::ToClient }, lasting),
        2 => (Toxic::Cut { after: random.below(60_000), way }, lasting),
        3 => (Toxic::Delay { time: Duration::from_millis(random.within(100, 400)), way }, lasting),
        4 => (Toxic::Blackhole, lasting),
        5 => (Toxic::HalfOpen, Duration::from_millis(200)),
        6 => (Toxic::Delay { time: SLOWER, way: Way::ToClient }, SLOWER + lasting),
        _ => (Toxic::Reset, lasting / 2),
    }
}

/// Every peer meets every kind before one comes again. Only what changed the course of a connection counts.
pub async fn poison(network: &Network, episodes: u64, seed: u64, deeds: &mut Deeds) -> Result<(), String> {
    let mut random = Random::new(seed);
    let (peers, offset) = (network.proxies.len() as u64, random.below(KINDS));
    let mut round = 0;
    while deeds.count < episodes {
        let (peer, kind) = (round % peers, (round + round / peers + offset) % KINDS);
        round += 1;
        if round > 3 * episodes + peers {
            return Err(format!("only {} of {round} toxics met a connection", deeds.count));
        }
        let (name, proxy) = &network.proxies[peer as usize];
        let (toxic, lasting) = toxic(kind, &mut random);
        let before = proxy.bites();
        proxy.set(toxic);
        let started = Instant::now();
        while proxy.bites() == before && started.elapsed() < BITE_PATIENCE {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        if !matches!(toxic, Toxic::Cut { .. }) {
            tokio::time::sleep(lasting).await;
        }
        proxy.set(Toxic::Pass);
        if proxy.bites() > before {
            deeds.count += 1;
        }
        let healed = Instant::now();
        let passed = proxy.passed();
        // Some bytes of an old connection may still be on their way: what counts is a conversation.
        while proxy.passed() < passed + 200 {
            if healed.elapsed() > HEAL_PATIENCE {
                return Err(format!("{name}: nothing goes through {} s after {toxic:?}", HEAL_PATIENCE.as_secs()));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        deeds.restarts_ms.push(healed.elapsed().as_millis() as u64);
        tokio::time::sleep(Duration::from_millis(random.within(50, 500))).await;
    }
    Ok(())
}
