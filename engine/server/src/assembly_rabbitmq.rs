//! RabbitMQ entries of a checked config as the connector's options.

use gravity_connectors::rabbitmq::{PREFETCH, RabbitMqConnection, RabbitMqExporterOptions, RabbitMqSourceOptions};

use crate::assembly::TlsPaths;
use crate::config::exporter::RabbitMqExporterKeys;
use crate::config::source::RabbitMqSourceKeys;
use crate::config::{Config, Protection, Secret, TransportKeys};

const PORT: u16 = 5672;
const TLS_PORT: u16 = 5671;
/// The user that a broker has from the beginning; it lets him in from its own machine only.
const BUILT_IN: &str = "guest";

pub fn source(config: &Config, keys: &RabbitMqSourceKeys) -> RabbitMqSourceOptions {
    let place = Place {
        host: &keys.host,
        port: keys.port,
        virtual_host: keys.virtual_host.as_deref(),
        username: keys.username.as_deref(),
        password: keys.password.as_ref(),
        transport: &keys.transport,
    };
    RabbitMqSourceOptions {
        connection: place.connection(config),
        queues: keys.queues.clone(),
        prefetch: keys.prefetch.unwrap_or(PREFETCH),
    }
}

pub fn exporter(config: &Config, keys: &RabbitMqExporterKeys) -> RabbitMqExporterOptions {
    let place = Place {
        host: &keys.host,
        port: keys.port,
        virtual_host: keys.virtual_host.as_deref(),
        username: keys.username.as_deref(),
        password: keys.password.as_ref(),
        transport: &keys.transport,
    };
    RabbitMqExporterOptions {
        connection: place.connection(config),
        exchange: keys.exchange.clone(),
        routing_key: keys.routing_key.clone(),
    }
}

/// What both kinds of entries say of the broker.
struct Place<'k> {
    host: &'k str,
    port: Option<u16>,
    virtual_host: Option<&'k str>,
    username: Option<&'k str>,
    password: Option<&'k Secret>,
    transport: &'k TransportKeys,
}

impl Place<'_> {
    fn connection(&self, config: &Config) -> RabbitMqConnection {
        let secure = self.transport.protection([self.host]) == Protection::Tls;
        let files = TlsPaths::of(config, self.transport);
        let (username, password) = match self.username.filter(|username| !username.is_empty()) {
            Some(username) => (username, self.password.map_or("", |password| password.expose())),
            None => (BUILT_IN, BUILT_IN),
        };
        RabbitMqConnection {
            host: self.host.to_owned(),
            port: self.port.unwrap_or(if secure { TLS_PORT } else { PORT }),
            virtual_host: self.virtual_host.unwrap_or("/").to_owned(),
            username: username.to_owned(),
            password: password.to_owned(),
            secure,
            ca_file: files.ca,
            cert_file: files.cert,
            key_file: files.key,
        }
    }
}
