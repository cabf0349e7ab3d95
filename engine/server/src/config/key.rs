//! The table of gravity.toml's keys: one row feeds parser, flag, environment variable, default, help, schema and
//! `config show`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::token::{TlsFiles, TokenEntry};
use super::unit::{Size, Span};

/// What a key's value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Path,
    Address,
    Size,
    Span,
    Switch,
    Word(&'static [&'static str]),
    /// `[{name, role, token}]`
    Tokens,
    /// `{certFile, keyFile}`
    Tls,
}

/// One key of gravity.toml.
#[derive(Debug)]
pub struct Key {
    pub section: &'static str,
    pub name: &'static str,
    pub kind: Kind,
    /// As it would be written; empty: not set.
    pub default: &'static str,
    /// Shorter name of its flag.
    pub short_flag: Option<&'static str>,
    pub doc: &'static str,
    /// False: parsed and checked, but `run` refuses it by name.
    pub built: bool,
}

const fn key(section: &'static str, name: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Key {
    Key { section, name, kind, default, short_flag: None, doc, built: true }
}

/// Sections without keys of their own yet.
pub const EMPTY_SECTIONS: &[&str] = &["snapshots"];

pub const KEYS: &[Key] = &[
    Key {
        short_flag: Some("data"),
        ..key(
            "log",
            "directory",
            Kind::Path,
            "data",
            "Data directory: the event log. A relative path begins at the config directory.",
        )
    },
    key("log", "block_size", Kind::Size, "512KiB", "A block is committed once this many uncompressed bytes wait."),
    key("log", "linger", Kind::Span, "2ms", "... or this long after its first event."),
    key(
        "log",
        "queue_size",
        Kind::Size,
        "16MiB",
        "Uncompressed bytes that may wait for the disk before intake answers 429.",
    ),
    key("log", "generation_size", Kind::Size, "256MiB", "A hot generation is sealed at this many bytes on disk."),
    key("log", "generation_age", Kind::Span, "1h", "... or at this age."),
    key("log", "dedupe_age", Kind::Span, "7d", "How long ids and idempotency keys are remembered."),
    Key {
        short_flag: Some("listen"),
        ..key(
            "api",
            "listen",
            Kind::Address,
            "127.0.0.1:7420",
            "Address of the HTTP API. Off loopback it needs tokens, and TLS or accept_plaintext.",
        )
    },
    key(
        "api",
        "tokens",
        Kind::Tokens,
        "",
        "Who may call the API: [{name, role = \"viewer\" | \"ingest\" | \"operator\" | \"admin\", token}].",
    ),
    key("api", "tls", Kind::Tls, "", "Certificate and key of the API: {certFile, keyFile}, PEM."),
    key(
        "api",
        "accept_plaintext",
        Kind::Switch,
        "false",
        "Accept that tokens and events cross the network unencrypted.",
    ),
    key(
        "logging",
        "level",
        Kind::Word(&["error", "warn", "info", "debug", "trace"]),
        "info",
        "Least level of the program's own messages on stderr.",
    ),
    key("logging", "format", Kind::Word(&["text", "json"]), "text", "Form of the program's own messages."),
    later("twist", "listen", "Twist's own API."),
    later("twist", "dtm_listen", "Twist's dtm-compatible API."),
    later("twist", "grpc_listen", "Twist's gRPC API."),
    later("tracer", "otlp_grpc", "Span intake, OTLP over gRPC."),
    later("tracer", "otlp_http", "Span intake, OTLP over HTTP."),
    later("tracer", "zipkin", "Span intake, Zipkin v2."),
];

const fn later(section: &'static str, name: &'static str, doc: &'static str) -> Key {
    Key { built: false, ..key(section, name, Kind::Address, "", doc) }
}

impl Key {
    /// `log.block_size`
    pub fn path(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }

    /// `GRAVITY_LOG_BLOCK_SIZE`
    pub fn variable(&self) -> String {
        format!("GRAVITY_{}_{}", self.section, self.name).to_ascii_uppercase()
    }

    /// `log-block-size`
    pub fn flag(&self) -> String {
        format!("{}-{}", self.section, self.name).replace('_', "-")
    }

