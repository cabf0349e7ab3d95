//! Who we say we are to a NATS server, and whom we trust: a refusal is told as such, and soon.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::jetstream::stream::RetentionPolicy;
use gravity_conformance::certificate::certificate;
use gravity_conformance::kafka_rig::unique;
use gravity_conformance::nats_rig::{NatsRig, PrivateNats, connection, nats_under_test};
use gravity_conformance::source_suite::{Book, SourceRig, messages, read_until};
use gravity_connectors::nats::{NatsConnection, NatsReading, NatsSource, NatsSourceOptions, SignIn};
use gravity_model::port::source::{Acceptance, Source, Start};
use gravity_model::{Fault, FaultKind, LogId};

use super::nats::positions;

/// Listens to a core subject and stops again: a connection with all its questions of who we are.
async fn listen(connection: NatsConnection) -> Result<(), Fault> {
    let options = NatsSourceOptions {
        connection,
        subjects: vec![unique()],
        reading: NatsReading::Core { queue_group: None },
        log_id: LogId([1; 16]),
        accept: Acceptance::default(),
    };
    let mut source = NatsSource::new("pings", options);
    let before = Instant::now();
    let connected = source.connect(positions(&Arc::new(Book::default())), Start::Earliest).await;
    assert!(before.elapsed() < Duration::from_secs(20), "{:?}", before.elapsed());
    source.close().await;
    connected
}

async fn sign_in(host: &str, sign_in: SignIn) -> Result<(), String> {
    listen(NatsConnection { sign_in, ..connection(host) }).await.map_err(|fault| {
        assert_eq!(fault.kind, FaultKind::Misconfigured, "{fault}");
        assert!(!fault.to_string().contains("wrong-canary"), "{fault}");
        fault.code.into_owned()
    })
}

