//! SIGHUP: reads the config again; takes it whole, or refuses it whole and says why.

use std::path::PathBuf;

use gravity_engine::Engine;
use gravity_rules::diagnose::Severity;

use crate::assembly::{self, File};
use crate::config::{Config, Fingerprints, Flags};

/// What a reload is compared with.
pub struct Reloading {
    directory: PathBuf,
    flags: Flags,
    known: Fingerprints,
    kinds: Vec<(String, &'static str)>,
}

impl Reloading {
    pub fn new(directory: PathBuf, flags: Flags, config: &Config) -> Reloading {
        Reloading { directory, flags, known: Fingerprints::of(config), kinds: kinds(config) }
    }

    /// Never fails: what is wrong is said, and the engine goes on as it was.
    pub async fn reload(&mut self, engine: &Engine) {
        let config = Config::load(&self.directory, &self.flags);
        let rules = match assembly::rules(&config) {
            Ok(rules) if config.is_sound() && assembly::not_built(&config).is_empty() => rules,
            outcome => {
                let of_rules = outcome.err().map(|f| f.into_vec()).unwrap_or_default();
                let refused = assembly::not_built(&config);
                let all = config.findings.iter().chain(&of_rules).chain(&refused);
                for finding in all.filter(|finding| finding.severity == Severity::Error) {
                    let place = format!("{}:{}:{}", finding.file, finding.line, finding.column);
                    tracing::error!(code = finding.code, %place, "{}", finding.message);
                }
                tracing::error!("the config is refused as a whole; the engine goes on with what it had");
                return;
            }
        };
        for finding in config.findings.iter().chain(rules.warnings().iter()) {
            tracing::warn!(code = finding.code, file = finding.file, line = finding.line, "{}", finding.message);
        }
        let newer = kinds(&config);
        let other_kind = |(name, kind): &&(String, &str)| newer.iter().any(|(n, k)| n == name && k != kind);
        if let Some((name, kind)) = self.kinds.iter().find(other_kind) {
            tracing::error!(
                "{name} was {kind} and is something else now: give it another name, or start anew; the engine goes on"
            );
            return;
        }
        let found = Fingerprints::of(&config);
        if found.settings != self.known.settings {
            tracing::warn!("changes of gravity.toml take effect at the next start");
        }
        if self.known.sources.keys().any(|name| !found.sources.contains_key(name)) {
            tracing::warn!("a source that is not in sources.json any more is read until the next start");
        }
        let in_force = assembly::rules_in_force(&config, rules, "SIGHUP");
        // Addresses, credentials and tuning take effect at once (SEMANTICS 6.1); what did not change keeps its connections.
        let parts = assembly::parts_of(&config, engine.log().identity().log_id, |file, name| match file {
            File::Sources => found.sources.get(name) != self.known.sources.get(name),
            File::Databases => found.databases.get(name) != self.known.databases.get(name),
            File::Exporter => found.exporters.get(name) != self.known.exporters.get(name),
        });
        let changed = match parts {
            Ok(parts) => parts,
            Err(fault) => {
                tracing::error!(%fault, "the config is refused as a whole; the engine goes on with what it had");
                return;
            }
        };
        let sources = changed.sources.iter().map(|s| s.name.as_str());
        let databases = changed.databases.iter().map(|d| d.name.as_str());
        let exporters = changed.exporters.iter().map(|e| e.name.as_str());
        let renewed: Vec<&str> = sources.chain(databases).chain(exporters).collect();
        if !renewed.is_empty() {
            tracing::info!(entries = renewed.join(", "), "new connections");
        }
        match engine.reload(in_force, changed).await {
            Ok(report) => {
                (self.known, self.kinds) = (found, newer);
                if report.changed {
                    tracing::info!(from = report.from, rules = report.rules, "new rules are in force");
                } else {
                    tracing::info!(rules = report.rules, "the rules are those in force");
                }
            }
            Err(error) => {
                tracing::error!(%error, "the new rules were not taken in; the engine goes on with what it had")
            }
        }
    }
}

/// Every entry, named with its file's word, and its type.
fn kinds(config: &Config) -> Vec<(String, &'static str)> {
    let sources = config.sources.iter().map(|(name, entry)| (format!("source {name}"), entry.kind()));
    let databases = config.databases.iter().map(|(name, entry)| (format!("database {name}"), entry.kind()));
    let exporters = config.exporters.iter().map(|(name, entry)| (format!("exporter {name}"), entry.kind()));
    sources.chain(databases).chain(exporters).collect()
}
