//! The whole chain over a real NATS, as the example has it: a stream and a work queue in, SQLite, a stream out, with the
//! engine killed again and again while messages come.

use std::collections::BTreeSet;
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::context::Context;
use async_nats::jetstream::stream::{Config, RetentionPolicy};
use futures::StreamExt;
use gravity_conformance::blackbox::engine::{Engine, assert_identity};
use gravity_conformance::blackbox::eventually;
use gravity_conformance::blackbox::folder::Folder;
use gravity_conformance::blackbox::server::root;
use gravity_conformance::blackbox::tools::sqlite;
use gravity_conformance::kafka_rig::unique;
use gravity_conformance::nats_rig::{client, jetstream, nats_under_test, publish};
use gravity_conformance::source_suite::Published;
use serde_json::{Value, json};

const ROUNDS: usize = 4;
const PER_ROUND: usize = 500;

/// Names of a run of its own on a server that others use too.
struct Scene {
    host: String,
    devices: String,
    jobs: String,
    told: String,
}

impl Scene {
    fn new(host: String) -> Scene {
        let name = |what: &str| format!("{what}-{}", unique());
        Scene { host, devices: name("devices"), jobs: name("jobs"), told: name("told") }
    }

    async fn make_streams(&self, context: &Context) {
        for (name, retention) in [
            (&self.devices, RetentionPolicy::Limits),
            (&self.jobs, RetentionPolicy::WorkQueue),
            (&self.told, RetentionPolicy::Limits),
        ] {
            let subjects = vec![format!("{name}.>")];
            let config = Config { name: name.clone(), subjects, retention, ..Config::default() };
            context.create_stream(config).await.expect("create stream");
        }
    }

    /// The example's files; other hosts and names, a work queue beside the stream.
    fn config(&self) -> Folder {
        let example = |name: &str| -> Value {
            let path = root().join("deploy/examples/nats-sqlite").join(name);
            let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            serde_json::from_str(&text).expect("JSON")
        };
        let folder = Folder::new(&[]);
        let mut sources = example("sources.json");
        for name in ["devices", "pings"] {
            sources["sources"][name]["hosts"] = json!([self.host]);
        }
        sources["sources"]["pings"]["subjects"] = json!([format!("{}.ping", self.told)]);
        let devices = &mut sources["sources"]["devices"];
        devices["stream"] = json!(self.devices);
        devices["subjects"] = json!([format!("{}.>", self.devices)]);
        devices.as_object_mut().expect("an entry").remove("event_from");
        devices["event_name"] = json!("devices.seen");
        let mut jobs = devices.clone();
        jobs["stream"] = json!(self.jobs);
        jobs["subjects"] = json!([format!("{}.>", self.jobs)]);
        jobs["durable"] = json!("gravity");
        sources["sources"]["jobs"] = jobs;
        folder.write_json("sources.json", &sources);
        let mut exporter = example("exporter.json");
        let told = &mut exporter["exporter"]["told"];
        told["port"] = json!(self.host.rsplit_once(':').expect("HOST:PORT").1.parse::<u16>().expect("a port"));
        told["stream"] = json!(self.told);
        told["subject"] = json!(format!("{}.devices", self.told));
        folder.write_json("exporter.json", &exporter);
        folder.write_json("databases.json", &example("databases.json"));
        folder.write_json("rules.json", &example("rules.json"));
        folder
    }
}

fn seen(id: &str) -> Published {
    let payload = json!({"id": id, "name": format!("n-{id}"), "battery": 50}).to_string();
    Published { payload: Some(payload.into_bytes()), ..Published::default() }
}

/// Ids of all messages of the told stream.
async fn told(context: &Context, stream: &str) -> Vec<String> {
    let stream = context.get_stream(stream).await.expect("stream");
    let count = usize::try_from(stream.cached_info().state.messages).expect("count");
    let config = pull::Config { ack_policy: AckPolicy::None, ..pull::Config::default() };
    let mut messages = stream.create_consumer(config).await.expect("consumer").messages().await.expect("messages");
    let mut ids = Vec::new();
    while ids.len() < count {
        let message = tokio::time::timeout(Duration::from_secs(30), messages.next()).await;
        let message = message.expect("in time").expect("the consumer lives").expect("a message");
        let headers = message.headers.clone().expect("headers");
        ids.push(headers.get("Nats-Msg-Id").expect("every message names its id").to_string());
        assert_eq!(headers.get("ce-type").map(|value| value.as_str()), Some("devices.seen"));
    }
    ids
}

#[test]
fn streams_in_rows_and_a_stream_out_survive_kills_exactly_once() {
    let Some(host) = nats_under_test() else { return };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let scene = Scene::new(host);
    let context = runtime.block_on(async {
        let context = jetstream(&client(&scene.host).await);
        scene.make_streams(&context).await;
        context
    });
    let folder = scene.config();
    let mut engine = Engine::start(&folder);
    assert!(engine.said().contains("accept_at_most_once"), "core NATS is told at every start: {}", engine.said());
    for round in 0..ROUNDS {
        for (stream, prefix) in [(&scene.devices, "d"), (&scene.jobs, "j")] {
            let messages = (0..PER_ROUND).map(|index| seen(&format!("{prefix}{round}-{index}"))).collect();
            runtime.block_on(publish(&context, &format!("{stream}.a"), messages));
        }
        if round + 1 < ROUNDS {
            engine.kill();
            engine = Engine::start(&folder);
        }
    }
    let total = 2 * ROUNDS * PER_ROUND;
    let database = folder.path().join("devices.db");
    let tables = "SELECT count(*) FROM sqlite_master WHERE name = 'devices'";
    eventually(|| sqlite(&database, tables), |count| count == "1");
    eventually(|| sqlite(&database, "SELECT count(*) FROM devices"), |count| *count == total.to_string());
    let delivered =
        |status: &Value| status["exporters"][0]["lag_events"] == 0 && status["routes"][0]["lag_events"] == 0;
    let status = eventually(|| engine.status(), delivered);
    assert_identity(&status);
    assert_eq!(status["routes"][0]["read"], json!(total), "each message is one event in the log: {status}");
    for name in ["devices", "jobs"] {
        let source = status["sources"].as_array().expect("sources").iter().find(|s| s["name"] == name).expect("there");
        let stored = source["received"].as_u64().zip(source["duplicates"].as_u64()).map(|(r, d)| r - d);
        assert_eq!(stored, Some((ROUNDS * PER_ROUND) as u64), "{source}");
    }
    eventually(|| runtime.block_on(left(&context, &scene.jobs)), |left| *left == 0);
    let ids = runtime.block_on(told(&context, &scene.told));
    let distinct: BTreeSet<&String> = ids.iter().collect();
    assert_eq!((ids.len(), distinct.len()), (total, total), "each row is told once");

    // Core subjects while the engine listens.
    runtime.block_on(async {
        let payload = json!({"id": "d0-0", "battery": 7}).to_string();
        context.client().publish(format!("{}.ping", scene.told), payload.into()).await.expect("publish");
        context.client().flush().await.expect("flush");
    });
    eventually(|| sqlite(&database, "SELECT battery FROM devices WHERE id = 'd0-0'"), |battery| battery == "7");
    engine.stop();
    println!("{} kills, {total} messages of two streams, 0 lost, 0 duplicated, {} told once", ROUNDS - 1, ids.len());
}

/// Messages that a stream still holds.
async fn left(context: &Context, stream: &str) -> u64 {
    context.get_stream(stream).await.expect("stream").cached_info().state.messages
}
