//! `sources.json` as it is typed: where events come from.

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::secret::Secret;
use super::shared::{NatsSignInKeys, SaslMechanism, TransportKeys};
use super::tag;
use super::unit::Size;

/// The whole file.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "sources.json: where Gravity reads events", deny_unknown_fields)]
pub struct SourcesFile {
    /// Where editors find this schema.
    #[serde(rename = "$schema", default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// Sources by name.
    pub sources: IndexMap<String, SourceEntry>,
}

/// One source; `type` decides which keys it takes.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum SourceEntry {
    Kafka(KafkaSourceKeys),
    Nats(NatsSourceKeys),
    RabbitMq(RabbitMqSourceKeys),
    Http(HttpSourceKeys),
}

impl SourceEntry {
    /// Reads an entry of a known `type`.
    pub fn read(value: Value) -> Result<SourceEntry, serde_json::Error> {
        match value["type"].as_str() {
            Some(tag::Kafka::WORD) => serde_json::from_value(value).map(SourceEntry::Kafka),
            Some(tag::Nats::WORD) => serde_json::from_value(value).map(SourceEntry::Nats),
            Some(tag::RabbitMq::WORD) => serde_json::from_value(value).map(SourceEntry::RabbitMq),
            _ => serde_json::from_value(value).map(SourceEntry::Http),
        }
    }

    pub fn kind(&self) -> &'static str {
        match self {
            SourceEntry::Kafka(_) => tag::Kafka::WORD,
            SourceEntry::Nats(_) => tag::Nats::WORD,
            SourceEntry::RabbitMq(_) => tag::RabbitMq::WORD,
            SourceEntry::Http(_) => tag::Http::WORD,
        }
    }

    pub fn intake(&self) -> &IntakeKeys {
        match self {
            SourceEntry::Kafka(keys) => &keys.intake,
            SourceEntry::Nats(keys) => &keys.intake,
            SourceEntry::RabbitMq(keys) => &keys.intake,
            SourceEntry::Http(keys) => &keys.intake,
        }
    }

    /// The source that exists where no `sources.json` does: type and name are `http`.
    pub fn default_http() -> SourceEntry {
        SourceEntry::Http(HttpSourceKeys { kind: tag::Http, intake: IntakeKeys::default() })
    }
}

/// Keys of every source: how a message becomes an event.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct IntakeKeys {
    /// What a message looks like. `auto` recognises it by shape and headers; plain JSON is what is left.
    #[serde(default)]
    pub envelope: EnvelopeWord,
    /// Event name of plain messages: one constant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_name: Option<String>,
    /// Event name of plain messages, taken from `field:/PATH`, `header:NAME`, `topic`, `subject` or `routing_key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_from: Option<String>,
    /// Event key, taken from `message_key`, `field:/PATH` or `header:NAME`. The message's own key by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_from: Option<String>,
    /// Where to begin while the log holds no position of this source.
    #[serde(default)]
    pub start: StartWord,
    /// How many bytes of dedupe entries the log keeps for ids and idempotency keys. 1 GiB by default; the largest of all
    /// sources counts, because the log keeps one set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dedupe_keep: Option<Size>,
    /// Largest batch or request body. 16 MiB by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_batch: Option<Size>,
    /// What a message with a key and no value means.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tombstone: Option<TombstoneWord>,
}

/// Shape of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EnvelopeWord {
    #[default]
    Auto,
    Gravity,
    CloudEvents,
    Debezium,
    Plain,
}

/// Where to begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StartWord {
    #[default]
    Earliest,
    Latest,
}

/// What a null value means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TombstoneWord {
    Ignore,
    Delete,
}

/// Keys of the original's sources, with what to write instead.
fn removed() -> Value {
    serde_json::json!({
        "groupId": "write `group`",
        "topic": "write `topics`, a list",
        "channel": "write `subjects`, a list",
        "durable_name": "write `durable`",
        "cluster_id": "NATS Streaming is gone: read a JetStream stream with `stream`",
        "worker_count": "remove it: partitions are read side by side by themselves",
        "ping_interval": "remove it",
        "max_pings_outstanding": "remove it",
        "max_reconnects": "remove it: Gravity reconnects for ever"
    })
}

