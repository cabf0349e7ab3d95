//! What the shape of an entry cannot say: names, addresses, keys that exclude or need each other, and what is printed at
//! every start.

use std::path::Path;

use gravity_connectors::http::{MOST_SECRETS, SigningKey};
use gravity_rules::diagnose::{Finding, Findings};

use super::codes;
use super::database::{DatabaseEntry, Ddl};
use super::exporter::{ExporterEntry, RestfulApiKeys};
use super::load::Checking;
use super::secret::Secret;
use super::settings::{FILE, Settings};
use super::shared::{Protection, TransportKeys, is_loopback, split_address};
use super::source::{HistoryKeys, IntakeKeys, KafkaSourceKeys, SourceEntry};
use super::validate_nats;
use super::validate_rabbitmq;

/// Names of entries that would be taken for something else.
const RESERVED_NAMES: &[&str] = &["ingest", "gravity", "twist"];

/// Entry names stand in view names (`db1.users`), routes (`db1/users`) and paths: letters, digits, `_` and `-`.
pub fn name(root: &str, checking: &mut Checking<'_>) {
    let name = checking.name;
    let grammar = !name.is_empty()
        && name.len() <= 63
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
        && !name.starts_with('-');
    if !grammar {
        let message = format!("`{name}` cannot be a name: letters, digits, `_` and `-`, at most 63");
        checking.refuse_key(codes::BAD_NAME, "", message, None);
    } else if RESERVED_NAMES.contains(&name) {
        let message = format!("`{name}` names something of Gravity's own; choose another name in `{root}`");
        checking.refuse_key(codes::BAD_NAME, "", message, None);
    }
}

/// The API's own safety, and sections that this build lacks.
pub fn settings(settings: &Settings, findings: &mut Findings) {
    let listen = settings.listen();
    let origin = settings.origin("api", "listen");
    let at = |code, message: String| origin.finding(code, message).found(listen.to_string());
    if !listen.ip().is_loopback() {
        if settings.tokens().is_empty() {
            let message = "without a token the API listens on loopback only".to_owned();
            let hint = "add `tokens = [{name = \"ops\", role = \"admin\", token = \"${env:…}\"}]` to `[api]`";
            findings.push(at(codes::API_OPEN, message).suggest(Some(hint)));
        }
        match (settings.tls(), settings.accept_plaintext()) {
            (None, false) => {
                let message = "off loopback the API needs `tls`, or `accept_plaintext = true`".to_owned();
                findings.push(at(codes::API_PLAINTEXT, message));
            }
            (None, true) => {
                let message = "accept_plaintext: tokens and events cross the network unencrypted".to_owned();
                findings.push(at(codes::ACCEPTED, message).warning());
            }
            (Some(_), _) => {}
        }
    }
    let mut names: Vec<&str> = settings.tokens().iter().map(|token| token.name.as_str()).collect();
    names.sort_unstable();
    let tokens = settings.origin("api", "tokens");
    for pair in names.windows(2).filter(|pair| pair[0] == pair[1]) {
        findings.push(tokens.finding(codes::CONFLICT, format!("two tokens are named `{}`", pair[0])));
    }
    for token in settings.tokens() {
        if token.token.expose().len() < 16 {
            let message = format!("the token of `{}` has less than 16 characters", token.name);
            let hint = "make one with `openssl rand -hex 24`";
            findings.push(tokens.finding(codes::CONFLICT, message).suggest(Some(hint)));
        }
    }
    if let Some(files) = settings.tls() {
        let origin = settings.origin("api", "tls");
        for file in [&files.cert_file, &files.key_file] {
            if let Err(error) = std::fs::File::open(file) {
                let message = format!("cannot read `{file}`: {error}");
                findings.push(origin.finding(codes::FILE_UNREADABLE, message));
            }
        }
    }
    for (key, origin) in settings.not_built() {
        let message = format!("`{}` belongs to a part that is not in this build: `gravity run` refuses it", key.path());
        findings.push(origin.finding(codes::NOT_BUILT, message).warning());
    }
    if settings.log_options(None).block_bytes < 4096 {
        let origin = settings.origin("log", "block_size");
        findings.push(origin.finding(gravity_rules::codes::BAD_VALUE, "`log.block_size` must be at least 4KiB"));
    }
    if settings.data().as_os_str() == Path::new("/") {
        findings.push(Finding::of_file(gravity_rules::codes::BAD_VALUE, FILE, "the data directory cannot be `/`"));
    }
}

