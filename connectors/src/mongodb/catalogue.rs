//! What collections look like. A collection has no columns of its own: the rules say which fields there are.

use std::collections::HashMap;

use gravity_model::port::view::{Described, TableRequest};
use gravity_model::{ColumnShape, ColumnType, Fault, FaultKind, TableShape};
use mongodb::bson::{Bson, Document, doc};

use super::client::Server;
use super::collection_name;

/// A collection as the server lists it.
#[derive(Clone, Debug, Default)]
pub(super) struct Live {
    /// `collection`, `view`, `timeseries`.
    pub kind: String,
    pub options: Document,
    /// Fields of each unique index beside `_id`, with what limits it to some documents.
    pub unique: Vec<UniqueIndex>,
}

#[derive(Clone, Debug)]
pub(super) struct UniqueIndex {
    pub name: String,
    pub fields: Vec<String>,
    /// Documents without the fields are not in it.
    pub partial: bool,
}

/// The collections that are there, by name.
pub(super) async fn live(server: &Server, requests: &[TableRequest]) -> Result<HashMap<String, Live>, Fault> {
    const DOING: &str = "list the collections";
    let mut wanted = Vec::with_capacity(requests.len());
    for request in requests {
        wanted.push(collection_name(&request.table)?);
    }
    let mut live = HashMap::new();
    for collection in server.list(doc! { "listCollections": 1 }, DOING).await? {
        let Ok(name) = collection.get_str("name") else { continue };
        if wanted.iter().any(|w| w == name) {
            let kind = collection.get_str("type").unwrap_or("collection").to_owned();
            let options = collection.get_document("options").cloned().unwrap_or_default();
            let unique = if kind == "collection" { unique(server, name).await? } else { Vec::new() };
            live.insert(name.to_owned(), Live { kind, options, unique });
        }
    }
    Ok(live)
}

async fn unique(server: &Server, collection: &str) -> Result<Vec<UniqueIndex>, Fault> {
    let indexes = server.list(doc! { "listIndexes": collection }, &format!("list the indexes of {collection}")).await?;
    let unique = |index: &Document| {
        let key = index.get_document("key").ok()?;
        let is_unique = index.get_bool("unique").unwrap_or(false);
        let own = key.len() == 1 && key.contains_key("_id");
        (is_unique && !own).then(|| UniqueIndex {
            name: index.get_str("name").unwrap_or_default().to_owned(),
            fields: key.keys().cloned().collect(),
            partial: index.get_bool("sparse").unwrap_or(false) || index.contains_key("partialFilterExpression"),
        })
    };
    Ok(indexes.iter().filter_map(unique).collect())
}

pub(super) async fn describe(server: &Server, requests: &[TableRequest]) -> Result<Vec<Described>, Fault> {
    let live = live(server, requests).await?;
    Ok(requests
        .iter()
        .map(|request| match live.get(&request.table) {
            Some(live) => Described::Present(shape(request, live)),
            None => Described::Missing { ddl: statement(request) },
        })
        .collect())
}

fn shape(request: &TableRequest, live: &Live) -> TableShape {
    let mut columns: Vec<ColumnShape> = Vec::new();
    let requested = request.columns.iter().map(|c| (c.name.as_str(), c.declared.clone()));
    for (name, declared) in requested.chain(request.key.iter().map(|key| (key.as_str(), None))) {
        if columns.iter().any(|column| column.name == name) {
            continue;
        }
        // Without a declared type a field takes any JSON value as it is.
        let column_type = declared.unwrap_or(ColumnType::Json);
        columns.push(ColumnShape {
            name: name.to_owned(),
            database_type: word(&column_type).to_owned(),
            column_type,
            not_null: request.key.iter().any(|key| key == name),
            has_default: false,
            generated: false,
        });
    }
    let place = |name: &String| columns.iter().position(|column| column.name == *name).map(|place| place as u16);
    let places = |names: &[String]| names.iter().map(place).collect::<Option<Vec<u16>>>();
    let unique = live.unique.iter().filter_map(|index| places(&index.fields)).collect();
    TableShape { table: request.table.clone(), primary_key: places(&request.key).unwrap_or_default(), unique, columns }
}

/// BSON's own word.
fn word(column_type: &ColumnType) -> &'static str {
    match column_type {
        ColumnType::Bool => "bool",
        ColumnType::F32 | ColumnType::F64 => "double",
        ColumnType::Decimal(_) => "decimal",
        ColumnType::Text | ColumnType::Varchar(_) | ColumnType::Time => "string",
        ColumnType::Date | ColumnType::Timestamp | ColumnType::TimestampTz => "date",
        ColumnType::Uuid | ColumnType::Binary => "binData",
        ColumnType::Array(_) => "array",
        ColumnType::Json => "any",
        _ => "long",
    }
}

const CREATE: (&str, &str) = ("db.createCollection(\"", "\")");

fn statement(request: &TableRequest) -> Result<String, Vec<String>> {
    let untyped: Vec<String> =
        request.columns.iter().filter(|c| c.declared.is_none()).map(|c| c.name.clone()).collect();
    if request.columns.is_empty() || !untyped.is_empty() {
        return Err(untyped);
    }
    Ok(format!("{}{}{}", CREATE.0, request.table, CREATE.1))
}

/// The collection that a statement of ours makes.
pub(super) fn proposed(text: &str) -> Result<String, Fault> {
    let name = text.strip_prefix(CREATE.0).and_then(|rest| rest.strip_suffix(CREATE.1));
    let not_ours =
        || Fault::new(FaultKind::Misconfigured, "live/ddl", "make a collection", format!("not ours: {text:?}"));
    collection_name(name.ok_or_else(not_ours)?)
}

/// An option of a collection that is set to something.
pub(super) fn has_option(live: &Live, name: &str) -> bool {
    match live.options.get(name) {
        None | Some(Bson::Null) | Some(Bson::Boolean(false)) => false,
        Some(Bson::Document(options)) => !options.is_empty(),
        Some(_) => true,
    }
}
