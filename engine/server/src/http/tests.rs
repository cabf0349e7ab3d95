//! The API over a real socket: the whole inventory by role, refusals as problem documents, bounds of bodies.

use std::sync::Arc;
use std::time::Duration;

use gravity_engine::{
    DatabaseOptions, DatabaseSpec, Engine, EngineParts, EnvelopeOptions, RulesInForce, SourcePort, SourceSpec,
};
use gravity_model::port::source::Start;
use gravity_rules::diagnose::SourceFile;
use reqwest::{Client, Response};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::{Api, inventory};
use crate::config::{Role, Secret, TokenEntry};

struct Server {
    base: String,
    client: Client,
    _tasks: JoinSet<()>,
    _folder: tempfile::TempDir,
}

const RULES: &str = r#"{"rules": [{"event": "userCreated", "table": "users", "method": "update",
    "mapping": [{"source": "id", "target": "id", "type": "i64", "primary": true}, {"source": "name", "target": "name", "type": "text"}]}]}"#;

const MAX_BATCH: usize = 64 * 1024;

/// An engine on a log in memory and a SQLite file, behind the API.
async fn server(tokens: &[TokenEntry], with_engine: bool) -> Server {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let folder = tempfile::tempdir().expect("a folder");
    let api = Api::new(tokens, MAX_BATCH);
    if with_engine {
        let kind = gravity_rules::DatabaseKind::Sqlite;
        let database = gravity_rules::DatabaseContext { kind, ddl: gravity_rules::Ddl::Create, unknown_fields: None };
        let context = gravity_rules::Context {
            databases: [("db1".to_owned(), database)].into_iter().collect(),
            exporters: Vec::new(),
        };
        let files = vec![SourceFile::new("rules.json", RULES)];
        let set = Arc::new(gravity_rules::load(&files, &context).expect("sound rules"));
        let options = gravity_connectors::sqlite::SqliteOptions::new(folder.path().join("views.db"));
        let store = Arc::new(gravity_connectors::sqlite::SqliteViews::new(options).expect("a store"));
        let engine = Engine::start(EngineParts {
            log: gravity_log::memory(),
            sources: vec![SourceSpec {
                name: "web".to_owned(),
                kind: "http",
                port: SourcePort::Push,
                envelope: EnvelopeOptions::default(),
                start: Start::Earliest,
                max_batch: MAX_BATCH,
            }],
            databases: vec![DatabaseSpec {
                name: "db1".to_owned(),
                kind: "sqlite",
                store,
                options: DatabaseOptions { create: true, ..DatabaseOptions::default() },
            }],
            exporters: Vec::new(),
            rules: RulesInForce { set, files, context, actor: "test".to_owned() },
            stop_at_end: false,
            begin_after: None,
        })
        .await
        .expect("the engine starts");
        api.set_engine(engine);
    }
    let tcp = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let base = format!("http://{}", tcp.local_addr().expect("an address"));
    let mut tasks = JoinSet::new();
    let router = api.router();
    tasks.spawn(async move { axum::serve(tcp, router).await.expect("serves") });
    Server { base, client: Client::builder().no_proxy().build().expect("a client"), _tasks: tasks, _folder: folder }
}

impl Server {
    async fn get(&self, path: &str) -> Response {
        self.client.get(format!("{}{path}", self.base)).send().await.expect("an answer")
    }

    async fn post(&self, path: &str, kind: &str, body: impl Into<reqwest::Body>) -> Response {
        let request = self.client.post(format!("{}{path}", self.base)).header("content-type", kind);
        request.body(body).send().await.expect("an answer")
    }
}

async fn problem(response: Response, status: u16) -> Value {
    assert_eq!(response.status().as_u16(), status, "{:?}", response.text().await);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    assert_eq!(response.headers()["x-content-type-options"], "nosniff");
    let problem: Value = response.json().await.expect("JSON");
    assert_eq!(problem["status"], status);
    let code = problem["code"].as_str().expect("a code");
    assert_eq!(problem["type"], format!("urn:gravity:error:{code}"));
    problem
}

