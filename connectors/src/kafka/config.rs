//! What a Kafka source or exporter is told, the librdkafka settings that the promises depend on, and nothing with I/O.

use std::collections::BTreeMap;
use std::path::PathBuf;

use gravity_model::port::source::Acceptance;
use gravity_model::{Fault, FaultKind, LogId};
use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

use super::error::{fault_from, printable};

/// How to reach a cluster, shared by sources and exporters.
#[derive(Clone, Default)]
pub struct KafkaConnection {
    /// `host:port` each, at least one.
    pub hosts: Vec<String>,
    /// True: TLS, certificate and name verified.
    pub secure: bool,
    /// Not empty: SASL, with or without TLS.
    pub username: String,
    pub password: String,
    /// `PLAIN` where absent; `SCRAM-SHA-256`, `SCRAM-SHA-512`.
    pub sasl_mechanism: Option<String>,
    /// PEM file of the authorities to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// PEM files of our own certificate and its key.
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
}

/// Never shows the password.
impl std::fmt::Debug for KafkaConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaConnection")
            .field("hosts", &self.hosts)
            .field("secure", &self.secure)
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// A `kafka` entry of sources.json.
#[derive(Clone, Debug)]
pub struct KafkaSourceOptions {
    pub connection: KafkaConnection,
    pub topics: Vec<String>,
    pub group: String,
    /// The log that this source feeds: kept in the commit metadata, so that no second log reads with the same group.
    pub log_id: LogId,
    /// What is read on from although history broke.
    pub accept: Acceptance,
    /// Further librdkafka settings, from `"kafka": {…}`.
    pub extra: BTreeMap<String, String>,
}

/// A `kafka` entry of exporter.json.
#[derive(Clone, Debug)]
pub struct KafkaExporterOptions {
    pub connection: KafkaConnection,
    pub topic: String,
}

/// Why the user may not set this librdkafka key; `None` when it is free.
pub fn forbidden_setting(key: &str) -> Option<&'static str> {
    Some(match key {
        "enable.auto.commit"
        | "auto.commit.enable"
        | "enable.auto.offset.store"
        | "auto.commit.interval.ms"
        | "offset.store.method"
        | "offset.store.path"
        | "offset.store.sync.interval.ms" => "offsets are committed only after the events are durable (P1)",
        "auto.offset.reset" => {
            "a missing offset halts the source instead of skipping events; say \"start\" for a new topic (P2)"
        }
        "isolation.level" => "records of aborted transactions never enter the log (P2)",
        "partition.assignment.strategy" | "group.protocol" | "group.remote.assignor" => {
            "a rebalance must hand over partition by partition (P2)"
        }
        "group.instance.id" => "it names this source and this log, so that a copy is fenced (P2)",
        "group.id" => "say \"group\"",
        "bootstrap.servers" | "metadata.broker.list" => "say \"hosts\"",
        "security.protocol" => "say \"secure\" and \"username\"",
        "sasl.username" => "say \"username\"",
        "sasl.password" => "say \"password\"",
        "sasl.mechanism" | "sasl.mechanisms" => "say \"saslMechanism\"",
        "ssl.ca.location" | "ssl.ca.pem" => "say \"caFile\"",
        "ssl.certificate.location" | "ssl.certificate.pem" => "say \"certFile\"",
        "ssl.key.location" | "ssl.key.pem" => "say \"keyFile\"",
        "enable.ssl.certificate.verification" | "ssl.endpoint.identification.algorithm" => {
            "certificates and names are always verified (P10)"
        }
        "fetch.error.backoff.ms" => "the check that a topic is still the same one relies on it (P2)",
        // librdkafka's batch queue counts the mark as a record: after a rebalance one record would be skipped.
        "enable.partition.eof" => "the client's position would pass the end by one (P2)",
        "check.crcs" => "damaged records are refused (P2)",
        "allow.auto.create.topics" => "a missing topic is an error, never created silently",
        "log.queue" | "log_level" | "log_cb" | "debug" => "the client's log goes to Gravity's",
        "enabled_events" | "opaque" | "plugin.library.paths" => "it belongs to the program",
        _ => return None,
    })
}

/// Checks one entry of `"kafka": {…}` without a broker: forbidden, unknown, or a value that librdkafka refuses.
pub fn check_setting(key: &str, value: &str) -> Result<(), String> {
    if let Some(reason) = forbidden_setting(key) {
        return Err(format!("\"{key}\" cannot be set: {reason}"));
    }
    let mut config = ClientConfig::new();
    config.set(key, value);
    match config.create_native_config() {
        Ok(_) => Ok(()),
        Err(error) => Err(printable(&error.to_string())),
    }
}

