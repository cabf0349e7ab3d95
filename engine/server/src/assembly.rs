//! From a checked config to the parts of an engine: the only place that knows both the config's words and the connectors.

use std::sync::Arc;
use std::time::Duration;

use gravity_connectors::Bookkeeping as BookkeepingMode;
use gravity_connectors::http::{HttpExporter, HttpExporterOptions, SigningKey};
use gravity_connectors::kafka::{
    KafkaConnection, KafkaExporter, KafkaExporterOptions, KafkaSource, KafkaSourceOptions,
};
use gravity_connectors::mysql::{MySqlOptions, MySqlViews};
use gravity_connectors::nats::{JetStreamExporter, NatsExporter, NatsSource};
use gravity_connectors::postgres::{PostgresOptions, PostgresViews, TlsMode};
use gravity_connectors::rabbitmq::{RabbitMqExporter, RabbitMqSource};
use gravity_connectors::sqlite::{SqliteOptions, SqliteViews};
use gravity_engine::{
    ChangedParts, DatabaseOptions, DatabaseSpec, EngineParts, Envelope, EnvelopeOptions, ExporterSpec, KeyFrom,
    MessageFormat, NameFrom, RulesInForce, SourcePort, SourceSpec, Tombstone,
};
use gravity_log::EventLog;
use gravity_model::port::source::{Acceptance, Start};
use gravity_model::port::view::ViewStore;
use gravity_model::{Fault, FaultKind, LogId};
use gravity_rules::diagnose::{Finding, Findings, Severity};
use gravity_rules::{Context, DatabaseContext, DatabaseKind, Ddl as RulesDdl, RuleSet};

use crate::assembly_mongodb;
use crate::assembly_nats;
use crate::assembly_rabbitmq;
use crate::config::database::{
    Bookkeeping, DatabaseEntry, Ddl, MySqlKeys, PatienceKeys, PostgresKeys, RouteKeys, SqliteKeys,
};
use crate::config::exporter::{DeliveryKeys, ExporterEntry, FormatWord, KafkaExporterKeys, OnRefused, RestfulApiKeys};
use crate::config::source::{
    EnvelopeWord, HistoryKeys, IntakeKeys, KafkaSourceKeys, SourceEntry, StartWord, TombstoneWord,
};
use crate::config::{Config, Protection, SaslMechanism, Secret, TransportKeys, codes};

/// Largest batch or request body where a source does not say.
pub const MAX_BATCH: u64 = 16 << 20;

/// What the rules are checked against.
pub fn context(config: &Config) -> Context {
    let database = |(name, entry): &(String, DatabaseEntry)| {
        let kind = match entry {
            DatabaseEntry::Postgres(_) => DatabaseKind::Postgres,
            DatabaseEntry::MySql(_) => DatabaseKind::Mysql,
            DatabaseEntry::MongoDb(_) => DatabaseKind::Mongodb,
            DatabaseEntry::Sqlite(_) => DatabaseKind::Sqlite,
        };
        let route = entry.route();
        let ddl = match route.ddl {
            Ddl::None => RulesDdl::None,
            Ddl::Create => RulesDdl::Create,
        };
        (name.clone(), DatabaseContext { kind, ddl, unknown_fields: route.unknown_fields })
    };
    Context {
        databases: config.databases.iter().map(database).collect(),
        exporters: config.exporters.iter().map(|(name, _)| name.clone()).collect(),
    }
}

/// Reads and checks the rules with the other files. Where an entry of those could not be read, a rule that names it is not
/// at fault: then only what the other files say is reported.
pub fn rules(config: &Config) -> Result<RuleSet, Findings> {
    if config.rules.is_empty() {
        return Err(Findings::new());
    }
    let broken = config.findings.iter().any(|f| f.severity == Severity::Error && f.file.ends_with(".json"));
    let loaded = gravity_rules::load(&config.rules, &context(config));
    match loaded {
        Err(findings) if broken => {
            let depends_on_others = |finding: &Finding| {
                let about_names = [
                    gravity_rules::codes::UNKNOWN_DATABASE,
                    gravity_rules::codes::UNKNOWN_EXPORTER,
                    gravity_rules::codes::DATABASE_CHOICE,
                ];
                about_names.contains(&finding.code)
            };
            let mut kept = Findings::new();
            kept.extend(findings.into_iter().filter(|finding| !depends_on_others(finding)));
            Err(kept)
        }
        other => other,
    }
}

/// Everything of the config that this build cannot run, by name; `check` only warns about it.
pub fn not_built(config: &Config) -> Vec<Finding> {
    let of_config = config.findings.iter().filter(|finding| finding.code == codes::NOT_BUILT).cloned();
    of_config.map(|finding| Finding { severity: Severity::Error, ..finding }).collect()
}

