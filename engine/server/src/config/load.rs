//! From a config directory to a config: reads the files, replaces references, checks everything, reports all at once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use gravity_rules::diagnose::{Document, Finding, Findings, Place, SourceFile, closest};
use schemars::JsonSchema;
use serde_json::Value;

use super::database::{DatabaseEntry, DatabasesFile};
use super::exporter::{ExporterEntry, ExporterFile};
use super::reference::{self, ReferenceError, Replaced};
use super::secret::Secret;
use super::settings::{self, Flags, Settings};
use super::shared::NatsSignInKeys;
use super::source::{SourceEntry, SourcesFile};
use super::{codes, hide, validate};

pub const SOURCES: &str = "sources.json";
pub const DATABASES: &str = "databases.json";
pub const RULES: &str = "rules.json";
pub const EXPORTER: &str = "exporter.json";

/// Files of the original Gravity's generations, with where their contents belong now.
const FILES_OF_THE_ORIGINAL: &[(&str, &str)] = &[
    ("database.json", "rename it to `databases.json`"),
    ("exporters.json", "rename it to `exporter.json`"),
    ("store.json", "write a rule with `event` and `database` in rules.json"),
    ("subscriptions.json", "write rules with `event`, `database` and `exporter` in rules.json"),
    ("trigger.json", "write `exporter` on the rule that names the database"),
    ("transmitter.json", "write the database into databases.json"),
    ("collection.json", "write the types into the mapping of rules.json"),
];

/// The config of one directory, checked.
#[derive(Debug)]
pub struct Config {
    pub directory: PathBuf,
    pub settings: Settings,
    pub sources: Vec<(String, SourceEntry)>,
    pub databases: Vec<(String, DatabaseEntry)>,
    pub exporters: Vec<(String, ExporterEntry)>,
    /// `rules.json`, then `rules/*.json` by name.
    pub rules: Vec<SourceFile>,
    /// Everything that was found, warnings included; no error when [`Config::is_sound`].
    pub findings: Findings,
}

impl Config {
    /// True when nothing forbids a start.
    pub fn is_sound(&self) -> bool {
        !self.findings.has_errors()
    }

    /// Reads and checks everything but the rules themselves, which [`Config::rules`] hands on. Never fails: what cannot be
    /// read is a finding.
    pub fn load(directory: &Path, flags: &Flags) -> Config {
        let environment: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| name.starts_with("GRAVITY_"))
            .collect();
        let mut reader = Reader { directory, findings: Findings::new() };
        let toml = reader.optional(settings::FILE);
        let settings = Settings::read(directory, toml.as_ref(), &environment, flags, &mut reader.findings);
        validate::settings(&settings, &mut reader.findings);
        reader.look_for_strays();

        let sources = match reader.optional(SOURCES) {
            Some(file) => reader.entries::<SourcesFile, _>(&file, "sources", SourceEntry::read, validate::source),
            None => vec![("http".to_owned(), SourceEntry::default_http())],
        };
        let databases = match reader.required(DATABASES) {
            Some(file) => {
                reader.entries::<DatabasesFile, _>(&file, "databases", DatabaseEntry::read, validate::database)
            }
            None => Vec::new(),
        };
        let exporters = match reader.optional(EXPORTER) {
            Some(file) => reader.entries::<ExporterFile, _>(&file, "exporter", ExporterEntry::read, validate::exporter),
            None => Vec::new(),
        };
        let rules = reader.rules();
        let mut findings = reader.findings;
        let mut all: Vec<Finding> = std::mem::take(&mut findings).into_vec();
        all.iter_mut().for_each(hide::hide);
        findings.extend(all);
        Config { directory: directory.to_owned(), settings, sources, databases, exporters, rules, findings }
    }

    /// Changes whenever a secret does; tells nothing about it.
    pub fn secrets_digest(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        let mut take = |secret: Option<&Secret>| {
            let text = secret.map_or("", Secret::expose);
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        };
        for (_, entry) in &self.sources {
            match entry {
                SourceEntry::Kafka(keys) => take(keys.password.as_ref()),
                SourceEntry::Nats(keys) => take_all(&mut take, &keys.sign_in),
                SourceEntry::RabbitMq(keys) => take(keys.password.as_ref()),
                SourceEntry::Http(_) => {}
            }
        }
        for (_, entry) in &self.databases {
            take(match entry {
                DatabaseEntry::Postgres(keys) => keys.password.as_ref(),
                DatabaseEntry::MySql(keys) => keys.password.as_ref(),
                DatabaseEntry::MongoDb(keys) => keys.uri.as_ref().or(keys.password.as_ref()),
                DatabaseEntry::Sqlite(_) => None,
            });
        }
        for (_, entry) in &self.exporters {
            match entry {
                ExporterEntry::Kafka(keys) => take(keys.password.as_ref()),
                ExporterEntry::Nats(keys) => take_all(&mut take, &keys.sign_in),
                ExporterEntry::JetStream(keys) => take_all(&mut take, &keys.sign_in),
                ExporterEntry::RabbitMq(keys) => take(keys.password.as_ref()),
                ExporterEntry::RestfulApi(_) => {}
            }
        }
        self.settings.tokens().iter().for_each(|token| take(Some(&token.token)));
        hasher.finalize().to_hex().to_string()
    }

    /// A path of a config file, which is relative to the config directory.
    pub fn path(&self, written: &str) -> PathBuf {
        self.directory.join(written)
    }
}

