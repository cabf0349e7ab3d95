//! The config directory of a stack run: one Kafka and one HTTP source, two databases, two exporters, rules for the script's events.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// Where the peers of a run are.
#[derive(Clone, Debug)]
pub struct Peers {
    /// `postgres://USER@HOST:PORT/…`; the database of the run is made there.
    pub postgres: String,
    /// `HOST:PORT`.
    pub kafka: String,
}

impl Peers {
    /// As `conformance/servers env` names them. The error says what is missing.
    pub fn from_environment() -> Result<Peers, String> {
        let variable = |name: &str| {
            std::env::var(name).map_err(|_| format!("{name} is not set (eval \"$(conformance/servers env)\")"))
        };
        Ok(Peers { postgres: variable("GRAVITY_TEST_POSTGRES")?, kafka: variable("GRAVITY_TEST_KAFKA")? })
    }
}

/// Names and places of one run.
#[derive(Clone, Debug)]
pub struct Layout {
    pub peers: Peers,
    /// Of the run's own PostgreSQL database.
    pub database: String,
    pub topic_in: String,
    pub topic_out: String,
    pub hook: String,
    /// Holds `config/`, `data/`, `views.db`, `engine.log`, `journal`.
    pub directory: PathBuf,
    /// `HOST:PORT` of the engine's API.
    pub listen: String,
}

pub const KAFKA_SOURCE: &str = "shop";
pub const HTTP_SOURCE: &str = "web";
pub const POSTGRES: &str = "pg";
pub const SQLITE: &str = "lite";
pub const KAFKA_EXPORTER: &str = "topic";
pub const HTTP_EXPORTER: &str = "hook";

/// Events of the script that rules name.
const EVENTS: [&str; 7] =
    ["userCreated", "userRenamed", "userCleared", "userMoved", "userDeleted", "orderPlaced", "orderShipped"];

impl Layout {
    pub fn config(&self) -> PathBuf {
        self.directory.join("config")
    }

    pub fn sqlite(&self) -> PathBuf {
        self.directory.join("views.db")
    }

    pub fn write_config(&self) -> Result<(), String> {
        let config = self.config();
        std::fs::create_dir_all(&config).map_err(|error| format!("{}: {error}", config.display()))?;
        write(&config.join("sources.json"), &self.sources())?;
        write(&config.join("databases.json"), &self.databases()?)?;
        write(&config.join("exporter.json"), &self.exporters()?)?;
        write(&config.join("rules.json"), &rules())
    }

    fn sources(&self) -> Value {
        json!({"sources": {
            KAFKA_SOURCE: {
                "type": "kafka", "hosts": [self.peers.kafka], "topics": [self.topic_in], "group": self.topic_in,
            },
            HTTP_SOURCE: {"type": "http"},
        }})
    }

    fn databases(&self) -> Result<Value, String> {
        let (user, host, port) = self.postgres_parts()?;
        Ok(json!({"databases": {
            POSTGRES: {
                "type": "postgres", "host": host, "port": port, "username": user, "password": "",
                "dbName": self.database, "ddl": "create",
            },
            SQLITE: {"type": "sqlite", "path": self.sqlite(), "ddl": "create"},
        }}))
    }

    fn exporters(&self) -> Result<Value, String> {
        let (host, port) = self.peers.kafka.rsplit_once(':').ok_or("the Kafka address has no port")?;
        let port: u16 = port.parse().map_err(|_| "the Kafka port is no number".to_owned())?;
        Ok(json!({"exporter": {
            KAFKA_EXPORTER: {"type": "kafka", "host": host, "port": port, "topic": self.topic_out},
            HTTP_EXPORTER: {"type": "restful_api", "url": self.hook},
        }}))
    }

    fn postgres_parts(&self) -> Result<(String, String, u16), String> {
        let wrong = || format!("{:?} is not postgres://USER@HOST:PORT/…", self.peers.postgres);
        let rest = self.peers.postgres.split_once("://").ok_or_else(wrong)?.1;
        let authority = rest.split('/').next().unwrap_or_default();
        let (user, place) = authority.rsplit_once('@').ok_or_else(wrong)?;
        let (host, port) = place.rsplit_once(':').ok_or_else(wrong)?;
        Ok((user.to_owned(), host.to_owned(), port.parse().map_err(|_| wrong())?))
    }

