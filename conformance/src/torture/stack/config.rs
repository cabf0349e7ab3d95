//! The config directory of a stack run: sources, databases and exporters of its arms, rules for the script's events.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::arms::{Arms, Lane, Outlet, Peers, Server, Store};
use super::script::{MOVED, SHARE};

/// Names and places of one run.
#[derive(Clone, Debug)]
pub struct Layout {
    pub arms: Arms,
    /// Where the generator and the checker find the servers.
    pub peers: Peers,
    /// Where the engine finds them: the same places, unless something stands between.
    pub engine_peers: Peers,
    /// Of the run's own databases.
    pub database: String,
    /// Of the run's topic, stream and queue in; also the consumer group.
    pub inbound: String,
    /// Of the run's topic, stream and queue out.
    pub outbound: String,
    pub hook: String,
    /// Holds `config/`, `data/`, `views.db`, `engine.log`, `journal`.
    pub directory: PathBuf,
    /// Of the databases behind a network, where not the default.
    pub statement_timeout: Option<&'static str>,
    /// `HOST:PORT` of the engine's API.
    pub listen: String,
    /// `HOST:PORT` to which the generator posts: the same, unless something stands between.
    pub intake: String,
}

/// Events of the script that rules name.
const EVENTS: [&str; 7] =
    ["userCreated", "userRenamed", "userCleared", "userMoved", "userDeleted", "orderPlaced", "orderShipped"];

impl Layout {
    pub fn config(&self) -> PathBuf {
        self.directory.join("config")
    }

    pub fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    pub fn sqlite(&self) -> PathBuf {
        self.directory.join("views.db")
    }

    /// The one subject below a stream's name that the run uses.
    pub fn subject(stream: &str) -> String {
        format!("{stream}.items")
    }

    pub fn write_config(&self) -> Result<(), String> {
        let config = self.config();
        std::fs::create_dir_all(&config).map_err(|error| format!("{}: {error}", config.display()))?;
        write(&config.join("sources.json"), &json!({"sources": self.sources()?}))?;
        write(&config.join("databases.json"), &json!({"databases": self.databases()?}))?;
        write(&config.join("exporter.json"), &json!({"exporter": self.exporters()?}))?;
        write(&config.join("rules.json"), &rules(&self.arms))
    }

    fn sources(&self) -> Result<Map<String, Value>, String> {
        let source = |lane: &Lane| {
            let entry = match lane {
                Lane::Kafka => json!({
                    "type": "kafka", "hosts": [self.engine_peers.at(Server::Kafka)?], "topics": [self.inbound],
                    "group": self.inbound,
                }),
                Lane::Http => json!({"type": "http"}),
                Lane::Nats => json!({
                    "type": "nats", "hosts": [self.engine_peers.at(Server::Nats)?], "stream": self.inbound,
                    "subjects": [format!("{}.>", self.inbound)],
                }),
                Lane::RabbitMq => {
                    let place = self.engine_peers.place(Server::RabbitMq)?;
                    json!({"type": "rabbitmq", "host": place.host, "port": place.port, "queues": [self.inbound]})
                }
            };
            Ok((lane.source().to_owned(), entry))
        };
        self.arms.lanes.iter().map(source).collect()
    }

    fn databases(&self) -> Result<Map<String, Value>, String> {
        let database = |store: &Store| {
            let entry = match store {
                Store::Postgres => self.served("postgres", Server::Postgres)?,
                Store::MariaDb => self.served("mysql", Server::MariaDb)?,
                Store::Sqlite => json!({"type": "sqlite", "path": self.sqlite(), "ddl": "create"}),
                Store::MongoDb => self.served("mongodb", Server::MongoDb)?,
            };
            Ok((store.route().to_owned(), entry))
        };
        self.arms.stores.iter().map(database).collect()
    }

    fn served(&self, kind: &str, server: Server) -> Result<Value, String> {
        let place = self.engine_peers.place(server)?;
        let mut entry = json!({
            "type": kind, "host": place.host, "port": place.port, "username": place.user, "password": "",
            "dbName": self.database, "ddl": "create",
        });
        if let Some(timeout) = self.statement_timeout {
            entry["statement_timeout"] = json!(timeout);
        }
        Ok(entry)
    }

    fn exporters(&self) -> Result<Map<String, Value>, String> {
        let exporter = |(outlet, _): &(Outlet, Store)| {
            let entry = match outlet {
                Outlet::Topic => {
                    let place = self.engine_peers.place(Server::Kafka)?;
                    json!({"type": "kafka", "host": place.host, "port": place.port, "topic": self.outbound})
                }
                Outlet::Hook => json!({"type": "restful_api", "url": self.hook}),
                Outlet::Stream => {
                    let place = self.engine_peers.place(Server::Nats)?;
                    let subject = Layout::subject(&self.outbound);
                    json!({
                        "type": "jetstream", "host": place.host, "port": place.port, "subject": subject,
                        "stream": self.outbound,
                    })
                }
                Outlet::Queue => {
                    let place = self.engine_peers.place(Server::RabbitMq)?;
                    json!({
                        "type": "rabbitmq", "host": place.host, "port": place.port, "exchange": "",
                        "routingKey": self.outbound,
                    })
                }
            };
            Ok((outlet.exporter().to_owned(), entry))
        };
        self.arms.outlets.iter().map(exporter).collect()
    }