fn take_all(take: &mut dyn FnMut(Option<&Secret>), keys: &NatsSignInKeys) {
    [&keys.password, &keys.token, &keys.creds, &keys.nkey].into_iter().for_each(|secret| take(secret.as_ref()));
}

/// One entry under check: where it stands, and the list that findings go to.
pub struct Checking<'c> {
    /// The config directory.
    pub directory: &'c Path,
    /// Name of the entry.
    pub name: &'c str,
    /// What the entries before this one connect to, by a text that two entries may not share.
    pub places: &'c mut BTreeMap<String, String>,
    document: &'c Document,
    pointer: &'c str,
    replaced: &'c Replaced,
    findings: &'c mut Findings,
}

impl Checking<'_> {
    fn pointer(&self, key: &str) -> String {
        if key.is_empty() { self.pointer.to_owned() } else { format!("{}/{key}", self.pointer) }
    }

    /// Where the value of a key stands (`hosts/0` for an element, empty for the whole entry).
    pub fn place(&self, key: &str) -> Place {
        self.document.positions().value(&self.pointer(key))
    }

    /// Where the key itself stands; empty for the entry's name.
    pub fn key_place(&self, key: &str) -> Place {
        self.document.positions().key(&self.pointer(key))
    }

    pub fn has(&self, key: &str) -> bool {
        self.document.positions().contains(&self.pointer(key))
    }

    /// True when the value's text stands in the file itself and not behind a reference.
    pub fn is_literal(&self, key: &str) -> bool {
        self.has(key) && !self.replaced.references.contains(&format!("/{key}"))
    }

    /// True when the value is `""`.
    pub fn is_empty_text(&self, key: &str) -> bool {
        self.place(key).text() == "\"\""
    }

    /// An error about a value, which is shown.
    pub fn refuse(&mut self, code: &'static str, key: &str, message: impl Into<String>, suggestion: Option<&str>) {
        let place = self.place(key);
        self.findings.push(Finding::at(code, &place, message).found(place.text()).suggest(suggestion));
    }

    /// An error about a key or the entry as a whole.
    pub fn refuse_key(&mut self, code: &'static str, key: &str, message: impl Into<String>, suggestion: Option<&str>) {
        let place = self.key_place(key);
        self.findings.push(Finding::at(code, &place, message).suggest(suggestion));
    }

    /// Something that is said at every start.
    pub fn warn(&mut self, code: &'static str, key: &str, message: impl Into<String>, suggestion: Option<&str>) {
        let place = self.key_place(key);
        self.findings.push(Finding::at(code, &place, message).warning().suggest(suggestion));
    }
}

struct Reader<'r> {
    directory: &'r Path,
    findings: Findings,
}