/// Apache Kafka. Every record that the broker still has is in the log exactly once, in partition order.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields, extend("x-removed" = removed()))]
pub struct KafkaSourceKeys {
    #[serde(rename = "type")]
    pub kind: tag::Kafka,
    /// Bootstrap servers, `host:port` each.
    pub hosts: Vec<String>,
    pub topics: Vec<String>,
    /// Consumer group; one group feeds one log.
    pub group: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// How `username` and `password` are shown to the broker. `PLAIN` by default.
    #[serde(rename = "saslMechanism", default, skip_serializing_if = "Option::is_none")]
    pub sasl_mechanism: Option<SaslMechanism>,
    /// Settings of librdkafka. Those that the promises depend on are refused.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub kafka: IndexMap<String, ClientSetting>,
    #[serde(flatten)]
    pub history: HistoryKeys,
    #[serde(flatten)]
    pub transport: TransportKeys,
    #[serde(flatten)]
    pub intake: IntakeKeys,
}

/// Value of a librdkafka setting.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum ClientSetting {
    Text(String),
    Number(i64),
    Switch(bool),
}

impl std::fmt::Display for ClientSetting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ClientSetting::Text(text) => f.write_str(text),
            ClientSetting::Number(number) => number.fmt(f),
            ClientSetting::Switch(on) => on.fmt(f),
        }
    }
}

/// What a source does where its broker no longer has what the log expects: it halts, unless that is accepted by name.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct HistoryKeys {
    /// A topic or stream that was deleted and made anew under its name is read from its beginning.
    #[serde(default)]
    pub accept_recreated: bool,
    /// Where retention took what was not read yet, reading goes on behind it.
    #[serde(default)]
    pub accept_gap: bool,
}

/// NATS: a JetStream stream, or core subjects with `"mode": "core"`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields, extend("x-removed" = removed()))]
pub struct NatsSourceKeys {
    #[serde(rename = "type")]
    pub kind: tag::Nats,
    /// Servers, `host:port` each.
    pub hosts: Vec<String>,
    /// Subjects; `*` stands for one part between dots, `>` at the end for all that follow.
    pub subjects: Vec<String>,
    /// JetStream stream. Not with `"mode": "core"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    #[serde(default)]
    pub mode: NatsMode,
    /// Durable consumer, only for work-queue and interest streams.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub durable: Option<String>,
    /// Queue group of core subscriptions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_group: Option<String>,
    /// Core NATS delivers at most once: what is published while Gravity is away is gone. Must be accepted by name.
    #[serde(default)]
    pub accept_at_most_once: bool,
    #[serde(flatten)]
    pub history: HistoryKeys,
    #[serde(flatten)]
    pub sign_in: NatsSignInKeys,
    #[serde(flatten)]
    pub transport: TransportKeys,
    #[serde(flatten)]
    pub intake: IntakeKeys,
}

/// How a NATS source reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NatsMode {
    #[default]
    JetStream,
    Core,
}

/// RabbitMQ queues.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields, extend("x-removed" = removed()))]
pub struct RabbitMqSourceKeys {
    #[serde(rename = "type")]
    pub kind: tag::RabbitMq,
    pub host: String,
    /// 5672 by default, 5671 with TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// `/` by default.
    #[serde(rename = "virtualHost", default, skip_serializing_if = "Option::is_none")]
    pub virtual_host: Option<String>,
    pub queues: Vec<String>,
    /// Unacknowledged messages that the broker may have under way to us.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefetch: Option<u16>,
    #[serde(flatten)]
    pub transport: TransportKeys,
    #[serde(flatten)]
    pub intake: IntakeKeys,
}

/// `POST /v1/events/NAME`. 2xx means that the events survive a power cut.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct HttpSourceKeys {
    #[serde(rename = "type")]
    pub kind: tag::Http,
    #[serde(flatten)]
    pub intake: IntakeKeys,
}