    /// Connection string of the run's own database on that server.
    pub fn database_url(&self, server: Server) -> Result<String, String> {
        let address = self.peers.at(server)?;
        let scheme = address.split_once("://").map_or("", |(scheme, _)| scheme);
        let place = self.peers.place(server)?;
        Ok(format!("{scheme}://{}@{}/{}", place.user, place.authority(), self.database))
    }
}

fn rules(arms: &Arms) -> Value {
    let mut rules = projections("decimal(20,4)");
    for event in EVENTS {
        for store in arms.stores.iter().filter(|store| **store != Store::MongoDb) {
            let behind = arms.outlets.iter().filter(|(_, behind)| behind == store);
            let exporters: Vec<&str> = behind.map(|(outlet, _)| outlet.exporter()).collect();
            let mut routing = json!({"event": event, "database": store.route()});
            if !exporters.is_empty() {
                routing["exporter"] = json!(exporters);
            }
            rules.push(routing);
        }
    }
    if arms.stores.contains(&Store::MongoDb) {
        // What stands in for it has no Decimal128, and reads a whole collection to find a document.
        for mut rule in projections("f64") {
            let entity = match rule["event"].as_str() {
                Some(event) if event.starts_with("order") => "order.entity".to_owned(),
                _ => format!("user.id % {MOVED}"),
            };
            rule["filter"] = json!(format!("{entity} < {SHARE}"));
            rule["database"] = json!(Store::MongoDb.route());
            rules.push(rule);
        }
    }
    json!({"rules": rules})
}

/// What the events write, amounts as this type.
fn projections(amounts: &str) -> Vec<Value> {
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
    placed.push(json!({"source": "order.total", "target": "total", "type": amounts}));
    placed.push(state("placed"));
    let mut shipped = order();
    shipped.push(state("shipped"));
    let mut rules = vec![
        json!({"event": "userCreated", "table": "users", "method": "update", "mapping": [
            id(), name(), email(),
            {"source": "user.age", "target": "age", "type": "i64"},
            {"source": "user.amount", "target": "amount", "type": amounts},
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
    }
    rules
}

fn write(path: &Path, value: &Value) -> Result<(), String> {
    let text = serde_json::to_string_pretty(value).map_err(|error| error.to_string())?;
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::super::arms::ALL;
    use super::*;

    #[test]
    fn files_are_written_for_the_peers_at_hand() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let peers = Peers::default()
            .with(Server::Postgres, "postgres://g@127.0.0.1:15432/postgres".to_owned())
            .with(Server::MariaDb, "mysql://root@127.0.0.1:13306/".to_owned())
            .with(Server::Kafka, "127.0.0.1:9".to_owned())
            .with(Server::Nats, "127.0.0.1:4".to_owned())
            .with(Server::RabbitMq, "127.0.0.1:5".to_owned())
            .with(Server::MongoDb, "mongodb://127.0.0.1:17018/".to_owned());
        let layout = Layout {
            arms: ALL,
            engine_peers: peers.clone().with(Server::Nats, "127.0.0.1:44".to_owned()),
            peers,
            database: "d".to_owned(),
            inbound: "in".to_owned(),
            outbound: "out".to_owned(),
            hook: "http://127.0.0.1:1/hook".to_owned(),
            directory: directory.path().to_owned(),
            statement_timeout: Some("3s"),
            listen: "127.0.0.1:2".to_owned(),
            intake: "127.0.0.1:2".to_owned(),
        };
        layout.write_config().expect("written");
        let read = |name: &str| -> Value {
            let text = std::fs::read_to_string(layout.config().join(name)).expect("there");
            serde_json::from_str(&text).expect("JSON")
        };
        assert_eq!(read("databases.json")["databases"]["pg"]["port"], 15432);
        assert_eq!(read("databases.json")["databases"]["maria"]["username"], "root");
        assert_eq!(read("databases.json")["databases"]["maria"]["statement_timeout"], "3s");
        assert_eq!(read("exporter.json")["exporter"]["topic"]["port"], 9);
        assert_eq!(read("sources.json")["sources"]["stream"]["hosts"][0], "127.0.0.1:44");
        assert_eq!(read("sources.json")["sources"].as_object().map(Map::len), Some(4));
        let rules = read("rules.json")["rules"].as_array().cloned().expect("a list");
        // Rows and routings, and rows once more with a filter.
        assert_eq!(rules.len(), 2 * 7 + 3 * 7 + 2 * 7);
        let of_mongodb: Vec<&Value> = rules.iter().filter(|rule| rule["database"] == "doc").collect();
        assert_eq!(of_mongodb.len(), 14);
        assert_eq!(of_mongodb[0]["filter"], "user.id % 1000000 < 100");
        assert_eq!(of_mongodb[5]["filter"], "order.entity < 100");
        assert_eq!(read("databases.json")["databases"]["doc"]["port"], 17018);
        assert_eq!(layout.database_url(Server::Postgres).as_deref(), Ok("postgres://g@127.0.0.1:15432/d"));
        assert_eq!(layout.database_url(Server::MariaDb).as_deref(), Ok("mysql://root@127.0.0.1:13306/d"));
    }
}