impl Reader<'_> {
    fn optional(&mut self, name: &str) -> Option<SourceFile> {
        match std::fs::read_to_string(self.directory.join(name)) {
            Ok(text) => Some(SourceFile::new(name, text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => {
                self.findings.push(Finding::of_file(codes::FILE_UNREADABLE, name, format!("cannot read it: {error}")));
                None
            }
        }
    }

    fn required(&mut self, name: &str) -> Option<SourceFile> {
        let before = self.findings.len();
        let file = self.optional(name);
        if file.is_none() && self.findings.len() == before {
            let message = format!("there is no `{name}` in {}", self.directory.display());
            let hint = "write it, name another directory with `-c`, or begin with `gravity init DIR`";
            self.findings.push(Finding::of_file(codes::FILE_MISSING, name, message).suggest(Some(hint)));
        }
        file
    }

    /// Files that nobody reads although their names say that somebody should.
    fn look_for_strays(&mut self) {
        const KNOWN: [&str; 4] = [SOURCES, DATABASES, RULES, EXPORTER];
        let mut names: Vec<String> = std::fs::read_dir(self.directory)
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| !KNOWN.contains(&name.as_str()) && (name.ends_with(".json") || name.ends_with(".toml")))
            .filter(|name| name != settings::FILE)
            .collect();
        names.sort();
        for name in names {
            let original = FILES_OF_THE_ORIGINAL
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, instead)| (*instead).to_owned());
            let meant = || closest(&name, KNOWN.into_iter().chain([settings::FILE]));
            let Some(instead) = original.or_else(|| Some(format!("rename it to `{}`", meant()?))) else { continue };
            let message = format!("`{name}` is not read");
            self.findings.push(Finding::of_file(codes::UNKNOWN_FILE, name.as_str(), message).suggest(Some(instead)));
        }
    }

    fn rules(&mut self) -> Vec<SourceFile> {
        let mut files: Vec<SourceFile> = self.optional(RULES).into_iter().collect();
        let mut more: Vec<String> = std::fs::read_dir(self.directory.join("rules"))
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.ends_with(".json"))
            .collect();
        more.sort();
        for name in more {
            files.extend(self.optional(&format!("rules/{name}")));
        }
        if files.is_empty() && !self.findings.iter().any(|f| f.file.starts_with("rules")) {
            let message = format!("there is neither `{RULES}` nor `rules/*.json` in {}", self.directory.display());
            self.findings.push(Finding::of_file(codes::FILE_MISSING, RULES, message));
        }
        files
    }

    /// Reads the entries below `root`, each by itself, so that one that is wrong hides no other.
    fn entries<F: JsonSchema, E>(
        &mut self,
        file: &SourceFile,
        root: &str,
        read: fn(Value) -> Result<E, serde_json::Error>,
        check: fn(&E, &mut Checking<'_>),
    ) -> Vec<(String, E)> {
        let Some(document) = Document::read::<F>(file, &mut self.findings) else { return Vec::new() };
        let mut entries = Vec::new();
        let mut places = BTreeMap::new();
        for pointer in document.children(&format!("/{root}")).to_vec() {
            let name = pointer[root.len() + 2..].replace("~1", "/").replace("~0", "~");
            let Some(mut value) = document.part::<Value>(&pointer, &mut self.findings) else { continue };
            let mut replaced = Replaced::default();
            reference::expand_all(&mut value, &mut replaced);
            self.report_references(&document, &pointer, &replaced);
            if !replaced.errors.is_empty() {
                continue;
            }
            match read(value.clone()) {
                Ok(entry) => {
                    let mut checking = Checking {
                        directory: self.directory,
                        name: &name,
                        places: &mut places,
                        document: &document,
                        pointer: &pointer,
                        replaced: &replaced,
                        findings: &mut self.findings,
                    };
                    validate::name(root, &mut checking);
                    check(&entry, &mut checking);
                    entries.push((name, entry));
                }
                Err(error) => {
                    // A condition that the schema does not express.
                    let place = match at_fault(&value, read) {
                        Some(key) => document.positions().value(&format!("{pointer}/{key}")),
                        None => document.positions().key(&pointer),
                    };
                    let message = format!("`{name}`: {error}");
                    self.findings.push(Finding::at(gravity_rules::codes::BAD_VALUE, &place, message));
                }
            }
        }
        entries
    }

    fn report_references(&mut self, document: &Document, pointer: &str, replaced: &Replaced) {
        for (below, error) in &replaced.errors {
            let place = document.positions().value(&format!("{pointer}{below}"));
            let finding = match error {
                ReferenceError::Malformed(found) => {
                    let hint = "`$${` stands for a literal `${`";
                    Finding::at(codes::BAD_REFERENCE, &place, error.to_string())
                        .found(found.as_str())
                        .allowed(["${env:NAME}", "${file:/absolute/path}"])
                        .suggest(Some(hint))
                }
                _ => Finding::at(codes::UNRESOLVED_REFERENCE, &place, error.to_string()),
            };
            self.findings.push(finding);
        }
        for (below, path) in &replaced.open_files {
            let place = document.positions().value(&format!("{pointer}{below}"));
            let message = format!("`{path}` may be read by everybody on this machine");
            let finding = Finding::at(codes::OPEN_SECRET_FILE, &place, message).warning();
            self.findings.push(finding.suggest(Some("chmod 600 it, or 640 with a group of its own")));
        }
    }
}

/// The error of a value does not say where it stands: it is the key without which the entry can be read.
fn at_fault<E>(entry: &Value, read: fn(Value) -> Result<E, serde_json::Error>) -> Option<&str> {
    let members = entry.as_object()?;
    let without = |key: &str| {
        Value::Object(members.iter().filter(|(k, _)| *k != key).map(|(k, v)| (k.clone(), v.clone())).collect())
    };
    members.keys().map(String::as_str).find(|key| read(without(key)).is_ok())
}