    /// `FILE`, `ADDRESS`, … for help texts.
    pub fn value_name(&self) -> &'static str {
        match self.kind {
            Kind::Path => "DIR",
            Kind::Address => "ADDRESS",
            Kind::Size => "SIZE",
            Kind::Span => "DURATION",
            Kind::Switch => "true|false",
            Kind::Word(_) => "WORD",
            Kind::Tokens | Kind::Tls => "TOML",
        }
    }

    pub fn find(section: &str, name: &str) -> Option<&'static Key> {
        KEYS.iter().find(|key| key.section == section && key.name == name)
    }

    pub fn sections() -> Vec<&'static str> {
        let mut sections: Vec<&'static str> = Vec::new();
        for section in KEYS.iter().map(|key| key.section).chain(EMPTY_SECTIONS.iter().copied()) {
            if !sections.contains(&section) {
                sections.push(section);
            }
        }
        sections
    }

    /// Reads a value as flag or environment give it. Structured values are TOML.
    pub fn read_text(&self, text: &str) -> Result<Setting, String> {
        let value = match self.kind {
            Kind::Tokens | Kind::Tls => {
                let mut table: toml::Table =
                    toml::from_str(&format!("value = {text}")).map_err(|e| e.message().to_owned())?;
                table.remove("value").ok_or("nothing is there")?
            }
            Kind::Switch => {
                toml::Value::Boolean(text.parse().map_err(|_| format!("{text:?} is neither true nor false"))?)
            }
            _ => toml::Value::String(text.to_owned()),
        };
        self.read(&value)
    }

    /// Reads a value as the file has it.
    pub fn read(&self, value: &toml::Value) -> Result<Setting, String> {
        let text = || value.as_str().ok_or_else(|| format!("must be text, this is {}", value.type_str()));
        Ok(match self.kind {
            Kind::Path => match text()? {
                "" => return Err("must not be empty".to_owned()),
                path => Setting::Text(path.to_owned()),
            },
            Kind::Word(words) => match words.iter().find(|word| Ok(**word) == text()) {
                Some(word) => Setting::Text((*word).to_owned()),
                None => return Err(format!("{:?} is none of {}", text()?, words.join(", "))),
            },
            Kind::Address => Setting::Address(read_address(text()?)?),
            Kind::Size => match value.as_integer() {
                Some(bytes) => {
                    Setting::Size(Size(u64::try_from(bytes).map_err(|_| "must not be negative".to_owned())?))
                }
                None => Setting::Size(text()?.parse().map_err(|error| format!("{error}"))?),
            },
            Kind::Span => Setting::Span(text()?.parse().map_err(|error| format!("{error}"))?),
            Kind::Switch => Setting::Switch(
                value.as_bool().ok_or_else(|| format!("must be true or false, this is {}", value.type_str()))?,
            ),
            Kind::Tokens => {
                Setting::Tokens(value.clone().try_into().map_err(|e: toml::de::Error| e.message().to_owned())?)
            }
            Kind::Tls => Setting::Tls(value.clone().try_into().map_err(|e: toml::de::Error| e.message().to_owned())?),
        })
    }

    /// The default as a value; `None` where the key is not set by default.
    pub fn default_value(&self) -> Option<Setting> {
        if self.default.is_empty() {
            return None;
        }
        Some(self.read_text(self.default).expect("the table's defaults are readable: a test reads them all"))
    }
}

fn read_address(text: &str) -> Result<SocketAddr, String> {
    if let Some(port) = text.strip_prefix("localhost:") {
        let port = port.parse().map_err(|_| format!("{port:?} is no port"))?;
        return Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
    }
    text.parse()
        .map_err(|_| format!("{text:?} is no address: write `IP:PORT`, such as `127.0.0.1:7420` or `[::1]:7420`"))
}

/// A value of a key.
#[derive(Clone, Debug, PartialEq)]
pub enum Setting {
    Text(String),
    Address(SocketAddr),
    Size(Size),
    Span(Span),
    Switch(bool),
    Tokens(Vec<TokenEntry>),
    Tls(TlsFiles),
}