/// Bytes of fetched records that librdkafka may hold, beside one answer in flight.
const QUEUED_KBYTES: u32 = 8 * 1024;

impl KafkaConnection {
    fn client_config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set_log_level(RDKafkaLogLevel::Notice);
        config.set("bootstrap.servers", self.hosts.join(","));
        config.set("client.id", "gravity");
        let sasl = !self.username.is_empty();
        let protocol = match (self.secure, sasl) {
            (false, false) => "plaintext",
            (true, false) => "ssl",
            (false, true) => "sasl_plaintext",
            (true, true) => "sasl_ssl",
        };
        config.set("security.protocol", protocol);
        if sasl {
            config.set("sasl.mechanism", self.sasl_mechanism.as_deref().unwrap_or("PLAIN"));
            config.set("sasl.username", self.username.as_str());
            config.set("sasl.password", self.password.as_str());
        }
        if self.secure {
            // The bundled OpenSSL knows no system store of its own: let librdkafka look where distributions keep it.
            let ca = self.ca_file.as_ref().map_or_else(|| "probe".to_owned(), |file| file.display().to_string());
            config.set("ssl.ca.location", ca);
            config.set("enable.ssl.certificate.verification", "true");
            config.set("ssl.endpoint.identification.algorithm", "https");
            if let Some(file) = &self.cert_file {
                config.set("ssl.certificate.location", file.display().to_string());
            }
            if let Some(file) = &self.key_file {
                config.set("ssl.key.location", file.display().to_string());
            }
        }
        config.set("socket.keepalive.enable", "true");
        // A half-open connection is noticed by a request that nobody answers, not by the system's two hours.
        config.set("socket.timeout.ms", "15000");
        config.set("reconnect.backoff.ms", "100");
        config.set("reconnect.backoff.max.ms", "5000");
        config
    }

    /// The hosts, for messages.
    pub fn place(&self) -> String {
        self.hosts.join(", ")
    }
}

impl KafkaSourceOptions {
    /// librdkafka's configuration for source `name`: ours, then the user's, then what may not be overridden.
    pub fn client_config(&self, name: &str) -> Result<ClientConfig, Fault> {
        let doing = || format!("configure source {name}");
        let mut config = self.connection.client_config();
        config.set("queued.max.messages.kbytes", QUEUED_KBYTES.to_string());
        config.set("queued.min.messages", "100000");
        config.set("fetch.max.bytes", (4 * 1024 * 1024).to_string());
        config.set("fetch.message.max.bytes", (1024 * 1024).to_string());
        config.set("fetch.wait.max.ms", "100");
        // Once the local queue is full, look again soon: the default of a second empties it and stalls.
        config.set("fetch.queue.backoff.ms", "5");
        config.set("topic.metadata.refresh.interval.ms", "5000");
        config.set("session.timeout.ms", "30000");
        for (key, value) in &self.extra {
            if let Some(reason) = forbidden_setting(key) {
                let detail = format!("\"{key}\" cannot be set: {reason}");
                return Err(Fault::new(FaultKind::Misconfigured, "kafka-forbidden-setting", doing(), detail));
            }
            config.set(key, value);
        }
        config.set("group.id", self.group.as_str());
        config.set("group.instance.id", instance_id(name, &self.log_id.to_string()));
        config.set("enable.auto.commit", "false");
        config.set("enable.auto.offset.store", "false");
        config.set("auto.offset.reset", "error");
        config.set("isolation.level", "read_committed");
        config.set("partition.assignment.strategy", "cooperative-sticky");
        config.set("enable.partition.eof", "false");
        config.set("check.crcs", "true");
        config.set("allow.auto.create.topics", "false");
        config.set("fetch.error.backoff.ms", super::identity::FETCH_BACKOFF_MS.to_string());
        config.create_native_config().map_err(|error| fault_from(error, doing()))?;
        Ok(config)
    }
}