    /// Connection string of the run's own database.
    pub fn postgres_url(&self) -> Result<String, String> {
        let (user, host, port) = self.postgres_parts()?;
        Ok(format!("postgres://{user}@{host}:{port}/{}", self.database))
    }
}

fn rules() -> Value {
    let id = || json!({"source": "user.id", "target": "id", "type": "i64", "primary": true});
    let name = || json!({"source": "user.name", "target": "name", "type": "text"});
    let email = || json!({"source": "user.email", "target": "email", "type": "text"});
    let order = || {
        vec![
            json!({"source": "order.entity", "target": "entity", "type": "i64", "primary": true}),
            json!({"source": "order.number", "target": "number", "type": "i64", "primary": true}),
        ]
    };
    let state = |word: &str| json!({"value": word, "target": "state", "type": "text"});
    let mut placed = order();
    placed.push(json!({"source": "order.total", "target": "total", "type": "decimal(20,4)"}));
    placed.push(state("placed"));
    let mut shipped = order();
    shipped.push(state("shipped"));
    let mut rules = vec![
        json!({"event": "userCreated", "table": "users", "method": "update", "mapping": [
            id(), name(), email(),
            {"source": "user.age", "target": "age", "type": "i64"},
            {"source": "user.amount", "target": "amount", "type": "decimal(20,4)"},
            {"source": "user.active", "target": "active", "type": "bool"},
        ]}),
        json!({"event": "userRenamed", "table": "users", "method": "update", "mapping": [id(), name()]}),
        json!({"event": "userCleared", "table": "users", "method": "update", "mapping": [id(), email()]}),
        json!({"event": "userMoved", "table": "users", "method": "update", "mapping": [
            {"source": "user.id", "target": "id", "type": "i64", "primary": true, "previous": "user.was"},
        ]}),
        json!({"event": "userDeleted", "table": "users", "method": "delete", "mapping": [id()]}),
        json!({"event": "orderPlaced", "table": "orders", "method": "insert", "mapping": placed}),
        json!({"event": "orderShipped", "table": "orders", "method": "patch", "mapping": shipped}),
    ];
    for event in EVENTS {
        // Keyed by the sequence: an event that got into the log twice has two rows here.
        rules.push(json!({"event": event, "table": "audit", "method": "insert", "mapping": [
            {"source": "$meta.sequence", "target": "sequence", "type": "i64", "primary": true},
            {"source": "i", "target": "i", "type": "i64"},
        ]}));
        rules.push(json!({"event": event, "database": POSTGRES, "exporter": [KAFKA_EXPORTER]}));
        rules.push(json!({"event": event, "database": SQLITE, "exporter": [HTTP_EXPORTER]}));
    }
    json!({"rules": rules})
}

fn write(path: &Path, value: &Value) -> Result<(), String> {
    let text = serde_json::to_string_pretty(value).map_err(|error| error.to_string())?;
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_written_for_the_peers_at_hand() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let layout = Layout {
            peers: Peers {
                postgres: "postgres://g@127.0.0.1:15432/postgres".to_owned(),
                kafka: "127.0.0.1:9".to_owned(),
            },
            database: "d".to_owned(),
            topic_in: "in".to_owned(),
            topic_out: "out".to_owned(),
            hook: "http://127.0.0.1:1/hook".to_owned(),
            directory: directory.path().to_owned(),
            listen: "127.0.0.1:2".to_owned(),
        };
        layout.write_config().expect("written");
        let read = |name: &str| -> Value {
            let text = std::fs::read_to_string(layout.config().join(name)).expect("there");
            serde_json::from_str(&text).expect("JSON")
        };
        assert_eq!(read("databases.json")["databases"]["pg"]["port"], 15432);
        assert_eq!(read("exporter.json")["exporter"]["topic"]["port"], 9);
        assert_eq!(read("rules.json")["rules"].as_array().map(Vec::len), Some(7 + 3 * 7));
        assert_eq!(layout.postgres_url().as_deref(), Ok("postgres://g@127.0.0.1:15432/d"));
    }
}