/// As it would be written, secrets left out.
impl std::fmt::Display for Setting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Setting::Text(text) => f.write_str(text),
            Setting::Address(address) => address.fmt(f),
            Setting::Size(size) => size.fmt(f),
            Setting::Span(span) => span.fmt(f),
            Setting::Switch(on) => on.fmt(f),
            Setting::Tokens(tokens) => {
                let each: Vec<String> = tokens.iter().map(|t| format!("{} ({})", t.name, t.role)).collect();
                f.write_str(&each.join(", "))
            }
            Setting::Tls(files) => write!(f, "{}, {}", files.cert_file, files.key_file),
        }
    }
}

/// The JSON Schema of gravity.toml, for editors that check TOML by one.
pub fn schema() -> serde_json::Value {
    use serde_json::{Map, Value, json};
    let mut sections = Map::new();
    for section in Key::sections() {
        let mut properties = Map::new();
        for key in KEYS.iter().filter(|key| key.section == section) {
            let mut property = match key.kind {
                Kind::Path | Kind::Address | Kind::Span => json!({"type": "string"}),
                Kind::Size => json!({"type": ["string", "integer"]}),
                Kind::Switch => json!({"type": "boolean"}),
                Kind::Word(words) => json!({"enum": words}),
                Kind::Tokens => schemars::schema_for!(Vec<TokenEntry>).into(),
                Kind::Tls => schemars::schema_for!(TlsFiles).into(),
            };
            property["description"] = Value::from(key.doc);
            if let Some(default) = key.default_value() {
                property["default"] = match default {
                    Setting::Switch(on) => Value::from(on),
                    other => Value::from(other.to_string()),
                };
            }
            inline_definitions(&mut property);
            properties.insert(key.name.to_owned(), property);
        }
        sections.insert(
            section.to_owned(),
            json!({"type": "object", "properties": properties, "additionalProperties": false}),
        );
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "gravity.toml: settings of the engine",
        "type": "object",
        "properties": sections,
        "additionalProperties": false
    })
}

/// A schema that becomes part of another loses its own root: references into `$defs` are replaced by what they name.
fn inline_definitions(schema: &mut serde_json::Value) {
    use serde_json::Value;
    fn replace(node: &mut Value, definitions: &serde_json::Map<String, Value>) {
        match node {
            Value::Object(members) => {
                if let Some(target) = members.get("$ref").and_then(Value::as_str)
                    && let Some(definition) = definitions.get(target.trim_start_matches("#/$defs/"))
                {
                    *node = definition.clone();
                    return replace(node, definitions);
                }
                members.values_mut().for_each(|member| replace(member, definitions));
            }
            Value::Array(items) => items.iter_mut().for_each(|item| replace(item, definitions)),
            _ => {}
        }
    }
    if let Some(members) = schema.as_object_mut() {
        members.remove("$schema");
        members.remove("title");
        if let Some(Value::Object(definitions)) = members.remove("$defs") {
            replace(schema, &definitions);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn o55_shown_default_is_real_default() {
        for key in KEYS {
            if let Some(value) = key.default_value() {
                assert_eq!(value.to_string(), key.default, "{}", key.path());
            }
        }
    }

    #[test]
    fn names_of_flags_and_variables_are_distinct() {
        let mut flags: Vec<String> =
            KEYS.iter().flat_map(|key| [Some(key.flag()), key.short_flag.map(str::to_owned)]).flatten().collect();
        let count = flags.len();
        flags.sort();
        flags.dedup();
        assert_eq!(flags.len(), count);
    }

    #[test]
    fn values_of_the_wrong_kind_are_refused() {
        let read = |section, name, text: &str| Key::find(section, name).expect("a key").read_text(text);
        assert!(read("api", "listen", "7420").is_err());
        assert!(read("api", "listen", "localhost:7420").is_ok());
        assert!(read("log", "linger", "2").is_err());
        assert!(read("log", "block_size", "many").is_err());
        assert!(read("logging", "level", "loud").is_err());
        assert!(read("api", "accept_plaintext", "yes").is_err());
        assert!(read("api", "tokens", r#"[{name = "a", role = "root", token = "x"}]"#).is_err());
        assert!(read("api", "tokens", r#"[{name = "a", role = "admin", token = "x", more = 1}]"#).is_err());
        assert!(read("api", "tokens", r#"[{name = "a", role = "admin", token = "x"}]"#).is_ok());
        assert!(read("api", "tls", r#"{certFile = "a"}"#).is_err());
    }
}
