//! The driver's client, the kind of server behind it, and commands as documents in and out.
//!
//! Commands are written by us and their answers read by us: what a command says about concern, order and filters is then
//! what the server is sent, whatever defaults a collection or a client handle has.

use std::future::IntoFuture;

use futures::TryStreamExt;
use gravity_model::{Fault, FaultKind};
use mongodb::bson::{Document, doc};
use mongodb::{Client, ClientSession, Cursor, Database};
use tokio::sync::Mutex;

use super::config::MongoOptions;
use super::error::{BAD_VALUE, WriteError, fault, integer, of_ferretdb, write_error};

/// What the server can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A replica set, or a sharded cluster: transactions over documents.
    Transactions,
    /// One document at a time.
    StandAlone,
}

pub(super) struct Connections {
    options: MongoOptions,
    held: Mutex<Option<Held>>,
}

#[derive(Clone)]
struct Held {
    client: Client,
    server: Server,
}

/// A database of a server that has said what it is.
#[derive(Clone)]
pub(super) struct Server {
    pub database: Database,
    pub kind: Kind,
    /// It says that it is FerretDB, in MongoDB's place.
    ferretdb: bool,
    /// Statements per update command.
    pub statements: usize,
    limit: std::time::Duration,
    max_time_ms: i64,
}

impl Connections {
    pub fn new(options: MongoOptions) -> Connections {
        Connections { options, held: Mutex::default() }
    }

    pub fn options(&self) -> &MongoOptions {
        &self.options
    }

    /// The server, asked once what it is. After a fault the driver itself looks for it again.
    pub async fn server(&self) -> Result<Server, Fault> {
        let mut held = self.held.lock().await;
        if let Some(held) = &*held {
            return Ok(held.server.clone());
        }
        let (options, name) = self.options.resolve().await?;
        let client = Client::with_options(options).map_err(|error| fault(error, "set up the client"))?;
        let statement = self.options.statement_timeout;
        let mut server = Server {
            database: client.database(&name),
            kind: Kind::StandAlone,
            ferretdb: false,
            statements: STATEMENTS,
            limit: statement + self.options.answer_grace,
            max_time_ms: i64::try_from(statement.as_millis()).unwrap_or(i64::MAX),
        };
        let hello = server.command(doc! { "hello": 1 }, None, "ask the server what it is").await?;
        // A router of a sharded cluster says `isdbgrid`.
        if hello.contains_key("setName") || hello.get_str("msg").is_ok_and(|msg| msg == "isdbgrid") {
            server.kind = Kind::Transactions;
        }
        let build = server.command(doc! { "buildInfo": 1 }, None, "ask the server what it is").await?;
        if build.contains_key("ferretdbVersion") {
            server.ferretdb = true;
            server.statements = FERRETDB_STATEMENTS;
        }
        *held = Some(Held { client, server: server.clone() });
        Ok(server)
    }

    /// Asks again what the server is: it may have been turned into a replica set. Whoever is under way with the former client
    /// goes on with it; its connections close when the last of them lets it go.
    pub async fn reopen(&self) -> Result<Server, Fault> {
        drop(self.held.lock().await.take());
        self.server().await
    }

    pub async fn close(&self) {
        let held = self.held.lock().await.take();
        if let Some(held) = held {
            // Waits for nothing: sockets in use close when their owners drop them.
            held.client.shutdown().immediate(true).await;
        }
    }
}

impl Server {
    /// Runs a command and gives its answer; statements that it refused are in the answer.
    pub async fn command(
        &self,
        mut command: Document,
        session: Option<&mut ClientSession>,
        doing: &str,
    ) -> Result<Document, Fault> {
        let in_transaction = session.is_some();
        if !in_transaction && is_write(&command) {
            // On stable storage before it is answered; in a transaction the commit says so.
            command.insert("writeConcern", self.write_concern());
        }
        if !command.contains_key("hello") {
            command.insert("maxTimeMS", self.max_time_ms);
        }
        let mut run = self.database.run_command(command);
        if let Some(session) = session {
            run = run.session(session);
        }
        self.limited(run.into_future(), doing).await?.map_err(|error| fault(error, doing))
    }

    fn write_concern(&self) -> Document {
        match self.kind {
            Kind::StandAlone => doc! { "w": 1, "j": true },
            Kind::Transactions => doc! { "w": "majority", "j": true },
        }
    }

