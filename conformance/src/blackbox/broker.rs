//! Kafka topics of a test's own, and a broker of its own that asks who is there (SASL PLAIN), as the deck's file says.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::command::Ended;
use super::server::{free_port, root};

/// Makes a topic and waits until every partition has a leader.
pub fn create_topic(hosts: &str, topic: &str, partitions: i32, settings: &[(&str, &str)]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(crate::kafka_rig::create_topic(hosts, topic, partitions, settings));
}

/// One broker with two listeners: one that takes only user `kafka` with password `test`, and an open one.
pub struct SaslBroker {
    child: Child,
    /// Port of the listener with SASL PLAIN, no TLS.
    pub sasl_port: u16,
    /// `HOST:PORT` without sign-in.
    pub open: String,
    folder: tempfile::TempDir,
}

impl SaslBroker {
    /// `None` after saying why: without the jars that come with `conformance/servers up kafka`.
    pub fn start() -> Option<SaslBroker> {
        let work = std::env::var_os("GRAVITY_WORK").map_or_else(|| root().join(".work"), PathBuf::from);
        let jars = std::fs::read_dir(work.join("jars")).into_iter().flatten().flatten().map(|entry| entry.path());
        let named = |path: &PathBuf| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("kafka-")) && path.is_dir()
        };
        let Some(jars) = jars.filter(named).find(|path| !path.to_string_lossy().contains(".part")) else {
            println!("skipped: no Kafka jars below {}; `conformance/servers up kafka` fetches them", work.display());
            return None;
        };
        let folder = tempfile::Builder::new().prefix("kafka-").tempdir().expect("a folder");
        let (sasl_port, open_port, control) = (free_port(), free_port(), free_port());
        let properties = folder.path().join("server.properties");
        std::fs::write(&properties, properties_of(sasl_port, open_port, control, folder.path())).expect("written");
        let java = || {
            let mut command = Command::new("java");
            command.args(["-Xms192m", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-cp"]).arg(jars.join("*"));
            command.stdin(Stdio::null());
            command
        };
        let format = ["kafka.tools.StorageTool", "format", "-t", "GravityDeckScenarioAAAA", "-c"];
        Ended::run(java().args(format).arg(&properties)).expect(0);
        let log = std::fs::File::create(folder.path().join("log")).expect("a log");
        let mut command = java();
        command.arg("kafka.Kafka").arg(&properties).stdout(log).stderr(Stdio::null());
        let child = command.spawn().expect("java runs");
        let broker = SaslBroker { child, sasl_port, open: format!("127.0.0.1:{open_port}"), folder };
        broker.wait_until_ready();
        Some(broker)
    }

    fn wait_until_ready(&self) {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            let asked = Command::new("kcat").args(["-b", &self.open, "-L", "-m", "2"]).stdin(Stdio::null()).output();
            if asked.is_ok_and(|output| output.status.success()) {
                return;
            }
            let log = || std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < until, "the broker does not answer:\n{}", log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for SaslBroker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn properties_of(sasl: u16, open: u16, control: u16, folder: &std::path::Path) -> String {
    format!(
        "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:{control}\n\
         listeners=SIGNED://127.0.0.1:{sasl},OPEN://127.0.0.1:{open},CONTROLLER://127.0.0.1:{control}\n\
         advertised.listeners=SIGNED://127.0.0.1:{sasl},OPEN://127.0.0.1:{open}\n\
         listener.security.protocol.map=SIGNED:SASL_PLAINTEXT,OPEN:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
         inter.broker.listener.name=OPEN\ncontroller.listener.names=CONTROLLER\n\
         listener.name.signed.sasl.enabled.mechanisms=PLAIN\n\
         listener.name.signed.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule \
         required user_kafka=\"test\";\n\
         log.dirs={}\nauto.create.topics.enable=false\noffsets.topic.replication.factor=1\n\
         offsets.topic.num.partitions=1\ntransaction.state.log.replication.factor=1\n\
         transaction.state.log.min.isr=1\ntransaction.state.log.num.partitions=1\n\
         share.coordinator.state.topic.replication.factor=1\nshare.coordinator.state.topic.min.isr=1\n\
         group.initial.rebalance.delay.ms=0\n",
        folder.join("data").display()
    )
}
