//! gravity.toml with what flags and environment say over it: each value with where it came from.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gravity_rules::diagnose::{Finding, Findings, Place, Source, SourceFile, closest};
use serde::Serialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::codes;
use super::key::{KEYS, Key, Setting};
use super::reference;
use super::secret::Secret;
use super::token::{TlsFiles, TokenEntry};

/// Name of the file, as findings print it.
pub const FILE: &str = "gravity.toml";

/// Where a value came from, weakest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    Default,
    /// `gravity.toml:3`
    File {
        line: usize,
    },
    /// Name of the variable.
    Environment(String),
    /// Name of the flag.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File { line } => write!(f, "{FILE}:{line}"),
            Origin::Environment(name) => write!(f, "environment {name}"),
            Origin::Flag(name) => write!(f, "flag --{name}"),
        }
    }
}

impl Origin {
    /// An error about the value that came from here.
    pub fn finding(&self, code: &'static str, message: impl Into<String>) -> Finding {
        match self {
            Origin::File { line } => Finding { line: *line, column: 1, ..Finding::of_file(code, FILE, message) },
            _ => Finding::of_file(code, self.to_string(), message),
        }
    }
}

/// What the command line said, by path of the key (`log.directory`): (flag as typed, value).
pub type Flags = BTreeMap<String, (String, String)>;

/// One line of `config show`.
#[derive(Clone, Debug, Serialize)]
pub struct Shown {
    pub key: String,
    /// `null` where it is not set. Secrets are left out.
    pub value: Option<String>,
    pub origin: String,
}

/// Every key with its value in force.
#[derive(Clone, Debug)]
pub struct Settings {
    values: Vec<(&'static Key, Option<Setting>, Origin)>,
    directory: PathBuf,
}

impl Settings {
    /// Reads the file (absent: `None`), the environment and the flags. What is wrong is reported; the value below it then
    /// stands in, so that the rest can be checked too.
    pub fn read(
        directory: &Path,
        file: Option<&SourceFile>,
        environment: &BTreeMap<String, String>,
        flags: &Flags,
        findings: &mut Findings,
    ) -> Settings {
        let from_file = file.map_or_else(BTreeMap::new, |file| read_file(file, findings));
        check_variables(environment, findings);
        let mut values = Vec::with_capacity(KEYS.len());
        for key in KEYS {
            let (mut value, mut origin) = (key.default_value(), Origin::Default);
            if let Some((setting, line)) = from_file.get(&key.path()) {
                (value, origin) = (Some(setting.clone()), Origin::File { line: *line });
            }
            if let Some(text) = environment.get(&key.variable()) {
                match key.read_text(text) {
                    Ok(setting) => (value, origin) = (Some(setting), Origin::Environment(key.variable())),
                    Err(problem) => findings.push(outside(key, &key.variable(), text, &problem)),
                }
            }
            if let Some((flag, text)) = flags.get(&key.path()) {
                match key.read_text(text) {
                    Ok(setting) => (value, origin) = (Some(setting), Origin::Flag(flag.clone())),
                    Err(problem) => findings.push(outside(key, &format!("--{flag}"), text, &problem)),
                }
            }
            values.push((key, value, origin));
        }
        let mut settings = Settings { values, directory: directory.to_owned() };
        settings.expand_tokens(findings);
        settings
    }

    fn expand_tokens(&mut self, findings: &mut Findings) {
        for (key, value, origin) in &mut self.values {
            let Some(Setting::Tokens(tokens)) = value else { continue };
            for token in tokens {
                match reference::expand(token.token.expose()) {
                    Ok(Some(expanded)) => token.token = Secret::new(expanded.text),
                    Ok(None) => {
                        let message = format!("the token of `{}` stands in the config as it is", token.name);
                        let finding = origin.finding(codes::LITERAL_SECRET, message).warning();
                        findings.push(finding.suggest(Some("write `${env:NAME}` or `${file:/path}`")));
                    }
                    Err(error) => {
                        let message = format!("{}: token of `{}`: {error}", key.path(), token.name);
                        findings.push(origin.finding(codes::UNRESOLVED_REFERENCE, message));
                    }
                }
            }
        }
    }

