//! The whole chain over a real RabbitMQ, as the example has it: a classic queue with ids and a quorum queue without, SQLite, an
//! exchange out, with the engine killed and its connection cut again and again while messages come.

use std::collections::BTreeSet;

use gravity_conformance::blackbox::engine::{Engine, assert_identity};
use gravity_conformance::blackbox::eventually;
use gravity_conformance::blackbox::folder::Folder;
use gravity_conformance::blackbox::proxy::Proxy;
use gravity_conformance::blackbox::server::root;
use gravity_conformance::blackbox::tools::sqlite;
use gravity_conformance::kafka_rig::unique;
use gravity_conformance::rabbitmq_rig::{Client, rabbitmq_under_test};
use lapin::BasicProperties;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

const ROUNDS: usize = 4;
const PER_ROUND: usize = 500;

/// Names of a run of its own on a broker that others use too.
struct Scene {
    /// With ids, without, and where it is told.
    classic: String,
    quorum: String,
    told: String,
}

impl Scene {
    async fn new(client: &Client) -> Scene {
        let name = |what: &str| format!("{what}-{}", unique());
        let scene = Scene { classic: name("classic"), quorum: name("quorum"), told: name("told") };
        client.declare(&scene.classic, "classic", &[]).await;
        client.declare(&scene.quorum, "quorum", &[]).await;
        client.declare(&scene.told, "classic", &[]).await;
        scene
    }

    /// The example's files; another port, other names.
    fn config(&self, port: u16) -> Folder {
        let example = |name: &str| -> Value {
            let path = root().join("deploy/examples/rabbitmq-sqlite").join(name);
            let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            serde_json::from_str(&text).expect("JSON")
        };
        let folder = Folder::new(&[]);
        let mut sources = example("sources.json");
        let stock = &mut sources["sources"]["stock"];
        stock["port"] = json!(port);
        stock["queues"] = json!([self.classic, self.quorum]);
        stock.as_object_mut().expect("an entry").remove("event_from");
        stock["event_name"] = json!("stock");
        folder.write_json("sources.json", &sources);
        let mut exporter = example("exporter.json");
        let told = &mut exporter["exporter"]["told"];
        told["port"] = json!(port);
        (told["exchange"], told["routingKey"]) = (json!(""), json!(self.told));
        folder.write_json("exporter.json", &exporter);
        folder.write_json("databases.json", &example("databases.json"));
        folder.write_json("rules.json", &example("rules.json"));
        folder
    }
}

/// The broker under test, a client of our own, and queues made for one test; `None` after saying that there is no broker.
fn stage() -> Option<(String, Runtime, Client, Scene)> {
    let address = rabbitmq_under_test()?;
    let runtime = Runtime::new().expect("a runtime");
    let client = runtime.block_on(Client::connect(&address));
    let scene = runtime.block_on(Scene::new(&client));
    Some((address, runtime, client, scene))
}

fn port(address: &str) -> u16 {
    address.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("HOST:PORT")
}

/// One row each; every second message without id has an equal twin, which is an event of its own.
fn stock(round: usize, with_ids: bool) -> Vec<(Vec<u8>, BasicProperties)> {
    let message = |index: usize| {
        let number = if with_ids { index } else { index / 2 };
        let id = format!("{}{round}-{number}", if with_ids { "i" } else { "n" });
        let body = json!({"id": id, "name": "bolt", "left": 5}).to_string().into_bytes();
        let properties = BasicProperties::default();
        (body, if with_ids { properties.with_message_id(id.into()) } else { properties })
    };
    (0..PER_ROUND).map(message).collect()
}

#[test]
fn queues_in_rows_and_an_exchange_out_survive_kills_and_cuts_exactly_once() {
    let Some((address, runtime, client, scene)) = stage() else { return };
    let proxy = Proxy::start(&address);
    let folder = scene.config(proxy.address.port());
    let mut engine = Engine::start(&folder);
    for round in 0..ROUNDS {
        runtime.block_on(client.publish(&scene.classic, stock(round, true)));
        runtime.block_on(client.publish(&scene.quorum, stock(round, false)));
        match round % 2 {
            _ if round + 1 == ROUNDS => {}
            0 => {
                engine.kill();
                engine = Engine::start(&folder);
            }
            _ => {
                proxy.down();
                proxy.up();
            }
        }
    }
    let total = 2 * ROUNDS * PER_ROUND;
    // What a publisher sends again under its id is no second event.
    runtime.block_on(client.publish(&scene.classic, stock(0, true)));
    let settled = |status: &Value| {
        let source = &status["sources"][0];
        let stored = source["received"].as_u64().zip(source["duplicates"].as_u64()).map(|(r, d)| r - d);
        status["routes"][0]["lag_events"] == 0
            && status["exporters"][0]["lag_events"] == 0
            && stored >= Some(total as u64)
            && source["lag_events"] == 0
    };
    let status = eventually(|| engine.status(), settled);
    assert_identity(&status);
    assert_eq!(status["routes"][0]["read"], json!(total), "each message is one event in the log: {status}");
    let rows = ROUNDS * (PER_ROUND + PER_ROUND / 2);
    assert_eq!(sqlite(folder.path().join("stock.db"), "SELECT count(*) FROM stock"), rows.to_string());
    for queue in [&scene.classic, &scene.quorum] {
        eventually(|| runtime.block_on(client.ready(queue)), |ready| *ready == 0);
    }
    engine.stop();
    // Nothing that was acknowledged is given out again.
    let again = Engine::start(&folder);
    let status = eventually(|| again.status(), settled);
    assert_eq!(status["routes"][0]["read"], json!(total), "{status}");
    again.stop();
    let told = runtime.block_on(client.drain(&scene.told));
    let ids: BTreeSet<&str> =
        told.iter().map(|told| told.properties.message_id().as_ref().expect("an id").as_str()).collect();
    assert_eq!(ids.len(), total, "each event is told under an id of its own");
    println!(
        "{} kills and cuts, {total} messages of two queues, 0 lost, 0 duplicated, {} told, {} of them twice under their id",
        ROUNDS - 1,
        ids.len(),
        told.len() - ids.len()
    );
}

