//! What a RabbitMQ source or exporter is told, and nothing with I/O.

use std::path::PathBuf;

/// Messages that the broker may have under way to us in each queue, where the config does not say.
pub const PREFETCH: u16 = 1000;

/// How to reach a broker, shared by sources and exporters.
#[derive(Clone)]
pub struct RabbitMqConnection {
    pub host: String,
    pub port: u16,
    pub virtual_host: String,
    pub username: String,
    pub password: String,
    /// True: TLS, certificate and name verified.
    pub secure: bool,
    /// PEM file of the authorities to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// PEM files of our own certificate and its key.
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
}

impl RabbitMqConnection {
    /// Without TLS, as the broker's own user `guest`, who may sign in from the same machine only.
    pub fn new(host: impl Into<String>, port: u16) -> RabbitMqConnection {
        RabbitMqConnection {
            host: host.into(),
            port,
            virtual_host: "/".to_owned(),
            username: "guest".to_owned(),
            password: "guest".to_owned(),
            secure: false,
            ca_file: None,
            cert_file: None,
            key_file: None,
        }
    }

    /// `HOST:PORT`, for messages.
    pub fn place(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

/// Never shows the password.
impl std::fmt::Debug for RabbitMqConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RabbitMqConnection")
            .field("place", &self.place())
            .field("virtual_host", &self.virtual_host)
            .field("username", &self.username)
            .field("secure", &self.secure)
            .finish_non_exhaustive()
    }
}

/// A `rabbitmq` entry of sources.json.
#[derive(Clone, Debug)]
pub struct RabbitMqSourceOptions {
    pub connection: RabbitMqConnection,
    /// At least one; none is ever created.
    pub queues: Vec<String>,
    /// Per queue, at least 1.
    pub prefetch: u16,
}

/// A `rabbitmq` entry of exporter.json.
#[derive(Clone, Debug)]
pub struct RabbitMqExporterOptions {
    pub connection: RabbitMqConnection,
    /// Empty: the default exchange, which routes to the queue that the routing key names.
    pub exchange: String,
    /// The event's name where absent.
    pub routing_key: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_shown() {
        let connection = RabbitMqConnection { password: "canary".to_owned(), ..RabbitMqConnection::new("h", 1) };
        assert!(!format!("{connection:?}").contains("canary"), "{connection:?}");
    }
}
