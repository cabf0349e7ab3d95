//! Which peers a stack run has on each side. A new source, database or exporter is a word here, and the compiler names the places
//! that must know it: how it is fed, configured, read and killed.

use std::collections::BTreeMap;

/// A server that the run's engine speaks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Server {
    Postgres,
    MariaDb,
    Kafka,
    Nats,
    RabbitMq,
    /// Or what speaks its protocol, on files of its own.
    MongoDb,
}

impl Server {
    /// The environment variable that `conformance/servers env` sets.
    pub fn variable(self) -> &'static str {
        match self {
            Server::Postgres => "GRAVITY_TEST_POSTGRES",
            Server::MariaDb => "GRAVITY_TEST_MARIADB",
            Server::Kafka => "GRAVITY_TEST_KAFKA",
            Server::Nats => "GRAVITY_TEST_NATS",
            Server::RabbitMq => "GRAVITY_TEST_RABBITMQ",
            Server::MongoDb => "GRAVITY_TEST_FERRETDB",
        }
    }

    /// Its name for `conformance/servers`.
    pub fn name(self) -> &'static str {
        match self {
            Server::Postgres => "postgres",
            Server::MariaDb => "mariadb",
            Server::Kafka => "kafka",
            Server::Nats => "nats",
            Server::RabbitMq => "rabbitmq",
            Server::MongoDb => "ferretdb-sqlite",
        }
    }

    fn given(self) -> Option<String> {
        std::env::var(self.variable()).ok().filter(|address| !address.is_empty())
    }
}

/// How an item reaches Gravity: a source of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    Kafka,
    Http,
    /// A JetStream stream with limits retention.
    Nats,
    RabbitMq,
}

impl Lane {
    /// Of the source in the run's config.
    pub fn source(self) -> &'static str {
        match self {
            Lane::Kafka => "shop",
            Lane::Http => "web",
            Lane::Nats => "stream",
            Lane::RabbitMq => "queue",
        }
    }

    fn server(self) -> Option<Server> {
        match self {
            Lane::Kafka => Some(Server::Kafka),
            Lane::Http => None,
            Lane::Nats => Some(Server::Nats),
            Lane::RabbitMq => Some(Server::RabbitMq),
        }
    }

    /// The messages have a key of their own. Elsewhere it stands in the envelope.
    pub fn has_keys(self) -> bool {
        self == Lane::Kafka
    }
}

/// A database of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Store {
    Postgres,
    MariaDb,
    Sqlite,
    /// Of a share of the entities, see [`SHARE`](super::script::SHARE), with doubles for decimals.
    MongoDb,
}

impl Store {
    /// Of the database in the run's config, and so of its route.
    pub fn route(self) -> &'static str {
        match self {
            Store::Postgres => "pg",
            Store::MariaDb => "maria",
            Store::Sqlite => "lite",
            Store::MongoDb => "doc",
        }
    }

    fn server(self) -> Option<Server> {
        match self {
            Store::Postgres => Some(Server::Postgres),
            Store::MariaDb => Some(Server::MariaDb),
            Store::Sqlite => None,
            Store::MongoDb => Some(Server::MongoDb),
        }
    }
}

/// An exporter of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outlet {
    /// Of Kafka.
    Topic,
    /// The run's own HTTP endpoint.
    Hook,
    /// Of JetStream.
    Stream,
    /// Of RabbitMQ, by the default exchange.
    Queue,
}

impl Outlet {
    /// Of the exporter in the run's config.
    pub fn exporter(self) -> &'static str {
        match self {
            Outlet::Topic => "topic",
            Outlet::Hook => "hook",
            Outlet::Stream => "told",
            Outlet::Queue => "post",
        }
    }

    fn server(self) -> Option<Server> {
        match self {
            Outlet::Topic => Some(Server::Kafka),
            Outlet::Hook => None,
            Outlet::Stream => Some(Server::Nats),
            Outlet::Queue => Some(Server::RabbitMq),
        }
    }
}

/// All sides of one run.
#[derive(Clone, Copy, Debug)]
pub struct Arms {
    pub lanes: &'static [Lane],
    pub stores: &'static [Store],
    /// Each with the route behind whose checkpoint it sends.
    pub outlets: &'static [(Outlet, Store)],
}

/// What there is.
pub const ALL: Arms =
    Arms { stores: &[Store::Postgres, Store::MariaDb, Store::Sqlite, Store::MongoDb], ..ALL_BUT_MONGODB };