fn tokens() -> Vec<TokenEntry> {
    let entry =
        |name: &str, role| TokenEntry { name: name.to_owned(), role, token: Secret::new(format!("{name}-token")) };
    vec![entry("v", Role::Viewer), entry("i", Role::Ingest), entry("o", Role::Operator), entry("a", Role::Admin)]
}

/// Every call of the inventory with no token, a wrong one, and each role: exactly what the inventory says is admitted.
#[tokio::test(flavor = "multi_thread")]
async fn o51_every_call_by_every_role() {
    let server = server(&tokens(), true).await;
    let mut cells = 0;
    for call in inventory::calls() {
        let path = call
            .path
            .replace("{source}", "1")
            .replace("{view}", "db1.users")
            .replace("{route}", "db1")
            .replace("{sequence}", "1");
        for (token, role) in [
            (None, None),
            (Some("wrong"), None),
            (Some("v-token"), Some(Role::Viewer)),
            (Some("i-token"), Some(Role::Ingest)),
            (Some("o-token"), Some(Role::Operator)),
            (Some("a-token"), Some(Role::Admin)),
        ] {
            let method = call.method.to_uppercase().parse().expect("a method");
            let mut request = server
                .client
                .request(method, format!("{}{path}", server.base))
                .header("content-type", "application/json");
            if let Some(token) = token {
                request = request.bearer_auth(token);
            }
            let status = request.send().await.expect("an answer").status().as_u16();
            let roles = call.permission.roles();
            let want = match role {
                _ if roles == "anybody" => None,
                None => Some(401),
                Some(role) if roles == "any role" || roles.contains(&role.to_string()) => None,
                Some(_) => Some(403),
            };
            match want {
                Some(want) => assert_eq!(status, want, "{} {} as {role:?}", call.method, call.path),
                None => assert!(status != 401 && status != 403, "{} {} as {role:?}: {status}", call.method, call.path),
            }
            cells += 1;
        }
    }
    assert_eq!(cells, inventory::calls().len() * 6);
}

