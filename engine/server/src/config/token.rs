//! Who may call the API, as gravity.toml says it.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::secret::Secret;

/// One caller of the API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenEntry {
    /// Shown as the actor of what it does.
    pub name: String,
    pub role: Role,
    /// The token; write `${env:NAME}` or `${file:/path}`.
    pub token: Secret,
}

/// What a caller may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads status, metrics, events, dead letters.
    Viewer,
    /// Publishes events and waits for views; reads nothing else.
    Ingest,
    /// Reads, publishes, retries and skips dead letters, pauses and resumes routes.
    Operator,
    /// Everything.
    Admin,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Viewer => "viewer",
            Role::Ingest => "ingest",
            Role::Operator => "operator",
            Role::Admin => "admin",
        })
    }
}

/// Certificate and key of the API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TlsFiles {
    /// PEM: the certificate, then its issuers.
    pub cert_file: String,
    /// PEM: the private key.
    pub key_file: String,
}
