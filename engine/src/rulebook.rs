//! Which rules are in force at which sequence (SEMANTICS 6.1), as the log tells it.

use std::sync::Arc;

use gravity_log::{Batch, Block, EventLog, LogError, ReadLimits};
use gravity_model::{EventKind, Sequence};
use gravity_rules::RuleSet;
use gravity_rules::diagnose::SourceFile;
use parking_lot::RwLock;

use crate::control::{self, ConfigChanged};
use crate::parts::RulesInForce;

/// One version of the rules.
#[derive(Debug)]
pub struct RulesVersion {
    pub version: u64,
    /// Sequence of its `gravity.config_changed`: the rules hold for what comes after it.
    pub sequence: Sequence,
    pub set: Arc<RuleSet>,
}

impl RulesVersion {
    pub fn hash(&self) -> String {
        hex(&self.set.hash())
    }

    /// `NUMBER:HASH`, as views' histories name it: rules may come back, their number does not.
    pub fn label(&self) -> String {
        format!("{}:{}", self.version, self.hash())
    }
}

/// All versions that some route may still need, oldest first; never empty.
#[derive(Debug)]
pub struct RuleBook {
    versions: RwLock<Vec<Arc<RulesVersion>>>,
    /// (Earlier, present) names of database entries.
    renames: Vec<(String, String)>,
    /// One change at a time: numbers follow the order on the log.
    changing: tokio::sync::Mutex<()>,
}

/// Why the rules on the log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RuleBookError {
    #[error(transparent)]
    Unreadable(#[from] control::UnreadableControl),
    #[error(
        "version {version} of the rules, in force until a route has passed sequence {sequence}, is refused by this program: {finding}"
    )]
    Refused { version: u64, sequence: Sequence, finding: String },
    #[error("the rules on the log cannot be read or recorded: {0}")]
    Log(#[from] LogError),
    #[error("the task that read the log is gone")]
    Gone,
}

impl RuleBook {
    /// Reads the versions on the log, and records `rules` as a new one if they differ from the newest. Returns whether
    /// they did. `renames` are (earlier, present) names of database entries: older versions speak of the earlier ones.
    pub async fn open(
        log: &dyn EventLog,
        rules: &RulesInForce,
        renames: &[(String, String)],
    ) -> Result<(RuleBook, bool), RuleBookError> {
        let mut versions = Vec::new();
        for entry in log.state().iter().filter(|e| e.name == control::CONFIG_CHANGED) {
            let change: ConfigChanged = control::read(&entry.name, entry.sequence, &entry.payload)?;
            let set = if change.hash == hex(&rules.set.hash()) {
                rules.set.clone()
            } else {
                let mut set = load_again(&change, entry.sequence)?;
                renames.iter().for_each(|(was, name)| set.rename_database(was, name));
                Arc::new(set)
            };
            versions.push(Arc::new(RulesVersion { version: change.version, sequence: entry.sequence, set }));
        }
        versions.sort_by_key(|v| v.sequence);
        let book = RuleBook {
            versions: RwLock::new(versions),
            renames: renames.to_vec(),
            changing: tokio::sync::Mutex::default(),
        };
        let changed = book.newest().is_none_or(|newest| newest.set.hash() != rules.set.hash());
        if changed {
            book.change(log, rules).await?;
        }
        Ok((book, changed))
    }

    /// Makes sure that the rules in force at `sequence` are known: versions that all had passed are forgotten, and a database
    /// may go back behind them (fault V6). Then the whole log is read for them.
    pub async fn recall(&self, sequence: Sequence, log: &Arc<dyn EventLog>) -> Result<(), RuleBookError> {
        let knows =
            |versions: &[Arc<RulesVersion>]| versions.first().is_some_and(|v| v.sequence <= sequence || v.version == 1);
        if knows(&self.versions.read()) {
            return Ok(());
        }
        tracing::warn!(%sequence, "stands before rules that were settled; they are read from the log");
        let (log, renames) = (log.clone(), self.renames.clone());
        let read = tokio::task::spawn_blocking(move || read_versions(&*log, &renames)).await;
        let found = read.unwrap_or(Err(RuleBookError::Gone))?;
        let mut versions = self.versions.write();
        let first = versions.first().map_or(Sequence(u64::MAX), |v| v.sequence);
        versions.splice(0..0, found.into_iter().filter(|v| v.sequence < first));
        Ok(())
    }

