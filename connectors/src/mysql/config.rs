//! What a MySQL view store is told, and how that becomes connection options.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use sqlx::ConnectOptions;
use sqlx::mysql::{MySqlConnectOptions, MySqlSslMode};

use crate::sql::{Bookkeeping, TlsMode};

/// One database of a MySQL or MariaDB server. User and password go to the driver as they are, never through a URL.
#[derive(Clone)]
pub struct MySqlOptions {
    /// Host name, address, or the path of a Unix socket (begins with `/`).
    pub host: String,
    pub port: u16,
    pub user: String,
    pub password: String,
    pub db_name: String,
    pub tls: TlsMode,
    /// PEM file of certificate authorities trusted beside those of the system.
    pub ca_file: Option<PathBuf>,
    /// PEM files of our own certificate and its key.
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
    pub bookkeeping: Bookkeeping,
    /// Longest connect, TLS and login included.
    pub connect_timeout: Duration,
    /// The server cancels a statement that runs longer; MySQL has such a limit for reading statements only.
    pub statement_timeout: Duration,
    /// How much longer than `statement_timeout` an answer may take before the connection is given up as dead.
    pub answer_grace: Duration,
    /// Longest wait for a lock that another session holds; the server counts in whole seconds.
    pub lock_timeout: Duration,
    /// The server ends a session that leaves a transaction open and silent for longer; whole seconds. MySQL has no such limit
    /// but that of any silent session, so there an idle connection ends as well.
    pub idle_in_transaction_timeout: Duration,
}

impl MySqlOptions {
    /// Verified TLS, automatic bookkeeping, and limits that a healthy server stays far below.
    pub fn new(host: impl Into<String>, port: u16, db_name: impl Into<String>) -> MySqlOptions {
        MySqlOptions {
            host: host.into(),
            port,
            user: "root".to_owned(),
            password: String::new(),
            db_name: db_name.into(),
            tls: TlsMode::VerifyFull,
            ca_file: None,
            cert_file: None,
            key_file: None,
            bookkeeping: Bookkeeping::Auto,
            connect_timeout: Duration::from_secs(10),
            statement_timeout: Duration::from_secs(60),
            answer_grace: Duration::from_secs(15),
            lock_timeout: Duration::from_secs(10),
            idle_in_transaction_timeout: Duration::from_secs(60),
        }
    }

    /// For messages: where, never who with what password.
    pub fn place(&self) -> String {
        format!("{}:{}/{}", self.host, self.port, self.db_name)
    }

    pub(super) fn connect_options(&self) -> MySqlConnectOptions {
        let mut options = MySqlConnectOptions::new()
            // Faults are reported by the engine, once, with what they mean.
            .disable_statement_logging()
            .port(self.port)
            .username(&self.user)
            .database(&self.db_name)
            // A few statements per table, operation and column set are in use at a time.
            .statement_cache_capacity(512)
            // The session is set up by `client`, whole: nothing of the server's own choice stays in sql_mode.
            .pipes_as_concat(false)
            .no_engine_substitution(false)
            .ssl_mode(match self.tls {
                TlsMode::VerifyFull => MySqlSslMode::VerifyIdentity,
                TlsMode::VerifyChain => MySqlSslMode::VerifyCa,
                TlsMode::Unverified => MySqlSslMode::Required,
                TlsMode::Off => MySqlSslMode::Disabled,
            });
        // An account without a password wants an empty answer, not the scramble of an empty password.
        if !self.password.is_empty() {
            options = options.password(&self.password);
        }
        options = match self.host.starts_with('/') {
            true => options.socket(&self.host),
            false => options.host(&self.host),
        };
        if let Some(file) = &self.ca_file {
            options = options.ssl_ca(file);
        }
        if let Some(file) = &self.cert_file {
            options = options.ssl_client_cert(file);
        }
        if let Some(file) = &self.key_file {
            options = options.ssl_client_key(file);
        }
        options
    }
}

impl fmt::Debug for MySqlOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MySqlOptions").field("place", &self.place()).field("tls", &self.tls).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn o34_debug_shows_no_credential() {
        let options =
            MySqlOptions { password: "CANARY".to_owned(), user: "CANARY".to_owned(), ..MySqlOptions::new("h", 1, "d") };
        assert!(!format!("{options:?}").contains("CANARY"));
    }
}
