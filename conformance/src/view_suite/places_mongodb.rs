//! Databases of a MongoDB server, read with Python's `pymongo`.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use gravity_connectors::mongodb::{MongoOptions, MongoPlace as Address, MongoViews};
use gravity_model::Value;
use gravity_model::port::view::ViewStore;
use parking_lot::Mutex;
use serde_json::{Value as Json, json};

use super::places::sorted;
use super::{Dialect, Place, Spec};

/// A database of its own on a server.
pub struct MongoPlace {
    pub uri: String,
    pub database: String,
    /// A replica set: transactions. Where there is none, a stand-alone server's guards are what is tested.
    pub replica_set: bool,
    /// The server stores Decimal128; FerretDB closes the connection instead.
    pub decimals: bool,
    client: Mutex<Option<Client>>,
}

/// `pymongo` in a process of its own, which takes longer to start than to answer.
struct Client {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Client {
    fn start() -> Client {
        let mut command = python();
        command.args(["-c", include_str!("ask_mongodb.py")]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("python3 runs");
        let input = child.stdin.take().expect("piped");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        Client { child, input, output }
    }

    /// What it cannot answer it says on stderr, and ends.
    fn ask(&mut self, request: &Json) -> Json {
        writeln!(self.input, "{request}").expect("the client reads");
        let mut line = String::new();
        self.output.read_line(&mut line).expect("the client answers");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?} to {request}"))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // Nothing to do about a child that is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

static DATABASES: AtomicU32 = AtomicU32::new(0);

impl MongoPlace {
    /// On the server that `GRAVITY_TEST_MONGODB` names.
    pub async fn new() -> Option<MongoPlace> {
        let Ok(uri) = std::env::var("GRAVITY_TEST_MONGODB") else {
            println!("skipped: GRAVITY_TEST_MONGODB is not set");
            return None;
        };
        let status = python().args(["-c", "import pymongo"]).output();
        if !status.is_ok_and(|output| output.status.success()) {
            println!("skipped: python3 with pymongo is not installed");
            return None;
        }
        let database = format!("view_{}_{}", std::process::id(), DATABASES.fetch_add(1, Ordering::Relaxed));
        let client = Mutex::default();
        let mut place = MongoPlace { uri, database, replica_set: false, decimals: true, client };
        place.client(json!({"do": "drop"}));
        let hello = place.client(json!({"do": "hello"}));
        place.replica_set = hello["replica_set"] == true;
        place.decimals = hello["ferretdb"] != true;
        Some(place)
    }

    pub async fn remove(self) {
        self.client(json!({"do": "drop"}));
    }

    /// Asks the client; the request gets address and database.
    pub fn client(&self, mut request: Json) -> Json {
        request["uri"] = self.uri.as_str().into();
        request["database"] = self.database.as_str().into();
        self.client.lock().get_or_insert_with(Client::start).ask(&request)
    }

    /// Rows of documents, or with `all` of tombstones as well.
    pub fn documents(&self, table: &str, columns: &[&str], all: bool) -> Vec<Vec<Option<String>>> {
        let table = table.trim_matches('"');
        let rows = self.client(json!({"do": "rows", "table": table, "columns": columns, "all": all}));
        sorted(serde_json::from_value(rows).expect("rows"))
    }

    /// Runs a command as a DBA.
    pub fn command(&self, command: Json) -> Json {
        self.client(json!({"do": "command", "command": command}))
    }

    pub fn options(&self) -> MongoOptions {
        let mut options = MongoOptions::new(Address::Uri(self.uri.clone()));
        options.db_name = Some(self.database.clone());
        options
    }

    pub fn store_with(&self, change: impl FnOnce(&mut MongoOptions)) -> Arc<dyn ViewStore> {
        let mut options = self.options();
        change(&mut options);
        Arc::new(MongoViews::new(options))
    }
}

/// Python with what `conformance/servers` put beside the server.
pub fn python() -> Command {
    let mut command = Command::new("python3");
    let work = std::env::var_os("GRAVITY_WORK")
        .map_or_else(|| std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../.work"), std::path::PathBuf::from);
    command.env("PYTHONPATH", work.join("python")).env("PYTHONIOENCODING", "utf-8");
    command
}

#[async_trait]
impl Place for MongoPlace {
    fn dialect(&self) -> Dialect {
        Dialect::Mongodb
    }

    fn store(&self) -> Arc<dyn ViewStore> {
        self.store_with(|_| {})
    }

    fn why_not(&self, test: &str) -> Option<&'static str> {
        match test {
            "a_live_table_is_described"
            | "v8_trap13_a_column_dropped_while_running"
            | "inspect_names_what_is_missing" => Some("a collection has no columns"),
            "partial_updates_do_not_need_every_column" => Some("a collection has no NOT NULL"),
            "commit_moves_exactly_the_lanes_begun" | "v12_taking_over_waits_for_what_is_under_way"
                if !self.replica_set =>
            {
                Some("needs a replica set")
            }
            _ => None,
        }
    }

    /// FerretDB writes some hundred documents a second, each in a transaction of its own.
    fn many(&self, rows: u32) -> u32 {
        if self.decimals { rows } else { rows / 20 }
    }

    fn lacks(&self, word: &str, value: &Value) -> bool {
        let decimals = matches!(value, Value::Decimal(_)) || word.starts_with("decimal");
        !self.decimals && decimals && super::types::mongodb_refusal(word, value).is_none()
    }

    async fn make(&self, spec: &Spec<'_>) {
        self.client(json!({"do": "make", "table": spec.table, "unique": spec.unique}));
    }

    async fn dba(&self, sql: &str) {
        panic!("MongoDB speaks no SQL: {sql}");
    }

    async fn rows(&self, table: &str, columns: &[&str]) -> Vec<Vec<Option<String>>> {
        self.documents(table, columns, false)
    }
}