/// Every source and exporter, and the databases that speak SQL: where nothing speaks MongoDB's protocol.
pub const ALL_BUT_MONGODB: Arms = Arms {
    lanes: &[Lane::Kafka, Lane::Http, Lane::Nats, Lane::RabbitMq],
    stores: &[Store::Postgres, Store::MariaDb, Store::Sqlite],
    outlets: &[
        (Outlet::Topic, Store::Postgres),
        (Outlet::Queue, Store::Postgres),
        (Outlet::Stream, Store::MariaDb),
        (Outlet::Hook, Store::Sqlite),
    ],
};

/// For gates about one moment, to which more peers add nothing.
pub const FEW: Arms = Arms {
    lanes: &[Lane::Kafka, Lane::Http],
    stores: &[Store::Postgres, Store::Sqlite],
    outlets: &[(Outlet::Topic, Store::Postgres), (Outlet::Hook, Store::Sqlite)],
};

impl Arms {
    /// [`ALL`], but for a MongoDB that this machine cannot have.
    pub fn at_hand() -> Arms {
        if Server::MongoDb.given().is_some() { ALL } else { ALL_BUT_MONGODB }
    }

    /// What [`Arms::at_hand`] has to do without on this machine.
    pub fn lacking() -> Option<String> {
        let missing = Server::MongoDb.given().is_none();
        missing.then(|| format!("the part in MongoDB: {} is not set", Server::MongoDb.variable()))
    }

    /// Each server once.
    pub fn servers(&self) -> Vec<Server> {
        let lanes = self.lanes.iter().filter_map(|lane| lane.server());
        let stores = self.stores.iter().filter_map(|store| store.server());
        let outlets = self.outlets.iter().filter_map(|(outlet, _)| outlet.server());
        let mut servers: Vec<Server> = lanes.chain(stores).chain(outlets).collect();
        servers.sort();
        servers.dedup();
        servers
    }
}

/// Where the servers of a run are.
#[derive(Clone, Debug, Default)]
pub struct Peers(BTreeMap<Server, String>);

impl Peers {
    /// As `conformance/servers env` names them. The error says what is missing.
    pub fn from_environment(arms: &Arms) -> Result<Peers, String> {
        let mut peers = Peers::default();
        for server in arms.servers() {
            let address = server.given();
            let missing = || format!("{} is not set (eval \"$(conformance/servers env)\")", server.variable());
            peers.0.insert(server, address.ok_or_else(missing)?);
        }
        Ok(peers)
    }

    /// The same servers, one of them at another place.
    pub fn with(mut self, server: Server, address: String) -> Peers {
        self.0.insert(server, address);
        self
    }

    /// `HOST:PORT`, or for a database `SCHEME://USER@HOST:PORT/…`. The error names a server that the run was not given.
    pub fn at(&self, server: Server) -> Result<&str, String> {
        self.0.get(&server).map(String::as_str).ok_or_else(|| format!("{server:?} is no peer of this run"))
    }

    pub fn place(&self, server: Server) -> Result<Place, String> {
        Place::parse(self.at(server)?)
    }
}

/// The parts of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub user: String,
    pub host: String,
    pub port: u16,
}

impl Place {
    fn parse(address: &str) -> Result<Place, String> {
        let wrong = || format!("{address:?} is neither HOST:PORT nor SCHEME://USER@HOST:PORT/…");
        let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
        let authority = rest.split('/').next().unwrap_or_default();
        let (user, place) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (host, port) = place.rsplit_once(':').ok_or_else(wrong)?;
        Ok(Place { user: user.to_owned(), host: host.to_owned(), port: port.parse().map_err(|_| wrong())? })
    }

    pub fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_an_address_are_taken_apart() {
        let place = Place::parse("postgres://g@127.0.0.1:15432/postgres").expect("parsed");
        assert_eq!(place, Place { user: "g".to_owned(), host: "127.0.0.1".to_owned(), port: 15432 });
        let place = Place::parse("mongodb://127.0.0.1:17018/").expect("parsed");
        assert_eq!((place.user.as_str(), place.port), ("", 17018));
        assert_eq!(Place::parse("127.0.0.1:9").expect("parsed").authority(), "127.0.0.1:9");
        assert!(Place::parse("nowhere").is_err());
    }

    #[test]
    fn the_few_need_fewer_servers() {
        assert_eq!(FEW.servers(), [Server::Postgres, Server::Kafka]);
        assert_eq!(ALL.servers().len(), 6);
        assert_eq!(ALL_BUT_MONGODB.servers().len(), 5);
        let peers = Peers::default().with(Server::Kafka, "127.0.0.1:1".to_owned());
        assert!(peers.at(Server::Kafka).is_ok() && peers.at(Server::Nats).is_err());
    }
}