    /// Records a new version; durable when this returns, whole or not at all.
    pub async fn change(&self, log: &dyn EventLog, rules: &RulesInForce) -> Result<Arc<RulesVersion>, RuleBookError> {
        let _alone = self.changing.lock().await;
        let version = self.newest().map_or(1, |newest| newest.version + 1);
        let change = ConfigChanged {
            version,
            hash: hex(&rules.set.hash()),
            actor: rules.actor.clone(),
            at: crate::clock::now(),
            files: rules.files.iter().map(|f| (f.name.clone(), f.text.clone())).collect(),
            context: rules.context.clone(),
        };
        let mut batch = Batch::new();
        control::put(&mut batch, control::CONFIG_CHANGED, &version_key(version), &change, Some(&rules.actor));
        let ticket = crate::append::durable(log, batch).await?;
        let version = Arc::new(RulesVersion { version, sequence: ticket.range.first, set: rules.set.clone() });
        // Known before it is durable: a route that comes to the record looks it up here at once.
        self.versions.write().push(version.clone());
        if let Err(error) = ticket.durable().await {
            self.versions.write().retain(|known| known.sequence != version.sequence);
            return Err(error.into());
        }
        Ok(version)
    }

    pub fn newest(&self) -> Option<Arc<RulesVersion>> {
        self.versions.read().last().cloned()
    }

    /// The version that holds for an event at `sequence`; the oldest known before all of them.
    pub fn in_force(&self, sequence: Sequence) -> Option<Arc<RulesVersion>> {
        let versions = self.versions.read();
        versions.iter().rev().find(|v| v.sequence < sequence).or_else(|| versions.first()).cloned()
    }

    /// The version recorded at `sequence`.
    pub fn recorded_at(&self, sequence: Sequence) -> Option<Arc<RulesVersion>> {
        self.versions.read().iter().find(|v| v.sequence == sequence).cloned()
    }

    pub fn labelled(&self, label: &str) -> Option<Arc<RulesVersion>> {
        self.versions.read().iter().find(|v| v.label() == label).cloned()
    }

    /// The change that brought a subscription (the last time, if it was away), as far back as the versions tell: all of
    /// those that it may still ask about are known, so an older cursor is one from before it was away.
    pub fn added_subscription(&self, subscription: &gravity_rules::Subscription) -> Sequence {
        let versions = self.versions.read();
        let has = |v: &&Arc<RulesVersion>| v.set.subscriptions().contains(subscription);
        versions.iter().rev().take_while(has).last().map_or(Sequence::ZERO, |v| v.sequence)
    }

    /// Where the oldest version gave way to the next: whoever is past it needs the oldest no more.
    pub fn first_change(&self) -> Option<Sequence> {
        self.versions.read().get(1).map(|version| version.sequence)
    }

    /// Versions that no route needs any more, now that all of them have passed `through`: their state may end.
    pub fn forget(&self, through: Sequence) -> Vec<String> {
        let mut versions = self.versions.write();
        let needed_from = versions.iter().rposition(|v| v.sequence <= through).unwrap_or(0);
        versions.drain(..needed_from).map(|v| version_key(v.version)).collect()
    }
}

/// Every version on the log that this program takes, oldest first. Reads everything.
fn read_versions(log: &dyn EventLog, renames: &[(String, String)]) -> Result<Vec<Arc<RulesVersion>>, RuleBookError> {
    let mut versions = Vec::new();
    let last = *log.durable().borrow();
    let mut after = Sequence(log.stat().first.get().saturating_sub(1));
    while after < last {
        let blocks = log.read(after, ReadLimits { events: 65_536, bytes: 16 << 20 })?;
        let Some(end) = blocks.last().map(Block::last) else { break };
        for recorded in blocks.iter().flat_map(Block::iter) {
            let event = &recorded.event;
            if let (EventKind::Control, control::CONFIG_CHANGED, Some(payload)) =
                (event.kind, event.name, event.payload)
            {
                let change: ConfigChanged = control::read(event.name, recorded.sequence, payload)?;
                let mut set = load_again(&change, recorded.sequence)?;
                renames.iter().for_each(|(was, name)| set.rename_database(was, name));
                let (version, sequence) = (change.version, recorded.sequence);
                versions.push(Arc::new(RulesVersion { version, sequence, set: Arc::new(set) }));
            }
        }
        after = end;
    }
    Ok(versions)
}

fn version_key(version: u64) -> String {
    format!("{version:020}")
}

fn load_again(change: &ConfigChanged, sequence: Sequence) -> Result<RuleSet, RuleBookError> {
    let files: Vec<SourceFile> =
        change.files.iter().map(|(name, text)| SourceFile::new(name.clone(), text.clone())).collect();
    gravity_rules::load(&files, &change.context).map_err(|findings| RuleBookError::Refused {
        version: change.version,
        sequence,
        finding: findings.iter().next().map_or_else(|| "no reason given".to_owned(), |f| f.message.clone()),
    })
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
