//! `bench mongodb`: keyed upsert through the view port, checkpoint included, against insertMany of the same documents, which
//! guards and remembers nothing.

use gravity_connectors::mongodb::{MongoOptions, MongoPlace, MongoViews};
use gravity_model::port::view::{ColumnRequest, TableRequest, ViewStore};
use gravity_model::shape::SharedShape;
use gravity_model::{ChangeBatch, ColumnType, Value};
use mongodb::bson::{Bson, Document, doc};
use mongodb::{Client, Database};
use serde_json::json;

use crate::figures::{Samples, machine};
use crate::views::{self, rate, upsert_all};
use crate::workload::{Row, rfc3339};

const DATABASE: &str = "bench_mongodb";
/// Documents of one batch, on both sides.
const BATCH: usize = 1_000;
/// G-1's row as any server that speaks the protocol can hold it: amounts are doubles, times are texts.
const COLUMNS: [(&str, ColumnType); 8] = [
    ("id", ColumnType::I64),
    ("customer", ColumnType::Text),
    ("status", ColumnType::Text),
    ("note", ColumnType::Text),
    ("amount", ColumnType::F64),
    ("placed_at", ColumnType::Text),
    ("express", ColumnType::Bool),
    ("quantity", ColumnType::I32),
];

#[derive(clap::Args)]
pub struct MongoDbBench {
    /// mongodb://… of an account that may create databases
    #[arg(long, env = "GRAVITY_TEST_MONGODB", hide_env_values = true)]
    uri: String,
    /// Documents per round, each with a key of its own, in no order
    #[arg(long, default_value_t = 5_000)]
    rows: usize,
    #[arg(long, default_value_t = 3)]
    rounds: u32,
}

impl MongoDbBench {
    pub async fn run(self) -> Result<(), String> {
        println!("{}", machine(&std::env::temp_dir()));
        let wrong = |error: mongodb::error::Error| error.to_string();
        let client = Client::with_uri_str(&self.uri).await.map_err(wrong)?;
        let database = client.database(DATABASE);
        println!("server: {}", server(&database).await.map_err(wrong)?);
        println!("workload: {} rows of G-1 with distinct keys, batches of {BATCH}", self.rows);
        database.drop().await.map_err(wrong)?;
        let measured = self.measure(&database).await;
        database.drop().await.map_err(wrong)?;
        measured
    }

    async fn measure(&self, database: &Database) -> Result<(), String> {
        let rows = views::rows(self.rows);
        let options = MongoOptions {
            db_name: Some(DATABASE.to_owned()),
            tls: false,
            ..MongoOptions::new(MongoPlace::Uri(self.uri.clone()))
        };
        let store = MongoViews::new(options);
        let mut checkpoint = views::attach(&store).await?;
        let (mut limit, mut new, mut known, mut ratios) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for number in 0..self.rounds {
            // Collections of their own: dropping a table beneath a store is not what is measured.
            let (bare, table) = (format!("bare_{number}"), format!("orders_{number}"));
            let inserted = rate(rows.len(), insert_all(database, &bare, &rows)).await?;
            database.create_collection(&table).await.map_err(|error| error.to_string())?;
            let shape = shape(&store, &table).await?;
            let batches: Vec<ChangeBatch> = rows.chunks(BATCH).map(|rows| batch(&shape, rows)).collect();
            let first = rate(rows.len(), upsert_all(&store, &batches, &mut checkpoint)).await?;
            known.push(rate(rows.len(), upsert_all(&store, &batches, &mut checkpoint)).await?);
            let there = database.collection::<Document>(&table).count_documents(doc! {}).await;
            if there.as_ref().ok() != Some(&(rows.len() as u64)) {
                return Err(format!("{there:?} documents of {}", rows.len()));
            }
            limit.push(inserted);
            new.push(first);
            ratios.push(first / inserted);
        }
        store.close().await;
        let ratio = Samples::of(ratios);
        println!("upsert of new keys through the view port: {} documents/s", Samples::of(new).show(0));
        println!("the same again, keys known: {} documents/s", Samples::of(known).show(0));
        println!("insertMany: {} documents/s", Samples::of(limit).show(0));
        println!("ratio of new keys to insertMany, round by round: {}", ratio.show(2));
        println!("{}", json!({"bench": "mongodb", "ratio": ratio.median()}));
        Ok(())
    }
}

/// What answers, and whether it has transactions.
async fn server(database: &Database) -> Result<String, mongodb::error::Error> {
    let build = database.run_command(doc! { "buildInfo": 1 }).await?;
    let hello = database.run_command(doc! { "hello": 1 }).await?;
    let product = match build.get_str("ferretdbVersion") {
        Ok(version) => format!("FerretDB {version} as MongoDB"),
        Err(_) => "MongoDB".to_owned(),
    };
    let set = if hello.contains_key("setName") { "replica set" } else { "stand-alone" };
    Ok(format!("{product} {}, {set}", build.get_str("version").unwrap_or("of no version")))
}

async fn shape(store: &MongoViews, table: &str) -> Result<SharedShape, String> {
    let column =
        |(name, of): &(&str, ColumnType)| ColumnRequest { name: (*name).to_owned(), declared: Some(of.clone()) };
    let columns = COLUMNS.iter().map(column).collect();
    let request = TableRequest { table: table.to_owned(), columns, key: vec!["id".to_owned()] };
    views::described(store, request).await
}

/// The cells of a row, in the order of [`COLUMNS`].
fn cells(id: i64, row: &Row) -> [Value; 8] {
    let text = |text: &Option<String>| text.as_deref().map_or(Value::Null, |text| Value::Text(text.into()));
    let amount = row.amount.as_deref().and_then(|digits| digits.parse().ok());
    [
        Value::Int(id),
        text(&row.customer),
        text(&row.status),
        text(&row.note),
        amount.map_or(Value::Null, Value::Float),
        row.placed_at.map_or(Value::Null, |micros| Value::Text(rfc3339(micros).into())),
        row.express.map_or(Value::Null, Value::Bool),
        row.quantity.map_or(Value::Null, |quantity| Value::Int(quantity.into())),
    ]
}

fn sorted(rows: &[(i64, Row)]) -> Vec<&(i64, Row)> {
    let mut sorted: Vec<&(i64, Row)> = rows.iter().collect();
    sorted.sort_unstable_by_key(|(id, _)| *id);
    sorted
}

fn batch(shape: &SharedShape, rows: &[(i64, Row)]) -> ChangeBatch {
    let values = sorted(rows).into_iter().flat_map(|(id, row)| cells(*id, row)).collect();
    views::upserts(shape, &COLUMNS.each_ref().map(|(name, _)| *name), values)
}

async fn insert_all(database: &Database, name: &str, rows: &[(i64, Row)]) -> Result<(), String> {
    let collection = database.collection::<Document>(name);
    for rows in rows.chunks(BATCH) {
        let documents: Vec<Document> = sorted(rows).into_iter().map(|(id, row)| document(*id, row)).collect();
        collection.insert_many(documents).await.map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn document(id: i64, row: &Row) -> Document {
    let mut document = doc! { "_id": id };
    for ((name, _), value) in COLUMNS.iter().zip(cells(id, row)) {
        let value = match value {
            Value::Bool(value) => Bson::Boolean(value),
            Value::Int(value) => Bson::Int64(value),
            Value::Float(value) => Bson::Double(value),
            Value::Text(value) => Bson::String(value.as_str().to_owned()),
            _ => Bson::Null,
        };
        document.insert(*name, value);
    }
    document
}