/// The view store of a database entry. Nothing is connected yet.
pub fn store(config: &Config, entry: &DatabaseEntry) -> Result<Arc<dyn ViewStore>, Fault> {
    match entry {
        DatabaseEntry::Postgres(keys) => Ok(Arc::new(PostgresViews::new(postgres(config, keys))?)),
        DatabaseEntry::Sqlite(keys) => Ok(Arc::new(SqliteViews::new(sqlite(config, keys))?)),
        DatabaseEntry::MySql(keys) => Ok(Arc::new(MySqlViews::new(mysql(config, keys)))),
        DatabaseEntry::MongoDb(keys) => Ok(Arc::new(assembly_mongodb::store(config, keys))),
    }
}

pub(crate) fn bookkeeping(keys: &RouteKeys) -> BookkeepingMode {
    match keys.bookkeeping {
        Some(Bookkeeping::Manual) => BookkeepingMode::Manual,
        None => BookkeepingMode::Auto,
    }
}

fn postgres(config: &Config, keys: &PostgresKeys) -> PostgresOptions {
    let mut options = PostgresOptions::new(keys.host.as_str(), keys.port.unwrap_or(5432), keys.db_name.as_str());
    if let Some(user) = keys.username.as_deref().filter(|user| !user.is_empty()) {
        options.user = user.to_owned();
    }
    options.password = exposed(&keys.password);
    options.tls = tls_mode(&keys.transport, &keys.host);
    let files = TlsPaths::of(config, &keys.transport);
    (options.ca_file, options.cert_file, options.key_file) = (files.ca, files.cert, files.key);
    options.bookkeeping = bookkeeping(&keys.route);
    (options.statement_timeout, options.answer_grace) = patience(&keys.patience);
    options
}

fn mysql(config: &Config, keys: &MySqlKeys) -> MySqlOptions {
    let mut options = MySqlOptions::new(keys.host.as_str(), keys.port.unwrap_or(3306), keys.db_name.as_str());
    if let Some(user) = keys.username.as_deref().filter(|user| !user.is_empty()) {
        options.user = user.to_owned();
    }
    options.password = exposed(&keys.password);
    options.tls = tls_mode(&keys.transport, &keys.host);
    let files = TlsPaths::of(config, &keys.transport);
    (options.ca_file, options.cert_file, options.key_file) = (files.ca, files.cert, files.key);
    options.bookkeeping = bookkeeping(&keys.route);
    (options.statement_timeout, options.answer_grace) = patience(&keys.patience);
    options
}

/// How long the server has for a statement, and how much longer its answer may take.
pub(crate) fn patience(keys: &PatienceKeys) -> (Duration, Duration) {
    let statement = keys.statement_timeout.map_or(Duration::from_secs(60), |span| span.0);
    (statement, (statement / 4).max(Duration::from_secs(1)))
}

fn tls_mode(keys: &TransportKeys, host: &str) -> TlsMode {
    match keys.protection([host]) {
        Protection::Tls => TlsMode::VerifyFull,
        Protection::Loopback | Protection::Plaintext => TlsMode::Off,
    }
}

fn sqlite(config: &Config, keys: &SqliteKeys) -> SqliteOptions {
    let mut options = SqliteOptions::new(config.path(&keys.path));
    options.bookkeeping = bookkeeping(&keys.route);
    options
}

pub(crate) fn exposed(secret: &Option<Secret>) -> String {
    secret.as_ref().map_or_else(String::new, |secret| secret.expose().to_owned())
}

/// TLS files, relative to the config directory.
pub(crate) struct TlsPaths {
    pub ca: Option<std::path::PathBuf>,
    pub cert: Option<std::path::PathBuf>,
    pub key: Option<std::path::PathBuf>,
}

impl TlsPaths {
    pub(crate) fn of(config: &Config, keys: &TransportKeys) -> TlsPaths {
        let path = |written: &Option<String>| written.as_ref().map(|written| config.path(written));
        TlsPaths { ca: path(&keys.ca_file), cert: path(&keys.cert_file), key: path(&keys.key_file) }
    }
}

/// Everything that `Engine::start` needs. The config must be sound and hold nothing that is not built.
pub fn parts(
    config: &Config,
    set: RuleSet,
    log: Arc<dyn EventLog>,
    actor: &str,
    stop_at_end: bool,
) -> Result<EngineParts, Fault> {
    let all = parts_of(config, log.identity().log_id, |_, _| true)?;
    Ok(EngineParts {
        sources: all.sources,
        databases: all.databases,
        exporters: all.exporters,
        rules: rules_in_force(config, set, actor),
        log,
        stop_at_end,
        begin_after: None,
    })
}