/// One source.
pub fn source(entry: &SourceEntry, checking: &mut Checking<'_>) {
    intake(entry.intake(), checking);
    match entry {
        SourceEntry::Kafka(keys) => kafka_source(keys, checking),
        SourceEntry::Nats(keys) => validate_nats::source(keys, checking),
        SourceEntry::RabbitMq(keys) => validate_rabbitmq::source(keys, checking),
        SourceEntry::Http(_) => {
            if checking.has("start") {
                let message = "an http source has no past to start in: `start` does nothing here";
                checking.refuse_key(codes::UNUSED_KEY, "start", message, Some("remove it"));
            }
        }
    }
}

fn intake(keys: &IntakeKeys, checking: &mut Checking<'_>) {
    if keys.event_name.is_some() && keys.event_from.is_some() {
        let message = "`event_name` and `event_from` exclude each other";
        checking.refuse_key(codes::CONFLICT, "event_from", message, Some("keep one of the two"));
    }
    if keys.event_name.as_deref() == Some("") {
        checking.refuse(gravity_rules::codes::BAD_VALUE, "event_name", "`event_name` must not be empty", None);
    }
    if let Some(name) = keys.event_name.as_deref().filter(|n| n.starts_with("gravity.") || n.starts_with("twist.")) {
        let message = format!("event names that begin with `gravity.` or `twist.` are reserved, this is `{name}`");
        checking.refuse(gravity_rules::codes::BAD_VALUE, "event_name", message, None);
    }
    if let Some(text) = &keys.event_from
        && !picks_name(text)
    {
        let hint = "`field:/PATH`, `header:NAME`, `topic`, `subject` or `routing_key`";
        checking.refuse(gravity_rules::codes::BAD_VALUE, "event_from", "`event_from` names no place", Some(hint));
    }
    if let Some(text) = &keys.key_from
        && !picks_key(text)
    {
        let hint = "`message_key`, `field:/PATH` or `header:NAME`";
        checking.refuse(gravity_rules::codes::BAD_VALUE, "key_from", "`key_from` names no place", Some(hint));
    }
    for (key, size) in [("max_batch", keys.max_batch), ("dedupe_keep", keys.dedupe_keep)] {
        if size.is_some_and(|size| size.0 < 1024) {
            checking.refuse(gravity_rules::codes::BAD_VALUE, key, format!("`{key}` must be at least 1KiB"), None);
        }
    }
    if keys.max_batch.is_some_and(|size| size.0 > 1 << 30) {
        checking.refuse(gravity_rules::codes::BAD_VALUE, "max_batch", "`max_batch` must be at most 1GiB", None);
    }
}

fn picks_name(text: &str) -> bool {
    matches!(text, "topic" | "subject" | "routing_key") || picks_field_or_header(text)
}

fn picks_key(text: &str) -> bool {
    text == "message_key" || picks_field_or_header(text)
}

fn picks_field_or_header(text: &str) -> bool {
    match text.split_once(':') {
        Some(("field", pointer)) => pointer.starts_with('/') && pointer.len() > 1,
        Some(("header", name)) => !name.is_empty(),
        _ => false,
    }
}

