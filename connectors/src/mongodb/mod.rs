//! Views in MongoDB: on a replica set rows and checkpoint in one transaction (P3); on a stand-alone server a journal, a switch
//! in one document and a mark in every other, to the same end.
//!
//! `config` options, `client` commands and the kind of server, `catalogue` what collections look like, `inspect` what endangers
//! them, `codec` values, `combine` sums and the like, `overlay` documents under a transaction, `plan` one write for each,
//! `transaction` the port's, `sessions` the server's, `settle` and `journal` the stand-alone commit, `tombstones` deleted
//! documents, `bookkeeping` checkpoints and claims, `error` codes to faults.

mod bookkeeping;
mod catalogue;
mod client;
mod codec;
mod combine;
mod config;
mod error;
mod inspect;
mod journal;
mod overlay;
mod plan;
mod sessions;
mod settle;
mod tombstones;
mod transaction;

use std::sync::Arc;

use async_trait::async_trait;
use gravity_model::port::view::{
    BookkeepingRewrite, Described, LiveFinding, TableRequest, ViewRow, ViewStore, ViewTransaction,
};
use gravity_model::{Checkpoint, Fault, FaultKind, TableShape};
use mongodb::bson::doc;
use parking_lot::Mutex;

use self::client::Connections;
pub use self::config::{MongoOptions, MongoPlace};
use self::transaction::MongoTransaction;
use crate::sql::Bookkeeping;
use crate::sql::name::{BadName, Name, TableName};

/// A [`ViewStore`] over one database of a MongoDB server.
pub struct MongoViews {
    shared: Arc<Shared>,
}

struct Shared {
    connections: Connections,
    /// When old tombstones were last looked for.
    swept: Mutex<Option<std::time::Instant>>,
}

impl MongoViews {
    /// Connects nowhere yet.
    pub fn new(options: MongoOptions) -> MongoViews {
        MongoViews { shared: Arc::new(Shared { connections: Connections::new(options), swept: Mutex::default() }) }
    }
}

/// A collection's name. MongoDB has no schemas.
fn collection_name(text: &str) -> Result<String, Fault> {
    let name = TableName::parse(text)?;
    match name.schema {
        Some(_) => Err(BadName { name: text.to_owned(), why: "a collection has no schema before a dot" }.into()),
        None => Ok(name.table.as_str().to_owned()),
    }
}

/// Names that documents hold for themselves.
fn reserved_column(shape: &TableShape, column: &str) -> Result<(), Fault> {
    Name::parse(column)?;
    let is_only_key = matches!(&shape.primary_key[..], [key] if shape.columns[usize::from(*key)].name == column);
    let why = match column {
        overlay::MARK | overlay::DELETED => "the field is kept for bookkeeping",
        "_id" if !is_only_key => "`_id` holds the key; only a key of one column can have that name",
        _ => return Ok(()),
    };
    Err(BadName { name: column.to_owned(), why }.into())
}

#[async_trait]
impl ViewStore for MongoViews {
    async fn open(&self) -> Result<(), Fault> {
        let connections = &self.shared.connections;
        let server = connections.reopen().await?;
        let missing = bookkeeping::missing(&server).await?;
        if !missing.is_empty() && connections.options().bookkeeping == Bookkeeping::Manual {
            return Err(Fault::new(
                FaultKind::Misconfigured,
                "live/bookkeeping",
                "open the view store",
                format!("bookkeeping is manual and a collection is missing; run:\n{}", self.bookkeeping_sql()),
            ));
        }
        for name in missing {
            bookkeeping::make(&server, name).await?;
        }
        Ok(())
    }

    async fn describe(&self, requests: &[TableRequest]) -> Result<Vec<Described>, Fault> {
        catalogue::describe(&self.shared.connections.server().await?, requests).await
    }

    async fn inspect(&self, requests: &[TableRequest]) -> Result<Vec<LiveFinding>, Fault> {
        inspect::inspect(&self.shared.connections.server().await?, requests).await
    }

    fn bookkeeping_sql(&self) -> String {
        bookkeeping::script()
    }

    async fn create(&self, statements: &[String]) -> Result<(), Fault> {
        let names = statements.iter().map(|text| catalogue::proposed(text)).collect::<Result<Vec<_>, _>>()?;
        let server = self.shared.connections.server().await?;
        for name in names {
            bookkeeping::make(&server, &name).await?;
        }
        Ok(())
    }

    async fn has_rows(&self, table: &str) -> Result<bool, Fault> {
        let name = collection_name(table)?;
        let server = self.shared.connections.server().await?;
        server.expect_collection(&name).await?;
        let filter = doc! { overlay::DELETED: { "$exists": false } };
        server.any(&name, filter, &format!("look for documents in {name}")).await
    }

    async fn checkpoints(&self, route: &str) -> Result<Vec<Checkpoint>, Fault> {
        bookkeeping::of_route(&self.shared.connections.server().await?, route).await
    }

    async fn views(&self) -> Result<Vec<ViewRow>, Fault> {
        bookkeeping::views(&self.shared.connections.server().await?, None).await
    }

    async fn rewrite(&self, rewrite: BookkeepingRewrite) -> Result<(), Fault> {
        let server = self.shared.connections.server().await?;
        bookkeeping::rewrite(&server, &rewrite, self.shared.connections.options().lock_timeout).await
    }

    async fn begin(&self, expect: &[Checkpoint]) -> Result<Box<dyn ViewTransaction>, Fault> {
        Ok(Box::new(MongoTransaction::begin(self.shared.clone(), expect).await?))
    }

    async fn close(&self) {
        self.shared.connections.close().await;
    }
}
