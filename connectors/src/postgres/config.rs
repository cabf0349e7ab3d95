//! What a PostgreSQL view store is told, and how that becomes connection options.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use gravity_model::Fault;
use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgSslMode};

use crate::sql::name::Name;
use crate::sql::{Bookkeeping, TlsMode};

/// One PostgreSQL database. User and password go to the driver as they are, never through a URL.
#[derive(Clone)]
pub struct PostgresOptions {
    /// Host name, address, or the folder of a Unix socket (begins with `/`).
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
    /// Shown in `pg_stat_activity`.
    pub application_name: String,
    /// First and only entry of `search_path`; `None` leaves the account's own.
    pub schema: Option<String>,
    pub bookkeeping: Bookkeeping,
    /// Longest connect, TLS and login included.
    pub connect_timeout: Duration,
    /// The server cancels a statement that runs longer.
    pub statement_timeout: Duration,
    /// How much longer than `statement_timeout` an answer may take before the connection is given up as dead.
    pub answer_grace: Duration,
    /// Longest wait for a lock that another session holds.
    pub lock_timeout: Duration,
    /// The server ends a session that leaves a transaction open and silent for longer.
    pub idle_in_transaction_timeout: Duration,
}

impl PostgresOptions {
    /// Verified TLS, automatic bookkeeping, and limits that a healthy server stays far below.
    pub fn new(host: impl Into<String>, port: u16, db_name: impl Into<String>) -> PostgresOptions {
        PostgresOptions {
            host: host.into(),
            port,
            user: "postgres".to_owned(),
            password: String::new(),
            db_name: db_name.into(),
            tls: TlsMode::VerifyFull,
            ca_file: None,
            cert_file: None,
            key_file: None,
            application_name: "gravity".to_owned(),
            schema: None,
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

    pub(super) fn connect_options(&self) -> Result<PgConnectOptions, Fault> {
        let ms = |limit: Duration| format!("{}ms", limit.as_millis().clamp(1, i32::MAX as u128));
        let mut settings = vec![
            ("statement_timeout", ms(self.statement_timeout)),
            ("lock_timeout", ms(self.lock_timeout)),
            ("idle_in_transaction_session_timeout", ms(self.idle_in_transaction_timeout)),
            // Text that a value might be cast from is always read the same way.
            ("datestyle", "ISO,YMD".to_owned()),
            ("intervalstyle", "iso_8601".to_owned()),
            // A session of a default-serializable account would turn every lock wait into a 40001.
            ("default_transaction_isolation", "read committed".to_owned()),
        ];
        // Every statement here finds rows by key. A plan made while a table was small, or one with all array elements in it,
        // may scan the table instead, and stays cached while the table grows.
        settings.extend(
            [("plan_cache_mode", "force_generic_plan"), ("enable_seqscan", "off"), ("jit", "off")]
                .map(|(name, value)| (name, value.to_owned())),
        );
        if let Some(schema) = &self.schema {
            settings.push(("search_path", format!("\"{}\"", Name::parse(schema)?.as_str())));
        }
        let options = PgConnectOptions::new_without_pgpass()
            // Faults are reported by the engine, once, with what they mean.
            .disable_statement_logging()
            .port(self.port)
            .username(&self.user)
            // Also when it is empty: sqlx would take one from the environment of the process.
            .password(&self.password)
            .database(&self.db_name)
            .application_name(&self.application_name)
            // One prepared statement per table, operation and column set is in use at a time.
            .statement_cache_capacity(512)
            .options(settings)
            .ssl_mode(match self.tls {
                TlsMode::VerifyFull => PgSslMode::VerifyFull,
                TlsMode::VerifyChain => PgSslMode::VerifyCa,
                TlsMode::Unverified => PgSslMode::Require,
                TlsMode::Off => PgSslMode::Disable,
            });
        let mut options = match self.host.starts_with('/') {
            true => options.socket(&self.host),
            false => options.host(&self.host),
        };
        if let Some(file) = &self.ca_file {
            options = options.ssl_root_cert(file);
        }
        if let Some(file) = &self.cert_file {
            options = options.ssl_client_cert(file);
        }
        if let Some(file) = &self.key_file {
            options = options.ssl_client_key(file);
        }
        Ok(options)
    }
}

impl fmt::Debug for PostgresOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresOptions").field("place", &self.place()).field("tls", &self.tls).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn o34_debug_shows_no_credential() {
        let options = PostgresOptions {
            password: "CANARY".to_owned(),
            user: "CANARY".to_owned(),
            ..PostgresOptions::new("h", 1, "d")
        };
        assert!(!format!("{options:?}").contains("CANARY"));
    }
}