/// What weakens P2 is printed at every start.
pub fn history(keys: &HistoryKeys, checking: &mut Checking<'_>) {
    if keys.accept_recreated {
        let message = "accept_recreated: a topic or stream that was deleted and made anew is read from its beginning";
        checking.warn(codes::ACCEPTED, "accept_recreated", message, None);
    }
    if keys.accept_gap {
        let message = "accept_gap: what retention took before it was read is left out";
        checking.warn(codes::ACCEPTED, "accept_gap", message, None);
    }
}

fn kafka_source(keys: &KafkaSourceKeys, checking: &mut Checking<'_>) {
    addresses("hosts", &keys.hosts, checking);
    list("topics", &keys.topics, checking);
    if keys.group.is_empty() {
        checking.refuse(gravity_rules::codes::BAD_VALUE, "group", "`group` must not be empty", None);
    }
    history(&keys.history, checking);
    credentials(keys.username.as_deref(), keys.password.is_some(), checking);
    let hosts = keys.hosts.iter().filter_map(|h| split_address(h)).map(|(host, _)| host);
    transport(&keys.transport, hosts, checking);
    sasl(keys.sasl_mechanism.is_some(), keys.username.as_deref(), checking);
    for (setting, value) in &keys.kafka {
        if let Some(reason) = gravity_connectors::kafka::forbidden_setting(setting) {
            let place = format!("kafka/{}", setting.replace('~', "~0").replace('/', "~1"));
            let message = format!("`{setting}` cannot be set: {reason}");
            checking.refuse_key(codes::FORBIDDEN_SETTING, &place, message, Some("remove it"));
        } else if let Err(problem) = gravity_connectors::kafka::check_setting(setting, &value.to_string()) {
            let place = format!("kafka/{}", setting.replace('~', "~0").replace('/', "~1"));
            checking.refuse_key(gravity_rules::codes::BAD_VALUE, &place, problem, None);
        }
    }
}

/// One database.
pub fn database(entry: &DatabaseEntry, checking: &mut Checking<'_>) {
    let route = entry.route();
    if route.was.as_deref() == Some(checking.name) {
        checking.refuse(codes::CONFLICT, "was", "`was` is the *earlier* name of this entry", Some("remove it"));
    } else if let Some(was) = route.was.as_deref().filter(|was| checking.has_sibling(was)) {
        let message = format!("`{was}` is an entry of its own, not the earlier name of `{}`", checking.name);
        checking.refuse(codes::CONFLICT, "was", message, Some("remove `was`, or the old entry"));
    }
    let place = match entry {
        DatabaseEntry::Postgres(keys) => {
            server(&keys.host, keys.username.as_deref(), keys.password.is_some(), &keys.transport, checking);
            not_empty("dbName", &keys.db_name, checking);
            format!("postgres {}:{}/{}", keys.host, keys.port.unwrap_or(5432), keys.db_name)
        }
        DatabaseEntry::MySql(keys) => {
            server(&keys.host, keys.username.as_deref(), keys.password.is_some(), &keys.transport, checking);
            not_empty("dbName", &keys.db_name, checking);
            format!("mysql {}:{}/{}", keys.host, keys.port.unwrap_or(3306), keys.db_name)
        }
        DatabaseEntry::MongoDb(keys) => {
            match (&keys.uri, &keys.host) {
                (Some(_), Some(_)) => {
                    let message = "`uri` and `host` exclude each other";
                    checking.refuse_key(codes::CONFLICT, "host", message, Some("keep one of the two"));
                }
                (None, None) => {
                    let message = "a mongodb entry needs `uri`, or `host` and `dbName`";
                    checking.refuse_key(gravity_rules::codes::MISSING_KEY, "", message, None);
                }
                (Some(uri), None) => {
                    secret("uri", checking);
                    // Nothing of it is shown: who knows what stands where in a text that is kept secret.
                    if !crate::assembly_mongodb::open_hosts(uri.expose()).is_empty() {
                        let message = format!("`{}` speaks unencrypted with a host of its `uri`", checking.name);
                        let hint = "`tls=true` in `uri` where the network is not yours alone";
                        checking.warn(codes::PLAINTEXT, "uri", message, Some(hint));
                    }
                }
                (None, Some(host)) => {
                    server(host, keys.username.as_deref(), keys.password.is_some(), &keys.transport, checking);
                }
            }
            if keys.uri.is_none() && keys.db_name.as_deref().is_none_or(str::is_empty) {
                let message = "a mongodb entry with `host` needs `dbName`";
                checking.refuse_key(gravity_rules::codes::MISSING_KEY, "", message, Some("add `dbName`"));
            }
            crate::assembly_mongodb::place(keys)
        }
        DatabaseEntry::Sqlite(keys) => {
            not_empty("path", &keys.path, checking);
            if route.lanes.is_some_and(|lanes| lanes > 1) {
                let message = "SQLite has one writer: `lanes` must be 1";
                checking.refuse(codes::CONFLICT, "lanes", message, Some("remove it"));
            }
            format!("sqlite {}", checking.directory.join(&keys.path).display())
        }
    };
    let patience = entry.patience().and_then(|keys| keys.statement_timeout);
    if patience.is_some_and(|span| span.0 < std::time::Duration::from_secs(1)) {
        let message = "`statement_timeout` must be 1 s or more: a batch is thousands of rows";
        checking.refuse(gravity_rules::codes::BAD_VALUE, "statement_timeout", message, Some("the default is `60s`"));
    }
    if let Some(lanes) = route.lanes.filter(|lanes| *lanes > 1) {
        let message = format!("{lanes} lanes: keys of different lanes may be at different sequences");
        checking.warn(codes::ACCEPTED, "lanes", message, None);
    }
    if route.ddl == Ddl::Create && route.bookkeeping.is_some() {
        let message =
            "`\"ddl\": \"create\"` with `\"bookkeeping\": \"manual\"`: who may create tables may create those too";
        checking.refuse_key(codes::CONFLICT, "bookkeeping", message, Some("keep one of the two"));
    }
    two_at_one_place(place, checking);
}

