//! What a stack run stands on: its own database, topics, endpoint and directory, made before and removed after.

use tempfile::TempDir;

use super::config::{Layout, Peers};
use super::engine;
use super::tables;
use super::target::{self, Hook};
use crate::torture::workspace;

pub struct Ground {
    pub layout: Layout,
    pub hook: Hook,
    directory: TempDir,
}

impl Ground {
    pub async fn prepare(gate: &str, seed: u64, peers: Peers) -> Result<Ground, String> {
        let directory = workspace::directory(gate)?;
        let hook = Hook::start(seed).await?;
        let unique = format!("torture_{}_{}_{seed}", gate.replace('-', "_"), std::process::id());
        let layout = Layout {
            peers,
            database: unique.clone(),
            topic_in: format!("{unique}_in"),
            topic_out: format!("{unique}_out"),
            hook: hook.url.clone(),
            directory: directory.path().to_owned(),
            listen: format!("127.0.0.1:{}", engine::free_port(21_000)?),
        };
        layout.write_config()?;
        tables::create_database(&layout.peers.postgres, &layout.database).await?;
        target::create_topics(&layout.peers.kafka, &[&layout.topic_in, &layout.topic_out]).await?;
        Ok(Ground { layout, hook, directory })
    }

    /// Copies everything aside for a post-mortem; says where.
    pub fn keep(&self, name: &str) -> String {
        workspace::keep(self.directory.path(), name)
    }

    pub async fn clear(self) -> Result<(), String> {
        target::delete_topics(&self.layout.peers.kafka, &[&self.layout.topic_in, &self.layout.topic_out]).await;
        tables::drop_database(&self.layout.peers.postgres, &self.layout.database).await
    }
}