    fn get(&self, section: &str, name: &str) -> Option<&Setting> {
        self.values.iter().find(|(key, ..)| key.section == section && key.name == name)?.1.as_ref()
    }

    fn size(&self, name: &str) -> u64 {
        match self.get("log", name) {
            Some(Setting::Size(size)) => size.0,
            _ => unreachable!("a size with a default"),
        }
    }

    fn span(&self, name: &str) -> Duration {
        match self.get("log", name) {
            Some(Setting::Span(span)) => span.0,
            _ => unreachable!("a duration with a default"),
        }
    }

    fn word(&self, section: &str, name: &str) -> &str {
        match self.get(section, name) {
            Some(Setting::Text(text)) => text,
            _ => unreachable!("a text with a default"),
        }
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        let path = Path::new(self.word("log", "directory"));
        // A flag or variable is relative to where it was typed, the file's value to the file.
        match self.origin("log", "directory") {
            Origin::Flag(_) | Origin::Environment(_) => path.to_owned(),
            Origin::Default | Origin::File { .. } => self.directory.join(path),
        }
    }

    pub fn log_options(&self, dedupe_bytes: Option<u64>) -> gravity_log::LogOptions {
        let mut options = gravity_log::LogOptions::new(self.data());
        options.block_bytes = self.size("block_size") as usize;
        options.linger = self.span("linger");
        options.queue_bytes = self.size("queue_size") as usize;
        options.generation_bytes = self.size("generation_size");
        options.generation_age = self.span("generation_age");
        options.dedupe_age = self.span("dedupe_age");
        if let Some(bytes) = dedupe_bytes {
            options.dedupe_bytes = bytes;
        }
        options
    }

    pub fn listen(&self) -> SocketAddr {
        match self.get("api", "listen") {
            Some(Setting::Address(address)) => *address,
            _ => unreachable!("an address with a default"),
        }
    }

    pub fn tokens(&self) -> &[TokenEntry] {
        match self.get("api", "tokens") {
            Some(Setting::Tokens(tokens)) => tokens,
            _ => &[],
        }
    }

    pub fn tls(&self) -> Option<TlsFiles> {
        match self.get("api", "tls") {
            Some(Setting::Tls(files)) => {
                let at = |path: &str| self.directory.join(path).display().to_string();
                Some(TlsFiles { cert_file: at(&files.cert_file), key_file: at(&files.key_file) })
            }
            _ => None,
        }
    }

    pub fn accept_plaintext(&self) -> bool {
        self.get("api", "accept_plaintext") == Some(&Setting::Switch(true))
    }

    pub fn level(&self) -> &str {
        self.word("logging", "level")
    }

    pub fn json_messages(&self) -> bool {
        self.word("logging", "format") == "json"
    }

    pub fn origin(&self, section: &str, name: &str) -> Origin {
        let found = self.values.iter().find(|(key, ..)| key.section == section && key.name == name);
        found.map_or(Origin::Default, |(.., origin)| origin.clone())
    }

    /// Keys that are set but belong to a part that this build lacks.
    pub fn not_built(&self) -> impl Iterator<Item = (&'static Key, &Origin)> {
        self.values
            .iter()
            .filter(|(key, value, _)| !key.built && value.is_some())
            .map(|(key, _, origin)| (*key, origin))
    }