/// Two routes in one place would claim each other's tables.
fn two_at_one_place(place: String, checking: &mut Checking<'_>) {
    if place.is_empty() {
        return;
    }
    if let Some(other) = checking.places.get(&place) {
        let message = format!("`{}` and `{other}` are the same database", checking.name);
        checking.refuse_key(
            codes::DUPLICATE_PLACE,
            "",
            message,
            Some("one entry per database: each is a route of its own"),
        );
        return;
    }
    checking.places.insert(place, checking.name.to_owned());
}

/// One exporter.
pub fn exporter(entry: &ExporterEntry, checking: &mut Checking<'_>) {
    match entry {
        ExporterEntry::Kafka(keys) => {
            server(&keys.host, keys.username.as_deref(), keys.password.is_some(), &keys.transport, checking);
            sasl(keys.sasl_mechanism.is_some(), keys.username.as_deref(), checking);
            not_empty("topic", &keys.topic, checking);
        }
        ExporterEntry::RestfulApi(keys) => restful_api(keys, checking),
        ExporterEntry::Nats(keys) => {
            validate_nats::target(&keys.host, &keys.subject, &keys.sign_in, &keys.transport, checking);
        }
        ExporterEntry::JetStream(keys) => {
            validate_nats::target(&keys.host, &keys.subject, &keys.sign_in, &keys.transport, checking);
            validate_nats::name("stream", keys.stream.as_deref(), checking);
        }
        ExporterEntry::RabbitMq(keys) => validate_rabbitmq::exporter(keys, checking),
    }
}