/// The worst moment for a broker without positions: the messages are on disk, and the broker does not know.
#[test]
fn s1_killed_between_log_and_acknowledgement_each_message_is_one_event() {
    let Some((address, runtime, client, scene)) = stage() else { return };
    let folder = scene.config(port(&address));
    let kill = [("GRAVITY_FAILPOINTS", "ingest.before_acknowledge=kill@1")];
    for (queue, with_ids) in [(&scene.classic, true), (&scene.quorum, false)] {
        let mut engine = Engine::start_with(&folder, &[], &kill);
        runtime.block_on(client.publish(queue, stock(usize::from(with_ids), with_ids)));
        assert_eq!(engine.wait(), -1, "killed before its first acknowledgement");
    }
    let engine = Engine::start(&folder);
    let total = 2 * PER_ROUND;
    let settled = |status: &Value| {
        let source = &status["sources"][0];
        let route = &status["routes"][0];
        source["lag_events"] == 0 && route["lag_events"] == 0 && route["read"].as_u64() >= Some(total as u64)
    };
    let status = eventually(|| engine.status(), settled);
    assert_eq!(status["routes"][0]["read"], json!(total), "{status}");
    let again = status["sources"][0]["duplicates"].as_u64().expect("a count");
    assert!(again > 0, "the broker delivered again what it had not read as acknowledged: {status}");
    for queue in [&scene.classic, &scene.quorum] {
        eventually(|| runtime.block_on(client.ready(queue)), |ready| *ready == 0);
    }
    engine.stop();
    println!(
        "2 kills between log and acknowledgement, {total} messages, {again} delivered again, 0 lost, 0 duplicated"
    );
}

/// Bytes that are no event are acknowledged, kept and parked; what comes behind them goes on.
#[test]
fn o7_poison_is_parked_once_and_leaves_the_queue() {
    let Some((address, runtime, client, scene)) = stage() else { return };
    let folder = scene.config(port(&address));
    let good = |id: &str| json!({"id": id, "name": "nut", "left": 1}).to_string().into_bytes();
    let named = |id: &str| BasicProperties::default().with_message_id(id.into());
    let messages = vec![
        (b"{".to_vec(), named("p1")),
        (vec![0, 159, 255], BasicProperties::default()),
        (good("a"), named("one")),
        // The id of another message: neither dropped nor taken in.
        (good("b"), named("one")),
        (good("c"), BasicProperties::default()),
    ];
    runtime.block_on(client.publish(&scene.classic, messages.clone()));
    let engine = Engine::start(&folder);
    let rows =
        || sqlite(folder.path().join("stock.db"), "SELECT group_concat(id) FROM (SELECT id FROM stock ORDER BY id)");
    eventually(|| engine.route("views"), |route| route["applied"] == 2);
    assert_eq!(rows(), "a,c");
    let listed = || -> Vec<Value> {
        serde_json::from_value(engine.ask(&["dlq", "list", "--json"]).expect(0).json()).expect("a list")
    };
    let codes =
        |letters: &[Value]| letters.iter().map(|l| l["code"].as_str().expect("a code").to_owned()).collect::<Vec<_>>();
    assert_eq!(codes(&listed()), ["decode/not-json", "decode/not-utf8", "decode/reused-id"]);
    eventually(|| runtime.block_on(client.ready(&scene.classic)), |ready| *ready == 0);
    // All of it once more: only what has no id is new.
    runtime.block_on(client.publish(&scene.classic, messages));
    eventually(|| engine.route("views"), |route| route["applied"] == 3);
    assert_eq!(codes(&listed()), ["decode/not-json", "decode/not-utf8", "decode/reused-id", "decode/not-utf8"]);
    engine.ask(&["dlq", "retry", "--route", "ingest", "--json"]).expect(0);
    eventually(rows, |rows| rows == "a,b,c");
    engine.stop();
}
