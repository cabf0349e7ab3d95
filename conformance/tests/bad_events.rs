//! Bad events over Kafka and HTTP between good ones: nothing is lost, intake goes on, the identity of P4 holds, the dead letters are
//! exactly those expected, the good rows exactly right, and `gravity dlq` shows, retries and skips them.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use gravity_conformance::blackbox::broker::create_topic;
use gravity_conformance::blackbox::engine::{Engine, assert_identity};
use gravity_conformance::blackbox::eventually;
use gravity_conformance::blackbox::folder::Folder;
use gravity_conformance::blackbox::server::{Database, unique};
use gravity_conformance::blackbox::tools::{curl, kcat_publish, sqlite};
use serde_json::{Value, json};

#[path = "bad_events/cases.rs"]
mod cases;
use cases::{Case, Fate, RAW, by_payload};

const COLUMNS: &[(&str, &str)] = &[
    ("id", "i64"),
    ("name", "varchar(10)"),
    ("age", "i16"),
    ("email", "text"),
    ("boss", "i64"),
    ("amount", "decimal(10,2)"),
    ("big", "decimal(38,0)"),
    ("ratio", "f64"),
    ("born", "timestamptz"),
    ("active", "bool"),
    ("doc", "json"),
];
const POSTGRES_TABLE: &str = "CREATE TABLE people (id bigint PRIMARY KEY, name varchar(10) NOT NULL, \
    age smallint CONSTRAINT grown CHECK (age >= 0), email text UNIQUE, boss bigint REFERENCES people (id), \
    amount numeric(10,2), big numeric(38,0), ratio double precision, born timestamptz, active boolean, doc jsonb)";
const SQLITE_TABLE: &str = "CREATE TABLE people (id BIGINT PRIMARY KEY, name VARCHAR(10) NOT NULL, \
    age SMALLINT CONSTRAINT grown CHECK (age >= 0), email TEXT UNIQUE, boss BIGINT REFERENCES people (id), \
    amount TEXT, big TEXT, ratio DOUBLE, born TEXT, active BOOLEAN, doc TEXT)";
const POSTGRES_ROWS: &str = "SELECT id, name, age, email, boss, amount, big, ratio, born AT TIME ZONE 'UTC', active, doc FROM people ORDER BY id";
const SQLITE_ROWS: &str = "SELECT * FROM people ORDER BY id";
/// The body of one request may have 16 MiB.
const TOO_MUCH: usize = 20 << 20;
const MUCH: usize = 5 << 20;

/// What was sent and what must have become of it.
struct Book {
    database: Database,
    folder: Folder,
    engine: Engine,
    hosts: String,
    topic: String,
    /// (route, event key) → code of its dead letter.
    letters: BTreeMap<(String, String), String>,
    /// Rows by id, per database, as its tool prints them without the id.
    rows: BTreeMap<&'static str, BTreeMap<i64, String>>,
    /// Bytes by key of what Kafka brought undecodable.
    raw: BTreeMap<String, Vec<u8>>,
    taken: BTreeMap<&'static str, u64>,
    unmatched: u64,
    filtered: u64,
    good: i64,
    bad: usize,
}

const WAYS: [&str; 2] = ["kafka", "http"];

impl Book {
    fn open() -> Option<Book> {
        let hosts = gravity_conformance::blackbox::kafka()?;
        let database = Database::create()?;
        let topic = unique("bad-events");
        create_topic(&hosts, &topic, 1, &[("max.message.bytes", "20000000")]);
        database.psql(POSTGRES_TABLE);
        let folder = Folder::new(&[]);
        sqlite(folder.path().join("lite.db"), SQLITE_TABLE);
        let lite = json!({"type": "sqlite", "path": "lite.db"});
        folder.write_json("databases.json", &json!({"databases": {"pg": database.entry(), "lite": lite}}));
        let kafka = json!({"type": "kafka", "hosts": [hosts], "topics": [topic], "group": topic});
        folder.write_json("sources.json", &json!({"sources": {"kafka": kafka, "http": {"type": "http"}}}));
        let column = |(name, kind): &(&str, &str)| {
            let mut mapping = json!({"source": name, "target": name, "type": kind});
            if *name == "id" {
                mapping["primary"] = json!(true);
            }
            mapping
        };
        let mapping: Vec<Value> = COLUMNS.iter().map(column).collect();
        let mut rules = Vec::new();
        for (event, method) in [("saved", "update"), ("added", "insert")] {
            rules.push(json!({"event": event, "table": "people", "method": method, "mapping": mapping}));
            rules.extend(["pg", "lite"].map(|name| json!({"event": event, "database": name})));
        }
        folder.write_json("rules.json", &json!({"rules": rules}));
        let engine = Engine::start(&folder);
        let rows = BTreeMap::from([("pg", BTreeMap::new()), ("lite", BTreeMap::new())]);
        Some(Book {
            database,
            folder,
            engine,
            hosts,
            topic,
            letters: BTreeMap::new(),
            rows,
            raw: BTreeMap::new(),
            taken: BTreeMap::new(),
            unmatched: 0,
            filtered: 0,
            good: 100_000,
            bad: 0,
        })
    }

