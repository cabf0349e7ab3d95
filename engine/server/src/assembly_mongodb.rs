//! From a MongoDB entry of `databases.json` to the connector's options.

use gravity_connectors::mongodb::{MongoOptions, MongoPlace, MongoViews};

use crate::assembly::{TlsPaths, bookkeeping, exposed, patience};
use crate::config::database::MongoDbKeys;
use crate::config::{Config, Protection, is_loopback};

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
    (options.statement_timeout, options.answer_grace) = patience(&keys.patience);
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

/// Hosts off this machine that a connection string speaks with unencrypted; never its credentials.
pub fn open_hosts(uri: &str) -> Vec<String> {
    let (scheme, rest) = uri.split_once("://").unwrap_or(("", uri));
    let (place, options) = rest.split_once('?').unwrap_or((rest, ""));
    let set = |wanted: &str| {
        let mut pairs = options.split('&').filter_map(|pair| pair.split_once('='));
        pairs.any(|(key, value)| ["tls", "ssl"].contains(&key.to_ascii_lowercase().as_str()) && value == wanted)
    };
    let encrypted = if scheme == "mongodb+srv" { !set("false") } else { set("true") };
    if encrypted {
        return Vec::new();
    }
    let place = place.split('/').next().unwrap_or_default();
    let hosts = place.rsplit_once('@').map_or(place, |(_, hosts)| hosts);
    let name = |host: &str| match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name.to_owned(),
        _ => host.to_owned(),
    };
    hosts.split(',').map(name).filter(|host| !host.is_empty() && !is_loopback(host)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unencrypted_hosts_are_named_without_credentials() {
        for (uri, open) in [
            ("mongodb://u:p@db.example.com:27017,127.0.0.1/d", &["db.example.com"][..]),
            ("mongodb://db.example.com/d?tls=true", &[]),
            ("mongodb://db.example.com/d?replicaSet=r&SSL=true", &[]),
            ("mongodb://localhost:1/d", &[]),
            ("mongodb://[::1]:1/d", &[]),
            ("mongodb+srv://u:p@db.example.com/d", &[]),
            ("mongodb+srv://u:p@db.example.com/d?tls=false", &["db.example.com"]),
        ] {
            assert_eq!(open_hosts(uri), open, "{uri}");
        }
    }
}
