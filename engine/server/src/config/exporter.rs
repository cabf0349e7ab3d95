//! `exporter.json` as it is typed: who is told once a view is in step. The deck's keys, and what was added.

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::secret::Secret;
use super::shared::{NatsSignInKeys, SaslMechanism, TransportKeys};
use super::tag;

/// The whole file.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(
    title = "exporter.json: who Gravity tells",
    deny_unknown_fields,
    extend("x-removed" = serde_json::json!({"exporters": "write `exporter`"}))
)]
pub struct ExporterFile {
    /// Where editors find this schema.
    #[serde(rename = "$schema", default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// Exporters by name.
    pub exporter: IndexMap<String, ExporterEntry>,
}

/// One exporter; `type` decides which keys it takes.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum ExporterEntry {
    Kafka(KafkaExporterKeys),
    RestfulApi(RestfulApiKeys),
    Nats(NatsExporterKeys),
    JetStream(JetStreamExporterKeys),
    RabbitMq(RabbitMqExporterKeys),
}

impl ExporterEntry {
    /// Reads an entry of a known `type`.
    pub fn read(value: Value) -> Result<ExporterEntry, serde_json::Error> {
        match value["type"].as_str() {
            Some(tag::RestfulApi::WORD) => serde_json::from_value(value).map(ExporterEntry::RestfulApi),
            Some(tag::Nats::WORD) => serde_json::from_value(value).map(ExporterEntry::Nats),
            Some(tag::JetStream::WORD) => serde_json::from_value(value).map(ExporterEntry::JetStream),
            Some(tag::RabbitMq::WORD) => serde_json::from_value(value).map(ExporterEntry::RabbitMq),
            _ => serde_json::from_value(value).map(ExporterEntry::Kafka),
        }
    }

    pub fn kind(&self) -> &'static str {
        match self {
            ExporterEntry::Kafka(_) => tag::Kafka::WORD,
            ExporterEntry::RestfulApi(_) => tag::RestfulApi::WORD,
            ExporterEntry::Nats(_) => tag::Nats::WORD,
            ExporterEntry::JetStream(_) => tag::JetStream::WORD,
            ExporterEntry::RabbitMq(_) => tag::RabbitMq::WORD,
        }
    }

    pub fn delivery(&self) -> &DeliveryKeys {
        match self {
            ExporterEntry::Kafka(keys) => &keys.delivery,
            ExporterEntry::RestfulApi(keys) => &keys.delivery,
            ExporterEntry::Nats(keys) => &keys.delivery,
            ExporterEntry::JetStream(keys) => &keys.delivery,
            ExporterEntry::RabbitMq(keys) => &keys.delivery,
        }
    }
}

/// Keys of every exporter.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct DeliveryKeys {
    /// Body of a message: CloudEvents 1.0, or the original's object.
    #[serde(default)]
    pub format: FormatWord,
    /// What to do when the caller or place is refused (401, 403, 404, unknown topic). Absent: stop and probe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_refused: Option<OnRefused>,
    /// Allow a host *name* that resolves to a private, loopback or link-local address.
    #[serde(default)]
    pub allow_private: bool,
}

/// Body of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FormatWord {
    #[default]
    CloudEvents,
    Gravity,
}

/// What to do with a message whose place is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnRefused {
    Stop,
    Park,
}

/// A Kafka topic.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct KafkaExporterKeys {
    #[serde(rename = "type")]
    pub kind: tag::Kafka,
    pub host: String,
    /// 9092 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// How `username` and `password` are shown to the broker. `PLAIN` by default.
    #[serde(rename = "saslMechanism", default, skip_serializing_if = "Option::is_none")]
    pub sasl_mechanism: Option<SaslMechanism>,
    pub topic: String,
    #[serde(flatten)]
    pub transport: TransportKeys,
    #[serde(flatten)]
    pub delivery: DeliveryKeys,
}

/// A URL that takes `POST`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct RestfulApiKeys {
    #[serde(rename = "type")]
    pub kind: tag::RestfulApi,
    /// `http` or `https`; the scheme decides about TLS. No credentials in it.
    pub url: String,
    /// PEM file with the authorities to trust instead of the system's.
    #[serde(rename = "caFile", default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<String>,
    /// PEM file with our certificate, for servers that ask for one.
    #[serde(rename = "certFile", default, skip_serializing_if = "Option::is_none")]
    pub cert_file: Option<String>,
    /// PEM file with the key of `certFile`.
    #[serde(rename = "keyFile", default, skip_serializing_if = "Option::is_none")]
    pub key_file: Option<String>,
    /// Secrets of Standard Webhooks (`whsec_` and base64): every message carries one signature per secret. Two while
    /// receivers change from the old one to the new one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signing: Vec<Secret>,
    #[serde(flatten)]
    pub delivery: DeliveryKeys,
}

/// A core NATS subject: who listens gets it, and nobody else.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct NatsExporterKeys {
    #[serde(rename = "type")]
    pub kind: tag::Nats,
    pub host: String,
    /// 4222 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    #[serde(flatten)]
    pub sign_in: NatsSignInKeys,
    pub subject: String,
    #[serde(flatten)]
    pub transport: TransportKeys,
    #[serde(flatten)]
    pub delivery: DeliveryKeys,
}

/// A JetStream stream, published to by subject.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct JetStreamExporterKeys {
    #[serde(rename = "type")]
    pub kind: tag::JetStream,
    pub host: String,
    /// 4222 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    #[serde(flatten)]
    pub sign_in: NatsSignInKeys,
    pub subject: String,
    /// The stream that must take the subject. Any one by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    #[serde(flatten)]
    pub transport: TransportKeys,
    #[serde(flatten)]
    pub delivery: DeliveryKeys,
}

/// A RabbitMQ exchange.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct RabbitMqExporterKeys {
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
    #[serde(rename = "virtualHost", default, skip_serializing_if = "Option::is_none")]
    pub virtual_host: Option<String>,
    pub exchange: String,
    #[serde(rename = "routingKey", default, skip_serializing_if = "Option::is_none")]
    pub routing_key: Option<String>,
    #[serde(flatten)]
    pub transport: TransportKeys,
    #[serde(flatten)]
    pub delivery: DeliveryKeys,
}
