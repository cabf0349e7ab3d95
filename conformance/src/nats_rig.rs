//! A real NATS server for the suites: a stream made fresh for each case, and servers that a case may kill.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::context::{Context, ContextBuilder};
use async_nats::jetstream::stream::{Config, RetentionPolicy, Stream};
use async_trait::async_trait;
use gravity_connectors::nats::{NatsConnection, NatsReading, NatsSource, NatsSourceOptions};
use gravity_model::LogId;
use gravity_model::port::source::{Acceptance, PositionBook, Source, Start};

use crate::kafka_rig::{free_port, root, run, unique};
use crate::source_suite::{Book, Published, SourceRig};

const LIMIT: Duration = Duration::from_secs(30);
/// The durable consumer of the rigs that have one.
pub const DURABLE: &str = "gravity";

/// `host:port` of the NATS under test; `None` after saying so.
pub fn nats_under_test() -> Option<String> {
    let host = std::env::var("GRAVITY_TEST_NATS").ok().filter(|host| !host.is_empty());
    if host.is_none() {
        println!("skipped: GRAVITY_TEST_NATS is not set");
    }
    host
}

/// A connection without TLS or credentials.
pub fn connection(host: &str) -> NatsConnection {
    NatsConnection { hosts: vec![host.to_owned()], ..NatsConnection::default() }
}

/// A client that nothing under test shares.
pub async fn client(host: &str) -> async_nats::Client {
    async_nats::ConnectOptions::new().connection_timeout(LIMIT).connect(host).await.expect("a client of the test's own")
}

pub fn jetstream(client: &async_nats::Client) -> Context {
    ContextBuilder::new().timeout(LIMIT).max_ack_inflight(20_000).build(client.clone())
}

/// A stream of its own on a real server. A partition of the suite is a subject: they all lie in the one slot of the stream.
pub struct NatsRig {
    pub host: String,
    pub name: String,
    pub log_id: LogId,
    pub context: Context,
    retention: RetentionPolicy,
}

impl NatsRig {
    /// A rig on the NATS under test, with a stream that keeps its messages.
    pub async fn fresh() -> Option<NatsRig> {
        Some(NatsRig::on(&nats_under_test()?, RetentionPolicy::Limits).await)
    }

    pub async fn on(host: &str, retention: RetentionPolicy) -> NatsRig {
        NatsRig::with_context(host, jetstream(&client(host).await), retention).await
    }

    pub async fn with_context(host: &str, context: Context, retention: RetentionPolicy) -> NatsRig {
        let log_id = LogId(*uuid::Uuid::new_v4().as_bytes());
        let rig = NatsRig { host: host.to_owned(), name: format!("t-{}", unique()), log_id, context, retention };
        rig.create().await;
        if retention == RetentionPolicy::Interest {
            // Without a consumer such a stream forgets at once what is published.
            rig.leave_consumer().await;
        }
        rig
    }

    pub fn config(&self) -> Config {
        Config {
            name: self.name.clone(),
            subjects: vec![format!("{}.>", self.name)],
            retention: self.retention,
            ..Config::default()
        }
    }

    async fn create(&self) {
        self.context.create_stream(self.config()).await.expect("create stream");
    }

    /// Makes the durable consumer as the source itself does.
    pub async fn leave_consumer(&self) {
        let mut source = self.source();
        let book: Arc<dyn PositionBook> = Arc::new(Book::default());
        source.connect(book, Start::Earliest).await.expect("connect");
        source.close().await;
    }

    pub fn subject(&self, partition: u32) -> String {
        format!("{}.{partition}", self.name)
    }

    pub fn options(&self) -> NatsSourceOptions {
        let durable = (self.retention != RetentionPolicy::Limits).then(|| DURABLE.to_owned());
        NatsSourceOptions {
            connection: connection(&self.host),
            subjects: vec![format!("{}.>", self.name)],
            reading: NatsReading::Stream { stream: self.name.clone(), durable },
            log_id: self.log_id,
            accept: Acceptance::default(),
        }
    }

    pub async fn stream(&self) -> Stream {
        self.context.get_stream(&self.name).await.expect("the rig's stream")
    }

    /// What the durable consumer says of itself.
    pub async fn consumer(&self) -> async_nats::jetstream::consumer::Info {
        self.stream().await.consumer_info(DURABLE).await.expect("the rig's consumer")
    }

    pub async fn delete_consumer(&self) {
        self.stream().await.delete_consumer(DURABLE).await.expect("delete the consumer");
    }

    /// Names of all consumers that the server has for the stream.
    pub async fn consumers(&self) -> BTreeSet<String> {
        use futures::TryStreamExt;
        self.stream().await.consumer_names().try_collect().await.expect("consumer names")
    }

    /// A consumer made by somebody else.
    pub async fn foreign_consumer(&self, config: pull::Config) {
        let config = pull::Config { durable_name: Some(DURABLE.to_owned()), ..config };
        self.stream().await.create_consumer(config).await.expect("create a consumer");
    }
}

fn headers(message: &Published) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in &message.headers {
        map.append(name.as_str(), std::str::from_utf8(value).expect("NATS headers are text"));
    }
    map
}

/// Publishes and awaits every acknowledgement.
pub async fn publish(context: &Context, subject: &str, messages: Vec<Published>) {
    let mut acks = Vec::with_capacity(messages.len());
    for message in messages {
        let payload = message.payload.clone().unwrap_or_default().into();
        let sent = context.publish_with_headers(subject.to_owned(), headers(&message), payload).await;
        acks.push(sent.expect("sent"));
    }
    for ack in acks {
        ack.await.expect("stored");
    }
}