    fn post(&self, body: &[u8], content_type: &str) -> (u16, Value) {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), body).expect("written");
        let (data, kind) = (format!("@{}", file.path().display()), format!("content-type: {content_type}"));
        // Without `Expect: 100-continue` the body is sent at once, as most clients do.
        let to = format!("{}/v1/events/http", self.engine.url);
        let (status, answer) = curl(&["-H", &kind, "-H", "expect:", "--data-binary", &data, &to]);
        (status, serde_json::from_str(&answer).unwrap_or(Value::Null))
    }

    /// Sends an event that must be taken in.
    fn send(&mut self, way: &'static str, key: &str, event: &str, payload: &str) {
        match way {
            "kafka" => {
                let body = format!(r#"{{"event": "{event}", "payload": {payload}}}"#);
                kcat_publish(&self.hosts, &self.topic, Some(key), &[], Some(body.as_bytes()));
            }
            _ => {
                let body = format!(r#"{{"event": "{event}", "key": "{key}", "payload": {payload}}}"#);
                let (status, answer) = self.post(body.as_bytes(), "application/json");
                assert_eq!(status, 200, "{key}: {answer}");
            }
        }
        *self.taken.entry(way).or_default() += 1;
    }

    fn expect_row(&mut self, id: i64, pg: &str, lite: &str) {
        for (route, row) in [("pg", pg), ("lite", lite)] {
            self.rows.get_mut(route).expect("a route").insert(id, row.to_owned());
        }
    }

    /// One more row; sent after each bad event, so that a stop of intake or route would show.
    fn send_good(&mut self, way: &'static str) {
        self.good += 1;
        let id = self.good;
        self.send(way, "good", "saved", &format!(r#"{{"id": {id}, "name": "good"}}"#));
        self.expect_row(id, "good|||||||||", "good|||||||||");
    }

    fn expect_fate(&mut self, key: &str, id: i64, route: &'static str, fate: &Fate) {
        match fate {
            Fate::Row(row) => {
                self.rows.get_mut(route).expect("a route").insert(id, (*row).to_owned());
            }
            Fate::Parked(code) => {
                self.letters.insert((route.to_owned(), key.to_owned()), (*code).to_owned());
            }
        }
    }

    fn send_case(&mut self, number: usize, way: &'static str, case: &Case) {
        let key = format!("{way}: {}", case.what);
        // Ids of one case differ by way, so that neither waits behind the other.
        let at = i64::try_from(number).expect("small") * 10 + i64::from(way == "http");
        let id = case.id.unwrap_or(1_000 + at);
        let kept = if way == "http" { "3" } else { "2" };
        let payload = case.payload.replace("ID", &id.to_string()).replace("KEPT", kept);
        self.send(way, &key, case.event, &payload);
        self.expect_fate(&key, id, "pg", &case.pg);
        self.expect_fate(&key, id, "lite", &case.lite);
        self.bad += 1;
        self.send_good(way);
    }

    /// Bytes that are no event: refused over HTTP with nothing stored, kept raw and parked on `ingest` from Kafka.
    fn send_raw(&mut self, what: &str, bytes: &[u8], code: &str) {
        let (status, answer) = self.post(bytes, "application/json");
        assert_eq!((status, answer["code"].as_str()), (400, Some(code)), "{what}: {answer}");
        assert!(answer["line"].as_u64().is_some_and(|line| line > 0), "{what}: {answer}");
        self.send_good("http");
        let key = format!("kafka: {what}");
        kcat_publish(&self.hosts, &self.topic, Some(&key), &[], Some(bytes));
        *self.taken.entry("kafka").or_default() += 1;
        self.unmatched += 1;
        self.letters.insert(("ingest".to_owned(), key.clone()), code.to_owned());
        self.raw.insert(key, bytes.to_vec());
        self.bad += 2;
        self.send_good("kafka");
    }

    fn refused(&mut self, what: &str, body: &[u8], content_type: &str, status: u16, code: &str, line: Option<u64>) {
        let (got, answer) = self.post(body, content_type);
        assert_eq!((got, answer["code"].as_str()), (status, Some(code)), "{what}: {answer}");
        if line.is_some() {
            assert_eq!(answer["line"].as_u64(), line, "{what}: {answer}");
        }
        self.bad += 1;
        self.send_good("http");
    }

    fn all_taken(&self) -> u64 {
        self.taken.values().sum()
    }

    /// The whole account: sources, routes, dead letters, rows.
    fn settle(&self) {
        let all = self.all_taken();
        for route in ["pg", "lite"] {
            let seen = self.engine.in_step(route, all);
            let parked = self.letters.keys().filter(|(at, _)| at == route).count() as u64;
            let expected =
                json!([parked, self.unmatched, self.filtered, all - parked - self.unmatched - self.filtered]);
            assert_eq!(
                json!([seen["parked"], seen["unmatched"], seen["filtered"], seen["applied"]]),
                expected,
                "{seen}"
            );
        }
        let status = self.engine.status();
        assert_identity(&status);
        for source in status["sources"].as_array().expect("sources") {
            let name = source["name"].as_str().expect("a name");
            assert_eq!(
                (source["received"].as_u64(), &source["state"]),
                (Some(self.taken[name]), &json!("running")),
                "{source}"
            );
        }
        let letters = self.engine.ask(&["dlq", "list", "--json"]).expect(0).json();
        let text = |letter: &Value, key: &str| letter[key].as_str().unwrap_or_default().to_owned();
        let found: BTreeMap<(String, String), String> = letters
            .as_array()
            .expect("a list")
            .iter()
            .map(|letter| {
                let code = if letter["waiting"] == true { "waiting".to_owned() } else { text(letter, "code") };
                ((text(letter, "route"), text(letter, "key")), code)
            })
            .collect();
        assert_eq!(found.len(), letters.as_array().map_or(0, Vec::len), "one dead letter per event and route");
        assert_eq!(found, self.letters);
        self.compare_rows();
    }

    fn lite(&self) -> std::path::PathBuf {
        self.folder.path().join("lite.db")
    }

    fn compare_rows(&self) {
        let found = |text: String| -> BTreeMap<i64, String> {
            let split = |line: &str| {
                let (id, rest) = line.split_once('|').expect("columns");
                (id.parse().expect("an id"), rest.to_owned())
            };
            text.lines().map(split).collect()
        };
        let files = [("pg", self.database.psql(POSTGRES_ROWS)), ("lite", sqlite(self.lite(), SQLITE_ROWS))];
        for (route, text) in files {
            let (found, expected) = (found(text), &self.rows[route]);
            let ids: BTreeSet<&i64> = found.keys().chain(expected.keys()).collect();
            for id in ids {
                assert_eq!(found.get(id), expected.get(id), "{route}: {id}");
            }
        }
    }

    /// Sequences of a route's dead letters by event key.
    fn sequences(&self, route: &str) -> BTreeMap<String, String> {
        let letters = self.engine.ask(&["dlq", "list", "--route", route, "--json"]).expect(0).json();
        let of =
            |letter: &Value| (letter["key"].as_str().unwrap_or_default().to_owned(), letter["sequence"].to_string());
        letters.as_array().expect("a list").iter().map(of).collect()
    }
}

#[test]
fn trap19_bad_events_between_good_ones() {
    let Some(mut book) = Book::open() else { return };
    // What the constraints of the table lean on.
    for (id, name) in [(1, "one"), (2, "two"), (3, "three")] {
        let email = if id == 1 { r#", "email": "taken@x""# } else { "" };
        book.send("http", "first", "added", &format!(r#"{{"id": {id}, "name": "{name}"{email}}}"#));
    }
    for (id, row) in [(1, "one||taken@x|||||||"), (2, "two|||||||||"), (3, "three|||||||||")] {
        book.expect_row(id, row, row);
    }
    let cases = by_payload();
    for way in WAYS {
        for (number, case) in cases.iter().enumerate() {
            book.send_case(number, way, case);
        }
    }
    for (what, bytes, code) in RAW {
        book.send_raw(what, bytes, code);
    }
    odd_but_valid(&mut book);
    whole_requests(&mut book);
    assert!(book.bad >= 80, "only {}", book.bad);
    book.settle();
    println!(
        "{} bad events between {} good ones: 0 lost, {} dead letters as expected",
        book.bad,
        book.good - 100_000,
        book.letters.len()
    );

    undecodable_bytes_are_kept(&book);
    dead_letters_by_command_line(&mut book);
    // What was counted is still counted after a restart.
    let before = book.engine.status();
    let Book { engine, folder, .. } = book;
    engine.stop();
    let engine = Engine::start(&folder);
    for route in ["pg", "lite"] {
        let count = |status: &Value| {
            let routes = status["routes"].as_array().expect("routes");
            let route = routes.iter().find(|entry| entry["name"] == route).expect("the route").clone();
            ["read", "applied", "filtered", "unmatched", "parked", "skipped"].map(|key| route[key].clone())
        };
        eventually(|| count(&engine.status()), |now| *now == count(&before));
    }
    engine.stop();
}

/// Events that look odd and are none of the bad ones: they are counted, not parked.
fn odd_but_valid(book: &mut Book) {
    for way in WAYS {
        book.send(way, "nobody", "nobodyCares", r#"{"id": 1}"#);
        book.unmatched += 1;
        book.send(way, "null payload", "saved", "null");
        book.filtered += 1;
        book.bad += 2;
        book.send_good(way);
    }
    // A null value without a name for it is an event of no name: no rule can match.
    kcat_publish(&book.hosts, &book.topic, Some("tombstone"), &[], None);
    *book.taken.entry("kafka").or_default() += 1;
    book.unmatched += 1;
    // Large, but neither the topic nor the log minds.
    book.good += 1;
    let id = book.good;
    let other = "a".repeat(MUCH);
    book.send("kafka", "large", "saved", &format!(r#"{{"id": {id}, "name": "large", "other": "{other}"}}"#));
    book.expect_row(id, "large|||||||||", "large|||||||||");
    book.bad += 2;
    book.send_good("kafka");
}

/// Requests that are refused as a whole: not one of their events is stored.
fn whole_requests(book: &mut Book) {
    let good = |id: i64| format!(r#"{{"event": "saved", "payload": {{"id": {id}, "name": "never"}}}}"#);
    let array = format!("[{},\n{},\n{{\"event\": 5, \"payload\": {{}}}},\n{}]", good(901), good(902), good(903));
    book.refused("third of four", array.as_bytes(), "application/json", 400, "decode/bad-event-name", Some(3));
    let lines = format!("{}\n{}\n\n{{broken\n{}\n", good(904), good(905), good(906));
    book.refused("fourth line", lines.as_bytes(), "application/x-ndjson", 400, "decode/not-json", Some(4));
    book.refused("empty list", b"[]", "application/json", 400, "intake/empty", None);
    book.refused("empty lines", b"\n\n", "application/x-ndjson", 400, "intake/empty", None);
    book.refused("no media type of ours", good(907).as_bytes(), "text/csv", 415, "intake/media-type", None);
    let twice = |id: i64| format!(r#"{{"event": "saved", "id": "same", "payload": {{"id": {id}, "name": "never"}}}}"#);
    let twice = format!("[{}, {}]", twice(908), twice(909));
    book.refused("an id twice", twice.as_bytes(), "application/json", 400, "intake/duplicate-id", None);
    let large = format!(r#"{{"event": "saved", "payload": {{"id": 910, "name": "{}"}}}}"#, "a".repeat(TOO_MUCH));
    book.refused("20 MiB", large.as_bytes(), "application/json", 413, "intake/too-large", None);
}

/// What Kafka brought is in the log byte for byte, and `dlq show` gives it out.
fn undecodable_bytes_are_kept(book: &Book) {
    let sequences = book.sequences("ingest");
    assert_eq!(sequences.len(), book.raw.len());
    for (key, sequence) in sequences {
        let shown = book.engine.ask(&["dlq", "show", "--route", "ingest", &sequence, "--json"]).expect(0).json();
        let (sent, record) = (&book.raw[&key], &shown["record"]);
        match record["raw"].as_str() {
            Some(raw) => {
                let raw = base64::engine::general_purpose::STANDARD.decode(raw);
                assert_eq!(raw.as_ref(), Ok(sent), "{key}");
            }
            // What is JSON, though no event, is shown as such.
            None => assert_eq!(serde_json::from_slice::<Value>(sent).ok().as_ref(), Some(&record["payload"]), "{key}"),
        }
        let human = book.engine.ask(&["dlq", "show", "--route", "ingest", &sequence]).expect(0).out;
        assert!(human.contains("decode/") && human.contains(&key), "{human}");
    }
}

fn dead_letters_by_command_line(book: &mut Book) {
    // Tried again as they are: all that failed park again, nothing else moves.
    let parked: BTreeSet<String> = book.sequences("lite").into_values().collect();
    let report = book.engine.ask(&["dlq", "retry", "--route", "lite", "--json"]).expect(0).json();
    let again: BTreeSet<String> =
        report["parked_again"].as_array().expect("a list").iter().map(Value::to_string).collect();
    assert!(report["released"].as_array().is_some_and(Vec::is_empty), "{report}");
    assert!(again.is_subset(&parked) && again.len() + WAYS.len() >= parked.len(), "{report}");
    book.settle();

    // The DBA mends the cause: what was refused for it goes through on its retry, by name.
    book.database.psql("ALTER TABLE people DROP CONSTRAINT grown");
    let sequences = book.sequences("pg");
    for (way, id) in [("kafka", 2), ("http", 3)] {
        let key = format!("{way}: check");
        let done = book.engine.ask(&["dlq", "retry", "--route", "pg", &sequences[&key], "--json"]).expect(0).json();
        assert_eq!(done["released"].to_string(), format!("[{}]", sequences[&key]), "{done}");
        let number = by_payload().iter().position(|case| case.what == "check").expect("the case");
        let at = i64::try_from(number).expect("small") * 10 + i64::from(way == "http");
        book.rows.get_mut("pg").expect("pg").insert(1_000 + at, "x|-1||||||||".to_owned());
        book.letters.remove(&("pg".to_owned(), key));

        // What waits behind a failed one of its key runs when that is given up.
        let failed = format!("{way}: other row under its key");
        let report = book.engine.ask(&["dlq", "skip", "--route", "pg", &sequences[&failed], "--json"]).expect(0).json();
        assert_eq!(report["skipped"].to_string(), format!("[{}]", sequences[&failed]), "{report}");
        let waited = format!("{way}: behind it");
        assert_eq!(report["released"].to_string(), format!("[{}]", sequences[&waited]), "{report}");
        book.rows.get_mut("pg").expect("pg").insert(id, "late|||||||||".to_owned());
        book.letters.remove(&("pg".to_owned(), failed));
        book.letters.remove(&("pg".to_owned(), waited));
    }
    book.compare_rows();
    let pg = book.engine.route("pg");
    assert_eq!((&pg["skipped"], &pg["waiting"]), (&json!(2), &json!(0)), "{pg}");
    assert_identity(&book.engine.status());

    // Given up on all the rest: nothing is parked, everything is accounted for.
    for route in ["pg", "lite", "ingest"] {
        let rest: Vec<String> = book.sequences(route).into_values().collect();
        let mut args = vec!["dlq", "skip", "--route", route];
        args.extend(rest.iter().map(String::as_str));
        book.engine.ask(&args).expect(0);
    }
    let none = book.engine.ask(&["dlq", "list", "--json"]).expect(0);
    assert_eq!(none.json(), json!([]));
    let status = eventually(
        || book.engine.status(),
        |s| s["routes"].as_array().is_some_and(|r| r.iter().all(|r| r["parked"] == 0)),
    );
    assert_identity(&status);
    // The engine still takes and applies.
    for way in WAYS {
        book.send_good(way);
    }
    let all = book.all_taken();
    for route in ["pg", "lite"] {
        book.engine.in_step(route, all);
    }
    book.compare_rows();
}