/// The entries that are wanted, by file and name.
pub fn parts_of(config: &Config, log_id: LogId, wants: impl Fn(File, &str) -> bool) -> Result<ChangedParts, Fault> {
    let sources = config.sources.iter().filter(|(name, _)| wants(File::Sources, name));
    let databases = config.databases.iter().filter(|(name, _)| wants(File::Databases, name));
    let exporters = config.exporters.iter().filter(|(name, _)| wants(File::Exporter, name));
    let database = |(name, entry): &(String, DatabaseEntry)| {
        let options = database_options(entry.route());
        Ok(DatabaseSpec { name: name.clone(), kind: entry.kind(), store: store(config, entry)?, options })
    };
    Ok(ChangedParts {
        sources: sources.map(|(name, entry)| source(config, name, entry, log_id)).collect::<Result<_, Fault>>()?,
        databases: databases.map(database).collect::<Result<_, Fault>>()?,
        exporters: exporters.map(|(name, entry)| exporter(config, name, entry)).collect::<Result<_, Fault>>()?,
    })
}

/// Files that hold entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum File {
    Sources,
    Databases,
    Exporter,
}

/// The rules with the texts that they were read from.
pub fn rules_in_force(config: &Config, set: RuleSet, actor: &str) -> RulesInForce {
    RulesInForce { set: Arc::new(set), files: config.rules.clone(), context: context(config), actor: actor.to_owned() }
}

fn database_options(keys: &RouteKeys) -> DatabaseOptions {
    let default = DatabaseOptions::default();
    DatabaseOptions {
        create: keys.ddl == Ddl::Create,
        adopt_existing_rows: keys.existing_rows.is_some(),
        lanes: keys.lanes.unwrap_or(default.lanes),
        max_parked: keys.max_parked.unwrap_or(default.max_parked),
        was: keys.was.clone(),
        ..default
    }
}

fn source(config: &Config, name: &str, entry: &SourceEntry, log_id: LogId) -> Result<SourceSpec, Fault> {
    let port = match entry {
        SourceEntry::Kafka(keys) => {
            SourcePort::Pull(Box::new(KafkaSource::new(name, kafka_source(config, keys, log_id))))
        }
        SourceEntry::Http(_) => SourcePort::Push,
        SourceEntry::Nats(keys) => {
            SourcePort::Pull(Box::new(NatsSource::new(name, assembly_nats::source(config, keys, log_id))))
        }
        SourceEntry::RabbitMq(keys) => {
            SourcePort::Pull(Box::new(RabbitMqSource::new(name, assembly_rabbitmq::source(config, keys))))
        }
    };
    let keys = entry.intake();
    Ok(SourceSpec {
        name: name.to_owned(),
        kind: entry.kind(),
        port,
        envelope: envelope(keys),
        start: match keys.start {
            StartWord::Earliest => Start::Earliest,
            StartWord::Latest => Start::Latest,
        },
        max_batch: keys.max_batch.map_or(MAX_BATCH, |size| size.0) as usize,
    })
}

/// How the messages of each source are read, by name.
pub fn envelopes(config: &Config) -> std::collections::BTreeMap<String, EnvelopeOptions> {
    config.sources.iter().map(|(name, entry)| (name.clone(), envelope(entry.intake()))).collect()
}

fn envelope(keys: &IntakeKeys) -> EnvelopeOptions {
    let field_or_header = |text: &str| match text.split_once(':') {
        Some(("field", pointer)) => Some((true, pointer.to_owned())),
        Some(("header", name)) => Some((false, name.to_owned())),
        _ => None,
    };
    let name_from = |text: &str| match field_or_header(text) {
        Some((true, pointer)) => NameFrom::Field(pointer),
        Some((false, name)) => NameFrom::Header(name),
        None => NameFrom::Subject,
    };
    let key_from = |text: &str| match field_or_header(text) {
        Some((true, pointer)) => KeyFrom::Field(pointer),
        Some((false, name)) => KeyFrom::Header(name),
        None => KeyFrom::MessageKey,
    };
    EnvelopeOptions {
        envelope: match keys.envelope {
            EnvelopeWord::Auto => Envelope::Auto,
            EnvelopeWord::Gravity => Envelope::Gravity,
            EnvelopeWord::CloudEvents => Envelope::CloudEvents,
            EnvelopeWord::Debezium => Envelope::Debezium,
            EnvelopeWord::Plain => Envelope::Plain,
        },
        event_from: match (&keys.event_name, &keys.event_from) {
            (Some(name), _) => Some(NameFrom::Constant(name.clone())),
            (None, Some(place)) => Some(name_from(place)),
            (None, None) => None,
        },
        key_from: keys.key_from.as_deref().map(key_from),
        tombstone: match keys.tombstone {
            None | Some(TombstoneWord::Ignore) => Tombstone::Ignore,
            Some(TombstoneWord::Delete) => Tombstone::Delete,
        },
    }
}