    /// A write command. `Ok(Err(…))`: the server refused a statement, the ones before it are done. The number is of documents
    /// matched, changed or not.
    pub async fn write(
        &self,
        command: Document,
        session: Option<&mut ClientSession>,
        doing: &str,
    ) -> Result<Result<i64, WriteError>, Fault> {
        let answer = match self.command(command, session, doing).await {
            Err(fault) if self.ferretdb => return of_ferretdb(fault).map(Err),
            answer => answer?,
        };
        match write_error(&answer, doing)? {
            Some(error) if self.ferretdb && error.code == BAD_VALUE => of_ferretdb(error.fault(doing)).map(Err),
            Some(error) => Ok(Err(error)),
            None => Ok(Ok(answer.get("n").and_then(integer).unwrap_or_default())),
        }
    }

    /// The same where a refusal is a fault.
    pub async fn written(
        &self,
        command: Document,
        session: Option<&mut ClientSession>,
        doing: &str,
    ) -> Result<i64, Fault> {
        self.write(command, session, doing).await?.map_err(|error| error.fault(doing))
    }

    /// All documents that a filter meets.
    pub async fn find(
        &self,
        collection: &str,
        filter: Document,
        session: Option<&mut ClientSession>,
        doing: &str,
    ) -> Result<Vec<Document>, Fault> {
        let Some(session) = session else {
            let cursor = self.stream(collection, filter, doing).await?;
            let all = self.limited(cursor.try_collect(), doing).await?;
            return all.map_err(|error| fault(error, doing));
        };
        let command = self.find_command(collection, filter);
        let run = async {
            let mut cursor = self.database.run_cursor_command(command).session(&mut *session).await?;
            cursor.stream(session).try_collect().await
        };
        self.limited(run, doing).await?.map_err(|error| fault(error, doing))
    }

    /// The same, page by page.
    pub async fn stream(&self, collection: &str, filter: Document, doing: &str) -> Result<Cursor<Document>, Fault> {
        let run = self.database.run_cursor_command(self.find_command(collection, filter));
        self.limited(run.into_future(), doing).await?.map_err(|error| fault(error, doing))
    }

    /// Lists what a command of that kind (`listCollections`, `listIndexes`) lists.
    pub async fn list(&self, command: Document, doing: &str) -> Result<Vec<Document>, Fault> {
        let run = async {
            let cursor: Cursor<Document> = self.database.run_cursor_command(command).await?;
            cursor.try_collect().await
        };
        self.limited(run, doing).await?.map_err(|error| fault(error, doing))
    }

    /// A fault unless the collection is there: a write would make it in silence.
    pub async fn expect_collection(&self, name: &str) -> Result<(), Fault> {
        let doing = format!("look for collection {name}");
        let command = doc! { "listCollections": 1, "filter": { "name": name }, "nameOnly": true };
        if self.list(command, &doing).await?.is_empty() {
            return Err(Fault::new(FaultKind::Misconfigured, "live/no-table", doing, "no such collection"));
        }
        Ok(())
    }

    /// True when a filter meets a document.
    pub async fn any(&self, collection: &str, filter: Document, doing: &str) -> Result<bool, Fault> {
        let command = doc! { "find": collection, "filter": filter, "limit": 1_i64, "singleBatch": true };
        Ok(!self.list(command, doing).await?.is_empty())
    }

    fn find_command(&self, collection: &str, filter: Document) -> Document {
        doc! { "find": collection, "filter": filter, "batchSize": PAGE, "maxTimeMS": self.max_time_ms }
    }

    /// The driver closes a connection whose command was given up.
    async fn limited<T>(&self, run: impl Future<Output = T>, doing: &str) -> Result<T, Fault> {
        tokio::time::timeout(self.limit, run).await.map_err(|_| {
            let detail = format!("no answer within {} s", self.limit.as_secs());
            Fault::new(FaultKind::Disconnected, "timeout", doing, detail)
        })
    }
}

/// Statements of a write command.
pub(super) const STATEMENTS: usize = 1_000;
/// FerretDB 1 holds a connection of its pool for every document that an update command met, until the command ends.
const FERRETDB_STATEMENTS: usize = 10;
/// Documents per answer.
const PAGE: i32 = 1_000;

fn is_write(command: &Document) -> bool {
    command.keys().next().is_some_and(|name| {
        ["insert", "update", "delete", "create", "createIndexes", "findAndModify"].contains(&name.as_str())
    })
}
