//! What a NATS source or exporter is told, and nothing with I/O.

use std::path::PathBuf;

use gravity_model::LogId;
use gravity_model::port::source::Acceptance;

/// How to reach a server or a cluster, shared by sources and exporters.
#[derive(Clone, Debug, Default)]
pub struct NatsConnection {
    /// `host:port` each, at least one. Servers that a cluster announces beside them are not used: where credentials go is
    /// decided here.
    pub hosts: Vec<String>,
    /// True: TLS, certificate and name verified.
    pub secure: bool,
    pub sign_in: SignIn,
    /// PEM file of the authorities to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// PEM files of our own certificate and its key.
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
}

/// Who we say we are.
#[derive(Clone, Default)]
pub enum SignIn {
    #[default]
    Nobody,
    Password {
        username: String,
        password: String,
    },
    Token(String),
    /// Contents of a `.creds` file: a user's JWT and the seed that signs for it.
    Credentials(String),
    /// Seed of an NKey.
    NKey(String),
}

/// Never shows a secret.
impl std::fmt::Debug for SignIn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            SignIn::Nobody => "Nobody",
            SignIn::Password { .. } => "Password",
            SignIn::Token(_) => "Token",
            SignIn::Credentials(_) => "Credentials",
            SignIn::NKey(_) => "NKey",
        })
    }
}

impl NatsConnection {
    /// The hosts, for messages.
    pub fn place(&self) -> String {
        self.hosts.join(", ")
    }
}

/// A `nats` entry of sources.json.
#[derive(Clone, Debug)]
pub struct NatsSourceOptions {
    pub connection: NatsConnection,
    /// Patterns; at least one.
    pub subjects: Vec<String>,
    pub reading: NatsReading,
    /// The log that this source feeds: kept in the durable consumer, so that no second log reads with it.
    pub log_id: LogId,
    /// What is read on from although history broke.
    pub accept: Acceptance,
}

/// Where the messages come from.
#[derive(Clone, Debug)]
pub enum NatsReading {
    /// A JetStream stream; `durable` names the consumer of a work-queue or interest stream, and only of those.
    Stream { stream: String, durable: Option<String> },
    /// Core subjects: at most once, whoever assembles this has made sure that the user accepts it.
    Core { queue_group: Option<String> },
}

/// A `nats` entry of exporter.json.
#[derive(Clone, Debug)]
pub struct NatsExporterOptions {
    pub connection: NatsConnection,
    pub subject: String,
}

/// A `jetstream` entry of exporter.json.
#[derive(Clone, Debug)]
pub struct JetStreamExporterOptions {
    pub connection: NatsConnection,
    pub subject: String,
    /// The stream that must take it; any one where absent.
    pub stream: Option<String>,
}

/// The description that a durable consumer carries: one consumer feeds one log.
pub fn log_mark(log_id: LogId) -> String {
    format!("gravity-log-id={log_id}")
}

/// The log id in a consumer's description, as text; `None` when Gravity did not write it.
pub(super) fn log_id_in(description: &str) -> Option<&str> {
    description.strip_prefix("gravity-log-id=")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        for sign_in in [
            SignIn::Password { username: "u".to_owned(), password: "canary".to_owned() },
            SignIn::Token("canary".to_owned()),
            SignIn::Credentials("canary".to_owned()),
            SignIn::NKey("canary".to_owned()),
        ] {
            let connection = NatsConnection { sign_in, ..NatsConnection::default() };
            assert!(!format!("{connection:?}").contains("canary"), "{connection:?}");
        }
    }

    #[test]
    fn a_mark_is_read_back_and_nothing_else_is_one() {
        let log = LogId([7; 16]);
        assert_eq!(log_id_in(&log_mark(log)), Some(log.to_string().as_str()));
        assert_eq!(log_id_in("orders for the shop"), None);
    }
}
