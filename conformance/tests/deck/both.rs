//! One event into two databases at once with two exporters behind them: the row first, then whoever is told.
//!
//! The files of deploy/examples/deck run as they stand; hosts and ports are changed, nothing else. Its user names, passwords and
//! database names hold: a PostgreSQL, a MariaDB and a broker of the test's own are set up for them.

use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

use gravity_conformance::blackbox::broker::{SaslBroker, create_topic};
use gravity_conformance::blackbox::engine::{Engine, assert_identity};
use gravity_conformance::blackbox::eventually;
use gravity_conformance::blackbox::folder::Folder;
use gravity_conformance::blackbox::hook::Hook;
use gravity_conformance::blackbox::server::{PrivateMariaDb, PrivatePostgres, root, unique};
use gravity_conformance::blackbox::tools::{KcatFollow, curl, kcat_publish, kcat_read, mariadb, psql, psql_command};
use serde_json::{Value, json};

use crate::store::TABLE;

const EVENT: &str =
    r#"{"event": "userCreated", "payload": {"id": 1, "name": "Fred Chien", "email": "fred@brobridge.com"}}"#;
const ROW: &str = "1|Fred Chien|fred@brobridge.com";

#[derive(Clone, Copy, Debug)]
enum Form {
    /// rules/1.json and rules/2.json.
    TwoFiles,
    /// Both arrays joined in rules.json.
    Joined,
}

#[derive(Clone, Copy, Debug)]
enum Way {
    Http,
    Kafka,
}

struct Scene {
    postgres: PrivatePostgres,
    mariadb: PrivateMariaDb,
    broker: SaslBroker,
}

impl Scene {
    fn url(&self) -> String {
        format!("postgres://postgres:test@127.0.0.1:{}/gravity", self.postgres.port)
    }

    /// db2, with the deck's account.
    fn mariadb_url(&self) -> String {
        format!("mysql://mysql:test@127.0.0.1:{}/gravity", self.mariadb.port)
    }

    fn config(&self, form: Form, hook: &Hook) -> Folder {
        let deck = |name: &str| {
            let path = root().join("deploy/examples/deck").join(name);
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        };
        let folder = Folder::new(&[]);
        let postgres = format!("\"127.0.0.1\", \"port\": {}", self.postgres.port);
        let databases = replaced(&deck("databases.json"), "\"192.168.1.1\", \"port\": 32805", &postgres);
        let mysql = format!("\"127.0.0.1\", \"port\": {}", self.mariadb.port);
        folder.write("databases.json", replaced(&databases, "\"192.168.1.2\", \"port\": 32805", &mysql));
        let kafka = format!("\"127.0.0.1\", \"port\": {}", self.broker.sasl_port);
        let exporter = replaced(&deck("exporter.json"), "\"192.168.1.5\", \"port\": 32806", &kafka);
        folder.write("exporter.json", replaced(&exporter, "192.168.1.6", &hook.address.to_string()));
        let (one, two) = (deck("rules/1.json"), deck("rules/2.json"));
        match form {
            Form::TwoFiles => {
                folder.write("rules/1.json", one);
                folder.write("rules/2.json", two);
            }
            Form::Joined => {
                let rules = |text: &str| -> Vec<Value> {
                    let file: Value = serde_json::from_str(text).expect("JSON");
                    file["rules"].as_array().expect("rules").clone()
                };
                let joined = [rules(&one), rules(&two)].concat();
                folder.write_json("rules.json", &json!({"rules": joined}));
            }
        }
        folder
    }
}

/// Exactly one place of the text is changed.
fn replaced(text: &str, from: &str, to: &str) -> String {
    assert_eq!(text.matches(from).count(), 1, "{from} in {text}");
    text.replace(from, to)
}

#[test]
fn the_decks_files_give_the_decks_row_and_then_both_messages() {
    use gravity_conformance::blackbox;
    if blackbox::postgres().is_none() || blackbox::mariadb().is_none() || blackbox::kafka().is_none() {
        return;
    }
    let Some(broker) = SaslBroker::start() else { return };
    let scene = Scene { postgres: PrivatePostgres::start(""), mariadb: PrivateMariaDb::start(""), broker };
    psql(&scene.postgres.url, "CREATE ROLE postgres SUPERUSER LOGIN PASSWORD 'test'");
    let account = "CREATE USER mysql@'%' IDENTIFIED BY 'test'; GRANT ALL ON gravity.* TO mysql@'%'";
    mariadb(&scene.mariadb.url(), account);
    create_topic(&scene.broker.open, "customized", 1, &[]);
    for (told_before, (way, form)) in [
        (Way::Http, Form::TwoFiles),
        (Way::Kafka, Form::TwoFiles),
        (Way::Http, Form::Joined),
        (Way::Kafka, Form::Joined),
    ]
    .into_iter()
    .enumerate()
    {
        let begun = Instant::now();
        play(&scene, way, form, told_before);
        println!("{way:?} {form:?}: row, message, POST in {:?}", begun.elapsed());
    }
}

