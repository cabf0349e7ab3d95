//! Who we say we are to Kafka, and whom we trust, over a listener with TLS and SASL: source and exporter.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use gravity_conformance::certificate::certificate;
use gravity_conformance::export_suite::{is_delivered, kind, numbered};
use gravity_conformance::kafka_rig::{KafkaRig, PrivateKafka, Secured, connection, free_port, read_topic, unique};
use gravity_conformance::source_suite::{Book, SourceRig, messages, read_until};
use gravity_connectors::kafka::{
    KafkaConnection, KafkaExporter, KafkaExporterOptions, KafkaSource, KafkaSourceOptions,
};
use gravity_model::port::export::Exporter;
use gravity_model::port::source::{Source, Start};
use gravity_model::{Fault, FaultKind};

use super::kafka::positions;

/// What must never be shown.
const PASSWORD: &str = "right-canary";

/// A broker with TLS and SASL beside the open door, and the certificate to trust. `None` after saying why.
fn secured() -> Option<(PrivateKafka, String, tempfile::TempDir, PathBuf)> {
    let folder = tempfile::tempdir().expect("folder");
    let (cert, key) = certificate(folder.path(), "broker", "IP:127.0.0.1")?;
    let port = free_port();
    let kafka = PrivateKafka::start_with(|home| {
        // Kafka takes key and certificate from one file.
        let both = home.join("broker.pem");
        let text = |path: &Path| std::fs::read_to_string(path).expect("made just now");
        std::fs::write(&both, text(&key) + &text(&cert)).expect("written");
        let listener = "listener.name.sasl_ssl";
        let security = "org.apache.kafka.common.security";
        let properties = format!(
            "{listener}.ssl.keystore.type=PEM\n{listener}.ssl.keystore.location={}\n\
             {listener}.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512\n\
             {listener}.plain.sasl.jaas.config={security}.plain.PlainLoginModule required user_signed=\"{PASSWORD}\";\n\
             {listener}.scram-sha-256.sasl.jaas.config={security}.scram.ScramLoginModule required;\n\
             {listener}.scram-sha-512.sasl.jaas.config={security}.scram.ScramLoginModule required;\n",
            both.display()
        );
        Some(Secured { port, properties, scram: format!("SCRAM-SHA-512=[name=signed,password={PASSWORD}]") })
    })?;
    Some((kafka, format!("127.0.0.1:{port}"), folder, cert))
}

fn signed(hosts: &str, ca: Option<&Path>, mechanism: Option<&str>, password: &str) -> KafkaConnection {
    KafkaConnection {
        secure: true,
        username: "signed".to_owned(),
        password: password.to_owned(),
        sasl_mechanism: mechanism.map(str::to_owned),
        ca_file: ca.map(Path::to_owned),
        ..connection(hosts)
    }
}

/// Connects, and reads what is there.
async fn read(rig: &KafkaRig, connection: KafkaConnection, count: usize) -> Result<Vec<String>, Fault> {
    let mut source = KafkaSource::new("orders", KafkaSourceOptions { connection, group: unique(), ..rig.options() });
    let book = Arc::new(Book::default());
    let before = Instant::now();
    let connected = source.connect(positions(&book), Start::Earliest).await;
    assert!(before.elapsed() < Duration::from_secs(30), "{:?}", before.elapsed());
    let done = match connected {
        Ok(()) => read_until(&mut source, &book, count, true).await,
        Err(fault) => Err(fault),
    };
    source.close().await;
    done.map(|()| book.payloads())
}

/// T9, S15: certificates and names are verified, a wrong password and a wrong authority are told as such.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s15_kafka_is_read_and_written_over_tls_and_sasl_and_a_stranger_is_refused() {
    let Some((kafka, secure, folder, cert)) = secured() else { return };
    let rig = KafkaRig::on(&kafka.hosts, 1).await;
    rig.publish(0, messages("a", 20)).await;
    let all: Vec<String> = (0..20).map(|index| format!("a-{index}")).collect();
    let ca = Some(cert.as_path());
    for mechanism in [None, Some("SCRAM-SHA-512")] {
        let read = read(&rig, signed(&secure, ca, mechanism, PASSWORD), 20).await;
        assert_eq!(read.map_err(|fault| fault.to_string()), Ok(all.clone()), "{mechanism:?}");
    }
    let refused = async |connection: KafkaConnection| {
        let mut fault = read(&rig, connection.clone(), 20).await.expect_err("a stranger");
        // The broker may hang up before its refusal is read: then it was an outage, and is tried again as the engine does.
        for _ in 0..4 {
            if fault.kind == FaultKind::Disconnected {
                fault = read(&rig, connection.clone(), 20).await.expect_err("a stranger");
            }
        }
        assert_eq!(fault.kind, FaultKind::Misconfigured, "{fault}");
        assert!(!fault.to_string().contains("canary"), "{fault}");
        fault.to_string()
    };
    for mechanism in [None, Some("SCRAM-SHA-256"), Some("SCRAM-SHA-512")] {
        let told = refused(signed(&secure, ca, mechanism, "wrong-canary")).await;
        assert!(told.to_lowercase().contains("authentication"), "{mechanism:?}: {told}");
    }
    let (other, _) = certificate(folder.path(), "other", "IP:127.0.0.1").expect("openssl is there");
    for ca in [None, Some(other.as_path())] {
        let told = refused(signed(&secure, ca, None, PASSWORD)).await;
        assert!(told.contains("certificate"), "{ca:?}: {told}");
    }

    let topic = KafkaRig::on(&kafka.hosts, 1).await.topic;
    let exporter = |connection| KafkaExporter::new("out", KafkaExporterOptions { connection, topic: topic.clone() });
    let messages = [numbered(1, Some("k"))];
    let friend = exporter(signed(&secure, ca, None, PASSWORD));
    let sent = friend.export(&messages).await;
    assert!(sent.iter().all(is_delivered), "{sent:?}");
    friend.close().await;
    let stranger = exporter(signed(&secure, ca, None, "wrong-canary"));
    let sent = stranger.export(&messages).await;
    assert_eq!(kind(&sent[0]), FaultKind::Misconfigured, "{sent:?}");
    stranger.close().await;
    assert_eq!(read_topic(&kafka.hosts, &topic).await.len(), 1, "the friend's");
}
