//! SIGHUP: reads the config again; takes it whole, or refuses it whole and says why.

use std::path::PathBuf;

use gravity_engine::Engine;
use gravity_rules::diagnose::Severity;

use crate::assembly;
use crate::config::{Config, Flags};

/// What a reload is compared with.
pub struct Reloading {
    directory: PathBuf,
    flags: Flags,
    databases: Vec<String>,
    exporters: Vec<String>,
    /// What only a new start takes in, as text: sources, addresses, settings.
    fixed: String,
}

impl Reloading {
    pub fn new(directory: PathBuf, flags: Flags, config: &Config) -> Reloading {
        Reloading {
            directory,
            flags,
            databases: config.databases.iter().map(|(name, _)| name.clone()).collect(),
            exporters: config.exporters.iter().map(|(name, _)| name.clone()).collect(),
            fixed: fixed(config),
        }
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
        if fixed(&config) != self.fixed {
            tracing::warn!("changes of sources, addresses, credentials and settings take effect at the next start");
        }
        let in_force = assembly::rules_in_force(&config, rules, "SIGHUP");
        // What runs already keeps its connections; only what is new is handed over.
        let parts = assembly::new_parts(&config, &self.databases, &self.exporters);
        let (databases, exporters) = match parts {
            Ok(parts) => parts,
            Err(fault) => {
                tracing::error!(%fault, "the config is refused as a whole; the engine goes on with what it had");
                return;
            }
        };
        match engine.reload(in_force, databases, exporters).await {
            Ok(report) => {
                self.databases = config.databases.iter().map(|(name, _)| name.clone()).collect();
                self.exporters = config.exporters.iter().map(|(name, _)| name.clone()).collect();
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

fn fixed(config: &Config) -> String {
    let entries = serde_json::to_string(&(&config.sources, &config.databases, &config.exporters)).unwrap_or_default();
    // Secrets are redacted in both texts: a new password alone shows in its digest.
    format!("{entries} {:?} {}", config.settings.show(), config.secrets_digest())
}