impl KafkaExporterOptions {
    /// librdkafka's configuration of the producer; `max_message_bytes` as the topic has it.
    pub fn client_config(&self, max_message_bytes: usize) -> ClientConfig {
        let mut config = self.connection.client_config();
        config.set("enable.idempotence", "true");
        config.set("acks", "all");
        // After a failed batch nothing later may pass (P5); the producer stops, the exporter begins again in order.
        config.set("enable.gapless.guarantee", "true");
        config.set("max.in.flight.requests.per.connection", "5");
        // Our own limit purges first: a message that librdkafka gives up alone would let later ones of its key pass.
        config.set("message.timeout.ms", "900000");
        config.set("message.max.bytes", max_message_bytes.clamp(1000, 1_000_000_000).to_string());
        config.set("linger.ms", "1");
        let queue_kbytes = (16 * 1024).max(2 * max_message_bytes.div_ceil(1024)).min(2_000_000);
        config.set("queue.buffering.max.kbytes", queue_kbytes.to_string());
        // The same partition for a key as every Java producer chooses.
        config.set("partitioner", "murmur2_random");
        config.set("topic.metadata.refresh.interval.ms", "30000");
        config.set("allow.auto.create.topics", "false");
        config
    }
}

/// `gravity-SOURCE-LOGID` in the letters that Kafka allows. The source's name is escaped, so that no two become one.
fn instance_id(source: &str, log_id: &str) -> String {
    let mut id = String::from("gravity-");
    for byte in source.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' => id.push(byte as char),
            other => id.push_str(&format!("_{other:02x}")),
        }
    }
    id.truncate(200);
    id + "-" + log_id
}

/// The text that a commit carries: one group feeds one log.
pub fn commit_metadata(log_id: LogId) -> String {
    format!("gravity-log-id={log_id}")
}

/// The log id in somebody's commit metadata, as text; `None` when Gravity did not write it.
pub fn log_id_in(metadata: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(metadata).ok()?.strip_prefix("gravity-log-id=")?;
    Some(printable(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(extra: &[(&str, &str)]) -> KafkaSourceOptions {
        KafkaSourceOptions {
            connection: KafkaConnection { hosts: vec!["127.0.0.1:1".to_owned()], ..KafkaConnection::default() },
            topics: vec!["orders".to_owned()],
            group: "gravity".to_owned(),
            log_id: LogId([7; 16]),
            accept: Acceptance::default(),
            extra: extra.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        }
    }

    #[test]
    fn settings_of_the_promises_cannot_be_overridden() {
        for key in
            ["auto.offset.reset", "isolation.level", "enable.auto.commit", "group.instance.id", "security.protocol"]
        {
            assert!(forbidden_setting(key).is_some(), "{key}");
            let fault = options(&[(key, "x")]).client_config("s").expect_err(key);
            assert!(fault.detail.contains(key), "{fault}");
        }
        let config = options(&[("fetch.wait.max.ms", "7")]).client_config("s").expect("free setting");
        assert_eq!(config.get("fetch.wait.max.ms"), Some("7"));
        assert_eq!(config.get("auto.offset.reset"), Some("error"));
        assert_eq!(config.get("isolation.level"), Some("read_committed"));
        assert_eq!(config.get("enable.auto.offset.store"), Some("false"));
    }

    #[test]
    fn unknown_settings_are_refused_by_name() {
        let problem = check_setting("fetch.wiat.max.ms", "7").expect_err("misspelt");
        assert!(problem.contains("fetch.wiat.max.ms"), "{problem}");
        assert!(check_setting("fetch.wait.max.ms", "soon").is_err());
        assert_eq!(check_setting("fetch.wait.max.ms", "7"), Ok(()));
    }

    #[test]
    fn credentials_decide_the_protocol() {
        let mut connection = options(&[]).connection;
        let protocol = |c: &KafkaConnection| c.client_config().get("security.protocol").map(str::to_owned);
        assert_eq!(protocol(&connection).as_deref(), Some("plaintext"));
        connection.username = "u".to_owned();
        connection.password = "secret-canary".to_owned();
        assert_eq!(protocol(&connection).as_deref(), Some("sasl_plaintext"));
        connection.secure = true;
        assert_eq!(protocol(&connection).as_deref(), Some("sasl_ssl"));
        assert_eq!(connection.client_config().get("sasl.mechanism"), Some("PLAIN"));
        assert!(!format!("{connection:?}").contains("canary"));
    }

    #[test]
    fn instance_ids_do_not_collide() {
        assert_eq!(instance_id("orders", "ab"), "gravity-orders-ab");
        assert_ne!(instance_id("a b", "1"), instance_id("a_b", "1"));
    }

    #[test]
    fn commit_metadata_round_trip() {
        let id = LogId([7; 16]);
        assert_eq!(log_id_in(commit_metadata(id).as_bytes()), Some(id.to_string()));
        assert_eq!(log_id_in(b"somebody else"), None);
        assert_eq!(log_id_in(&[0xff]), None);
    }
}
