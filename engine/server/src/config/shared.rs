//! Options that several kinds of entries share, defined once: transport, sign-in, and what an address means.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::secret::Secret;

/// How the connection is protected.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TransportKeys {
    /// `true`: TLS with verified certificate and name. `false`: none. Absent: TLS, unless the address is loopback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secure: Option<bool>,
    /// PEM file with the authorities to trust instead of the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<String>,
    /// PEM file with our certificate, for servers that ask for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert_file: Option<String>,
    /// PEM file with the key of `certFile`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_file: Option<String>,
}

/// Who we say we are to a NATS server: one of the four ways, or none.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct NatsSignInKeys {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// A token instead of a name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Secret>,
    /// Contents of a `.creds` file, a user's JWT and seed: `${file:/path}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creds: Option<Secret>,
    /// Seed of an NKey.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nkey: Option<Secret>,
}

impl NatsSignInKeys {
    /// Every secret that is given, by its key.
    pub fn secrets(&self) -> impl Iterator<Item = (&'static str, &Secret)> {
        let all = [("password", &self.password), ("token", &self.token), ("creds", &self.creds), ("nkey", &self.nkey)];
        all.into_iter().filter_map(|(key, secret)| secret.as_ref().map(|secret| (key, secret)))
    }
}

/// What `secure` and the addresses come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// TLS, certificate and name verified.
    Tls,
    /// None, and nothing leaves the machine.
    Loopback,
    /// None, over a network: printed at every start.
    Plaintext,
}

impl TransportKeys {
    /// SEMANTICS 2.8: absent means verified TLS unless every address is loopback.
    pub fn protection<'a>(&self, hosts: impl IntoIterator<Item = &'a str>) -> Protection {
        let all_loopback = hosts.into_iter().all(is_loopback);
        match (self.secure, all_loopback) {
            (Some(true), _) | (None, false) => Protection::Tls,
            (Some(false) | None, true) => Protection::Loopback,
            (Some(false), false) => Protection::Plaintext,
        }
    }
}

/// SASL mechanism of a Kafka connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SaslMechanism {
    #[default]
    #[serde(rename = "PLAIN")]
    Plain,
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
}

impl SaslMechanism {
    pub fn word(self) -> &'static str {
        match self {
            SaslMechanism::Plain => "PLAIN",
            SaslMechanism::ScramSha256 => "SCRAM-SHA-256",
            SaslMechanism::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// True for addresses that never leave the machine: loopback literals, `localhost`, Unix socket paths. A *name* that merely
/// resolves there is not one, because what it resolves to can change.
pub fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.starts_with('/')
        || host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Splits `host:port`, `[v6]:port` into its parts.
pub fn split_address(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let bracketed = host.starts_with('[') && host.ends_with(']');
    if host.is_empty() || host.contains(':') && !bracketed || host.contains(['/', '@', ' ']) {
        return None;
    }
    Some((host, port.parse().ok().filter(|port| *port > 0)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn protection(secure: Option<bool>, hosts: &[&str]) -> Protection {
        TransportKeys { secure, ..TransportKeys::default() }.protection(hosts.iter().copied())
    }

    #[test]
    fn absent_secure_means_tls_unless_loopback() {
        assert_eq!(protection(None, &["db.example.com"]), Protection::Tls);
        assert_eq!(protection(None, &["127.0.0.1"]), Protection::Loopback);
        assert_eq!(protection(None, &["127.0.0.1", "10.0.0.1"]), Protection::Tls);
        assert_eq!(protection(Some(true), &["localhost"]), Protection::Tls);
        assert_eq!(protection(Some(false), &["192.168.1.1"]), Protection::Plaintext);
        assert_eq!(protection(Some(false), &["::1"]), Protection::Loopback);
        assert_eq!(protection(None, &["/var/run/postgresql"]), Protection::Loopback);
        assert_eq!(protection(None, &["localhost.example.com"]), Protection::Tls);
    }

    #[test]
    fn addresses_need_a_port() {
        assert_eq!(split_address("a:1"), Some(("a", 1)));
        assert_eq!(split_address("[::1]:9092"), Some(("[::1]", 9092)));
        for bad in ["a", ":1", "::1", "a:0", "a:70000", "http://a:1", "a b:1", "u@h:1"] {
            assert_eq!(split_address(bad), None, "{bad}");
        }
    }
}