#[async_trait]
impl SourceRig for NatsRig {
    fn accepting(&self, accept: Acceptance) -> Box<dyn Source> {
        Box::new(NatsSource::new("orders", NatsSourceOptions { accept, ..self.options() }))
    }

    async fn publish(&self, partition: u32, messages: Vec<Published>) {
        publish(&self.context, &self.subject(partition), messages).await;
    }

    async fn leave_gap(&self, partition: u32) {
        let sent = self.context.publish(self.subject(partition), "gone".into()).await.expect("sent");
        let sequence = sent.await.expect("stored").sequence;
        self.stream().await.delete_message(sequence).await.expect("delete one message");
    }

    async fn trim(&self, _partition: u32, low: u64) {
        self.stream().await.purge().sequence(low).await.expect("purge");
    }

    async fn recreate(&self) {
        self.context.delete_stream(&self.name).await.expect("delete stream");
        self.create().await;
    }

    async fn grow(&self, _partitions: u32) {}

    async fn acknowledged(&self, _partition: u32) -> u64 {
        self.consumer().await.ack_floor.stream_sequence + 1
    }

    async fn acknowledge_elsewhere(&self, _partition: u32, _offset: u64) {
        // A server that keeps nothing for us can only lose the consumers of our connections.
        for consumer in self.consumers().await {
            self.stream().await.delete_consumer(&consumer).await.expect("delete the consumer");
        }
    }

    fn slot_number(&self, _partition: u32) -> u32 {
        0
    }

    fn partition_of(&self, slot: &str) -> u32 {
        assert!(slot.starts_with(&format!("{}/", self.name)), "STREAM/CREATED: {slot}");
        0
    }

    fn first_offset(&self) -> u64 {
        1
    }

    fn keeps_acknowledgements(&self) -> bool {
        self.retention != RetentionPolicy::Limits
    }

    fn odd_messages(&self) -> Vec<Published> {
        let text = |value: &str| value.as_bytes().to_vec();
        let headers = [("Nats-Msg-Id", "id-7"), ("a", "1"), ("a", "2"), ("b", "é ✓"), ("ce-type", "x"), ("empty", "")];
        vec![
            Published { payload: Some(text("plain")), ..Published::default() },
            Published { payload: Some(Vec::new()), ..Published::default() },
            Published {
                payload: Some((0..=255).collect()),
                headers: headers.iter().map(|(name, value)| ((*name).to_owned(), text(value))).collect(),
                ..Published::default()
            },
            Published { payload: Some(vec![b'x'; 900_000]), ..Published::default() },
        ]
    }

    /// The time is the server's, and there are no keys.
    fn same(&self, taken: &Published, published: &Published) -> bool {
        taken.time.is_some() && *taken == Published { time: taken.time, key: None, ..published.clone() }
    }
}

/// A server that one case owns, so that it may kill it. Started by the project's own script on a free port.
pub struct PrivateNats {
    pub host: String,
    folder: tempfile::TempDir,
    port: u16,
}

impl PrivateNats {
    /// `None` after saying why: without the server's program (it comes with `conformance/servers up nats`).
    pub fn start() -> Option<PrivateNats> {
        PrivateNats::start_with("", None)
    }

    /// The same with more lines in its configuration, and other users than the usual ones.
    pub fn start_with(extra: &str, users: Option<&str>) -> Option<PrivateNats> {
        nats_under_test()?;
        let work = std::env::var_os("GRAVITY_WORK").map_or_else(|| root().join(".work"), PathBuf::from);
        let programs = work.join("bin");
        if !programs.is_dir() && std::env::var_os("GRAVITY_NATS_BIN").is_none() {
            println!("skipped: no nats-server under {}; `conformance/servers up nats` builds it", programs.display());
            return None;
        }
        let folder = tempfile::Builder::new().prefix("nats-").tempdir().expect("folder");
        if programs.is_dir() {
            std::os::unix::fs::symlink(programs, folder.path().join("bin")).expect("link to the program");
        }
        let port = free_port();
        let nats = PrivateNats { host: format!("127.0.0.1:{port}"), folder, port };
        std::fs::create_dir_all(nats.home()).expect("the server's folder");
        nats.configure(extra);
        if let Some(users) = users {
            std::fs::write(nats.home().join("users.conf"), users).expect("the server's users");
        }
        run(&mut nats.command(&["up", "nats"]));
        Some(nats)
    }

    fn home(&self) -> PathBuf {
        self.folder.path().join("servers/nats")
    }

    /// Further lines of the server's configuration, from its next start on.
    pub fn configure(&self, extra: &str) {
        std::fs::write(self.home().join("extra.conf"), extra).expect("the server's configuration");
    }

    /// Kills the server and starts it again on the same data.
    pub async fn kill_and_restart(&self) {
        self.script(&["restart", "--kill", "nats"]).await;
    }

    pub async fn kill(&self) {
        self.script(&["down", "--kill", "nats"]).await;
    }

    pub async fn start_again(&self) {
        self.script(&["up", "nats"]).await;
    }

    async fn script(&self, arguments: &[&str]) {
        let mut command = self.command(arguments);
        tokio::task::spawn_blocking(move || run(&mut command)).await.expect("task");
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(root().join("conformance/servers"));
        command
            .args(arguments)
            .env("GRAVITY_WORK", self.folder.path())
            .env("GRAVITY_NATS_PORT", self.port.to_string())
            .env("GRAVITY_NATS_CLI", "none")
            .env_remove("GRAVITY_TEST_NATS")
            .stdin(Stdio::null());
        command
    }
}

impl Drop for PrivateNats {
    fn drop(&mut self) {
        // Its data is nobody's: no need to wait for an orderly end.
        run(&mut self.command(&["down", "--kill", "nats"]));
    }
}
