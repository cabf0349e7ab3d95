//! Real Kafka for the suites: a fresh topic and group per case, and a broker of one's own where a case kills it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use gravity_connectors::kafka::{KafkaConnection, KafkaSource, KafkaSourceOptions, commit_metadata};
use gravity_model::LogId;
use gravity_model::port::source::{Acceptance, Source};
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::{Header, Message as _, OwnedHeaders, OwnedMessage};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::source_suite::{Published, SourceRig, messages};

const LIMIT: Duration = Duration::from_secs(30);

/// `host:port` of the Kafka under test; `None` after saying so.
pub fn kafka_under_test() -> Option<String> {
    let hosts = std::env::var("GRAVITY_TEST_KAFKA").ok().filter(|hosts| !hosts.is_empty());
    if hosts.is_none() {
        println!("skipped: GRAVITY_TEST_KAFKA is not set");
    }
    hosts
}

/// Letters that no other case of no other run has used.
pub fn unique() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

/// A topic of its own on a real broker.
pub struct KafkaRig {
    pub hosts: String,
    pub topic: String,
    pub group: String,
    pub log_id: LogId,
    partitions: AtomicU32,
    producer: FutureProducer,
}

impl KafkaRig {
    /// A rig on the Kafka under test.
    pub async fn fresh(partitions: u32) -> Option<KafkaRig> {
        Some(KafkaRig::on(&kafka_under_test()?, partitions).await)
    }

    pub async fn on(hosts: &str, partitions: u32) -> KafkaRig {
        let rig = KafkaRig {
            hosts: hosts.to_owned(),
            topic: format!("t-{}", unique()),
            group: format!("g-{}", unique()),
            log_id: LogId(*uuid::Uuid::new_v4().as_bytes()),
            partitions: AtomicU32::new(partitions),
            // Idempotent: a retry right after the topic was made would otherwise put later records before earlier ones.
            producer: client(hosts).set("enable.idempotence", "true").create().expect("producer"),
        };
        rig.create().await;
        rig
    }

    pub fn options(&self) -> KafkaSourceOptions {
        KafkaSourceOptions {
            connection: connection(&self.hosts),
            topics: vec![self.topic.clone()],
            group: self.group.clone(),
            log_id: self.log_id,
            accept: Acceptance::default(),
            extra: [("session.timeout.ms".to_owned(), "6000".to_owned())].into(),
        }
    }

    async fn create(&self) {
        let partitions = i32::try_from(self.partitions.load(Ordering::SeqCst)).expect("partition count");
        create_topic(&self.hosts, &self.topic, partitions, &[]).await;
    }

    pub fn topic_partition(&self, partition: u32) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.topic, i32::try_from(partition).expect("partition"));
        list
    }

    /// Publishes in one transaction and commits or aborts it.
    pub async fn transaction(&self, partition: u32, messages: Vec<Published>, commit: bool) {
        let (hosts, topic) = (self.hosts.clone(), self.topic.clone());
        let producer: FutureProducer = client(&hosts)
            .set("transactional.id", format!("tx-{}", unique()))
            .create()
            .expect("transactional producer");
        producer.init_transactions(LIMIT).expect("init transactions");
        producer.begin_transaction().expect("begin");
        send_all(&producer, &topic, partition, messages).await;
        let ended = if commit { producer.commit_transaction(LIMIT) } else { producer.abort_transaction(LIMIT) };
        ended.expect("end of the transaction");
    }
}

/// A connection without TLS or credentials.
pub fn connection(hosts: &str) -> KafkaConnection {
    KafkaConnection { hosts: hosts.split(',').map(str::to_owned).collect(), ..KafkaConnection::default() }
}

pub fn client(hosts: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", hosts)
        .set("message.max.bytes", "20000000")
        .set("topic.metadata.refresh.interval.ms", "500");
    config
}

fn admin(hosts: &str) -> AdminClient<DefaultClientContext> {
    client(hosts).create().expect("admin client")
}