fn play(scene: &Scene, way: Way, form: Form, told_before: usize) {
    let url = scene.url();
    psql(&scene.postgres.url, "DROP DATABASE IF EXISTS gravity WITH (FORCE)");
    psql(&scene.postgres.url, "CREATE DATABASE gravity OWNER postgres");
    psql(&url, TABLE);
    mariadb(&scene.mariadb.url(), "DROP DATABASE IF EXISTS gravity; CREATE DATABASE gravity");
    mariadb(&scene.mariadb_url(), TABLE);
    // The endpoint looks the row up inside the request, before it answers.
    let asked = url.clone();
    let hook = Hook::start(move |_| (psql(&asked, "SELECT * FROM users"), 204));
    let folder = scene.config(form, &hook);
    let topic = unique("deck");
    if let Way::Kafka = way {
        create_topic(&scene.broker.open, &topic, 1, &[]);
        let source = json!({"type": "kafka", "hosts": [scene.broker.open], "topics": [topic], "group": topic});
        folder.write_json("sources.json", &json!({"sources": {"deck": source}}));
    }
    let engine = Engine::start(&folder);
    eventually(|| engine.route("db1"), |route| route["state"] == "running");
    let follow = KcatFollow::start(&scene.broker.open, "customized", "%h|%s\n");
    (0..told_before).for_each(|_| drop(follow.next()));

    // The row cannot be committed while this holds the table: whoever is told meanwhile is told too early.
    let mut lock = psql_command(&url).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("psql runs");
    let mut words = lock.stdin.take().expect("piped");
    writeln!(words, "BEGIN; LOCK TABLE users IN SHARE MODE;").expect("psql reads");
    eventually(
        || {
            psql(
                &url,
                "SELECT count(*) FROM pg_locks WHERE mode = 'ShareLock' AND granted AND relation = 'users'::regclass",
            )
        },
        |n| n == "1",
    );
    match way {
        Way::Http => {
            let to = format!("{}/v1/events", engine.url);
            let (status, body) = curl(&["-H", "content-type: application/json", "-d", EVENT, &to]);
            assert_eq!(status, 200, "{body}");
        }
        Way::Kafka => kcat_publish(&scene.broker.open, &topic, None, &[], Some(EVENT.as_bytes())),
    }
    assert_eq!(follow.within(Duration::from_millis(700)), None, "a message before its row");
    assert_eq!(psql(&url, "SELECT count(*) FROM users"), "0");
    let released = Instant::now();
    writeln!(words, "COMMIT;").expect("psql reads");
    drop(words);
    assert!(lock.wait().expect("psql ends").success());

    // The consumer looks the row up in the moment in which the message comes.
    let message = follow.next();
    assert_eq!(psql(&url, "SELECT * FROM users"), ROW, "when the message is there, the row is");
    let (headers, data) = message.split_once('|').expect("headers and value");
    let data: Value = serde_json::from_str(data).expect("JSON");
    assert_eq!(data, json!({"id": 1, "name": "Fred Chien", "email": "fred@brobridge.com"}));
    let attribute = |name: &str| {
        let prefix = format!("ce_{name}=");
        headers.split(',').find_map(|header| header.strip_prefix(&prefix)).map(str::to_owned)
    };
    assert_eq!(attribute("type").as_deref(), Some("userCreated"), "{headers}");
    let sequence: u64 = attribute("sequence").unwrap_or_else(|| panic!("{headers}")).parse().expect("a number");
    assert!(attribute("id").is_some_and(|id| id.len() == 36), "{headers}");

    let told = eventually(|| hook.told(), |told| !told.is_empty());
    assert_eq!(told[0].path, "/api");
    assert_eq!(told[0].saw, ROW, "inside the request the row is there");
    assert!(told[0].at > released, "told while the row could not be committed");
    let body: Value = serde_json::from_str(&told[0].body).expect("JSON");
    assert!(body == data || body["data"] == data, "{body}");

    let checkpoint = psql(&url, "SELECT max(sequence) FROM gravity_checkpoints");
    assert!(checkpoint.parse::<u64>().expect("a number") >= sequence, "{checkpoint} < {sequence}");
    assert_eq!(psql(&url, "SELECT * FROM users"), ROW);
    eventually(|| mariadb(&scene.mariadb_url(), "SELECT * FROM users"), |rows| rows == ROW);
    let seen = eventually(
        || engine.status(),
        |s| s["exporters"].as_array().is_some_and(|e| e.len() == 2 && e.iter().all(|e| e["delivered"] == 1)),
    );
    assert_identity(&seen);
    for route in ["db1", "db2"] {
        let route = engine.route(route);
        assert_eq!((&route["read"], &route["applied"]), (&json!(1), &json!(1)), "{route}");
    }
    engine.stop();
    assert_eq!(hook.count(), 1, "one POST");
    let all = kcat_read(&scene.broker.open, "customized", "%k\n");
    assert_eq!(all.len(), told_before + 1, "one message on the topic");
}
