//! What a MongoDB view store is told, and how that becomes the driver's options.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use gravity_model::{Fault, FaultKind};
use mongodb::options::{ClientOptions, Credential, ServerAddress, Tls, TlsOptions};

use super::error::fault;
use crate::sql::Bookkeeping;

/// Where the server is.
#[derive(Clone)]
pub enum MongoPlace {
    /// A connection string; it may name the database, and holds whatever else the driver takes.
    Uri(String),
    /// Empty user: no authentication.
    Host { host: String, port: u16, user: String, password: String },
}

/// One database of a MongoDB server, replica set or sharded cluster.
#[derive(Clone)]
pub struct MongoOptions {
    pub place: MongoPlace,
    /// `None`: the one that the connection string names.
    pub db_name: Option<String>,
    /// For a host; a connection string says it itself. Certificates and names are always verified.
    pub tls: bool,
    /// PEM file of the authorities to trust instead of the driver's own list.
    pub ca_file: Option<PathBuf>,
    /// PEM file of our own certificate *and* its key: the driver reads both from one file.
    pub cert_file: Option<PathBuf>,
    /// The same file, or nothing.
    pub key_file: Option<PathBuf>,
    pub bookkeeping: Bookkeeping,
    /// Longest search for a server and longest connect, TLS and login included.
    pub connect_timeout: Duration,
    /// The server gives up a command that runs longer (`maxTimeMS`).
    pub statement_timeout: Duration,
    /// How much longer than `statement_timeout` an answer may take before the connection is given up as dead.
    pub answer_grace: Duration,
    /// How long a bookkeeping rewrite waits for a transaction that holds what it wants.
    pub lock_timeout: Duration,
    /// How long a stand-alone server keeps the mark of a deleted document.
    pub tombstone_keep: Duration,
}

impl MongoOptions {
    pub fn new(place: MongoPlace) -> MongoOptions {
        MongoOptions {
            place,
            db_name: None,
            tls: true,
            ca_file: None,
            cert_file: None,
            key_file: None,
            bookkeeping: Bookkeeping::Auto,
            connect_timeout: Duration::from_secs(10),
            statement_timeout: Duration::from_secs(60),
            answer_grace: Duration::from_secs(15),
            lock_timeout: Duration::from_secs(10),
            tombstone_keep: Duration::from_secs(24 * 60 * 60),
        }
    }

    /// The driver's options and the database's name. A connection string of the form `mongodb+srv` asks the DNS here.
    pub(super) async fn resolve(&self) -> Result<(ClientOptions, String), Fault> {
        const DOING: &str = "read the connection options";
        let refuse = |detail: String| Fault::new(FaultKind::Misconfigured, "configuration", DOING, detail);
        let mut options = match &self.place {
            MongoPlace::Uri(uri) => ClientOptions::parse(uri).await.map_err(|error| fault(error, DOING))?,
            MongoPlace::Host { host, port, user, password } => {
                let address = ServerAddress::Tcp { host: host.clone(), port: Some(*port) };
                let mut options = ClientOptions::builder().hosts(vec![address]).build();
                if !user.is_empty() {
                    let credential = Credential::builder().username(user.clone()).password(password.clone()).build();
                    options.credential = Some(credential);
                }
                options
            }
        };
        if self.tls && matches!(self.place, MongoPlace::Host { .. }) {
            options.tls = Some(Tls::Enabled(TlsOptions::default()));
        }
        if self.ca_file.is_some() || self.cert_file.is_some() || self.key_file.is_some() {
            if self.key_file.is_some() && self.key_file != self.cert_file {
                let detail = "`certFile` and `keyFile` must be one PEM file that holds certificate and key";
                return Err(refuse(detail.to_owned()));
            }
            let mut tls = match options.tls.take() {
                Some(Tls::Enabled(tls)) => tls,
                _ => return Err(refuse("certificates are given, but the connection is not encrypted".to_owned())),
            };
            tls.ca_file_path = self.ca_file.clone().or(tls.ca_file_path);
            tls.cert_key_file_path = self.cert_file.clone().or(tls.cert_key_file_path);
            options.tls = Some(Tls::Enabled(tls));
        }
        options.app_name = Some("gravity".to_owned());
        options.connect_timeout = Some(self.connect_timeout);
        options.server_selection_timeout = Some(self.connect_timeout);
        let name = self.db_name.clone().or_else(|| options.default_database.clone());
        match name {
            Some(name) if !name.is_empty() => Ok((options, name)),
            _ => Err(refuse("no database is named: write `dbName`, or name it in `uri`".to_owned())),
        }
    }
}

impl fmt::Debug for MongoOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A connection string holds the password.
        let place = match &self.place {
            MongoPlace::Uri(_) => "a connection string".to_owned(),
            MongoPlace::Host { host, port, .. } => format!("{host}:{port}"),
        };
        f.debug_struct("MongoOptions").field("place", &place).field("tls", &self.tls).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn o34_debug_shows_no_credential() {
        for place in [
            MongoPlace::Uri("mongodb://CANARY:CANARY@h/d".to_owned()),
            MongoPlace::Host {
                host: "h".to_owned(),
                port: 1,
                user: "CANARY".to_owned(),
                password: "CANARY".to_owned(),
            },
        ] {
            assert!(!format!("{:?}", MongoOptions::new(place)).contains("CANARY"));
        }
    }
}
