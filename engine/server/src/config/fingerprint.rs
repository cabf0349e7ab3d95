//! Tells which entries a reload changed: by their text, their secrets, and the certificate files that they name.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::Config;
use super::database::DatabaseEntry;
use super::exporter::ExporterEntry;
use super::secret::Secret;
use super::shared::NatsSignInKeys;
use super::source::SourceEntry;

/// Says whether something is as it was; tells nothing about it.
type Fingerprint = [u8; 32];

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprints {
    pub sources: BTreeMap<String, Fingerprint>,
    pub databases: BTreeMap<String, Fingerprint>,
    pub exporters: BTreeMap<String, Fingerprint>,
    /// Everything of gravity.toml, tokens included.
    pub settings: Fingerprint,
}

impl Fingerprints {
    pub fn of(config: &Config) -> Fingerprints {
        let sources = config.sources.iter().map(|(name, entry)| {
            let secrets = match entry {
                SourceEntry::Kafka(keys) => vec![keys.password.as_ref()],
                SourceEntry::Nats(keys) => sign_in(&keys.sign_in),
                SourceEntry::RabbitMq(keys) => vec![keys.password.as_ref()],
                SourceEntry::Http(_) => Vec::new(),
            };
            (name.clone(), entry_of(config, entry, &secrets))
        });
        let databases = config.databases.iter().map(|(name, entry)| {
            let secret = match entry {
                DatabaseEntry::Postgres(keys) => keys.password.as_ref(),
                DatabaseEntry::MySql(keys) => keys.password.as_ref(),
                DatabaseEntry::MongoDb(keys) => keys.uri.as_ref().or(keys.password.as_ref()),
                DatabaseEntry::Sqlite(_) => None,
            };
            (name.clone(), entry_of(config, entry, &[secret]))
        });
        let exporters = config.exporters.iter().map(|(name, entry)| {
            let secrets = match entry {
                ExporterEntry::Kafka(keys) => vec![keys.password.as_ref()],
                ExporterEntry::Nats(keys) => sign_in(&keys.sign_in),
                ExporterEntry::JetStream(keys) => sign_in(&keys.sign_in),
                ExporterEntry::RabbitMq(keys) => vec![keys.password.as_ref()],
                ExporterEntry::RestfulApi(keys) => keys.signing.iter().map(Some).collect(),
            };
            (name.clone(), entry_of(config, entry, &secrets))
        });
        let mut settings = blake3::Hasher::new();
        take(&mut settings, format!("{:?}", config.settings.show()).as_bytes());
        config.settings.tokens().iter().for_each(|token| take(&mut settings, token.token.expose().as_bytes()));
        Fingerprints {
            sources: sources.collect(),
            databases: databases.collect(),
            exporters: exporters.collect(),
            settings: *settings.finalize().as_bytes(),
        }
    }
}

fn sign_in(keys: &NatsSignInKeys) -> Vec<Option<&Secret>> {
    keys.secrets().map(|(_, secret)| Some(secret)).collect()
}

fn entry_of(config: &Config, entry: &impl Serialize, secrets: &[Option<&Secret>]) -> Fingerprint {
    let mut hasher = blake3::Hasher::new();
    // Secrets are redacted here: they follow by themselves.
    let text = serde_json::to_value(entry).unwrap_or_default();
    take(&mut hasher, text.to_string().as_bytes());
    secrets.iter().for_each(|secret| take(&mut hasher, secret.map_or("", Secret::expose).as_bytes()));
    let files = text.as_object().into_iter().flatten().filter(|(key, _)| key.ends_with("File"));
    for written in files.filter_map(|(_, value)| Value::as_str(value)) {
        // A file that cannot be read is found out by whoever connects with it.
        take(&mut hasher, &std::fs::read(config.path(written)).unwrap_or_default());
    }
    *hasher.finalize().as_bytes()
}

fn take(hasher: &mut blake3::Hasher, bytes: &[u8]) {
    hasher.update(&(bytes.len() as u64).to_le_bytes());
    hasher.update(bytes);
}
