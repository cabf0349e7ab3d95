//! From a MongoDB entry of `databases.json` to the connector's options.

use gravity_connectors::mongodb::{MongoOptions, MongoPlace, MongoViews};

use crate::assembly::{TlsPaths, bookkeeping, exposed};
use crate::config::database::MongoDbKeys;
use crate::config::{Config, Protection};

/// Where no port is given.
const PORT: u16 = 27_017;

pub fn store(config: &Config, keys: &MongoDbKeys) -> MongoViews {
    let place = match &keys.uri {
        Some(uri) => MongoPlace::Uri(uri.expose().to_owned()),
        None => MongoPlace::Host {
            host: keys.host.clone().unwrap_or_default(),
            port: keys.port.unwrap_or(PORT),
            user: keys.username.clone().unwrap_or_default(),
            password: exposed(&keys.password),
        },
    };
    let mut options = MongoOptions::new(place);
    options.db_name = keys.db_name.clone();
    options.tls = match keys.transport.protection(keys.host.as_deref()) {
        Protection::Tls => true,
        Protection::Loopback | Protection::Plaintext => false,
    };
    let files = TlsPaths::of(config, &keys.transport);
    (options.ca_file, options.cert_file, options.key_file) = (files.ca, files.cert, files.key);
    options.bookkeeping = bookkeeping(&keys.route);
    if let Some(keep) = &keys.tombstone_keep {
        options.tombstone_keep = keep.0;
    }
    MongoViews::new(options)
}

/// For the check that no two entries name one database; a connection string says in many ways where it leads.
pub fn place(keys: &MongoDbKeys) -> String {
    let name = keys.db_name.as_deref().unwrap_or_default();
    match (&keys.uri, &keys.host) {
        (Some(uri), _) => format!("mongodb {} {name}", blake3::hash(uri.expose().as_bytes())),
        (None, host) => {
            format!("mongodb {}:{}/{name}", host.as_deref().unwrap_or_default(), keys.port.unwrap_or(PORT))
        }
    }
}