fn restful_api(keys: &RestfulApiKeys, checking: &mut Checking<'_>) {
    signing(&keys.signing, checking);
    let parsed = match reqwest::Url::parse(&keys.url) {
        Ok(parsed) if matches!(parsed.scheme(), "http" | "https") && parsed.has_host() => parsed,
        _ => {
            let hint = Some("http://HOST[:PORT]/PATH or https://…");
            checking.refuse(codes::BAD_ADDRESS, "url", "`url` is no http address", hint);
            return;
        }
    };
    if !parsed.username().is_empty() || parsed.password().is_some() {
        checking.refuse_key(codes::BAD_ADDRESS, "url", "`url` must not hold credentials", None);
    }
    let host = parsed.host_str().unwrap_or_default();
    if parsed.scheme() == "http" && !is_loopback(host) {
        let message = format!("exporter `{}` sends unencrypted to {host}", checking.name);
        checking.warn(codes::PLAINTEXT, "url", message, Some("use https where the network is not yours alone"));
    }
    let transport = TransportKeys {
        secure: None,
        ca_file: keys.ca_file.clone(),
        cert_file: keys.cert_file.clone(),
        key_file: keys.key_file.clone(),
    };
    tls_files(&transport, parsed.scheme() == "https", "use https, or remove it", checking);
}

fn signing(secrets: &[Secret], checking: &mut Checking<'_>) {
    if checking.has("signing") && secrets.is_empty() {
        let message = "`signing` must name at least one secret";
        checking.refuse(
            gravity_rules::codes::BAD_VALUE,
            "signing",
            message,
            Some("remove it to send without signature"),
        );
    }
    if secrets.len() > MOST_SECRETS {
        let message = format!("`signing` takes {MOST_SECRETS} secrets, the new one and the old one");
        checking.refuse(gravity_rules::codes::BAD_VALUE, &format!("signing/{MOST_SECRETS}"), message, None);
    }
    for (index, secret) in secrets.iter().enumerate() {
        let (key, subject) = (format!("signing/{index}"), format!("entry {} of `signing`", index + 1));
        if let Err(why) = SigningKey::parse(secret.expose()) {
            let hint = "`whsec_` and base64 of 24 to 64 random bytes: `echo whsec_$(openssl rand -base64 32)`";
            checking.refuse(
                gravity_rules::codes::BAD_VALUE,
                &key,
                format!("{subject} is no secret: {why}"),
                Some(hint),
            );
        } else if secrets[..index].contains(secret) {
            checking.refuse(codes::CONFLICT, &key, format!("{subject} is there twice"), Some("keep one of the two"));
        }
        if checking.is_literal(&key) {
            let message = format!("{subject} of `{}` stands in the file as it is", checking.name);
            checking.warn(codes::LITERAL_SECRET, &key, message, Some("write `${env:NAME}` or `${file:/path}`"));
        }
    }
}

fn server(host_name: &str, username: Option<&str>, password: bool, keys: &TransportKeys, checking: &mut Checking<'_>) {
    host(host_name, checking);
    credentials(username, password, checking);
    transport(keys, std::iter::once(host_name), checking);
}

pub(super) fn host(host: &str, checking: &mut Checking<'_>) {
    let scheme = host.contains("://");
    if host.is_empty() || scheme || host.contains([' ', '@']) || host.contains('/') && !host.starts_with('/') {
        let hint = if scheme { "the name or address alone, without scheme" } else { "a name or an address" };
        checking.refuse(codes::BAD_ADDRESS, "host", "`host` is no host", Some(hint));
    } else if host.matches(':').count() == 1 {
        checking.refuse(codes::BAD_ADDRESS, "host", "`host` holds a port", Some("give it under `port`"));
    }
}

pub(super) fn addresses(key: &str, hosts: &[String], checking: &mut Checking<'_>) {
    if hosts.is_empty() {
        checking.refuse(codes::BAD_ADDRESS, key, format!("`{key}` must name at least one server"), None);
    }
    for (index, host) in hosts.iter().enumerate() {
        if split_address(host).is_none() {
            let message = format!("`{host}` is no address");
            checking.refuse(codes::BAD_ADDRESS, &format!("{key}/{index}"), message, Some("write `HOST:PORT`"));
        }
    }
}