    /// For `config show`.
    pub fn show(&self) -> Vec<Shown> {
        let line = |(key, value, origin): &(&'static Key, Option<Setting>, Origin)| Shown {
            key: key.path(),
            value: value.as_ref().map(Setting::to_string),
            origin: origin.to_string(),
        };
        self.values.iter().map(line).collect()
    }
}

/// A value of a flag or variable that cannot be read.
fn outside(key: &Key, where_from: &str, text: &str, problem: &str) -> Finding {
    let shown = if matches!(key.kind, super::key::Kind::Tokens) { super::secret::REDACTED } else { text };
    Finding::of_file(gravity_rules::codes::BAD_VALUE, where_from, format!("`{}`: {problem}", key.path())).found(shown)
}

/// Environment variables that begin like one of ours and are none. Variables that Kubernetes makes for a service of that
/// name are let through.
fn check_variables(environment: &BTreeMap<String, String>, findings: &mut Findings) {
    let known: Vec<String> = KEYS.iter().map(Key::variable).collect();
    for name in environment.keys() {
        let ours = Key::sections().iter().any(|s| name.starts_with(&format!("GRAVITY_{}_", s.to_ascii_uppercase())));
        let made_for_a_service = name.contains("_SERVICE_") || name.contains("_PORT_") || name.ends_with("_PORT");
        if !ours || made_for_a_service || known.contains(name) {
            continue;
        }
        let suggestion = closest(name, known.iter().map(String::as_str)).map(|word| format!("did you mean `{word}`?"));
        let message = format!("the environment variable `{name}` is no setting of Gravity");
        findings.push(
            Finding::of_file(codes::UNKNOWN_VARIABLE, "environment", message).found(name.as_str()).suggest(suggestion),
        );
    }
}

/// Values of the file by path, each with its line.
fn read_file(file: &SourceFile, findings: &mut Findings) -> BTreeMap<String, (Setting, usize)> {
    let mut out = BTreeMap::new();
    let source = Arc::new(Source::new(file));
    let place = |range: Range<usize>| Place::new(source.clone(), range.start..range.end.max(range.start + 1));
    let (spans, values) = match (DeTable::parse(source.text()), toml::from_str::<toml::Table>(source.text())) {
        (Ok(spans), Ok(values)) => (spans, values),
        (Err(error), _) | (_, Err(error)) => {
            let at = place(error.span().unwrap_or(0..1));
            findings.push(Finding::at(codes::TOML_SYNTAX, &at, error.message().to_owned()));
            return out;
        }
    };
    for (section, below) in spans.get_ref() {
        let name: &str = section.get_ref();
        let sections = Key::sections();
        if !sections.contains(&name) {
            findings.push(unknown(&place(section.span()), "section", name, sections));
            continue;
        }
        let DeValue::Table(members) = below.get_ref() else {
            let message = format!("`{name}` must be a section: write `[{name}]` and its keys below it");
            findings.push(Finding::at(gravity_rules::codes::WRONG_TYPE, &place(below.span()), message));
            continue;
        };
        read_section(name, members, &values, &place, findings, &mut out);
    }
    out
}

fn read_section(
    section: &str,
    members: &DeTable<'_>,
    values: &toml::Table,
    place: &dyn Fn(Range<usize>) -> Place,
    findings: &mut Findings,
    out: &mut BTreeMap<String, (Setting, usize)>,
) {
    for (name, below) in members {
        let Some(key) = Key::find(section, name.get_ref()) else {
            let allowed = KEYS.iter().filter(|key| key.section == section).map(|key| key.name).collect();
            findings.push(unknown(&place(name.span()), "key", name.get_ref(), allowed));
            continue;
        };
        let at: Place = place(Spanned::span(below));
        let value = values.get(section).and_then(|s| s.get(key.name)).expect("both parsers read the same text");
        match key.read(value) {
            Ok(setting) => {
                out.insert(key.path(), (setting, at.line()));
            }
            Err(problem) => {
                let mut finding =
                    Finding::at(gravity_rules::codes::BAD_VALUE, &at, format!("`{}`: {problem}", key.path()));
                match key.kind {
                    // What stands there may be a token: neither it nor its line is shown.
                    super::key::Kind::Tokens => finding.source_line = None,
                    super::key::Kind::Word(words) => finding = finding.found(at.text()).allowed(words.iter().copied()),
                    _ => finding = finding.found(at.text()),
                }
                findings.push(finding);
            }
        }
    }
}

fn unknown(place: &Place, what: &str, name: &str, allowed: Vec<&str>) -> Finding {
    let suggestion = closest(name, allowed.iter().copied()).map(|word| format!("did you mean `{word}`?"));
    Finding::at(gravity_rules::codes::UNKNOWN_KEY, place, format!("unknown {what} `{name}`"))
        .found(name)
        .allowed(allowed)
        .suggest(suggestion)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> (Settings, Findings) {
        let mut findings = Findings::new();
        let file = SourceFile::new(FILE, text);
        let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let flags = flags.iter().map(|(k, v)| ((*k).to_owned(), ((*k).to_owned(), (*v).to_owned()))).collect();
        let settings = Settings::read(Path::new("/etc/gravity"), Some(&file), &environment, &flags, &mut findings);
        (settings, findings)
    }

    #[test]
    fn flag_over_environment_over_file_over_default() {
        let file = "[log]\nqueue_size = \"1MiB\"\nlinger = \"3ms\"\n";
        let environment = [("GRAVITY_LOG_QUEUE_SIZE", "2MiB"), ("GRAVITY_LOG_BLOCK_SIZE", "64KiB")];
        let (settings, findings) = read(file, &environment, &[("log.queue_size", "4MiB")]);
        assert!(findings.is_empty(), "{findings}");
        let options = settings.log_options(None);
        assert_eq!(options.queue_bytes, 4 << 20);
        assert_eq!(options.block_bytes, 64 << 10);
        assert_eq!(options.linger, Duration::from_millis(3));
        assert_eq!(options.generation_bytes, 256 << 20);
        assert_eq!(settings.origin("log", "queue_size"), Origin::Flag("log.queue_size".to_owned()));
        assert_eq!(settings.origin("log", "linger"), Origin::File { line: 3 });
        assert_eq!(settings.origin("log", "generation_size"), Origin::Default);
    }

    #[test]
    fn misspelt_sections_keys_and_variables_are_refused_with_a_suggestion() {
        let (_, findings) = read("[logs]\na = 1\n[api]\nlisen = \"127.0.0.1:1\"\n", &[("GRAVITY_API_LISEN", "x")], &[]);
        let all: Vec<(usize, Option<&str>)> = findings.iter().map(|f| (f.line, f.suggestion.as_deref())).collect();
        assert_eq!(
            all,
            [
                (4, Some("did you mean `listen`?")),
                (1, Some("did you mean `log`?")),
                (0, Some("did you mean `GRAVITY_API_LISTEN`?"))
            ]
        );
        let (_, findings) = read("", &[("GRAVITY_API_SERVICE_HOST", "10.0.0.1"), ("GRAVITY_URL", "x")], &[]);
        assert!(findings.is_empty(), "{findings}");
    }

    #[test]
    fn bad_values_are_shown_where_they_stand_and_tokens_never() {
        let (_, findings) = read("[log]\nlinger = 5\n", &[], &[]);
        let finding = findings.iter().next().expect("one");
        assert_eq!((finding.line, finding.column, finding.found.as_deref()), (2, 10, Some("5")));
        let (_, findings) = read("[api]\ntokens = [{name = \"a\", role = \"rot\", token = \"CANARY\"}]\n", &[], &[]);
        assert!(findings.has_errors());
        let shown = gravity_rules::diagnose::render(findings.iter().next().expect("one"), false);
        assert!(!shown.contains("CANARY"), "{shown}");
    }

    #[test]
    fn o53_config_show_names_callers_without_their_tokens() {
        let (settings, findings) =
            read("[api]\ntokens = [{name = \"ops\", role = \"operator\", token = \"CANARY\"}]\n", &[], &[]);
        assert_eq!(findings.iter().map(|f| f.code).collect::<Vec<_>>(), [codes::LITERAL_SECRET]);
        let shown = serde_json::to_string(&settings.show()).expect("plain");
        assert!(shown.contains("ops (operator)") && !shown.contains("CANARY"), "{shown}");
        assert!(!format!("{settings:?}").contains("CANARY"));
        assert_eq!(settings.tokens()[0].token.expose(), "CANARY");
    }

    #[test]
    fn a_path_of_the_file_begins_at_the_file() {
        let (settings, _) = read("[log]\ndirectory = \"d\"\n", &[], &[]);
        assert_eq!(settings.data(), Path::new("/etc/gravity/d"));
        let (settings, _) = read("", &[], &[("log.directory", "d")]);
        assert_eq!(settings.data(), Path::new("d"));
    }
}
