//! What a stack run stands on: its own databases, topics, streams, queues, endpoint and directory, made before and removed after.

use tempfile::TempDir;

use super::arms::{Arms, Lane, Outlet, Peers, Server, Store};
use super::config::Layout;
use super::target::hook::Hook;
use super::target::{queue, stream, topic};
use super::{documents, engine, tables};
use crate::torture::workspace;

pub struct Ground {
    pub layout: Layout,
    pub hook: Hook,
    directory: TempDir,
}

impl Ground {
    pub async fn prepare(gate: &str, seed: u64, arms: Arms, peers: Peers) -> Result<Ground, String> {
        let directory = workspace::directory(&gate.replace(' ', "-"))?;
        let hook = Hook::start(seed).await?;
        let unique = format!("torture_{}_{}_{seed}", gate.replace(['-', ' '], "_"), std::process::id());
        let listen = format!("127.0.0.1:{}", engine::free_port(21_000)?);
        let layout = Layout {
            arms,
            engine_peers: peers.clone(),
            peers,
            database: unique.clone(),
            inbound: format!("{unique}_in"),
            outbound: format!("{unique}_out"),
            hook: hook.url.clone(),
            directory: directory.path().to_owned(),
            statement_timeout: None,
            intake: listen.clone(),
            listen,
        };
        layout.write_config()?;
        for store in arms.stores {
            match store {
                Store::Postgres => {
                    tables::create_postgres(layout.peers.at(Server::Postgres)?, &layout.database).await?
                }
                Store::MariaDb => tables::create_mariadb(layout.peers.at(Server::MariaDb)?, &layout.database).await?,
                Store::Sqlite => {}
                Store::MongoDb => documents::remove(layout.peers.at(Server::MongoDb)?, &layout.database).await?,
            }
        }
        let channels = channels(&layout);
        topic::create(&layout.peers, &channels.topics).await?;
        stream::create(&layout.peers, &channels.streams).await?;
        queue::create(&layout.peers, &channels.queues).await?;
        Ok(Ground { layout, hook, directory })
    }

    /// Copies everything aside for a post-mortem; says where.
    pub fn keep(&self, name: &str) -> String {
        workspace::keep(self.directory.path(), name)
    }

    pub async fn clear(self) -> Result<(), String> {
        let layout = &self.layout;
        let channels = channels(layout);
        topic::delete(&layout.peers, &channels.topics).await;
        stream::delete(&layout.peers, &channels.streams).await;
        queue::delete(&layout.peers, &channels.queues).await;
        for store in layout.arms.stores {
            match store {
                Store::Postgres => tables::drop_postgres(layout.peers.at(Server::Postgres)?, &layout.database).await?,
                Store::MariaDb => tables::drop_mariadb(layout.peers.at(Server::MariaDb)?, &layout.database).await?,
                Store::Sqlite => {}
                Store::MongoDb => documents::remove(layout.peers.at(Server::MongoDb)?, &layout.database).await?,
            }
        }
        Ok(())
    }
}

/// Names on the brokers, in and out.
#[derive(Default)]
struct Channels<'a> {
    topics: Vec<&'a str>,
    streams: Vec<&'a str>,
    queues: Vec<&'a str>,
}

fn channels(layout: &Layout) -> Channels<'_> {
    let mut channels = Channels::default();
    for lane in layout.arms.lanes {
        match lane {
            Lane::Kafka => channels.topics.push(&layout.inbound),
            Lane::Http => {}
            Lane::Nats => channels.streams.push(&layout.inbound),
            Lane::RabbitMq => channels.queues.push(&layout.inbound),
        }
    }
    for (outlet, _) in layout.arms.outlets {
        match outlet {
            Outlet::Topic => channels.topics.push(&layout.outbound),
            Outlet::Hook => {}
            Outlet::Stream => channels.streams.push(&layout.outbound),
            Outlet::Queue => channels.queues.push(&layout.outbound),
        }
    }
    channels
}