fn password(username: &str, password: &str) -> SignIn {
    SignIn::Password { username: username.to_owned(), password: password.to_owned() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_and_a_password_are_shown() {
    let Some(host) = nats_under_test() else { return };
    assert_eq!(sign_in(&host, password("signed", "secret")).await, Ok(()));
    assert_eq!(sign_in(&host, password("signed", "wrong-canary")).await, Err("nats-authorization".to_owned()));
    assert_eq!(sign_in(&host, SignIn::Token("wrong-canary".to_owned())).await, Err("nats-authorization".to_owned()));
    let none = "nothing that could be credentials: wrong-canary".to_owned();
    assert_eq!(sign_in(&host, SignIn::Credentials(none)).await, Err("nats-credentials".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_shown() {
    let users = "authorization { token: s3cret }\n";
    let Some(nats) = PrivateNats::start_with("", Some(users)) else { return };
    assert_eq!(sign_in(&nats.host, SignIn::Token("s3cret".to_owned())).await, Ok(()));
    assert_eq!(
        sign_in(&nats.host, SignIn::Token("wrong-canary".to_owned())).await,
        Err("nats-authorization".to_owned())
    );
    assert_eq!(sign_in(&nats.host, SignIn::Nobody).await, Err("nats-authorization".to_owned()));
}

/// Made for this test; nothing else knows it.
const SEED: &str = "SUADTFQLLSW44TSUER7HZVMBHTCTJDFVE74UHK72ZZ6ZRAZMO45RV53BXI";
const PUBLIC: &str = "UDK7HXSCLDEVI3ZMBYLGUOC7ZYHVLTDEGFRYP2FZBASPATZGE53THSZM";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_nkey_signs() {
    let users = format!("authorization {{ users: [ {{ nkey: {PUBLIC} }} ] }}\n");
    let Some(nats) = PrivateNats::start_with("", Some(&users)) else { return };
    assert_eq!(sign_in(&nats.host, SignIn::NKey(format!("{SEED}\n"))).await, Ok(()), "as a file ends, with a new line");
    assert_eq!(sign_in(&nats.host, SignIn::Nobody).await, Err("nats-authorization".to_owned()));
    assert!(sign_in(&nats.host, SignIn::NKey("wrong-canary".to_owned())).await.is_err());
}

/// A right that is missing shows only beside the request that waits for an answer: it is no outage.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s11_a_missing_permission_is_misconfigured() {
    let users = r#"
        no_auth_user: test
        authorization { users: [
            { user: test, password: test }
            { user: few, password: few, permissions: { publish: { deny: ["$JS.API.CONSUMER.CREATE.>"] } } }
            { user: deaf, password: deaf, permissions: { subscribe: { allow: ["_INBOX.>"] } } }
        ] }
    "#;
    let Some(nats) = PrivateNats::start_with("", Some(users)) else { return };
    let rig = NatsRig::on(&nats.host, RetentionPolicy::Limits).await;
    let few = NatsConnection { sign_in: password("few", "few"), ..connection(&nats.host) };
    let mut source = NatsSource::new("orders", NatsSourceOptions { connection: few, ..rig.options() });
    let book = Arc::new(Book::default());
    let fault = source.connect(positions(&book), Start::Earliest).await.expect_err("may not make a consumer");
    assert_eq!((fault.kind, &*fault.code), (FaultKind::Misconfigured, "nats-permission"), "{fault}");
    assert!(fault.detail.contains("CONSUMER.CREATE"), "{fault}");
    assert_eq!(sign_in(&nats.host, password("deaf", "deaf")).await, Err("nats-permission".to_owned()));
}

/// S15, T9: certificates and names are verified; a server that offers no TLS is refused where it was asked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s15_certificates_are_verified() {
    let folder = tempfile::tempdir().expect("folder");
    let Some((cert, key)) = certificate(folder.path(), "good", "IP:127.0.0.1") else { return };
    let tls = |cert: &Path, key: &Path| format!("tls {{ cert_file: {cert:?}, key_file: {key:?} }}\n");
    let Some(nats) = PrivateNats::start_with(&tls(&cert, &key), None) else { return };
    let secure = |host: &str, ca: Option<&Path>| NatsConnection {
        secure: true,
        ca_file: ca.map(Path::to_owned),
        ..connection(host)
    };
    let code = async |connection: NatsConnection| listen(connection).await.map_err(|fault| (fault.kind, fault.code));
    let refused = Err((FaultKind::Misconfigured, "nats-tls".into()));
    assert_eq!(code(secure(&nats.host, Some(&cert))).await, Ok(()), "trusted through caFile");
    assert_eq!(code(secure(&nats.host, None)).await, refused, "an unknown authority");
    let missing = folder.path().join("missing.pem");
    assert_eq!(code(secure(&nats.host, Some(&missing))).await, refused, "no such file");
    let plain = nats_under_test().expect("a private server was started, so there is one");
    assert_eq!(code(secure(&plain, Some(&cert))).await, refused, "no TLS over there");

    let (other, other_key) = certificate(folder.path(), "other", "DNS:elsewhere.example").expect("openssl is there");
    let Some(elsewhere) = PrivateNats::start_with(&tls(&other, &other_key), None) else { return };
    assert_eq!(code(secure(&elsewhere.host, Some(&other))).await, refused, "another name");

    // And a stream over it.
    let trusted = secure(&nats.host, Some(&cert));
    let client = async_nats::ConnectOptions::new().add_root_certificates(cert.clone()).require_tls(true);
    let context = gravity_conformance::nats_rig::jetstream(&client.connect(&nats.host).await.expect("a client"));
    let rig = NatsRig::with_context(&nats.host, context, RetentionPolicy::Limits).await;
    rig.publish(0, messages("a", 100)).await;
    let book = Arc::new(Book::default());
    let mut source = NatsSource::new("orders", NatsSourceOptions { connection: trusted, ..rig.options() });
    source.connect(positions(&book), Start::Earliest).await.expect("connect");
    read_until(&mut source, &book, 100, true).await.expect("read");
    source.close().await;
}