pub(super) fn list(key: &str, values: &[String], checking: &mut Checking<'_>) {
    if values.is_empty() {
        checking.refuse(gravity_rules::codes::BAD_VALUE, key, format!("`{key}` must name at least one"), None);
    }
    for (index, value) in values.iter().enumerate() {
        let place = format!("{key}/{index}");
        if value.is_empty() {
            checking.refuse(gravity_rules::codes::BAD_VALUE, &place, format!("an entry of `{key}` is empty"), None);
        } else if values[..index].contains(value) {
            checking.refuse(codes::CONFLICT, &place, format!("`{value}` is named twice"), Some("keep one of the two"));
        }
    }
}

fn not_empty(key: &str, value: &str, checking: &mut Checking<'_>) {
    if value.is_empty() {
        checking.refuse(gravity_rules::codes::BAD_VALUE, key, format!("`{key}` must not be empty"), None);
    }
}

/// Both or none; two empty ones mean none (INTERFACE 4).
pub(super) fn credentials(username: Option<&str>, password: bool, checking: &mut Checking<'_>) {
    if username.is_none_or(str::is_empty) && password && !checking.is_empty_text("password") {
        checking.refuse_key(gravity_rules::codes::MISSING_KEY, "password", "`password` needs a `username`", None);
    }
    if password {
        secret("password", checking);
    }
}

pub(super) fn secret(key: &str, checking: &mut Checking<'_>) {
    if checking.is_literal(key) && !checking.is_empty_text(key) {
        let message = format!("the `{key}` of `{}` stands in the file as it is", checking.name);
        checking.warn(codes::LITERAL_SECRET, key, message, Some("write `${env:NAME}` or `${file:/path}`"));
    }
}

fn sasl(mechanism: bool, username: Option<&str>, checking: &mut Checking<'_>) {
    if mechanism && username.is_none_or(str::is_empty) {
        let message = "`saslMechanism` does nothing without a `username`";
        checking.refuse_key(codes::UNUSED_KEY, "saslMechanism", message, Some("remove it"));
    }
}

pub(super) fn transport<'a>(
    keys: &TransportKeys,
    hosts: impl IntoIterator<Item = &'a str>,
    checking: &mut Checking<'_>,
) {
    let hosts: Vec<&str> = hosts.into_iter().collect();
    let protection = keys.protection(hosts.iter().copied());
    if protection == Protection::Plaintext {
        let key = if checking.has("secure") { "secure" } else { "" };
        let message = format!("`{}` speaks unencrypted with {}", checking.name, hosts.join(", "));
        checking.warn(codes::PLAINTEXT, key, message, Some("`\"secure\": true` where the network is not yours alone"));
    }
    tls_files(keys, protection == Protection::Tls, "add `\"secure\": true`, or remove it", checking);
}

fn tls_files(keys: &TransportKeys, tls: bool, hint: &str, checking: &mut Checking<'_>) {
    for (key, value) in [("caFile", &keys.ca_file), ("certFile", &keys.cert_file), ("keyFile", &keys.key_file)] {
        if value.is_some() && !tls {
            checking.refuse_key(codes::UNUSED_KEY, key, format!("`{key}` does nothing without TLS"), Some(hint));
        } else {
            readable(key, value.as_deref(), checking);
        }
    }
    match (&keys.cert_file, &keys.key_file) {
        (Some(_), None) => {
            checking.refuse_key(gravity_rules::codes::MISSING_KEY, "certFile", "`certFile` needs `keyFile`", None);
        }
        (None, Some(_)) => {
            checking.refuse_key(gravity_rules::codes::MISSING_KEY, "keyFile", "`keyFile` needs `certFile`", None);
        }
        _ => {}
    }
}

fn readable(key: &str, path: Option<&str>, checking: &mut Checking<'_>) {
    let Some(path) = path else { return };
    if let Err(error) = std::fs::File::open(checking.directory.join(path)) {
        checking.refuse(codes::FILE_UNREADABLE, key, format!("cannot read `{path}`: {error}"), None);
    }
}