fn kafka_source(config: &Config, keys: &KafkaSourceKeys, log_id: LogId) -> KafkaSourceOptions {
    KafkaSourceOptions {
        connection: kafka_connection(
            config,
            keys.hosts.clone(),
            &keys.transport,
            keys.username.as_deref(),
            &keys.password,
            keys.sasl_mechanism,
        ),
        topics: keys.topics.clone(),
        group: keys.group.clone(),
        log_id,
        accept: acceptance(&keys.history),
        extra: keys.kafka.iter().map(|(key, value)| (key.clone(), value.to_string())).collect(),
    }
}

pub(crate) fn acceptance(keys: &HistoryKeys) -> Acceptance {
    Acceptance { recreated: keys.accept_recreated, gap: keys.accept_gap }
}

fn kafka_connection(
    config: &Config,
    hosts: Vec<String>,
    transport: &TransportKeys,
    username: Option<&str>,
    password: &Option<Secret>,
    mechanism: Option<SaslMechanism>,
) -> KafkaConnection {
    let names = hosts.iter().map(|host| host.rsplit_once(':').map_or(host.as_str(), |(name, _)| name));
    let secure = transport.protection(names) == Protection::Tls;
    let files = TlsPaths::of(config, transport);
    KafkaConnection {
        secure,
        username: username.unwrap_or_default().to_owned(),
        password: exposed(password),
        sasl_mechanism: mechanism.map(|mechanism| mechanism.word().to_owned()),
        ca_file: files.ca,
        cert_file: files.cert,
        key_file: files.key,
        hosts,
    }
}

fn exporter(config: &Config, name: &str, entry: &ExporterEntry) -> Result<ExporterSpec, Fault> {
    let exporter: Arc<dyn gravity_model::port::export::Exporter> = match entry {
        ExporterEntry::Kafka(keys) => Arc::new(KafkaExporter::new(name, kafka_exporter(config, keys))),
        ExporterEntry::RestfulApi(keys) => Arc::new(HttpExporter::new(name, &restful_api(config, name, keys)?)?),
        ExporterEntry::Nats(keys) => Arc::new(NatsExporter::new(name, assembly_nats::core_exporter(config, keys))),
        ExporterEntry::JetStream(keys) => {
            Arc::new(JetStreamExporter::new(name, assembly_nats::jetstream_exporter(config, keys)))
        }
        ExporterEntry::RabbitMq(keys) => {
            Arc::new(RabbitMqExporter::new(name, assembly_rabbitmq::exporter(config, keys)))
        }
    };
    let DeliveryKeys { format, on_refused, .. } = entry.delivery();
    Ok(ExporterSpec {
        name: name.to_owned(),
        kind: entry.kind(),
        exporter,
        format: match format {
            FormatWord::CloudEvents => MessageFormat::CloudEvents,
            FormatWord::Gravity => MessageFormat::Gravity,
        },
        park_on_refused: *on_refused == Some(OnRefused::Park),
    })
}

fn kafka_exporter(config: &Config, keys: &KafkaExporterKeys) -> KafkaExporterOptions {
    KafkaExporterOptions {
        connection: kafka_connection(
            config,
            vec![with_port(&keys.host, keys.port.unwrap_or(9092))],
            &keys.transport,
            keys.username.as_deref(),
            &keys.password,
            keys.sasl_mechanism,
        ),
        topic: keys.topic.clone(),
    }
}

/// `host:port`; a v6 literal needs brackets before its port.
pub(crate) fn with_port(host: &str, port: u16) -> String {
    if host.contains(':') && !host.starts_with('[') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn restful_api(config: &Config, name: &str, keys: &RestfulApiKeys) -> Result<HttpExporterOptions, Fault> {
    let refused = |why| {
        let doing = format!("configure exporter {name}");
        Fault::new(FaultKind::Misconfigured, "http-signing", doing, format!("a secret of \"signing\" is none: {why}"))
    };
    Ok(HttpExporterOptions {
        url: keys.url.clone(),
        allow_private: keys.delivery.allow_private,
        ca_file: keys.ca_file.as_ref().map(|file| config.path(file)),
        cert_file: keys.cert_file.as_ref().map(|file| config.path(file)),
        key_file: keys.key_file.as_ref().map(|file| config.path(file)),
        signing: keys
            .signing
            .iter()
            .map(|s| SigningKey::parse(s.expose()).map_err(refused))
            .collect::<Result<_, _>>()?,
        ..HttpExporterOptions::default()
    })
}
