//! NATS entries of a checked config as the connector's options.

use gravity_connectors::nats::{
    JetStreamExporterOptions, NatsConnection, NatsExporterOptions, NatsReading, NatsSourceOptions, SignIn,
};
use gravity_model::LogId;

use crate::assembly::{TlsPaths, acceptance, with_port};
use crate::config::exporter::{JetStreamExporterKeys, NatsExporterKeys};
use crate::config::source::{NatsMode, NatsSourceKeys};
use crate::config::{Config, NatsSignInKeys, Protection, Secret, TransportKeys};

const PORT: u16 = 4222;

pub fn source(config: &Config, keys: &NatsSourceKeys, log_id: LogId) -> NatsSourceOptions {
    NatsSourceOptions {
        connection: connection(config, keys.hosts.clone(), &keys.sign_in, &keys.transport),
        subjects: keys.subjects.clone(),
        reading: match keys.mode {
            NatsMode::JetStream => {
                NatsReading::Stream { stream: keys.stream.clone().unwrap_or_default(), durable: keys.durable.clone() }
            }
            NatsMode::Core => NatsReading::Core { queue_group: keys.queue_group.clone() },
        },
        log_id,
        accept: acceptance(&keys.history),
    }
}

pub fn core_exporter(config: &Config, keys: &NatsExporterKeys) -> NatsExporterOptions {
    let hosts = vec![with_port(&keys.host, keys.port.unwrap_or(PORT))];
    NatsExporterOptions {
        connection: connection(config, hosts, &keys.sign_in, &keys.transport),
        subject: keys.subject.clone(),
    }
}

pub fn jetstream_exporter(config: &Config, keys: &JetStreamExporterKeys) -> JetStreamExporterOptions {
    let hosts = vec![with_port(&keys.host, keys.port.unwrap_or(PORT))];
    JetStreamExporterOptions {
        connection: connection(config, hosts, &keys.sign_in, &keys.transport),
        subject: keys.subject.clone(),
        stream: keys.stream.clone(),
    }
}

fn connection(config: &Config, hosts: Vec<String>, keys: &NatsSignInKeys, transport: &TransportKeys) -> NatsConnection {
    let names = hosts.iter().map(|host| host.rsplit_once(':').map_or(host.as_str(), |(name, _)| name));
    let secure = transport.protection(names) == Protection::Tls;
    let files = TlsPaths::of(config, transport);
    NatsConnection {
        secure,
        sign_in: sign_in(keys),
        ca_file: files.ca,
        cert_file: files.cert,
        key_file: files.key,
        hosts,
    }
}

/// The check has made sure that there is at most one way.
fn sign_in(keys: &NatsSignInKeys) -> SignIn {
    let text = |secret: &Secret| secret.expose().to_owned();
    let username = keys.username.as_deref().filter(|username| !username.is_empty());
    match (username, &keys.token, &keys.creds, &keys.nkey) {
        (Some(username), ..) => SignIn::Password {
            username: username.to_owned(),
            password: keys.password.as_ref().map(text).unwrap_or_default(),
        },
        (None, Some(token), ..) => SignIn::Token(text(token)),
        (None, None, Some(creds), _) => SignIn::Credentials(text(creds)),
        (None, None, None, Some(seed)) => SignIn::NKey(text(seed)),
        (None, None, None, None) => SignIn::Nobody,
    }
}
