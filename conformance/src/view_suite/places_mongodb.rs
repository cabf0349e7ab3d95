//! Databases of a MongoDB server, read with Python's `pymongo`.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use gravity_connectors::mongodb::{MongoOptions, MongoPlace as Address, MongoViews};
use gravity_model::Value;
use gravity_model::port::view::ViewStore;
use serde_json::{Value as Json, json};

use super::places::{run, sorted};
use super::{Dialect, Place, Spec};

/// A database of its own on a server.
pub struct MongoPlace {
    pub uri: String,
    pub database: String,
    /// A replica set: transactions. Where there is none, a stand-alone server's guards are what is tested.
    pub replica_set: bool,
    /// The server stores Decimal128; FerretDB closes the connection instead.
    pub decimals: bool,
}

static DATABASES: AtomicU32 = AtomicU32::new(0);

/// Reads a request as JSON, answers one JSON line. Values come back as the texts that the suite's other clients show.
const CLIENT: &str = r#"
import sys, json, datetime, uuid
import pymongo
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.binary import Binary, UuidRepresentation
from bson.decimal128 import Decimal128
from bson.int64 import Int64
from bson.datetime_ms import DatetimeMS
request = json.load(sys.stdin)
client = pymongo.MongoClient(request["uri"], serverSelectionTimeoutMS=10000)
options = CodecOptions(uuid_representation=UuidRepresentation.STANDARD, datetime_conversion=DatetimeConversion.DATETIME_MS)
database = client.get_database(request["database"], codec_options=options)

def shown(value, inner=False):
    if value is None: return "null" if inner else None
    if isinstance(value, bool): return "true" if value else "false"
    if isinstance(value, Int64): return str(int(value))
    if isinstance(value, int): return "int32:" + str(value)
    if isinstance(value, float): return repr(value)
    if isinstance(value, str): return json.dumps(value, ensure_ascii=False) if inner else value
    if isinstance(value, Decimal128): return "decimal:" + format(value.to_decimal(), "f")
    if isinstance(value, uuid.UUID): return "uuid:" + str(value)
    if isinstance(value, bytes): return "x" + value.hex().upper()
    if isinstance(value, list): return "[" + ",".join(shown(v, True) for v in value) + "]"
    if isinstance(value, dict): return "{" + ",".join(json.dumps(k) + ":" + shown(v, True) for k, v in value.items()) + "}"
    return "date:" + str(int(value))

EPOCH = datetime.datetime(1970, 1, 1)
def told(value, inner=True):
    """A value as the page of types has it; the type stands in the column's heading."""
    if isinstance(value, Decimal128): return format(value.to_decimal(), "f")
    if isinstance(value, uuid.UUID): return '"' + str(value) + '"' if inner else str(value)
    if isinstance(value, list): return "[" + ",".join(told(v) for v in value) + "]"
    if isinstance(value, dict): return "{" + ",".join(json.dumps(k, ensure_ascii=False) + ":" + told(v) for k, v in value.items()) + "}"
    if isinstance(value, DatetimeMS):
        try: text = (EPOCH + datetime.timedelta(milliseconds=int(value))).isoformat(timespec="milliseconds") + "Z"
        except OverflowError: return str(int(value)) + " ms"
        return '"' + text + '"' if inner else text
    return shown(value, inner)

def kind(value):
    for of, name in [(bool, "bool"), (Int64, "long"), (int, "int"), (float, "double"), (str, "string"), (Decimal128, "decimal"),
        ((uuid.UUID, bytes), "binData"), (list, "array"), (dict, "object"), (DatetimeMS, "date")]:
        if isinstance(value, of): return name

what = request["do"]
if what == "make":
    database.create_collection(request["table"])
    for unique in request["unique"]:
        # One index over all documents, tombstones among them, would take one of those only.
        database[request["table"]].create_index([(name, 1) for name in unique], unique=True, sparse=True)
    answer = None
elif what == "rows":
    filter = {} if request["all"] else {"_gravity_deleted": {"$exists": False}}
    answer = [[shown(d.get(c)) for c in request["columns"]] for d in database[request["table"]].find(filter)]
elif what == "values":
    found = [(d["id"], d["v"]) for d in database[request["table"]].find({"_gravity_deleted": {"$exists": False}})]
    answer = {
        "values": [[i, None if v is None else told(v, request["json"])] for i, v in found],
        "kinds": ",".join(sorted({kind(v) for _, v in found if v is not None})),
    }
elif what == "command":
    answer = json.loads(json.dumps(database.command(request["command"]), default=str))
elif what == "drop":
    client.drop_database(request["database"])
    answer = None
elif what == "hello":
    hello = database.command({"hello": 1})
    answer = {"replica_set": "setName" in hello or hello.get("msg") == "isdbgrid", "ferretdb": "ferretdbVersion" in database.command({"buildInfo": 1})}
print(json.dumps(answer))
"#;

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
        let mut place = MongoPlace { uri, database, replica_set: false, decimals: true };
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
        let output = run(python().args(["-c", CLIENT]), &request.to_string());
        serde_json::from_str(&output).expect("the client answers with JSON")
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