/// Creates a topic and waits until every partition has a leader.
pub async fn create_topic(hosts: &str, topic: &str, partitions: i32, settings: &[(&str, &str)]) {
    let admin = admin(hosts);
    let mut wanted = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
    for (key, value) in settings {
        wanted = wanted.set(key, value);
    }
    let until = Instant::now() + LIMIT;
    loop {
        let created = admin.create_topics([&wanted], &AdminOptions::new()).await.expect("create topic");
        match &created[0] {
            Ok(_) => break,
            // A topic of this name that is still being deleted.
            Err((_, code)) => assert!(Instant::now() < until, "create {topic}: {code}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    wait_for_partitions(&admin, topic, partitions).await;
}

async fn wait_for_partitions(admin: &AdminClient<DefaultClientContext>, topic: &str, partitions: i32) {
    let until = Instant::now() + LIMIT;
    loop {
        let metadata = admin.inner().fetch_metadata(Some(topic), LIMIT).expect("metadata");
        let led = metadata.topics()[0].partitions().iter().filter(|partition| partition.leader() >= 0).count();
        if led == usize::try_from(partitions).expect("count") {
            return;
        }
        assert!(Instant::now() < until, "{led} of {partitions} partitions of {topic} have a leader");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Sets one setting of a topic.
pub async fn alter_topic(hosts: &str, topic: &str, key: &str, value: &str) {
    let change = AlterConfig::new(ResourceSpecifier::Topic(topic)).set(key, value);
    let altered = admin(hosts).alter_configs([&change], &AdminOptions::new()).await.expect("alter topic");
    altered[0].as_ref().expect("altered");
}

pub async fn delete_topic(hosts: &str, topic: &str) {
    let deleted = admin(hosts).delete_topics(&[topic], &AdminOptions::new()).await.expect("delete topic");
    deleted[0].as_ref().expect("topic deleted");
}

pub async fn send_all(producer: &FutureProducer, topic: &str, partition: u32, messages: Vec<Published>) {
    let mut reports = Vec::new();
    for message in &messages {
        let mut record: FutureRecord<'_, [u8], [u8]> =
            FutureRecord::to(topic).partition(i32::try_from(partition).expect("partition"));
        record.key = message.key.as_deref();
        record.payload = message.payload.as_deref();
        record.timestamp = message.time.map(|micros| micros / 1000);
        if !message.headers.is_empty() {
            let mut headers = OwnedHeaders::new();
            for (name, value) in &message.headers {
                headers = headers.insert(Header { key: name, value: Some(value) });
            }
            record.headers = Some(headers);
        }
        reports.push(producer.send_result(record).map_err(|(error, _)| error).expect("room in the producer"));
    }
    for report in reports {
        report.await.expect("producer lives").map_err(|(error, _)| error).expect("confirmed");
    }
}

#[async_trait]
impl SourceRig for KafkaRig {
    fn accepting(&self, accept: Acceptance) -> Box<dyn Source> {
        Box::new(KafkaSource::new("orders", KafkaSourceOptions { accept, ..self.options() }))
    }

    async fn publish(&self, partition: u32, messages: Vec<Published>) {
        send_all(&self.producer, &self.topic, partition, messages).await;
    }

    async fn leave_gap(&self, partition: u32) {
        self.transaction(partition, messages("aborted", 3), false).await;
    }

    async fn trim(&self, partition: u32, low: u64) {
        let mut list = TopicPartitionList::new();
        let offset = Offset::Offset(i64::try_from(low).expect("offset"));
        list.add_partition_offset(&self.topic, i32::try_from(partition).expect("partition"), offset).expect("list");
        admin(&self.hosts).delete_records(&list, &AdminOptions::new()).await.expect("delete records");
    }

    async fn recreate(&self) {
        delete_topic(&self.hosts, &self.topic).await;
        self.create().await;
        // Our producer has to learn of the new topic before its next record.
        let until = Instant::now() + LIMIT;
        while self.producer.client().fetch_metadata(Some(&self.topic), LIMIT).expect("metadata").topics()[0]
            .partitions()
            .is_empty()
        {
            assert!(Instant::now() < until, "the new topic is not seen");
        }
    }

    async fn grow(&self, partitions: u32) {
        self.partitions.store(partitions, Ordering::SeqCst);
        let count = usize::try_from(partitions).expect("count");
        let admin = admin(&self.hosts);
        let grown = admin.create_partitions([&NewPartitions::new(&self.topic, count)], &AdminOptions::new()).await;
        grown.expect("grow")[0].as_ref().expect("grown");
        wait_for_partitions(&admin, &self.topic, i32::try_from(partitions).expect("count")).await;
        let until = Instant::now() + LIMIT;
        while self.producer.client().fetch_metadata(Some(&self.topic), LIMIT).expect("metadata").topics()[0]
            .partitions()
            .len()
            < count
        {
            assert!(Instant::now() < until, "the new partition is not seen");
        }
    }

    async fn acknowledged(&self, partition: u32) -> u64 {
        let (offset, metadata) = self.committed(partition).await;
        if offset > 0 {
            assert_eq!(metadata, commit_metadata(self.log_id), "a commit names its log");
        }
        offset
    }

    async fn acknowledge_elsewhere(&self, partition: u32, offset: u64) {
        self.commit_as(partition, offset, &commit_metadata(self.log_id)).await;
    }

    fn partition_of(&self, slot: &str) -> u32 {
        slot.split('/').nth(2).expect("CLUSTER/TOPIC/PARTITION").parse().expect("partition")
    }
}

impl KafkaRig {
    /// Offset (0 where none) and metadata of the group's commit.
    pub async fn committed(&self, partition: u32) -> (u64, String) {
        let consumer: BaseConsumer = client(&self.hosts).set("group.id", &self.group).create().expect("consumer");
        let list = self.topic_partition(partition);
        tokio::task::spawn_blocking(move || {
            let committed = consumer.committed_offsets(list, LIMIT).expect("committed offsets");
            let element = &committed.elements()[0];
            let offset = match element.offset() {
                Offset::Offset(offset) => u64::try_from(offset).expect("offset"),
                _ => 0,
            };
            (offset, element.metadata().to_owned())
        })
        .await
        .expect("task")
    }

    /// Commits for the group from outside; waits until the group has no member, since Kafka allows it only then.
    pub async fn commit_as(&self, partition: u32, offset: u64, metadata: &str) {
        let mut list = TopicPartitionList::new();
        {
            let mut element = list.add_partition(&self.topic, i32::try_from(partition).expect("partition"));
            element.set_offset(Offset::Offset(i64::try_from(offset).expect("offset"))).expect("offset");
            element.set_metadata(metadata);
        }
        let config = client(&self.hosts).set("group.id", &self.group).clone();
        tokio::task::spawn_blocking(move || {
            let until = Instant::now() + LIMIT;
            loop {
                let consumer: BaseConsumer = config.create().expect("consumer");
                match consumer.commit(&list, CommitMode::Sync) {
                    Ok(()) => return,
                    Err(error) => assert!(Instant::now() < until, "commit from outside: {error}"),
                }
                std::thread::sleep(Duration::from_millis(200));
            }
        })
        .await
        .expect("task");
    }
}

/// Everything that stands in a topic now, aborted transactions left out.
pub async fn read_topic(hosts: &str, topic: &str) -> Vec<OwnedMessage> {
    let consumer: BaseConsumer = client(hosts)
        .set("group.id", format!("reader-{}", unique()))
        .set("isolation.level", "read_committed")
        .set("fetch.message.max.bytes", "20000000")
        .create()
        .expect("consumer");
    let topic = topic.to_owned();
    tokio::task::spawn_blocking(move || {
        let metadata = consumer.fetch_metadata(Some(&topic), LIMIT).expect("metadata");
        let (mut list, mut left) = (TopicPartitionList::new(), 0);
        for partition in metadata.topics()[0].partitions() {
            list.add_partition_offset(&topic, partition.id(), Offset::Beginning).expect("list");
            let (low, high) = consumer.fetch_watermarks(&topic, partition.id(), LIMIT).expect("watermarks");
            left += high - low;
        }
        consumer.assign(&list).expect("assign");
        let (mut found, until) = (Vec::new(), Instant::now() + LIMIT);
        while i64::try_from(found.len()).expect("count") < left {
            if let Some(message) = consumer.poll(Duration::from_millis(200)) {
                found.push(message.expect("message").detach());
            }
            assert!(Instant::now() < until, "{} of {left} messages of {topic}", found.len());
        }
        found
    })
    .await
    .expect("task")
}

/// Value of a header as text.
pub fn header(message: &OwnedMessage, name: &str) -> Option<String> {
    use rdkafka::message::Headers;
    let headers = message.headers()?;
    let found = headers.iter().find(|header| header.key == name)?;
    Some(String::from_utf8_lossy(found.value.unwrap_or_default()).into_owned())
}

/// A Kafka that one case owns, so that it may kill it. Started by the project's own script on free ports.
pub struct PrivateKafka {
    pub hosts: String,
    folder: tempfile::TempDir,
    ports: (u16, u16),
    secured: Option<Secured>,
}

/// A listener with TLS and SASL beside the open one.
pub struct Secured {
    pub port: u16,
    /// Lines for server.properties but the listeners'.
    pub properties: String,
    /// A user, as the format tool's `--add-scram` takes it.
    pub scram: String,
}

impl PrivateKafka {
    /// `None` after saying why: without the broker's jars (they come with `conformance/servers up kafka`).
    pub fn start() -> Option<PrivateKafka> {
        PrivateKafka::start_with(|_| None)
    }

    /// The same with further lines for its properties, made by `secure` in the broker's folder. They may open a listener on
    /// the port that it is given; `None` where there is nothing to add.
    pub fn start_with(secure: impl FnOnce(&Path) -> Option<Secured>) -> Option<PrivateKafka> {
        kafka_under_test()?;
        let work = std::env::var_os("GRAVITY_WORK").map_or_else(|| root().join(".work"), PathBuf::from);
        let jars = work.join("jars");
        if !jars.is_dir() {
            println!("skipped: no Kafka jars under {}; `conformance/servers up kafka` fetches them", jars.display());
            return None;
        }
        let folder = tempfile::Builder::new().prefix("kafka-").tempdir().expect("folder");
        std::os::unix::fs::symlink(jars, folder.path().join("jars")).expect("link to the jars");
        let ports = (free_port(), free_port());
        let secured = secure(folder.path());
        let kafka = PrivateKafka { hosts: format!("127.0.0.1:{}", ports.0), folder, ports, secured };
        kafka.servers(&["up", "kafka"]);
        Some(kafka)
    }

    /// Kills the broker and starts it again on the same data.
    pub async fn kill_and_restart(&self) {
        let mut command = self.command(&["restart", "--kill", "kafka"]);
        tokio::task::spawn_blocking(move || run(&mut command)).await.expect("task");
    }

    pub fn kill(&self) {
        self.servers(&["down", "--kill", "kafka"]);
    }

    pub async fn start_again(&self) {
        let mut command = self.command(&["up", "kafka"]);
        tokio::task::spawn_blocking(move || run(&mut command)).await.expect("task");
    }

    fn servers(&self, arguments: &[&str]) {
        run(&mut self.command(arguments));
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(root().join("conformance/servers"));
        command
            .args(arguments)
            .env("GRAVITY_WORK", self.folder.path())
            .env("GRAVITY_KAFKA_PORT", self.ports.0.to_string())
            .env("GRAVITY_KAFKA_CONTROLLER_PORT", self.ports.1.to_string())
            .env("GRAVITY_KAFKA_HEAP", "256m")
            .env_remove("GRAVITY_TEST_KAFKA")
            .stdin(Stdio::null());
        if let Some(secured) = &self.secured {
            let file = self.folder.path().join("further.properties");
            let (open, controller) = self.ports;
            let listeners = format!("PLAINTEXT://127.0.0.1:{open},SASL_SSL://127.0.0.1:{}", secured.port);
            let lines = format!(
                "listeners={listeners},CONTROLLER://127.0.0.1:{controller}\nadvertised.listeners={listeners}\n\
                 listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL\n{}",
                secured.properties
            );
            std::fs::write(&file, lines).expect("properties written");
            command.env("GRAVITY_KAFKA_PROPERTIES", file).env("GRAVITY_KAFKA_SCRAM", &secured.scram);
        }
        command
    }
}

impl Drop for PrivateKafka {
    fn drop(&mut self) {
        // Its data is nobody's: no need to wait for an orderly end.
        self.kill();
    }
}

pub(crate) fn run(command: &mut Command) {
    let output = command.output().expect("conformance/servers runs");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies in the workspace").to_owned()
}

/// Below the ephemeral range, so that no outgoing connection takes it meanwhile.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let begin = 21_000 + std::process::id() % 7_000;
    loop {
        let port = u16::try_from(begin + NEXT.fetch_add(1, Ordering::SeqCst)).expect("port");
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