/// T22: what is served is what the document says, and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn t22_the_document_is_the_inventory() {
    let server = server(&[], true).await;
    let document: Value = server.get("/openapi.json").await.json().await.expect("JSON");
    let mut documented = 0;
    for (path, operations) in document["paths"].as_object().expect("paths") {
        for method in operations.as_object().expect("operations").keys() {
            assert!(
                inventory::calls().iter().any(|call| call.path == path && call.method == method),
                "{method} {path}"
            );
            documented += 1;
        }
    }
    assert_eq!(documented, inventory::calls().len());
    let text = document.to_string();
    for reference in text.split("#/components/schemas/").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert!(document["components"]["schemas"][reference].is_object(), "{reference}");
    }
    problem(server.get("/debug/pprof").await, 404).await;
    problem(server.get("/v1").await, 404).await;
    let response = server.client.delete(format!("{}/v1/events", server.base)).send().await.expect("an answer");
    problem(response, 405).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn publish_follow_read_back() {
    let server = server(&[], true).await;
    let body = r#"{"event": "userCreated", "payload": {"id": 1, "name": "Fred", "big": 12345678901234567890.10}}"#;
    let answer: Value = server.post("/v1/events", "application/json", body).await.json().await.expect("JSON");
    let first = answer["first"].as_u64().expect("a sequence");
    assert_eq!(answer, json!({"first": first, "last": first, "duplicates": 0}));
    let position: Value =
        server.get(&format!("/v1/views/db1.users/position?wait={first}&timeout=10s")).await.json().await.expect("JSON");
    assert_eq!(position["reached"], true, "{position}");
    assert_eq!(position["fate"], "applied");
    let text = server.get(&format!("/v1/events/{first}")).await.text().await.expect("text");
    assert!(text.contains("12345678901234567890.10"), "digits are kept: {text}");
    let text = server.get(&format!("/v1/events?after={}&limit=1", first - 1)).await.text().await.expect("text");
    assert!(text.starts_with(r#"{"events":[{"#) && text.contains("12345678901234567890.10"), "{text}");
    let status: Value = server.get("/v1/status").await.json().await.expect("JSON");
    assert_eq!(status["routes"][0]["applied"], 1, "{status}");
    let metrics = server.get("/metrics").await.text().await.expect("text");
    assert!(metrics.contains("gravity_route_applied_total{route=\"db1\",type=\"sqlite\"} 1"), "{metrics}");
    assert!(metrics.contains("gravity_route_lag_seconds{"), "{metrics}");
    assert!(metrics.contains("process_resident_memory_bytes "), "{metrics}");
    let late = server.get("/v1/views/db1.users/position?wait=999999&timeout=50ms").await;
    let late = problem(late, 504).await;
    assert_eq!((&late["code"], &late["reached"]), (&json!("api/not-reached"), &json!(false)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_a_problem_document() {
    let server = server(&[], true).await;
    let broken =
        server.post("/v1/events", "application/x-ndjson", "{\"event\":\"a\",\"payload\":1}\n{\"event\":\n").await;
    let broken = problem(broken, 400).await;
    assert_eq!(broken["line"], 2, "{broken}");
    problem(server.post("/v1/events", "text/html", "<p>").await, 415).await;
    problem(server.post("/v1/events/nobody", "application/json", "{}").await, 404).await;
    let unknown = problem(server.get("/v1/events?limt=1").await, 400).await;
    assert!(unknown["detail"].as_str().expect("text").contains("limt"), "{unknown}");
    problem(server.get("/v1/events/first").await, 400).await;
    problem(server.get("/v1/events/999999").await, 404).await;
    problem(server.get("/v1/views/db1.nothing/position").await, 404).await;
    problem(server.get("/v1/dlq/db1/77").await, 404).await;
    problem(server.get("/v1/dlq/db1/x").await, 400).await;
    problem(server.get("/v1/dlq?route=nowhere").await, 404).await;
    problem(server.post("/v1/dlq/db1/skip", "application/json", "").await, 400).await;
    let misspelt = server.post("/v1/dlq/db1/retry", "application/json", r#"{"sequence": [1]}"#).await;
    problem(misspelt, 400).await;
    let resumed = server.post("/v1/routes/nowhere/resume", "application/json", "").await;
    problem(resumed, 404).await;
}

/// T14: the limit holds for announced and for unannounced lengths, and nothing of it stays in memory.
#[tokio::test(flavor = "multi_thread")]
async fn t14_bodies_are_bounded() {
    let server = server(&[], true).await;
    let announced = server.post("/v1/events", "application/json", vec![b' '; MAX_BATCH + 1]).await;
    assert_eq!(problem(announced, 413).await["limit"], MAX_BATCH);
    let pieces = futures::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b' '; 1024]));
    let endless = reqwest::Body::wrap_stream(pieces);
    let request = server.client.post(format!("{}/v1/events", server.base)).header("content-type", "application/json");
    // The server may close before the client has sent all: an answer or a broken pipe, never patience.
    let outcome =
        tokio::time::timeout(Duration::from_secs(10), request.body(endless).send()).await.expect("no waiting");
    if let Ok(response) = outcome {
        assert_eq!(response.status().as_u16(), 413);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn before_the_log_is_open_only_probes_answer() {
    let server = server(&[], false).await;
    assert_eq!(server.get("/healthz").await.status().as_u16(), 200);
    let ready = server.get("/readyz").await;
    assert_eq!(ready.status().as_u16(), 503);
    let ready: Value = ready.json().await.expect("JSON");
    assert_eq!(ready, json!({"ready": false, "reasons": ["recovering"]}));
    let refused = server.get("/v1/status").await;
    assert_eq!(refused.headers()["retry-after"], "1");
    assert_eq!(problem(refused, 503).await["code"], "api/starting");
}
